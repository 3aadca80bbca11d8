"""What the models of `providers` know and how they think: they solve, judge and rewrite rightly, at length."""

from __future__ import annotations

import random
import re
from importlib import resources
from pathlib import Path

KINDS = ("long2short", "expand", "simplify", "corrupt", "difficulty", "rate")  # every other prompt asks for an answer
MUSINGS = (
    "let me look at this from another side before I settle on anything",
    "that was one way to do it and I should see whether a second one agrees",
    "so far nothing speaks against it but I would rather be careful here",
    "wait that needs a closer look since the parts have to fit together",
)


def phrases() -> dict[str, str]:
    """Words that give a prompt away, to its kind: the longest piece of each file's text without a placeholder."""
    found = {}
    for file in Path(str(resources.files("distil")), "prompts").rglob("*.md"):
        if file.stem in KINDS:
            text = re.sub(r"(?m)^# (system|user|assistant)$", "{}", file.read_text(encoding="utf-8"))
            found[max((part.strip() for part in re.split(r"\{\w*\}", text)), key=len)] = file.stem
    return found


def solution(answer: str, variant: int) -> str:
    """A brief chain of four steps. `variant` 0 leaves a step out, which a judge may miss."""
    first = "" if variant == 0 else "Take what is given, piece by piece.\n\n"
    return f"{first}Put {variant + 2} parts together.\n\nThis comes to {answer}.\n\n\\boxed{{{answer}}}"


VARIANTS = 4
EXPANDED = "Each part is looked at by itself, then with its neighbour."


class Mind:
    """What the models know: `answers` maps questions to answers."""

    def __init__(self, answers: dict[str, str]):
        self.answers = answers
        self.kinds = phrases()

    def reads(self, body: dict) -> tuple[str, str, str]:
        """(kind of the request, its question, its last message); the kind is `solve` for a plain question."""
        text = "\n".join(message["content"] for message in body["messages"])
        last = body["messages"][-1]["content"]
        kind = next((kind for words, kind in self.kinds.items() if words in text), "solve")
        question = max((q for q in self.answers if q in last), key=len)
        return kind, question, last

    def says(self, body: dict) -> str:
        """The right thing to say."""
        kind, question, last = self.reads(body)
        answer = self.answers[question]
        variant = next((v for v in reversed(range(VARIANTS)) if solution(answer, v) in last), None)
        if kind == "solve":
            return solution(answer, body.get("seed", 0) % VARIANTS)
        if kind == "difficulty":
            return "Verdict: easy" if variant == 0 and EXPANDED not in last else "Verdict: medium"
        if kind == "rate":
            return "Verbosity: 3, Difficulty: 2, Correct: 1"
        if kind == "corrupt":
            return solution(self.other(answer), variant or 0)
        if kind == "expand":
            return f"{EXPANDED}\n\n{solution(answer, 1)}"
        padding = " ".join(MUSINGS[0].split() * max(1, len(last) // 3000))  # brief: the tiny student reads it by bytes
        return f"The parts are read in their order: {padding}.\n\nThis comes to {answer}.\n\n\\boxed{{{answer}}}"

    def other(self, answer: str) -> str:
        """A wrong answer of the same form."""
        if re.fullmatch(r"-?\d+", answer):
            return str(int(answer) + 1)
        return next(other for other in self.answers.values() if other != answer and not re.search(r"\d", other))


def thought(question: str, seed: int, shortest: int, longest: int) -> list[str]:
    """The words of a thought about a question, in steps with blank lines between: the same for the same arguments."""
    rng = random.Random(f"{question}:{seed}")
    words: list[str] = []
    length, step = rng.randint(shortest, longest), 0
    while len(words) < length:
        step += 1
        words += f"{step}: {rng.choice(MUSINGS)} and {rng.choice(MUSINGS)}\n\n".split(" ")
    return words
