"""Who is asked for what: each role is a model at an endpoint, given as one parameter of a notebook."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from distil.llm.addresses import tidy
from distil.llm.cache import ChatError
from distil.llm.client import Chat
from distil.llm.endpoints import Role, check_endpoint, is_endpoint
from distil.llm.keys import check_other

ROLES = ("fast_teacher", "slow_teacher", "rewriter", "judge")
TEACHERS = ROLES[:2]  # 01 can do without one of these
NONE = "none"
# what an address looks like that is none: nothing, HTTPS://..., https:/..., api.deepseek.com/v1, localhost:8000
ADDRESS = re.compile(r"^$|:/|^[\w-]+(\.[\w-]+)*\.[a-zA-Z]{2,}([:/]|$)|^[\w.-]+:\d+")


def read(role: str, value: str, teacher: str, endpoint: str) -> Role | None:
    """The role that a parameter names: "" is `teacher` at `endpoint`, MODEL is at `endpoint`, or MODEL@ENDPOINT.

    Returns None for `none`. Raises ChatError for an empty model, an endpoint that cannot be used, a missing key, or a
    limit in the environment that cannot be meant.
    """
    if value == NONE:
        if role not in TEACHERS:
            raise ChatError(f"{role}=none: only {' and '.join(TEACHERS)} can be left out; give MODEL or MODEL@ENDPOINT")
        return None
    model, where = split(value)
    model, where = model if value else teacher, tidy(where or endpoint)
    if (behind := model.rpartition("@")[2]) != model and ADDRESS.search(behind):
        raise ChatError(
            f"{role}={value}: {behind or 'nothing'} behind the @ is no endpoint; give a URL such as "
            "https://api.deepseek.com/v1, recorded:NAME or vllm"
        )
    if not model.strip() or is_endpoint(model):
        raise ChatError(f"{role}: no model is named; give {role}=MODEL or MODEL@ENDPOINT, or teacher=MODEL for all")
    try:
        check_endpoint(where, role)
    except ChatError as error:
        raise ChatError(f"{role}: {error}") from None
    return Role(role, model, where)


def split(value: str) -> tuple[str, str]:
    """(model, endpoint) of MODEL@ENDPOINT, at the last @ with an endpoint behind it; the endpoint is "" without one."""
    places = [i for i, letter in enumerate(value) if letter == "@" and is_endpoint(value[i + 1 :])]
    return (value[: places[-1]], value[places[-1] + 1 :]) if places else (value, "")


def check(roles: Iterable[Role | None]) -> None:
    """Raise ChatError if the roles of one run would take one key to two hosts."""
    check_other([role.endpoint for role in roles if role])


def chat(role: str, value: str, teacher: str, endpoint: str, store: Path | None) -> Chat:
    """The client of a role. Raises ChatError as `read` does, and for `none`."""
    found = read(role, value, teacher, endpoint)
    if found is None:
        raise ChatError(f"{role}=none: there is nobody to ask")
    return Chat(found.model, found.endpoint, store, found.role)
