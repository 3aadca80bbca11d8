"""Published figures of the recipes that the handbook follows, to stand beside one's own."""

from __future__ import annotations

SUITES = {"aime2024": 30, "math-500": 500, "gpqa-diamond": 198, "livecodebench": 511}  # and their questions
SWAPPED = "public tables swap the labels of R1 and DS3-0324"
INFERRED = "no table has this label: our inference from the swapped ones"
# accuracy in percent, in the order of SUITES, and what is to be doubted of the label
SCORES = (
    ("Qwen2.5-7B-Instruct", (10.0, 73.6, 33.30, 30.72), ""),
    ("DistilQwen2.5-DS3-0324-7B", (23.33, 77.8, 37.88, 36.40), INFERRED),
    ("DistilQwen2.5-R1-7B", (43.33, 88.4, 42.93, 46.38), SWAPPED),
    ("OpenThinker-7B", (31.3, 83.0, 42.4, 39.9), ""),
    ("DistilQwen-ThoughtX-7B", (56.7, 90.2, 50.0, 56.8), ""),
    ("DistilQwen-ThoughtY-4B", (76.7, 95.2, 56.1, 75.8), ""),
    ("DistilQwen-ThoughtY-8B", (76.7, 94.6, 62.1, 78.1), ""),
    ("DistilQwen2.5-DS3-0324-14B", (26.67, 82.6, 45.45, 41.49), INFERRED),
    ("Qwen2.5-32B-Instruct", (16.67, 81.4, 45.50, 47.36), ""),
    ("DistilQwen2.5-DS3-0324-32B", (46.67, 87.0, 48.99, 55.97), INFERRED),
    ("DistilQwen2.5-R1-32B", (70.0, 93.8, 62.12, 65.95), SWAPPED),
    ("DistilQwen-ThoughtX-32B", (80.0, 92.6, 64.0, 73.4), ""),
    ("DistilQwen-ThoughtY-32B", (90.0, 95.2, 63.6, 76.3), ""),
)
# mean tokens an answer of the 32B students
TOKENS = {
    "aime2024": {"DistilQwen2.5-DS3-0324-32B": 4177, "DistilQwen2.5-R1-32B": 12178},
    "mmlu-pro": {"DistilQwen2.5-DS3-0324-32B": 690, "DistilQwen2.5-R1-32B": 4198},
}


def rows(suite: str) -> list[tuple[str, str, str, str]]:
    """(model, accuracy, tokens an answer, doubt) of a benchmark, as texts; empty for a suite without published ones."""
    tokens = TOKENS.get(suite, {})
    found = []
    for model, scores, doubt in SCORES:
        if suite in SUITES:
            score = scores[list(SUITES).index(suite)]
            doubts = [doubt] if doubt else []
            if not one_run(score, SUITES[suite]):
                doubts.append(f"no share of {SUITES[suite]} questions: not of one run, or misprinted")
            found.append((model, f"{score:g}%", str(tokens.get(model, "")), "; ".join(doubts)))
        elif model in tokens:
            found.append((model, "", str(tokens[model]), ""))
    return found


def one_run(score: float, questions: int) -> bool:
    """Can a score in percent, rounded to one digit or two, be that of one answer a question?"""
    return abs(score - 100 * round(score * questions / 100) / questions) < 0.06
