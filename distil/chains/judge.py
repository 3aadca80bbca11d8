"""Stage 03: judge every chain for the student's sake, improve what does not suit, judge again, and select."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import mean

from distil.chains.collect import chain_text
from distil.chains.judge_replies import parse_rating, parse_verdict
from distil.chains.rewrite import rewrite
from distil.llm.client import Chat
from distil.llm.prompts import messages, prompt_of
from distil.workspace.rows import AlignedChain, TrainingRow

IMPROVE = {"easy": "expand", "hard": "simplify"}


def ask(
    items: Sequence[tuple[dict, dict]], chat: Chat, prompt: str, parse, seed: int, votes: int, **values
) -> list[list]:
    """`votes` parsed replies for each (chain, problem); what does not parse is asked for once more, then left out."""
    parsed: list[list] = [[] for _ in items]
    jobs = [(i, vote) for i in range(len(items)) for vote in range(votes)]
    for attempt in range(2):
        prompts = {  # one for all votes on a chain, so that many votes take little memory
            i: messages(prompt, question=items[i][1]["question"], chain=chain_text(items[i][0]), **values)
            for i in dict.fromkeys(i for i, _ in jobs)
        }
        replies = chat.map(
            [prompts[i] for i, _ in jobs],
            max_tokens=48,
            temperature=0.7,
            seeds=[seed * 1000 + 100 * attempt + vote for _, vote in jobs],
            label=prompt,
        )
        again = []
        for (i, vote), reply in zip(jobs, replies, strict=True):
            value = parse(reply.text) if reply else None
            if value is None:
                again.append((i, vote))
            else:
                parsed[i].append(value)
        jobs = again
    return parsed


def difficulty(items: Sequence[tuple[dict, dict]], chat: Chat, student: str, seed: int, votes: int = 3) -> list[dict]:
    """{difficulty, agreement} for each (chain, problem): the majority of `votes`, or `unrated` where there is none."""
    rated = []
    for verdicts in ask(items, chat, "difficulty", parse_verdict, seed, votes, student=student):
        counts = Counter(verdicts).most_common()
        clear = counts and (len(counts) == 1 or counts[0][1] > counts[1][1])
        rated.append(
            {
                "difficulty": counts[0][0] if clear else "unrated",
                "agreement": round(counts[0][1] / votes, 3) if counts else 0.0,
            }
        )
    return rated


def by_llm(chat: Chat, student: str, votes: int) -> Callable:
    """The judge behind an endpoint, for `align`; `student` is the name by which the judge is told of the pupil."""
    return lambda items, seed: difficulty(items, chat, student, seed, votes)


def ratings(items: Sequence[tuple[dict, dict]], chat: Chat, seed: int, votes: int) -> list[dict]:
    """{rv, cd, correct} for each (chain, problem): means of `votes` grades, 0-9, and what most votes say of its truth.

    One reply of a small judge is a coarse grade; what several of them have in common is a finer one. Each is None where
    the judge gave no readable rating; a tie on truth is 0.
    """
    rated = []
    for given in ask(items, chat, "rate", parse_rating, seed, votes):
        means = {key: round(mean(v[key] for v in given), 3) if given else None for key in ("rv", "cd", "correct")}
        rated.append(means | ({"correct": int(means["correct"] > 0.5)} if given else {}))
    return rated


def align(
    chains: Sequence[dict],
    problems: dict[str, dict],
    rate: Callable[[Sequence[tuple[dict, dict]], int], list[dict]],
    rewriter: Chat,
    seed: int,
    max_rounds: int = 2,
) -> list[dict]:
    """Rate, improve, and rate again until a chain is medium, at most `max_rounds` improvements.

    `rate` is the judge: of [(chain, problem)] and a seed it makes [{difficulty, agreement}]; `by_llm` here and
    `follow.by_student` give one. Returns a row for each chain: {id, problem_id, kept, reason, chain, trail}. `chain`
    is the last form of the chain and `trail` the list of {round, difficulty, agreement, action, n_tokens, text} that
    led there, with whatever else the judge measured. `reason` says why a chain was not kept: `unrated`,
    `rounds used up (<verdict>)`, or `<expand|simplify>: <what was wrong with it>`.
    """
    rows = {
        c["id"]: AlignedChain(id=c["id"], problem_id=c["problem_id"], kept=False, reason=None, chain=c, trail=[])
        for c in chains
    }
    pending = list(rows.values())
    for number in range(max_rounds + 1):
        items = [(row["chain"], problems[row["problem_id"]]) for row in pending]
        for row, rated in zip(pending, rate(items, seed + number), strict=True):
            row["trail"].append(
                {
                    "round": number,
                    **rated,
                    "action": None,
                    "n_tokens": row["chain"]["n_tokens"],
                    "text": chain_text(row["chain"]),
                }
            )
            verdict = rated["difficulty"]
            if verdict == "medium":
                row["kept"], row["trail"][-1]["action"] = True, "keep"
            elif verdict == "unrated":
                row["reason"] = "unrated"
            elif number == max_rounds:
                row["reason"] = f"rounds used up ({verdict})"
            else:
                row["trail"][-1]["action"] = IMPROVE[verdict]
        pending = improve(
            [r for r in pending if r["trail"][-1]["action"] in ("expand", "simplify")],
            problems,
            rewriter,
            seed,
            number + 1,
        )
    return list(rows.values())


def improve(rows: list[dict], problems: dict[str, dict], rewriter: Chat, seed: int, number: int) -> list[dict]:
    """Expand or simplify each row's chain in place; returns the rows whose rewrite was accepted."""
    improved = []
    for kind in ("expand", "simplify"):
        wanted = [row for row in rows if row["trail"][-1]["action"] == kind]
        accepted, rejected = rewrite(
            [row["chain"] for row in wanted], problems, rewriter, kind, seed, suffix=str(number)
        )
        new = {chain["parent"]: chain for chain in accepted}
        why = {chain["parent"]: chain["reason"] for chain in rejected}
        for row in wanted:
            parent = row["chain"]["id"]
            if parent in new:
                row["chain"] = new[parent]
                improved.append(row)
            else:
                row["reason"] = f"{kind}: {why[parent]}"
    return improved


def training_row(chain: dict, problem: dict) -> dict:
    """A row of `train/*.jsonl`: the user's instruction/output form, and the same as chat messages."""
    prompt = prompt_of(problem)
    output = chain_text(chain)
    return TrainingRow(
        instruction=prompt[-1]["content"],
        output=output,
        messages=[*prompt, {"role": "assistant", "content": output}],
        problem_id=problem["id"],
        chain_id=chain["id"],
        task=problem["task"],
    )


def select_fast(kept: Sequence[dict]) -> list[dict]:
    """For each problem the chain of fewest tokens among those that suit the student.

    A rewritten slow chain that suits is still several times as long as a fast one: trained on both, the student
    learns two ways of writing and pays for the longer.
    """
    shortest: dict[str, dict] = {}
    for chain in kept:
        best = shortest.get(chain["problem_id"])
        if best is None or chain["n_tokens"] < best["n_tokens"]:
            shortest[chain["problem_id"]] = chain
    return list(shortest.values())


def select_unaligned(chains: Sequence[dict]) -> list[dict]:
    """For each problem the first of `chains`, whoever it suits: what would be trained on if nobody judged."""
    first: dict[str, dict] = {}
    for chain in chains:
        first.setdefault(chain["problem_id"], chain)
    return list(first.values())


def select_adaptive(chains: Sequence[dict], scores: dict[str, dict], cd_cap: int = 6) -> list[dict]:
    """For each problem the correct chain whose verbosity is nearest its difficulty, if that is within `cd_cap`.

    The published rule keeps chains that are correct, of moderate verbosity and of bounded difficulty; matching RV to
    CD is our reading of it, since the formula is unpublished. CD of a problem is the mean over its chains.
    """
    by_problem: dict[str, list[dict]] = {}
    for chain in chains:
        if chain["correct"] and scores.get(chain["id"], {}).get("rv") is not None:
            by_problem.setdefault(chain["problem_id"], []).append(chain)
    chosen = []
    for group in by_problem.values():
        cd = sum(scores[c["id"]]["cd"] for c in group) / len(group)
        if cd <= cd_cap:
            chosen.append(min(group, key=lambda c: (abs(scores[c["id"]]["rv"] - cd), c["n_tokens"])))
    return chosen


def split_by_problem(rows: Sequence[dict], seed: int, valid_share: float = 0.1) -> tuple[list[dict], list[dict]]:
    """(train, valid): all rows of one problem fall on one side; the same problem always on the same side."""
    train, valid = [], []
    for row in rows:
        (valid if random.Random(f"{seed}:{row['problem_id']}").random() < valid_share else train).append(row)
    return train, valid
