"""Stage 03: judge every chain for the student's sake, improve what does not suit, and judge again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

from distil.chains.judge_replies import parse_rating, parse_verdict
from distil.chains.rewrite import SOME_STUDENT, rewrite
from distil.llm.client import Chat
from distil.llm.prompts import messages, prompt_set
from distil.models.weights import STANDS_FOR
from distil.workspace.rows import AlignedChain, Chain, Problem

Item = tuple[Chain, Problem]
IMPROVE = {"easy": "expand", "hard": "simplify"}


def ask(
    items: Sequence[Item], chat: Chat, prompt: str, parse, *, seed: int, votes: int, max_tokens: int, **values
) -> list[list]:
    """`votes` parsed replies for each item; what does not parse is asked for once more, then left out.

    Of a judge that thinks only what it says is read. `max_tokens` bounds thought and word, and is set by the parameter
    `verdict_tokens`.
    """
    parsed: list[list] = [[] for _ in items]
    jobs = [(i, vote) for i in range(len(items)) for vote in range(votes)]
    for attempt in range(2):
        prompts = {  # one for all votes on a chain, so that many votes take little memory
            i: request(items[i], prompt, **values) for i in dict.fromkeys(i for i, _ in jobs)
        }
        replies = chat.map(
            [prompts[i] for i, _ in jobs],
            max_tokens=max_tokens,
            temperature=0.7,
            seeds=[seed * 1000 + 100 * attempt + vote for _, vote in jobs],
            label=prompt,
            limit="verdict_tokens",
        )
        again = []
        for (i, vote), reply in zip(jobs, replies, strict=True):
            value = parse(reply.text) if reply else None
            if value is not None:
                parsed[i].append(value)
            elif reply:
                again.append((i, vote))
        jobs = again
    return parsed


def request(item: Item, prompt: str, **values: str) -> list[dict]:
    """What a judge is asked about a chain."""
    chain, problem = item
    return messages(prompt, prompts=prompt_set(problem), question=problem.question, chain=chain.full_text, **values)


def spoken_name(student: str) -> str:
    """The name by which the judge is told of a student: the last part of its id or folder."""
    return Path(STANDS_FOR.get(student, student)).name


def verdicts(
    items: Sequence[Item], chat: Chat, *, student: str, seed: int, votes: int = 3, max_tokens: int = 48
) -> list[dict]:
    """{difficulty, agreement} of each chain for a student: the majority of `votes` verdicts, or `unrated`.

    `student` is a model id; the judge is told its name.
    """
    rated = []
    how = {"seed": seed, "votes": votes, "max_tokens": max_tokens, "student": spoken_name(student)}
    for given in ask(items, chat, "difficulty", parse_verdict, **how):
        counts = Counter(given).most_common()
        clear = counts and (len(counts) == 1 or counts[0][1] > counts[1][1])
        rated.append(
            {
                "difficulty": counts[0][0] if clear else "unrated",
                "agreement": round(counts[0][1] / votes, 3) if counts else 0.0,
            }
        )
    return rated


def by_llm(chat: Chat, student: str, votes: int, max_tokens: int = 48) -> Callable:
    """The judge behind an endpoint, for `align`."""
    return lambda items, seed: verdicts(items, chat, student=student, seed=seed, votes=votes, max_tokens=max_tokens)


def ratings(items: Sequence[Item], chat: Chat, seed: int, votes: int, max_tokens: int = 48) -> list[dict]:
    """{rv, cd, correct} of each chain: two grades, 0-9, each the mean of `votes`, and the majority's word on its truth.

    One reply of a small judge is a coarse grade, the mean of several a finer one. All are None where the judge gave no
    readable rating. A tie on truth is 0. Of a chain that came with its grades, the judge is not asked.
    """
    unrated = [item for item in items if not graded(item[0])]
    told = iter(ask(unrated, chat, "rate", parse_rating, seed=seed, votes=votes, max_tokens=max_tokens))
    rated = []
    for chain, _ in items:
        if graded(chain):
            rated.append({"rv": chain.rv, "cd": chain.cd, "correct": int(bool(chain.correct))})
            continue
        given = next(told)
        means = {key: round(mean(v[key] for v in given), 3) if given else None for key in ("rv", "cd", "correct")}
        rated.append(means | ({"correct": int(means["correct"] > 0.5)} if given else {}))
    return rated


def graded(chain: Chain) -> bool:
    """Did a chain come with its verbosity and difficulty?"""
    return chain.rv is not None and chain.cd is not None


def align(
    chains: Sequence[Chain],
    problems: dict[str, Problem],
    rate: Callable[[Sequence[Item], int], list[dict]],
    rewriter: Chat,
    *,
    seed: int,
    max_rounds: int = 2,
    student: str = SOME_STUDENT,
    max_tokens: int = 1536,
) -> list[AlignedChain]:
    """Rate, improve, and rate again until a chain is medium, with at most `max_rounds` improvements.

    `rate` is the judge, made by `by_llm` or `student_judge.by_student`: it takes items and a seed and returns a row
    {difficulty, agreement} for each. `reason` of a chain that was not kept is `unrated`, `rounds used up (<verdict>)`,
    or `<expand|simplify>: <why the rewrite was rejected>`. The rewriter is told for whom it writes, `student`, and has
    `max_tokens` for a rewrite.
    """
    rows = {
        c.id: AlignedChain(id=c.id, problem_id=c.problem_id, kept=False, reason=None, chain=c, trail=[]) for c in chains
    }
    pending = list(rows.values())
    how = {"student": spoken_name(student), "max_tokens": max_tokens}
    for number in range(max_rounds + 1):
        items = [(row.chain, problems[row.problem_id]) for row in pending]
        for row, rated in zip(pending, rate(items, seed + number), strict=True):
            entry = {"round": number, **rated, "action": None}
            entry |= {"n_tokens": row.chain.n_tokens, "text": row.chain.full_text}
            row.trail.append(entry)
            verdict = rated["difficulty"]
            if verdict == "medium":
                row.kept, entry["action"] = True, "keep"
            elif verdict == "unrated":
                row.reason = "unrated"
            elif number == max_rounds:
                row.reason = f"rounds used up ({verdict})"
            else:
                entry["action"] = IMPROVE[verdict]
        pending = improve(
            [row for row in pending if row.trail[-1]["action"] in ("expand", "simplify")],
            problems,
            rewriter,
            seed=seed,
            number=number + 1,
            **how,
        )
    return list(rows.values())


def improve(
    rows: list[AlignedChain], problems: dict[str, Problem], rewriter: Chat, *, seed: int, number: int, **how
) -> list[AlignedChain]:
    """Expand or simplify each row's chain in place, in round `number`; returns the rows whose rewrite was accepted.

    `how` are further arguments of `rewrite`.
    """
    improved = []
    for kind in ("expand", "simplify"):
        wanted = [row for row in rows if row.trail[-1]["action"] == kind]
        accepted, rejected = rewrite(
            [row.chain for row in wanted], problems, rewriter, kind, seed=seed, suffix=str(number), **how
        )
        new = {chain.parent: chain for chain in accepted}
        reasons = {chain.parent: chain.rejection_reason for chain in rejected}
        for row in wanted:
            parent = row.chain.id
            if parent in new:
                row.chain = new[parent]
                improved.append(row)
            else:
                row.reason = f"{kind}: {reasons[parent]}"
    return improved
