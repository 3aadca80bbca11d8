"""Addresses that a model can be asked at: is one well-formed, is there a key for it, does it serve the model?"""

from __future__ import annotations

import difflib
import json
import re
import socket
from dataclasses import dataclass
from http.client import HTTPException
from urllib.parse import urlparse
from urllib.request import HTTPRedirectHandler, HTTPSHandler, ProxyHandler, Request, build_opener

from distil.llm.addresses import VERSION, is_local, proxy_of, tidy, url_of
from distil.llm.cache import ChatError, recording_file
from distil.llm.keys import NO_KEY, OTHER, advice, api_key, check_way, header, provider
from distil.llm.limits import Limits
from distil.llm.transport import trusted
from distil.models.vllm_server import VLLM
from distil.models.vllm_server import check as check_vllm

API_VERSION = re.compile(r"api-version=[\w.-]+")  # the one query that an address may have: Azure's
PATIENCE = 5  # seconds for a server to say what it serves
SHOWN = 5  # models that an error lists


@dataclass(frozen=True)
class Role:
    """Who is asked for one kind of answer (`distil.llm.roles.ROLES`): a model at an endpoint."""

    role: str
    model: str
    endpoint: str


def is_endpoint(text: str) -> bool:
    """Does a text stand for an endpoint: recorded:NAME, vllm, or a URL, well-formed or not?"""
    return text.strip() == VLLM or text.strip().startswith(("http://", "https://", "recorded:"))


def check_endpoint(endpoint: str, role: str = "") -> None:
    """Raise ChatError unless `endpoint` is `recorded:NAME`, `vllm`, or a URL with a key where one is needed.

    The limits in the environment (`distil.llm.limits`) for `role` are checked with it.
    """
    Limits.read(role=role)
    endpoint = tidy(endpoint)
    if endpoint == VLLM:
        return
    if endpoint.startswith("recorded:"):
        recording_file(endpoint.removeprefix("recorded:"))
        return
    url = urlparse(endpoint)
    if url.scheme not in {"http", "https"} or not url.hostname:
        meant = "" if "://" in endpoint else with_scheme(endpoint)
        raise ChatError(
            f"endpoint {endpoint!r}: give recorded:NAME, vllm, or a URL such as "
            f"{meant or 'https://api.deepseek.com/v1'}"
        )
    if (
        url.username or url.password or (url.query and not API_VERSION.fullmatch(url.query))
    ):  # not repeated here: it may be a key
        raise ChatError(
            f"the endpoint's address at {url.hostname} carries a user, a key or a query, and would be written into "
            f"meta.json: give it without, and the key in an environment variable, such as {OTHER}"
        )
    try:
        int(url.port or 0)
    except ValueError:
        raise ChatError(f"endpoint {endpoint}: the port is a number from 1 to 65535") from None
    key = api_key(endpoint)
    if key is None:
        raise ChatError(f"endpoint {endpoint} needs a key: {advice(endpoint)}")
    check_way(endpoint, key)


def with_scheme(address: str) -> str:
    """The URL that an address without a scheme most likely means; "" for what is no address."""
    if not re.match(r"[\w-]+(\.[\w-]+)+(:\d+)?(/|$)|[\w-]+:\d+(/|$)", address):
        return ""
    return f"http://{address}" if is_local(f"http://{address}") else f"https://{address}"


def check_listening(endpoint: str, role: str = "endpoint") -> None:
    """Raise ChatError if `endpoint` is a server on this machine and nobody listens there.

    Raises StageError if it is `vllm` and vLLM is not installed.
    """
    if endpoint == VLLM:
        check_vllm(role)
    if is_local(endpoint) and (why := no_connection(endpoint)):
        raise ChatError(
            f"nobody listens at {endpoint} ({why}): start the server there, or name another with "
            + ("--set endpoint=URL" if role == "endpoint" else f"--set {role}=MODEL@URL")
        )


def no_connection(endpoint: str) -> str:
    """Why no connection can be made to the server at a URL, or to the proxy before it; "" if one can. Asks nothing."""
    proxy = proxy_of(endpoint)
    url = urlparse(proxy or endpoint)
    of = f"the proxy {url.hostname} of the environment: " if proxy else ""
    try:
        port = url.port or (443 if url.scheme == "https" else 80)
        socket.create_connection((url.hostname, port), timeout=PATIENCE).close()
    except socket.gaierror:
        return f"{of}the name {url.hostname} is not known here"
    except OSError as error:
        return f"{of}{error.strerror or error}"
    return ""


def check_model(role: Role, max_tokens: int) -> None:
    """Raise ChatError if the model cannot answer with so many tokens, or is not there.

    What is documented is known beforehand; a server is asked which models it has and how long their context is. Only a
    server on this machine has to list the model. A server that does not say within PATIENCE seconds is no error.
    """
    what = f"{role.role}={role.model} at {role.endpoint}"
    most = provider(role.endpoint).get("most", {}).get(role.model)
    if most and max_tokens > most:
        raise ChatError(f"{what} answers with {most} tokens at most, and is to be asked for {max_tokens}: lower that")
    url = urlparse(role.endpoint)
    if url.scheme not in {"http", "https"}:
        return
    models = served_models(role.endpoint)
    if models is None and not VERSION.search(url.path) and served_models(below := url_of(role.endpoint, "/v1")):
        raise ChatError(f"{what}: there is no API at that address, but at {below}: give that")
    if models is None:
        return
    longest = models.get(role.model)
    if longest and longest <= max_tokens:
        raise ChatError(
            f"{what} has a context of {longest} tokens, prompt included, and is to be asked for {max_tokens}: lower "
            "that, or start the server with a longer context"
        )
    if role.model not in models and is_local(role.endpoint):
        near = difflib.get_close_matches(role.model, models, SHOWN, 0.4) or [*models][:SHOWN]
        raise ChatError(f"{what}: no such model there; it serves {', '.join(near) or 'none'}")


class NoRedirect(HTTPRedirectHandler):
    """Follow no redirect: it could take the key to another host."""

    def redirect_request(self, *_) -> None:
        return None


def served_models(endpoint: str) -> dict[str, int] | None:
    """{model: tokens of its context, 0 if not told}, as the server says; None if it does not."""
    key, proxy = api_key(endpoint), proxy_of(endpoint)
    request = Request(url_of(endpoint, "/models"), headers=header(endpoint, key or NO_KEY))
    proxies = ProxyHandler({urlparse(endpoint).scheme: proxy} if proxy else {})
    try:
        with build_opener(proxies, NoRedirect, HTTPSHandler(context=trusted())).open(
            request, timeout=PATIENCE
        ) as answer:
            rows = json.load(answer)["data"]
        return {str(row["id"]): int(row.get("max_model_len") or 0) for row in rows}
    except (OSError, HTTPException, ValueError, LookupError, TypeError, AttributeError):
        return None
