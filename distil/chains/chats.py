"""The models that a stage asks, by role."""

from __future__ import annotations

from pathlib import Path

from distil.llm import roles
from distil.llm.client import Chat
from distil.models.vllm_server import VLLM


def open_chats(values: dict[str, str], teacher: str, endpoint: str, store: Path) -> dict[str, Chat]:
    """A Chat for each role that is not `none`. `values` maps roles to parameters, as `roles.read` reads them.

    All are read before the first is made. Roles of one model at `vllm` share one Chat, as a GPU holds one server.
    Raises ChatError for a role without a model or with a bad endpoint.
    """
    found = [roles.read(role, value, teacher, endpoint) for role, value in values.items()]
    chats: dict[str, Chat] = {}
    served: dict[str, Chat] = {}
    for role in found:
        if role is None:
            continue
        if role.endpoint == VLLM and role.model in served:
            chats[role.role] = served[role.model]
            continue
        chats[role.role] = roles.chat(role.role, values[role.role], teacher, endpoint, store)
        if role.endpoint == VLLM:
            served[role.model] = chats[role.role]
    return chats


def close(chats: dict[str, Chat]) -> dict[str, dict]:
    """End servers of our own; returns what each role asked, role to `Chat.totals`. A shared Chat is named once."""
    for chat in chats.values():
        chat.close()
    first = {chat: role for role, chat in reversed(chats.items())}
    return {role: chat.totals() for role, chat in chats.items() if first[chat] == role}
