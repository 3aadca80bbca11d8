"""Addresses that a model can be asked at: is an address well-formed, is there a key for it, does a server listen?"""

from __future__ import annotations

import os
import socket
from urllib.parse import urlparse

from distil.llm.cache import ChatError, recording_file
from distil.llm.limits import Limits
from distil.llm.transport import NO_KEY
from distil.models.vllm_server import VLLM
from distil.models.vllm_server import check as check_vllm

LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1"}
KEY_VARIABLES = ("DISTIL_API_KEY", "OPENAI_API_KEY")


def api_key(endpoint: str) -> str | None:
    """The key for an endpoint, from the environment. A server on this machine needs none."""
    for name in KEY_VARIABLES:
        if os.environ.get(name, "").strip():
            return os.environ[name].strip()
    return NO_KEY if urlparse(endpoint).hostname in LOCAL_HOSTS else None


def check_endpoint(endpoint: str) -> None:
    """Raise ChatError unless `endpoint` is `recorded:NAME`, `vllm`, or a URL with a key where one is needed.

    The limits in the environment (`distil.llm.limits`) are checked with it.
    """
    Limits.read()
    if endpoint == VLLM:
        return
    if endpoint.startswith("recorded:"):
        recording_file(endpoint.removeprefix("recorded:"))
        return
    url = urlparse(endpoint)
    if url.scheme not in {"http", "https"} or not url.hostname:
        raise ChatError(
            f"endpoint {endpoint!r}: give recorded:NAME, vllm, or a URL such as https://api.deepseek.com/v1"
        )
    if url.username or url.password or url.query:  # not repeated here: it may be a key
        raise ChatError(
            f"the endpoint's address at {url.hostname} carries a user, a key or a query, and would be written into "
            f"meta.json: give it without, and the key in the environment variable {KEY_VARIABLES[0]}"
        )
    try:
        int(url.port or 0)
    except ValueError:
        raise ChatError(f"endpoint {endpoint}: the port is a number from 1 to 65535") from None
    if api_key(endpoint) is None:
        raise ChatError(f"endpoint {endpoint} needs a key: set the environment variable {' or '.join(KEY_VARIABLES)}")


def check_listening(endpoint: str) -> None:
    """Raise ChatError if `endpoint` is a server on this machine and nobody listens there.

    Raises StageError if it is `vllm` and vLLM is not installed.
    """
    if endpoint == VLLM:
        check_vllm("endpoint")
    url = urlparse(endpoint)
    if url.hostname not in LOCAL_HOSTS:
        return
    try:
        socket.create_connection((url.hostname, url.port or (443 if url.scheme == "https" else 80)), timeout=5).close()
    except OSError as error:
        raise ChatError(
            f"nobody listens at {endpoint} ({error.strerror or error}): start the server there, or name another with "
            "--set endpoint=URL"
        ) from None
