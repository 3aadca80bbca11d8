"""Keys of endpoints, by host: each comes from the environment variable named for its host, and goes nowhere else.

`DISTIL_KEYS="HOST[:PORT]=VARIABLE,..."` names variables, and goes before providers.yaml. `DISTIL_API_KEY` serves one
other host. A server on this machine gets a key only through DISTIL_KEYS.
"""

from __future__ import annotations

import os
import re
from importlib import resources
from urllib.parse import urlparse

import yaml

from distil.llm.addresses import is_local, proxy_of
from distil.llm.cache import ChatError

# {host: {key: VARIABLE, most: {model: output tokens}}}
PROVIDERS: dict[str, dict] = yaml.safe_load(
    (resources.files("distil.llm") / "providers.yaml").read_text(encoding="utf-8")
)
NO_KEY = "none"  # what a server that needs no key gets
NAMED, OTHER = "DISTIL_KEYS", "DISTIL_API_KEY"
GONE: dict[int, str] = {}  # hash of a key in DISTIL_API_KEY -> the host that it goes to, in this process
ENTRY = re.compile(r"(?P<host>[^\s=,]+)=(?P<variable>[A-Z_][A-Z0-9_]*)")


def provider(endpoint: str) -> dict:
    """What is known of the endpoint's host; empty for a host that no line of providers.yaml fits."""
    host = urlparse(endpoint).hostname or ""
    return next((known for name, known in PROVIDERS.items() if host == name or host.endswith(f".{name}")), {})


def named() -> dict[str, str]:
    """{host or host:port: variable} of DISTIL_KEYS. Raises ChatError without repeating it: it may hold a key."""
    entries = {}
    for number, text in enumerate(filter(None, map(str.strip, os.environ.get(NAMED, "").split(","))), 1):
        found = ENTRY.fullmatch(text)
        if not found:
            raise ChatError(
                f"{NAMED}, entry {number}: give HOST=VARIABLE or HOST:PORT=VARIABLE, separated by commas, where "
                "VARIABLE is the name (in capitals) of the environment variable that holds the key, not the key"
            )
        entries[found["host"].lower()] = found["variable"]
    return entries


def key_variable(endpoint: str) -> str | None:
    """The environment variable whose key this endpoint gets; None for a server on this machine without one."""
    url, entries = urlparse(endpoint), named()
    for address in (url.netloc.lower(), url.hostname, f"[{url.hostname}]"):
        if address in entries:
            return entries[address]
    return None if is_local(endpoint) else provider(endpoint).get("key", OTHER)


def api_key(endpoint: str) -> str | None:
    """The key for an endpoint. None if its variable is not set; NO_KEY for a server on this machine that needs none."""
    variable = key_variable(endpoint)
    return value_of(variable) or None if variable else NO_KEY


def value_of(variable: str) -> str:
    """What a variable holds, without the line's end that a file leaves."""
    return os.environ.get(variable, "").strip()


def advice(endpoint: str) -> str:
    """What to do where an endpoint lacks its key, or refuses it: one clause, without the key."""
    address, variable = urlparse(endpoint).netloc, key_variable(endpoint)
    if variable is None:
        return f"no key is sent to this machine: name its variable with {NAMED}={address}=VARIABLE, if it wants one"
    if value_of(variable):
        return f"the key that was sent to {address} is the one in the environment variable {variable}"
    words = f"set the environment variable {variable}"
    if variable == OTHER:
        return f"{words}, or name one for this host with {NAMED}={address}=VARIABLE"
    return words + (f" ({OTHER} serves hosts without a variable of their own)" if value_of(OTHER) else "")


def check_other(endpoints: list[str]) -> None:
    """Raise ChatError if DISTIL_API_KEY would go to two hosts."""
    hosts = sorted({urlparse(e).netloc for e in endpoints if urlparse(e).netloc and key_variable(e) == OTHER})
    if len(hosts) > 1:
        raise ChatError(
            f"{OTHER} serves one host, and would go to {' and '.join(hosts)}: name a variable for each, "
            f"{NAMED}={','.join(f'{host}=VARIABLE' for host in hosts)}"
        )


def claim(endpoint: str) -> None:
    """Note that an endpoint is about to get its key. Raises ChatError if DISTIL_API_KEY's has gone to another host."""
    if key_variable(endpoint) == OTHER and value_of(OTHER) != NO_KEY:
        check_other([f"//{GONE.setdefault(hash(value_of(OTHER)), urlparse(endpoint).netloc)}", endpoint])


def header(endpoint: str, key: str) -> dict[str, str]:
    """The header that carries the key: Azure's own where the address says an `api-version`."""
    return {"api-key": key} if urlparse(endpoint).query else {"Authorization": f"Bearer {key}"}


def check_way(endpoint: str, key: str) -> None:
    """Raise ChatError for a proxy that speaks neither http nor https, and if others could read the key on its way.

    They could at a proxy of http://, and of a provider that is asked by http://.
    """
    kind = (proxy_of(endpoint) or "").partition("://")[0]
    if kind not in ("", "http", "https"):
        raise ChatError(
            f"endpoint {endpoint}: the environment names a proxy of {kind}://, and only those of http:// and https:// "
            "can be used: set HTTPS_PROXY or HTTP_PROXY to one, or name the host in the variable NO_PROXY"
        )
    if key == NO_KEY or urlparse(endpoint).scheme == "https":
        return
    if provider(endpoint):
        raise ChatError(f"endpoint {endpoint}: the key would be sent unencrypted; give https://")
    if proxy_of(endpoint):
        raise ChatError(
            f"endpoint {endpoint}: the key would pass a proxy unencrypted; give https://, or name the host in the "
            "environment variable no_proxy"
        )


def secrets() -> list[str]:
    """Every key in the environment, the longest first, so that what is masked leaves no rest."""
    variables = {OTHER, *named().values(), *(known["key"] for known in PROVIDERS.values())}
    return sorted({value_of(v) for v in variables} - {"", NO_KEY}, key=len, reverse=True)


def mask(text: str) -> str:
    """Replace every key of the environment, since some endpoints repeat them."""
    for secret in secrets():
        text = text.replace(secret, "***")
    return text
