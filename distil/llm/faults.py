"""What to do about an endpoint that does not answer: by HTTP status and words, or by the fault of the connection."""

from __future__ import annotations

import re
from urllib.parse import urlparse

from distil.llm.addresses import VERSION, url_of
from distil.llm.keys import advice

UNPAID = re.compile(
    r"insufficient.{0,20}(balance|quota|fund|credit)|exceeded_current_quota|arrear|overdue|余额|欠费", re.IGNORECASE
)
TOO_LONG = re.compile(r"context.{0,3}(length|window)|maximum context|too (long|large)", re.IGNORECASE)
LATER = "it is overloaded or out of order: give the command again later, perhaps with a lower DISTIL_CONCURRENCY"
SLOW = "if the model thinks longer than that, or waits in a queue, raise DISTIL_TIMEOUT"
SHORTER = (
    "the question and the tokens asked for are more than the model takes: lower what its answers may have "
    "(fast_tokens, slow_tokens, rewrite_tokens, verdict_tokens), leave long problems out, or serve a longer context"
)


def remedy(status: int, words: str, endpoint: str) -> str:
    """What to do about an HTTP status that came with these words, 0 for an error without one; one clause."""
    if status == 402 or UNPAID.search(words):
        return (
            "the account has no money or quota left: top it up, or name another endpoint (some providers say so of a "
            "rate limit, too: then lower DISTIL_TPM)"
        )
    if status == 401:
        return advice(endpoint)
    if status == 403:
        return f"{advice(endpoint)}; or its account may not use this model, or not from here"
    if status == 404 and re.search("model", words, re.IGNORECASE):
        return f"name a model that is listed at {url_of(endpoint, '/models')}"
    if status == 404:
        below = "" if VERSION.search(urlparse(endpoint).path) else f", as a rule {url_of(endpoint, '/v1')}"
        return f"there is no API at this address: give the one that its provider names as base URL{below}"
    if status == 407:
        return "the proxy of the environment wants a user and a password: write them into HTTPS_PROXY or HTTP_PROXY"
    if status == 413 or TOO_LONG.search(words):
        return SHORTER
    if 300 <= status < 400:
        return "it sends elsewhere, and no key is sent along: name the address that it leads to"
    if status == 429:
        return (
            "it is asked too much at a time: lower DISTIL_CONCURRENCY, or set DISTIL_RPM and DISTIL_TPM to its limits"
        )
    if status in (400, 405, 422):
        return "a field that it does not take is left out by DISTIL_EXTRA='{\"NAME\": null}'"
    return LATER


def remedy_of(error: Exception, endpoint: str) -> str:
    """What to do about a connection that failed, by the class of aiohttp's error."""
    import aiohttp

    host = urlparse(endpoint).hostname
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return remedy(error.status, "", endpoint) if error.status == 407 else "the proxy of the environment refuses it"
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return (
            f"the proxy of the environment does not answer: mend HTTPS_PROXY or HTTP_PROXY, or put {host} in NO_PROXY"
        )
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the name {host} is not known here: mend it, or the network; a proxy is named by HTTPS_PROXY"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "nobody listens there, or a firewall stands before it: start the server, or mend its address"
    return "the connection was cut; if that is frequent, lower DISTIL_CONCURRENCY"
