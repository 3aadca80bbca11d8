"""Addresses of endpoints: their one form, whose machine they name, and the proxy that leads there."""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import urlparse
from urllib.request import getproxies, proxy_bypass

from distil.models.vllm_server import VLLM

OWN = "own"  # who answers at a server of one's own, wherever it runs
OWN_DOMAINS = (".localhost", ".local", ".lan", ".internal", ".home.arpa")
REQUEST_PATH = re.compile(r"(/+chat/+completions)?/*$")
VERSION = re.compile(r"/v\d")  # in the path of nearly every provider


def tidy(endpoint: str) -> str:
    """An address without what is often pasted with it: spaces, slashes at its end, `/chat/completions`.

    >>> tidy(" http://localhost:8000/v1/chat/completions ")
    'http://localhost:8000/v1'
    """
    base, mark, query = endpoint.strip().partition("?")
    return (REQUEST_PATH.sub("", base) if "://" in base else base) + mark + query


def url_of(endpoint: str, path: str) -> str:
    """The URL of a path below an endpoint, before its `?api-version=`, if it has one."""
    base, mark, query = endpoint.partition("?")
    return f"{base.rstrip('/')}{path}{mark}{query}"


def is_local(endpoint: str) -> bool:
    """Is it a server on this machine: by a loopback address, as localhost, or by the machine's own name?"""
    name = (urlparse(endpoint).hostname or "").rstrip(".")
    mine = socket.gethostname().lower()
    short = mine.partition(".")[0]
    if name == "localhost" or name.endswith(".localhost") or name and name in (mine, short, f"{short}.local"):
        return True
    address = ip_address(name)
    return address is not None and (address.is_loopback or address.is_unspecified)


def ip_address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address in numbers; None for a name."""
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def answerer(endpoint: str) -> str:
    """Who answers at an endpoint: the host of a provider, or `own` for any server of one's own; "" for a recording.

    One's own are `vllm`, this machine, private addresses, and names of a local network. They count as one, whatever the
    port: a server is often restarted on another port or on another node, and must not be asked anew for that.
    """
    host = urlparse(endpoint).hostname or ""
    if not host:
        return OWN if endpoint == VLLM else ""
    address = ip_address(host)
    own = address.is_private if address else "." not in host or host.endswith(OWN_DOMAINS)
    return OWN if own or is_local(endpoint) else host


def proxy_of(endpoint: str) -> str | None:
    """The proxy that the environment names for an endpoint; none for this machine, whatever NO_PROXY says."""
    url = urlparse(endpoint)
    if is_local(endpoint) or proxy_bypass(url.netloc.rpartition("@")[2]):
        return None
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"
