"""Ready-made maps of data sets on the Hub, for `distil.problems.hub`."""

from __future__ import annotations

# What a map may say, and what holds where it says nothing:
#   repository, config, revision, split   where the rows are; `files` names JSON Lines files instead of a split
#   test          the split of the test problems, or a dict of all that differs for them; without it the first rows
#   question, answer, tests, starter, choices   names of fields; several names of choices: the first is the right one
#   read          how the answer stands in its field: plain, hash (after the last ####), boxed (in the last \boxed{})
#   verifier      math (words are compared as text), exact, choice, code
#   where         only rows with these values
#   unreadable    refuse: a row without a readable answer is an error; drop: it is listed as removed
DEFAULTS = {"split": "train", "read": "plain", "verifier": "math", "unreadable": "refuse"}

# Most field names were learned from programs that read these sets and from copies of their cards, and no row of any
# set could be fetched where this was written: the tests marked `network` check all of them.
SOURCES: dict[str, dict] = {
    "gsm8k": {
        "repository": "openai/gsm8k",
        "config": "main",
        "test": "test",
        "question": "question",
        "answer": "answer",
        "read": "hash",
    },
    "math": {
        "repository": "DigitalLearningGmbH/MATH-lighteval",
        "question": "problem",
        "answer": "solution",
        "read": "boxed",
        "test": {"repository": "HuggingFaceH4/MATH-500", "split": "test", "answer": "answer", "read": "plain"},
    },
    "openr1-math": {
        "repository": "open-r1/OpenR1-Math-220k",
        "config": "default",
        "question": "problem",
        "answer": "answer",
        "unreadable": "drop",  # some answers are no mathematics that can be parsed
    },
    "numinamath": {
        "repository": "AI-MO/NuminaMath-CoT",
        "test": "test",
        "question": "problem",
        "answer": "solution",
        "read": "boxed",
        "unreadable": "drop",  # proofs end without a box
    },
    "openthoughts": {
        "repository": "open-thoughts/OpenThoughts-114k",
        "config": "metadata",
        "question": "problem",
        "answer": "ground_truth_solution",
        "read": "boxed",
        "where": {"domain": "math"},
        "unreadable": "drop",
    },
    "openthoughts-code": {
        "repository": "open-thoughts/OpenThoughts-114k",
        "config": "metadata",
        "question": "problem",
        "tests": "test_cases",
        "starter": "starter_code",
        "where": {"domain": "code"},
        "verifier": "code",
        "unreadable": "drop",
    },
    # The benchmarks of the published tables, each at a commit that public evaluation code pins for it.
    "aime2024": {
        "repository": "HuggingFaceH4/aime_2024",
        "revision": "2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
        "question": "problem",
        "answer": "answer",
    },
    "math-500": {
        "repository": "HuggingFaceH4/MATH-500",
        "revision": "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
        "split": "test",
        "question": "problem",
        "answer": "answer",
    },
    "gpqa-diamond": {
        "repository": "Idavidrein/gpqa",  # gated: its terms forbid to show its questions in the open
        "config": "gpqa_diamond",
        "revision": "633f5ee89ab8ad4522a9f850766b73f62147ffdd",
        "question": "Question",
        "choices": ["Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"],
        "verifier": "choice",
    },
    "mmlu-pro": {
        "repository": "TIGER-Lab/MMLU-Pro",
        "revision": "b189ec765aa7ed75c8acfea42df31fdae71f97be",
        "split": "test",
        "question": "question",
        "choices": "options",
        "answer": "answer",
        "verifier": "choice",
    },
    # Release V2 (511 problems). The repository's own loading script is refused by datasets 4: its files are read as
    # they are. The private tests are compressed pickles, which only a sandbox may open; the public ones are JSON.
    "livecodebench": {
        "repository": "livecodebench/code_generation_lite",
        "revision": "0fe84c3912ea0c4d4a78037083943e8f0c4dd505",
        "files": ["test.jsonl", "test2.jsonl"],
        "question": "question_content",
        "tests": "public_test_cases",
        "starter": "starter_code",
        "verifier": "code",
    },
}
