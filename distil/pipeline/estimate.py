"""What a run will ask of its models, before it asks: requests, tokens, dollars and hours, a role a line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from distil.llm.cache import Store
from distil.llm.limits import Limits
from distil.llm.roles import NONE
from distil.pipeline.preflight import Asked, roles_asked
from distil.workspace.stage import RESPONSES, read_meta, run_folder

PILOT = "-pilot"  # what the name of a pilot ends in
# what is assumed where nothing was seen
RIGHT = 0.7  # share of a teacher's chains that verify
ACCEPTED = 0.7  # share of rewrites that are accepted at the first try
IMPROVED = 0.4  # share of chains that the judge calls easy or hard
PROMPT_TOKENS = 300  # of a request, without the chain in it
OF_BUDGET = 0.25  # tokens of an answer, as a share of its budget
# nothing tells this beforehand
TOKENS_A_SECOND = 30  # of one answer, while others are written beside it
HEAD = ("role", "model", "endpoint", "requests", "tokens in", "tokens out", "dollars", "hours", "limits")


@dataclass(frozen=True)
class Load:
    """What is asked of one role: requests, and the tokens of them all."""

    requests: float = 0.0
    tokens_in: float = 0.0
    tokens_out: float = 0.0

    def __add__(self, other: Load) -> Load:
        return Load(
            self.requests + other.requests, self.tokens_in + other.tokens_in, self.tokens_out + other.tokens_out
        )


def load(requests: float, tokens_in: float, tokens_out: float) -> Load:
    """So many requests, with the tokens of one."""
    return Load(requests, requests * tokens_in, requests * tokens_out)


def assumed(values: dict[str, dict]) -> dict[tuple[str, str], Load]:
    """What each (stage, role) will be asked, by the assumptions above."""
    first, second, third = (values[stage] for stage in ("01_collect", "02_rewrite", "03_judge"))
    fast, slow = OF_BUDGET * first["fast_tokens"], OF_BUDGET * first["slow_tokens"]
    asked = first["n_train"] * first["samples"]
    fast_right = asked * RIGHT if first["fast_teacher"] != NONE else 0
    slow_right = asked * RIGHT if first["slow_teacher"] != NONE and not first["chains"] else 0
    slow_right = first["n_train"] if first["chains"] else slow_right  # a file has one a problem, perhaps
    solved = first["n_train"] * (1 - (1 - RIGHT) ** first["samples"])  # problems with a right chain
    tries = sum((1 - ACCEPTED) ** k for k in range(second["tries"]))
    rewritten = OF_BUDGET * second["rewrite_tokens"]
    votes, verdict = max(1, third["votes"]), OF_BUDGET * third["verdict_tokens"]
    candidates = fast_right + slow_right * ACCEPTED  # fast chains and shortened ones
    improved = candidates * sum(IMPROVED**k for k in range(1, third["max_rounds"] + 1))
    return {
        ("01_collect", "fast_teacher"): load(asked, PROMPT_TOKENS, fast),
        ("01_collect", "slow_teacher"): load(asked * (3 if first["turns"] else 1), PROMPT_TOKENS, slow),
        ("02_rewrite", "rewriter"): load(slow_right * tries, PROMPT_TOKENS + slow, rewritten)  # shortened
        + load(solved * tries if fast_right else 0, PROMPT_TOKENS + fast, rewritten),  # corrupted
        ("03_judge", "judge"): load((candidates + improved) * votes, PROMPT_TOKENS + fast, verdict)
        + load((candidates + slow_right) * votes, PROMPT_TOKENS + (fast + slow) / 2, verdict),  # graded
        ("03_judge", "rewriter"): load(improved, PROMPT_TOKENS + fast, OF_BUDGET * third["rewrite_tokens"]),
    }


def seen(run: str, one: Asked, values: dict[str, dict]) -> tuple[Load, str] | None:
    """(load, the run it was seen in) of a role: what `run`, or its pilot, asked the same model, scaled to `values`.

    None where neither has come so far, or asked another model.
    """
    for name in (run, run + PILOT):
        collected, meta = read_meta(name, "01_collect"), read_meta(name, one.stage)
        if not collected or not meta:
            continue
        used = meta["figures"].get("usage", {}).get(one.role)
        if not isinstance(used, dict) or used.get("model") != one.model:
            continue
        before, now = collected["params"], values["01_collect"]
        scale = now["n_train"] * now["samples"] / (before["n_train"] * before["samples"])
        if one.role == "judge":
            scale *= max(1, values["03_judge"]["votes"]) / max(1, meta["params"]["votes"])
        total = Load(
            used["asked"] + used["from_store"],
            used["asked_prompt_tokens"] + used["stored_prompt_tokens"],
            used["asked_completion_tokens"] + used["stored_completion_tokens"],
        )
        return Load(total.requests * scale, total.tokens_in * scale, total.tokens_out * scale), name
    return None


def hours(total: Load, limits: Limits) -> float:
    """How long it takes, by the limits and at TOKENS_A_SECOND an answer."""
    writing = total.tokens_out / TOKENS_A_SECOND / 60 / limits.concurrency
    by_requests = total.requests / limits.rpm if limits.rpm else 0.0
    by_tokens = (total.tokens_in + total.tokens_out) / limits.tpm if limits.tpm else 0.0
    return max(writing, by_requests, by_tokens) / 60


def dollars(total: Load, limits: Limits) -> float | None:
    """What it costs; None without a price."""
    if limits.price is None:
        return None
    return (total.tokens_in * limits.price[0] + total.tokens_out * limits.price[1]) / 1e6


def limits_text(limits: Limits, budgets: Iterable[int]) -> str:
    """The limits of a role in words."""
    parts = [f"{limits.concurrency} at once"]
    parts += [f"{limits.rpm:g} requests a minute"] if limits.rpm else []
    parts += [f"{limits.tpm:g} tokens a minute"] if limits.tpm else []
    return ", ".join([*parts, f"{max(budgets)} tokens an answer"])


def table(run: str, stages: list[str], values: dict[str, dict]) -> str:
    """What the stages will ask, a line a role and model, and below it what the numbers rest on; empty if nothing.

    Raises ChatError as `preflight.roles_asked` does.
    """
    everything = roles_asked(stages, values)
    guesses = assumed(values)
    groups: dict[tuple[str, str, str], list[Asked]] = {}
    for one in everything:
        groups.setdefault((one.role, one.model, one.endpoint), []).append(one)
    rows, sources, sums, unpriced, cap = [HEAD], set(), [0.0, 0.0], False, None
    for (role, model, endpoint), asked in groups.items():
        total, limits = Load(), Limits.read(role=role)
        cap = limits.max_cost
        for one in asked:
            known = seen(run, one, values)
            total += known[0] if known else guesses[one.stage, role]
            sources.add(known[1] if known else "")
        cost, time = dollars(total, limits), hours(total, limits)
        budgets = limits_text(limits, [one.tokens for one in asked])
        if asked[0].recorded:
            cost, time, budgets = 0.0, 0.0, "none: a recording is replayed"
        unpriced = unpriced or cost is None
        sums = [sums[0] + (cost or 0.0), sums[1] + time]
        numbers = [about(number) for number in (total.requests, total.tokens_in, total.tokens_out)]
        rows.append((role, model, endpoint, *numbers, "?" if cost is None else f"{cost:.2f}", f"{time:.1f}", budgets))
    if not everything:
        return ""
    money = "dollars not known" if unpriced and not sums[0] else f"{'at least ' * unpriced}{sums[0]:.2f} dollars"
    together = f"together: {money}, {sums[1]:.1f} hours"
    return "\n".join([*aligned(rows), together, *notes(run, sources, unpriced, cap)])


def about(number: float) -> str:
    """A number of three digits that count."""
    return f"{float(f'{number:.3g}'):,.0f}"


def aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows as lines, columns below each other, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    right = range(3, 8)
    return [
        "  ".join(c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        .rstrip()
        for row in rows
    ]  # fmt: skip


def notes(run: str, sources: set[str], unpriced: bool, cap: float | None) -> list[str]:
    """What the numbers of a table rest on, and what limits the whole run; `sources`: runs, or "" for none."""
    lines = [f"seen in run {name!r}, scaled to this one's problems" for name in sorted(sources - {""})]
    if "" in sources:
        lines.append(
            f"assumed, where nothing was seen: {RIGHT:.0%} of chains right, {ACCEPTED:.0%} of rewrites accepted, "
            f"{IMPROVED:.0%} of chains to improve, {PROMPT_TOKENS} tokens a question, answers of {OF_BUDGET:.0%} of "
            "their budget; `distil run --pilot 20` sees for itself"
        )
    lines.append(f"hours: an answer is written at {TOKENS_A_SECOND} tokens a second, or as the limits allow")
    if unpriced:
        lines.append("dollars: name prices in DISTIL_PRICE or DISTIL_<ROLE>_PRICE, dollars per million tokens in/out")
    if cap is not None:
        lines.append(f"DISTIL_MAX_COST: the run stops before {cap:g} dollars")
    if (file := run_folder(run) / RESPONSES).exists():
        lines.append(f"{len(Store(file)):,} answers are in the run's store: what is asked again costs nothing")
    return lines
