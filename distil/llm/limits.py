"""How fast, and for how much money, an endpoint may be asked: limits from the environment, and the budget of a run."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
from dataclasses import dataclass, field, fields
from typing import Any

from distil.llm.cache import ChatError

MEANT = {
    "concurrency": "a whole number from 1 on, such as 64",
    "rpm": "requests a minute, such as 60",
    "tpm": "tokens a minute, such as 100000",
    "timeout": "seconds, such as 600",
    "price": "dollars per million prompt and completion tokens, such as 0.27/1.10",
    "max_cost": "dollars, such as 5",
    "extra": 'a JSON object for the request, such as {"chat_template_kwargs": {"enable_thinking": false}}; null leaves '
    'a field out, as in {"seed": null}',
}
SECRET = re.compile(
    r'(?i)"[^"]*(api_?key|(access|auth)_token|secret|password|authorization)"\s*:\s*"'
)  # a field that holds one
# what `extra` may not set: fields that stand for the question, and those that have parameters of their own
NEEDED_FIELDS = ("model", "messages")
OWN_FIELDS = ("max_tokens", "max_completion_tokens", "seed", "stream", "stream_options", "n")


@dataclass(frozen=True)
class Limits:
    """`rpm` and `tpm`: requests and tokens a minute; `timeout`: seconds without a word; `price`: dollars per million
    prompt and completion tokens; `max_cost`: dollars; `extra`: more fields of every request, null for one to
    leave out. None is no limit.
    """

    concurrency: int = 64
    rpm: float | None = None
    tpm: float | None = None
    timeout: float = 600.0
    price: tuple[float, float] | None = None
    max_cost: float | None = None
    extra: dict = field(default_factory=dict)

    @classmethod
    def read(cls, default_concurrency: int | None = None, role: str = "", **given: object) -> Limits:
        """Read each limit: as given, or else from $DISTIL_<ROLE>_<NAME>, or else from $DISTIL_<NAME>.

        `default_concurrency` is the concurrency where none says one. The cost is limited for the whole run, whatever
        the role: there is no $DISTIL_<ROLE>_MAX_COST.

        Raises ChatError for what cannot be meant.
        """
        values = {"concurrency": default_concurrency} if default_concurrency else {}
        for name in [f.name for f in fields(cls)]:
            value = given.pop(name, None)
            source = name if value is not None else variable(name, role)
            value = value if value is not None else os.environ.get(source, "").strip() or None
            if value is not None:
                try:
                    values[name] = convert(name, value)
                except (ValueError, TypeError) as error:
                    why = f"; {error}" if name == "extra" else ""
                    raise ChatError(f"{source}={value!r}: give {MEANT[name]}{why}") from None
        if given:
            raise TypeError(f"no limit {', '.join(given)}; there are {', '.join(MEANT)}")
        if role and os.environ.get(own := f"DISTIL_{role.upper()}_MAX_COST"):
            raise ChatError(f"{own}: a limit of the cost holds for the whole run; set DISTIL_MAX_COST")
        if "max_cost" in values and "price" not in values:
            also = f" or DISTIL_{role.upper()}_PRICE" if role else ""
            raise ChatError(f"DISTIL_MAX_COST needs DISTIL_PRICE{also}: {MEANT['price']}")
        return cls(**values)


def variable(name: str, role: str) -> str:
    """The environment variable of a limit: the role's own if it is set."""
    own = f"DISTIL_{role}_{name}".upper()
    return own if role and os.environ.get(own, "").strip() else f"DISTIL_{name.upper()}"


def convert(name: str, value: Any) -> object:
    """A limit from text or from a value of its type. Raises ValueError or TypeError."""
    if name == "extra":
        value = json.loads(value) if isinstance(value, str) else value
        if not isinstance(value, dict):
            raise ValueError("it is no object in braces")
        for key, set_to in value.items():
            if key in NEEDED_FIELDS or key in OWN_FIELDS and set_to is not None:
                advice = ", and null leaves it out" if key in OWN_FIELDS else ""
                raise ValueError(f"{key} is set by the parameters of the run{advice}")
        if SECRET.search(json.dumps(value)):
            raise ChatError(
                "DISTIL_EXTRA would write a key into every stored request and meta.json: put it into the variable of "
                "its host, or name that variable in DISTIL_KEYS"
            )
        return value
    if name == "price":
        prices = tuple(float(p) for p in (value.split("/") if isinstance(value, str) else value))
        if len(prices) != 2 or not all(0 <= p < math.inf for p in prices):
            raise ValueError
        return prices
    number = int(value) if name == "concurrency" else float(value)
    if not 0 < number < math.inf:
        raise ValueError
    return number


class Budget:
    """Dollars spent so far, and those reserved for the requests under way.

    A request reserves the most it can cost: every byte of its prompt a token, and all of `max_tokens`. So `max_cost`
    is never passed, as long as the server keeps to `max_tokens` and counts its tokens.
    """

    def __init__(self, limits: Limits):
        self.limits, self.spent, self.reserved, self.under_way = limits, 0.0, 0.0, 0

    def note(self, dollars: float) -> None:
        """Count what the answers in the run's store have cost: this process, an earlier one or another has paid it."""
        self.spent = max(self.spent, dollars)

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Dollars; 0 without a price."""
        prompt, completion = self.limits.price or (0.0, 0.0)
        return (prompt * prompt_tokens + completion * completion_tokens) / 1e6

    def worst_case(self, body: dict) -> float:
        """Dollars that a request can cost at most."""
        return self.cost(len(json.dumps(body["messages"], ensure_ascii=False).encode()), body["max_tokens"])

    async def reserve(self, worst_case: float, changed: asyncio.Condition) -> bool:
        """Wait until so many dollars fit; False if they cannot, whatever the requests under way turn out to cost."""
        if self.limits.max_cost is None:
            return True

        def fits() -> bool:
            return self.spent + self.reserved + worst_case <= self.limits.max_cost

        async with changed:
            await changed.wait_for(lambda: fits() or not self.under_way)
            if not fits():
                return False
            self.reserved += worst_case
            self.under_way += 1
            return True

    async def settle(self, worst_case: float, cost: float, changed: asyncio.Condition) -> None:
        """Replace what was reserved for a request by what it cost."""
        self.spent += cost
        if self.limits.max_cost is None:
            return
        async with changed:
            self.under_way -= 1
            self.reserved = self.reserved - worst_case if self.under_way else 0.0  # no rounding errors are carried on
            changed.notify_all()
