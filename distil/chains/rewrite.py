"""Stage 02: rewrite chains (shorten, expand, simplify, corrupt); accept only what does what was asked."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Sequence

from distil.chains.collect import chain_text, make_chain, split_steps
from distil.llm.cache import Reply
from distil.llm.client import Chat
from distil.llm.prompts import messages
from distil.verify.check import boxed_answers
from distil.verify.code import side_by_side
from distil.workspace.statistics import interval

# what the length of a rewrite may be, as a multiple of the original's (in characters)
LENGTH = {"long2short": (0.05, 0.9), "simplify": (0.05, 1.0), "expand": (1.05, 6.0), "corrupt": (0.8, 1.2)}
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
BROKEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd]")
DECIMAL = re.compile(r"\d\.\d")  # 168.5 where the original has whole numbers


def rewrite(
    chains: Sequence[dict],
    problems: dict[str, dict],
    chat: Chat,
    kind: str,
    seed: int,
    tries: int = 2,
    suffix: str = "",
) -> tuple[list[dict], list[dict]]:
    """(accepted, rejected) rewrites of `kind`: long2short, simplify, expand or corrupt; one a chain.

    `problems` maps problem ids to problems. A rewrite that `fault` objects to is asked for again, `tries` times in
    all; then it is rejected with the reason. Both lists hold chains with `parent` and `ratio` (tokens of the rewrite
    over tokens of the original); ids are `<parent>-<kind><suffix>`. Of a program's chain only the thought is rewritten,
    and none is corrupted: its program stays as it is.
    """

    def rewritten(problem: dict, chain: dict, reply: Reply) -> dict:
        if problem["verifier"] == "code":
            reply = with_program(reply, chain)
        name, ratio = f"{chain['id']}-{kind}{suffix}", round(reply.completion_tokens / max(1, chain["n_tokens"]), 3)
        return make_chain(name, problem, kind, reply, chat.model, parent=chain["id"], ratio=ratio)

    accepted, rejected, waiting = {}, {}, list(chains)
    if kind == "corrupt":
        waiting = [chain for chain in chains if problems[chain["problem_id"]]["verifier"] != "code"]
    for attempt in range(tries):
        replies = chat.map(
            [rewrite_prompt(chain, problems[chain["problem_id"]], kind) for chain in waiting],
            max_tokens=1536,
            temperature=0.7,
            seeds=[seed * 1000 + attempt] * len(waiting),
            label=kind,
        )
        failures = {failure.index: failure.reason for failure in chat.failures}
        for place, chain in enumerate(waiting):
            if place in failures:
                rejected[chain["id"]] = {
                    "id": f"{chain['id']}-{kind}{suffix}",
                    "parent": chain["id"],
                    "problem_id": chain["problem_id"],
                    "reason": "request failed",
                    "why": failures[place],
                }
        answered = [chain for place, chain in enumerate(waiting) if place not in failures]
        asked = [problems[chain["problem_id"]] for chain in answered]
        rows = side_by_side(rewritten, asked, answered, [reply for reply in replies if reply is not None])
        for chain, problem, row in zip(answered, asked, rows, strict=True):
            reason = fault(row, chain, kind, problem["verifier"] == "code")
            if reason is None:
                accepted[chain["id"]] = row
                rejected.pop(chain["id"], None)
            else:
                rejected[chain["id"]] = row | {"reason": reason}
        waiting = [chain for chain in waiting if chain["id"] not in accepted]
    return [accepted[c["id"]] for c in chains if c["id"] in accepted], list(rejected.values())


def rewrite_prompt(chain: dict, problem: dict, kind: str) -> list[dict]:
    """The request for one rewrite."""
    code = problem["verifier"] == "code"
    answer, text = (chain["solution"], chain["thought"]) if code else (problem["answer"], chain_text(chain))
    return messages(kind, question=problem["question"], answer=answer, chain=text)


def with_program(reply: Reply, chain: dict) -> Reply:
    """A rewritten thought and the chain's program after it. The program's tokens are its share of the chain's."""
    share = len(chain["solution"]) / max(1, len(chain_text(chain)))
    return dataclasses.replace(
        reply,
        text=f"{reply.text.strip()}\n\n{chain['solution']}",
        completion_tokens=reply.completion_tokens + round(share * chain["n_tokens"]),
    )


def fault(row: dict, parent: dict, kind: str, code: bool = False) -> str | None:
    """Why a rewrite is not acceptable, or None; of a chain that ends with `code`, only the thought was rewritten."""
    text, original = (row["thought"], parent["thought"]) if code else (chain_text(row), chain_text(parent))
    if not text:
        return "empty"
    if row["finish_reason"] != "stop":
        return "cut off"
    if code and "```" in text:
        return "a program of its own"
    if not code and len(boxed_answers(text)) != 1:
        return "not one boxed answer"
    if kind == "corrupt":
        if row["correct"]:
            return "answer is still right"
        if GIVEAWAYS.search(text) or (DECIMAL.search(text) and not DECIMAL.search(original)):
            return "gives itself away"
        if not steps_differ(text, original):
            return "no step but the last differs"
        alike = difflib.SequenceMatcher(None, text, original, autojunk=False)
        if alike.real_quick_ratio() < 0.5 or alike.ratio() < 0.5:  # the first by length alone: the second is slow
            return "another solution altogether"
    elif not row["correct"]:
        return "false step" if row["why"] == "right answer, false step" else "answer changed"
    if kind != "corrupt" and len(split_steps(original)) > 1 and len(split_steps(text)) < 2:
        return "steps run together"
    steps = split_steps(text)
    if kind == "expand" and len(set(steps)) < len(steps):
        return "repeats a step"
    low, high = LENGTH[kind]
    if not low <= len(text) / max(1, len(original)) <= high:
        return "length moved the wrong way" if kind != "corrupt" else "length differs too much"
    return not_a_lesson(text, original, kind)


def not_a_lesson(text: str, original: str, kind: str) -> str | None:
    """What makes a rewrite of the right answer and length unfit to be learned from, or None."""
    if text == original or kind != "expand" and text.split() == original.split():
        return "unchanged"
    if BROKEN.search(text):
        return "broken characters"
    if REMARKS.search(text):
        return "remarks"
    had, has = plain(original), plain(text)
    if any(part in has and part not in had for part in map(plain, asked(kind))):
        return "copies the prompt"
    if any(match.group() not in had for match in QUOTES.finditer(has)):
        return "quotes the request"
    return None


def plain(text: str) -> str:
    """A text in small letters, on one line."""
    return " ".join(text.casefold().split())


def asked(kind: str) -> list[str]:
    """What a prompt says and shows, sentence by sentence: those of three words or more that nothing is filled into.

    Without the questions of its examples, which are worded as the problems are.
    """
    turns = messages(kind)
    said = [turn["content"] for turn in turns if turn["role"] != "user"] + [turns[-1]["content"]]
    parts = [part for text in said for part in re.split(r"[.:?!()]|\n\s*\n", text)]
    return [part for part in parts if "{" not in part and len(re.findall(r"[^\W\d_]{2,}", part)) >= 3]


def steps_differ(text: str, original: str) -> bool:
    """Does a step before the answer's own differ in its numbers or words?"""
    return split_steps(text)[:-1] != split_steps(original)[:-1]


def giveaway_accuracy(originals: Sequence[str], corrupted: Sequence[str]) -> dict:
    """How well words and signs alone tell corrupted chains from their originals: {accuracy, ci_low, ci_high, n}.

    Logistic regression on counts of words and signs (digits left out), five-fold cross-validation with each pair in
    one fold; 0.5 is chance, and what is far above it a student could learn in place of the error. 95% Wilson
    interval. Both lists in the same order. Raises ValueError for fewer than ten pairs.
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
