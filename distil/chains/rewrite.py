"""Stage 02: rewrite chains (shorten, expand, simplify, corrupt); accept only what does what was asked."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Sequence

from distil.chains.collect import make_chain, said
from distil.llm.cache import Reply
from distil.llm.client import Chat
from distil.llm.finish import why_unfinished
from distil.llm.prompts import messages, prompt_set
from distil.verify.chain_text import split_steps
from distil.verify.registry import map_problems, verifier_of
from distil.verify.verifier import Verifier
from distil.workspace.rows import Chain, Problem
from distil.workspace.statistics import interval

# what the length of a rewrite may be, as a multiple of the original's (in characters)
LENGTH = {"long2short": (0.05, 0.9), "simplify": (0.05, 1.0), "expand": (1.05, 6.0), "corrupt": (0.8, 1.2)}
SHORTENS = ("long2short", "simplify")
LONG_ENOUGH = 40  # characters: a thought of 8,000 tokens on an easy problem may well become so few
GIVEAWAYS = re.compile(
    r"\b(mistake\w*|wrong\w*|incorrect\w*|error\w*|erroneous\w*|corrupt\w*|deliberate\w*|oops|slips?|instead of)\b",
    re.IGNORECASE,
)
# a rewrite that answers who asked, or copies the request, is no lesson even where its answer is right
REMARKS = re.compile(
    r"\A[^\w\n]*(?:(?:sure|certainly|of course|okay|absolutely)[,!.]"
    r"|here(?:['’]s| is)[^.\n]*\b(?:reasoning|solution|version|rewrit\w+|steps|process)\b"
    r"|i(?:['’]m| am) sorry|sorry\b|i apologi|以下是|好的[，,!！。]|当然[，,!！。]|抱歉|对不起)"
    r"|^[^\w\n]*(?:problem|reasoning process|correct solution)\s*:",
    re.IGNORECASE | re.MULTILINE,
)
# the request's own words, in place of the solution that it asks for; rejected unless the original has them, too
QUOTES = re.compile(
    r"\b(?:simplified|rewritten|shortened|expanded|original) "
    r"(?:reasoning|solution|process|version|text|chain|steps|problem)\b"
    r"|\b(?:necessary|needed|skipped) steps?\b"
    r"|\brewrit(?:e|es|ten|ing) (?:the|this|a|your) (?:\w+ )?(?:solution|reasoning|process|chain|text|steps?)\b"
    r"|\bbox(?:ed|es|ing)? (?:the|your|its) (?:\w+ )?answer\b|\banswer in (?:the|a) box\b"
    r"|\b(?:last|final) line (?:is|must|should)\b|\blanguage model\b|\bpupil\b"
    r"|\b(?:write|show|give|spell out|list) (?:all|every|each)(?: of)?(?: the)? steps?\b",
    re.IGNORECASE,
)
SOME_STUDENT = "a small language model"  # who shall follow the steps, where no student is named
BROKEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd]")
DECIMAL = re.compile(r"\d\.\d")  # 168.5 where the original has whole numbers


def rewrite(
    chains: Sequence[Chain],
    problems: dict[str, Problem],
    chat: Chat,
    kind: str,
    *,
    seed: int,
    tries: int = 2,
    suffix: str = "",
    student: str = SOME_STUDENT,
    max_tokens: int = 1536,
) -> tuple[list[Chain], list[Chain]]:
    """(accepted, rejected) rewrites of `kind` (long2short, simplify, expand or corrupt), one for each chain.

    `problems` maps problem ids to problems. A rewrite with a `fault` is asked for again, `tries` times in all; then it
    is rejected and has a `rejection_reason`. Rewrites have `parent` and `ratio` (their tokens over those of the
    original); ids are `<parent>-<kind><suffix>`. Of a program's chain only the thought is rewritten. Chains that cannot
    be corrupted are passed over. `student` is the name by which the rewriter is told whom to write for; `max_tokens`
    bounds a rewrite and the rewriter's thoughts, and is set by the parameter `rewrite_tokens`.
    """

    def rewritten(problem: Problem, chain: Chain, reply: Reply) -> Chain:
        reply = with_fixed_part(said(reply), chain, verifier_of(problem))
        ratio = round(reply.completion_tokens / max(1, chain.n_tokens), 3)
        name = f"{chain.id}-{kind}{suffix}"
        return make_chain(name, problem, kind, reply, teacher=chat.model, parent=chain.id, ratio=ratio)

    accepted, rejected, waiting = {}, {}, list(chains)
    if kind == "corrupt":
        waiting = [chain for chain in chains if verifier_of(problems[chain.problem_id]).can_corrupt]
    for attempt in range(tries):
        replies = chat.map(
            [rewrite_prompt(chain, problems[chain.problem_id], kind, student) for chain in waiting],
            max_tokens=max_tokens,
            temperature=0.7,
            seeds=[seed * 1000 + attempt] * len(waiting),
            label=kind,
            limit="rewrite_tokens",
        )
        failures = {failure.index: failure.reason for failure in chat.failures}
        for place, chain in enumerate(waiting):
            if place in failures:
                rejected[chain.id] = Chain(
                    id=f"{chain.id}-{kind}{suffix}",
                    problem_id=chain.problem_id,
                    style=kind,
                    thought="",
                    solution="",
                    teacher=chat.model,
                    n_tokens=0,
                    finish_reason="failed",
                    why=failures[place],
                    parent=chain.id,
                    rejection_reason="request failed",
                )
        answered = [chain for place, chain in enumerate(waiting) if place not in failures]
        asked = [problems[chain.problem_id] for chain in answered]
        rewrites = map_problems(rewritten, asked, answered, [reply for reply in replies if reply is not None])
        for chain, problem, row in zip(answered, asked, rewrites, strict=True):
            reason = fault(row, chain, kind, verifier_of(problem), prompt_set(problem))
            if reason is None:
                accepted[chain.id] = row
                rejected.pop(chain.id, None)
            else:
                rejected[chain.id] = row.replace(rejection_reason=reason)
        waiting = [chain for chain in waiting if chain.id not in accepted]
    return [accepted[c.id] for c in chains if c.id in accepted], list(rejected.values())


def rewrite_prompt(chain: Chain, problem: Problem, kind: str, student: str = SOME_STUDENT) -> list[dict]:
    """The request for one rewrite."""
    verifier = verifier_of(problem)
    answer, text = verifier.stated_answer(chain, problem), verifier.rewritable(chain)
    values = {"question": problem.question, "answer": answer, "chain": text, "student": student}
    prompts = prompt_set(problem)
    return messages(prompt_name(kind, verifier, prompts), prompts=prompts, **values)


def prompt_name(kind: str, verifier: Verifier, prompts: str) -> str:
    """The prompt that asks for a rewrite. Those of `prompts` ask alike for every verifier, as in the recordings."""
    return kind if prompts else verifier.rewrite_prompt_name(kind)


def with_fixed_part(reply: Reply, chain: Chain, verifier: Verifier) -> Reply:
    """A rewritten part, and after it the part of the chain that stays. Its tokens are its share of the chain's."""
    fixed = verifier.fixed(chain)
    if not fixed:
        return reply
    share = len(fixed) / max(1, len(chain.full_text))
    return dataclasses.replace(
        reply,
        text=f"{reply.text.strip()}\n\n{fixed}",
        completion_tokens=reply.completion_tokens + round(share * chain.n_tokens),
    )


def fault(rewrite: Chain, parent: Chain, kind: str, verifier: Verifier, prompts: str = "") -> str | None:
    """Why a rewrite is not acceptable, or None. `prompts` names the prompt set that it was asked for in."""
    text, original = verifier.rewritable(rewrite), verifier.rewritable(parent)
    if why := why_unfinished(text, rewrite.finish_reason):
        return why
    if form := verifier.rewrite_fault(text):
        return form
    if kind == "corrupt":
        if rewrite.correct:
            return "answer is still right"
        if GIVEAWAYS.search(text) or (DECIMAL.search(text) and not DECIMAL.search(original)):
            return "gives itself away"
        if not steps_differ(text, original):
            return "no step but the last differs"
        alike = difflib.SequenceMatcher(None, text, original, autojunk=False)
        if alike.real_quick_ratio() < 0.5 or alike.ratio() < 0.5:  # the first by length alone: the second is slow
            return "another solution altogether"
    elif not rewrite.correct:
        return "false step" if rewrite.why == "right answer, false step" else "answer changed"
    if kind != "corrupt" and len(split_steps(original)) > 1 and len(split_steps(text)) < 2:
        return "steps run together"
    steps = split_steps(text)
    if kind == "expand" and len(set(steps)) < len(steps):
        return "repeats a step"
    low, high = LENGTH[kind]
    ratio = len(text) / max(1, len(original))
    too_short = ratio < low and (kind not in SHORTENS or len(text) < LONG_ENOUGH)
    if ratio > high or too_short:
        return "length moved the wrong way" if kind != "corrupt" else "length differs too much"
    return not_a_lesson(text, original, kind, request_sentences(prompt_name(kind, verifier, prompts), prompts))


def not_a_lesson(text: str, original: str, kind: str, request: Sequence[str]) -> str | None:
    """Why a rewrite of the right answer and length is still unfit to learn from, or None."""
    if text == original or kind != "expand" and text.split() == original.split():
        return "unchanged"
    if BROKEN.search(text):
        return "broken characters"
    if REMARKS.search(text):
        return "remarks"
    had, has = normalise_case(original), normalise_case(text)
    if any(part in has and part not in had for part in map(normalise_case, request)):
        return "copies the prompt"
    if any(match.group() not in had for match in QUOTES.finditer(has)):
        return "quotes the request"
    return None


def normalise_case(text: str) -> str:
    """A text in small letters, on one line."""
    return " ".join(text.casefold().split())


def request_sentences(name: str, prompts: str) -> list[str]:
    """The sentences of a prompt that have three words or more and no placeholder.

    The questions of its examples are left out: they are worded as the problems are.
    """
    turns = messages(name, prompts=prompts)
    said = [turn["content"] for turn in turns if turn["role"] != "user"] + [turns[-1]["content"]]
    parts = [part for text in said for part in re.split(r"[.:?!()]|\n\s*\n", text)]
    return [part for part in parts if "{" not in part and len(re.findall(r"[^\W\d_]{2,}", part)) >= 3]


def steps_differ(text: str, original: str) -> bool:
    """Does a step before the answer's own differ in its numbers or words?"""
    return split_steps(text)[:-1] != split_steps(original)[:-1]


def giveaway_accuracy(originals: Sequence[str], corrupted: Sequence[str]) -> dict:
    """How well words and signs alone tell corrupted chains from their originals: {accuracy, ci_low, ci_high, n}.

    A logistic regression sees counts of words and signs, without digits; it is cross-validated in five folds, with
    both texts of a pair in one fold. 0.5 is chance; if it is far above, a student could learn the signs in place of the
    error. The interval is Wilson's, of 95%. Both lists are in the same order. Raises ValueError for fewer than ten
    pairs.
    """
    import numpy as np
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    n = len(originals)
    if n < 10 or n != len(corrupted):
        raise ValueError(f"{n} originals and {len(corrupted)} corrupted chains: at least ten pairs are needed")
    labels = np.repeat([0, 1], n)
    model = make_pipeline(CountVectorizer(token_pattern=r"[^\W\d]+|[^\s\w]"), LogisticRegression(max_iter=1000))
    guessed = cross_val_predict(
        model, [*originals, *corrupted], labels, groups=np.tile(np.arange(n), 2), cv=GroupKFold(5)
    )
    right = guessed == labels
    low, high = interval(right)
    return {"accuracy": float(right.mean()), "ci_low": low, "ci_high": high, "n": n}
