"""The one client for every model behind an endpoint: teacher, rewriter, judge, served student.

A request that has been answered is never sent again: replies live in a `Store`, by the hash of the whole request. The
store is the cache, the resume after a crash and, shipped as package data, the *recording* that lets a class work
without keys.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distil.llm.addresses import answerer, tidy
from distil.llm.cache import ChatError, Reply, Store, json_name, request, request_key
from distil.llm.cut_off import CutOff
from distil.llm.difference import describe_difference
from distil.llm.endpoints import check_endpoint
from distil.llm.finish import FILTERED
from distil.llm.keys import NO_KEY, api_key, claim
from distil.llm.limits import Budget, Limits
from distil.llm.tokens import BYTES_A_TOKEN
from distil.llm.transport import RequestError, Transport, run_coroutine
from distil.models.vllm_server import DEFAULT_CONCURRENCY, LOG, VLLM, Server, serve_command
from distil.workspace.bars import bar
from distil.workspace.environment import quiet

TEACHER_MEMORY_SHARE = 0.75  # of a GPU's free memory, for a server of our own: in 03 the student is asked beside it
DEAD_AFTER = 50  # so many failures in a row: the endpoint is down, and the rest need not be tried
LACKING = 0.01  # of a map: so little may be missing in a recording, which was made with the code of its day


@dataclass(frozen=True)
class Failure:
    """A request that failed for good: its place among the prompts of its `map`, the request, and why."""

    label: str
    index: int
    request: dict
    reason: str


class Chat:
    """A model behind an endpoint: an OpenAI-compatible URL, a recording (`recorded:NAME`), or `vllm`.

    `vllm` is a server of our own. It starts when an answer is first missing, and ends with `close`.

    `map` answers many requests at once; every answer is in `store` before it is returned. `limits` are the fields of
    `Limits.read`, by default from the environment, those of `role` (`distil.llm.roles`) first. `failures` lists the
    requests of the last `map` that failed for good; `totals` counts requests and tokens. Raises ChatError where the
    endpoint or a limit cannot be used.
    """

    def __init__(self, model: str, endpoint: str, store: Path | None = None, role: str = "", **limits: object):
        endpoint = tidy(endpoint)
        check_endpoint(endpoint, role)
        self.model, self.endpoint, self.role = model, endpoint, role
        default = {"default_concurrency": DEFAULT_CONCURRENCY if endpoint == VLLM else None}
        self.limits = Limits.read(role=role, **(default | limits))
        self.server = Server((store or Path(LOG)).with_name(LOG), "endpoint") if endpoint == VLLM else None
        self.recorded = endpoint.startswith("recorded:")
        name = endpoint.removeprefix("recorded:") if self.recorded else None
        self.store = Store(None if self.recorded else store, recording=name, host=answerer(endpoint))
        self.asked = self.from_store = self.cut_off = self.estimated = 0
        self.counted: set[str] = set()  # requests: each counts once, however often its answer is looked at
        self.used = {"asked": [0, 0], "stored": [0, 0]}  # prompt and completion tokens
        self.failures: list[Failure] = []
        if not self.recorded:
            self.budget = Budget(self.limits)
        self.transport: Transport | None = None
        if not (self.recorded or self.server):
            claim(endpoint)
            self.transport = Transport(endpoint, model, api_key(endpoint), self.limits)

    def map(
        self,
        prompts: Sequence[list[dict]],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
        label: str = "requests",
        limit: str = "",
    ) -> list[Reply | None]:
        """Answer each prompt, a list of messages, in order. None stands for a request that failed after retries.

        `limit` names the parameter that `max_tokens` comes from. With it, the map stops once most answers are cut off.

        Raises ChatError at once where trying again cannot help: a bad key, an unknown model, a context too long, a
        full disk, the cost reached, most answers cut off, or a recording that holds no answer to more than a few;
        StageError if a server of our own does not start.
        """
        seeds = seeds or [0] * len(prompts)
        bodies = [
            request(self.model, p, max_tokens=max_tokens, temperature=temperature, seed=s, extra=self.limits.extra)
            for p, s in zip(prompts, seeds, strict=True)
        ]
        keys = [request_key(body) for body in bodies]
        self.store.refresh()
        waiting = {key: body for key, body in zip(keys, bodies, strict=True) if key not in self.store}
        reasons: dict[str, str] = {}
        if waiting and self.recorded:
            lacking = f"{self.endpoint} holds no answer to {len(waiting)} of {len(bodies)} {label}"
            nearest = (
                "The first one that it lacks differs from the nearest that it holds: "
                f"{describe_difference(next(iter(waiting.values())), self.store)}"
            )
            if len(waiting) > LACKING * len(set(keys)):
                raise ChatError(
                    f"{lacking}. Name a live endpoint, undo the change, or record anew with `distil record`. {nearest}"
                )
            print(f"{lacking}: they stay unanswered. {nearest}")
            reasons = dict.fromkeys(waiting, f"{self.endpoint} holds no answer to it")
            waiting = {}
        for host, number in self.store.others(waiting).items() if waiting else ():
            print(f"{host} has answered {number} of {len(waiting)} {label}; {self.endpoint} is asked itself")
        if waiting and self.server and not self.server.runs:
            if not quiet():
                print(f"starting vLLM with {self.model}, which takes a minute or more: {self.server.log}")
            self.server.start(serve_command(self.model, self.model), TEACHER_MEMORY_SHARE)
            self.transport = Transport(self.server.url, self.model, NO_KEY, self.limits)
        if waiting:
            run_coroutine(self._ask_all(waiting, label, reasons, CutOff(limit, max_tokens)))
        self.failures = [
            Failure(label, index, body, reasons[key])
            for index, (key, body) in enumerate(zip(keys, bodies, strict=True))
            if key in reasons
        ]
        # a resumed map may well lack none but those that always fail; and who refuses a prompt for its words is alive
        dead = not all(reason.startswith(FILTERED) for reason in reasons.values())
        if dead and len(reasons) == len(set(keys)):
            raise ChatError(
                f"{self.endpoint} answered none of {len(reasons)} {label}; the last reason: "
                f"{self.failures[-1].reason}. What was answered before is kept; give the command again."
            )
        replies = [self.store.get(body) for body in bodies]
        for key, reply in zip(keys, replies, strict=True):
            if reply and key not in self.counted:
                self.counted.add(key)
                self.asked += key in waiting
                self.from_store += key not in waiting
                used = self.used["asked" if key in waiting else "stored"]
                used[0] += reply.prompt_tokens
                used[1] += reply.completion_tokens
                self.cut_off += reply.finish_reason == "length"
                if reply.estimated and not self.estimated:
                    print(
                        f"{self.endpoint} does not count the tokens of {label}: lengths and costs are estimates, one "
                        f"token for {BYTES_A_TOKEN} bytes of text"
                    )
                self.estimated += reply.estimated
        return replies

    def close(self) -> None:
        """End the server of our own, if there is one; it starts again when it is needed."""
        if self.server:
            self.server.stop()

    def totals(self) -> dict:
        """Who was asked; requests and tokens so far, asked now and from the store; what the asked ones cost in dollars.

        `cut_off` counts the answers that ended by length, `left_out` has the fields that the endpoint refused or the
        user left out; `estimated`, if it is there, counts the answers whose tokens and dollars are estimates.
        """
        figures = {"model": self.model, "endpoint": self.endpoint, "asked": self.asked, "from_store": self.from_store}
        figures |= {"cut_off": self.cut_off, "left_out": self.transport.dialect.told() if self.transport else []}
        for name, (prompt, completion) in self.used.items():
            figures |= {f"{name}_prompt_tokens": prompt, f"{name}_completion_tokens": completion}
        figures |= {"estimated": self.estimated} if self.estimated else {}
        if self.limits.price and not self.recorded:
            figures["dollars"] = round(self.budget.cost(*self.used["asked"]), 4)
        return figures

    async def _ask_all(self, waiting: dict[str, dict], label: str, reasons: dict[str, str], cut_off: CutOff) -> None:
        jobs = iter(waiting.items())  # shared: each worker takes the next
        changed = asyncio.Condition()
        self.budget.note(self.store.dollars + self.budget.cost(*self.store.unpriced.get(json_name(self.model), (0, 0))))
        shown = bar(total=len(waiting), desc=label, unit="request")
        begun, tokens, in_a_row, refused = time.monotonic(), 0, 0, 0

        async def work() -> None:
            nonlocal tokens, in_a_row, refused
            for key, body in jobs:
                worst_case = self.budget.worst_case(body)
                if not await self.budget.reserve(worst_case, changed):
                    refused += 1
                    return
                cost = 0.0
                try:
                    reply = await self.transport.send(body)
                    known = reply.prompt_tokens + reply.completion_tokens and not reply.estimated
                    cost = self.budget.cost(reply.prompt_tokens, reply.completion_tokens) if known else worst_case
                    self.store.put(body, reply, cost if self.limits.price else None)
                    tokens, in_a_row = tokens + reply.completion_tokens, 0
                    cut_off.note(reply, label)
                except RequestError as failure:
                    reasons[key] = str(failure)
                    in_a_row += 1
                    if in_a_row >= DEAD_AFTER:
                        raise ChatError(
                            f"{self.endpoint} has failed {in_a_row} {label} in a row; the last reason: {failure}. "
                            "What was answered before is kept; give the command again when it answers"
                        ) from None
                finally:
                    await self.budget.settle(worst_case, cost, changed)
                shown.set_postfix_str(self._speed(tokens / (time.monotonic() - begun)), refresh=False)
                shown.update()

        with shown:
            async with self.transport, asyncio.TaskGroup() as group:
                for _ in range(min(self.limits.concurrency, len(waiting))):
                    group.create_task(work())
        if refused:
            left = sum(key not in self.store and key not in reasons for key in waiting)
            raise ChatError(
                f"DISTIL_MAX_COST={self.limits.max_cost:g}: the answers of this run have cost "
                f"{self.budget.spent:.4f} dollars, and the next request could pass the limit; {left} of "
                f"{len(waiting)} {label} were not asked. All answers are kept: raise DISTIL_MAX_COST and give the "
                "command again"
            )

    def _speed(self, tokens_a_second: float) -> str:
        dollars = f", {self.budget.spent:.2f} dollars" if self.limits.price else ""
        return f"{tokens_a_second:.0f} tokens/s{dollars}"
