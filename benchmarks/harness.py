"""Does our measurement of a code model agree with the figure its makers published?

python benchmarks/harness.py ask --endpoint http://localhost:8000/v1 --model Qwen/Qwen2.5-Coder-0.5B-Instruct a.json
python benchmarks/harness.py check a.json

`ask` puts all 164 problems of HumanEval to a served model, greedily, in the words of its makers' evaluation
(distil/problems/humaneval.py), and keeps the answers; given again, it asks only for those it lacks. `check` runs them
in the sandbox, on this machine or another, and writes a verdict for each beside the answers and a row into
results/harness.json.

The answer is begun for the model, which vLLM and SGLang do for `continue_final_message`; `--not-begun` is for servers
that cannot, and no longer what the makers did. One thing differs always: imports and helpers of the prompt count as
given, where theirs fails an answer that forgets to repeat them.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path

from distil.llm.client import Chat
from distil.problems.humaneval import BEGUN, MAX_TOKENS, load, messages
from distil.sandbox.confine import mechanism
from distil.verify.code import result_of
from distil.verify.registry import map_problems
from distil.workspace.environment import environment
from distil.workspace.files import write_jsonl, write_text
from distil.workspace.statistics import interval

RESULTS = Path(__file__).parent / "results" / "harness.json"
# pass@1 in percent, greedy: Qwen2.5-Coder Technical Report (arXiv:2409.12186), table of the instruct models
PUBLISHED = {"Qwen/Qwen2.5-Coder-0.5B-Instruct": 61.6, "Qwen/Qwen2.5-Coder-1.5B-Instruct": 70.7}
GO_ON = {"continue_final_message": True, "add_generation_prompt": False, "stop": ["\n```"]}


def ask(args: argparse.Namespace) -> None:
    """Write {model, benchmark, begun, seconds, command, rows: [{id, text, finish_reason, tokens}]} into a file.

    `seconds` counts what was asked now; it is null if some answers were there already.
    """
    problems, begun = load(), not args.not_begun
    chat = Chat(args.model, args.endpoint, args.answers.with_suffix(".store.jsonl"), extra=GO_ON if begun else {})
    clock = time.perf_counter()
    replies = chat.map([messages(p, begun) for p in problems], max_tokens=MAX_TOKENS, label="HumanEval")
    seconds = time.perf_counter() - clock
    if chat.failures:
        sys.exit(f"{len(chat.failures)} requests failed, such as {chat.failures[0].reason}; give the command again")
    rows = [
        {
            "id": problem.id,
            "text": (BEGUN if begun else "") + reply.text,
            "finish_reason": reply.finish_reason,
            "tokens": reply.completion_tokens,
        }
        for problem, reply in zip(problems, replies, strict=True)
    ]
    asked = {
        "model": args.name or args.model,
        "benchmark": "HumanEval",
        "begun": begun,
        "seconds": None if chat.from_store else round(seconds, 1),
        "command": "python benchmarks/harness.py " + shlex.join(sys.argv[1:]),
        "rows": rows,
    }
    write_text(args.answers, json.dumps(asked, indent=1, ensure_ascii=False) + "\n")
    print(f"{len(rows)} answers in {args.answers}")


def check(args: argparse.Namespace) -> None:
    """Run the answers of a file and put its row into results/harness.json."""
    asked = json.loads(args.answers.read_text(encoding="utf-8"))
    problems = {problem.id: problem for problem in load()}
    rows = asked["rows"]
    clock = time.perf_counter()
    verdicts = map_problems(result_of, [problems[row["id"]] for row in rows], [row["text"] for row in rows])
    seconds = time.perf_counter() - clock
    found = [
        {"id": row["id"], "passed": verdict.passed, "reason": verdict.reason}
        for row, verdict in zip(rows, verdicts, strict=True)
    ]
    write_jsonl(args.answers.with_suffix(".verdicts.jsonl"), found)
    passed = [verdict.passed for verdict in verdicts]
    published = PUBLISHED.get(asked["model"])
    result = {
        "model": asked["model"],
        "benchmark": asked["benchmark"],
        "ours": round(100 * sum(passed) / len(passed), 1),
        "ci": [round(100 * end, 1) for end in interval(passed)],
        "published": published,
        "weights": args.weights,
        "n": len(passed),
        "begun": asked["begun"],
        "cut_off": sum(row["finish_reason"] == "length" for row in rows),
        "tokens_per_answer": round(sum(row["tokens"] for row in rows) / len(rows), 1),
        "ask_seconds": asked["seconds"],
        "check_seconds": round(seconds, 1),
        "mechanism": mechanism(),
        "commit": environment()["commit"],
        "command": asked["command"],
    }
    others = json.loads(args.results.read_text(encoding="utf-8"))["rows"] if args.results.exists() else []
    kept = [row for row in others if (row["model"], row["begun"]) != (result["model"], result["begun"])]
    write_text(args.results, json.dumps({"rows": [*kept, result]}, indent=1) + "\n")
    low, high = result["ci"]
    print(f"{result['model']}: {result['ours']} ({low} to {high}), published {published}; {args.results}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    steps = parser.add_subparsers(required=True)
    asking = steps.add_parser("ask", help="put the problems to a served model")
    asking.add_argument("--endpoint", required=True)
    asking.add_argument("--model", required=True, help="its name at the endpoint")
    asking.add_argument("--name", help="its name in the results, if the endpoint calls it by another")
    asking.add_argument("--not-begun", action="store_true", help="do not begin the answer for the model")
    asking.set_defaults(step=ask)
    checking = steps.add_parser("check", help="run the answers in the sandbox")
    checking.add_argument("--results", type=Path, default=RESULTS)
    checking.add_argument("--weights", help="how the served weights were stored, for the results")
    checking.set_defaults(step=check)
    for step in (asking, checking):
        step.add_argument("answers", type=Path, help="the file of answers")
    args = parser.parse_args()
    args.step(args)


if __name__ == "__main__":
    main()
