"""How many tokens a second does a student write, by each way to ask it? The same prompts, model and token limit.

python benchmarks/generate.py MODEL [--endpoint URL --name NAME] [--n 512] [--out FILE]

Writes results/generate.json. The ways: plain `model.generate` in batches of 16; our own batches, which finished answers
leave; transformers' continuous batching (on a GPU); and a server such as vLLM, started with the same model as NAME and
`--generation-config vllm`. Answers are greedy. Each way first answers a few prompts that do not count.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from distil.evaluate import engines
from distil.evaluate.engines import GenerationRequest
from distil.llm.client import Chat
from distil.llm.prompts import student_messages
from distil.models.student import Generated, encode_prompt, load, load_tokenizer, sampling
from distil.models.weights import resolve
from distil.problems.sources import generate
from distil.workspace.environment import environment
from distil.workspace.files import write_text

PLAIN_BATCH, PLAIN_BATCHES = 16, 4  # a few batches tell the rate of the slowest way
WARM_UP = 4


def hugging_face(model, tokenizer, asked: Sequence[GenerationRequest], longest: int) -> list[int]:
    """Tokens of each answer by `model.generate` alone: a batch ends with its longest answer."""
    lengths = []
    for start in range(0, len(asked), PLAIN_BATCH):
        ids = [encode_prompt(tokenizer, a.messages) for a in asked[start : start + PLAIN_BATCH]]
        batch = tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(model.device)
        written = model.generate(
            **batch,
            max_new_tokens=longest,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **sampling(0.0),
        )[:, batch["input_ids"].shape[1] :].tolist()
        lengths += [
            row.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in row else len(row) for row in written
        ]
    return lengths


def measure(
    way: str, answer: Callable[[list[GenerationRequest]], list[int]], asked: list[GenerationRequest], **about: object
) -> dict:
    """{way, answers, tokens, seconds, tokens_per_s} of `answer`, which gives the tokens of each answer."""
    answer(asked[:WARM_UP])
    begun = time.perf_counter()
    lengths = answer(asked[WARM_UP:])
    seconds = time.perf_counter() - begun
    row = {"way": way, **about, "answers": len(lengths), "tokens": sum(lengths), "seconds": round(seconds, 2)}
    row["tokens_per_s"] = round(sum(lengths) / seconds, 1)
    print(row, flush=True)
    return row


def lengths_of(batches: Sequence[Sequence[Generated]]) -> list[int]:
    return [row.n_tokens for rows in batches for row in rows]


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--endpoint")
    parser.add_argument("--name", help="the model's name at the endpoint")
    parser.add_argument("--n", type=int, default=512, help="prompts")
    parser.add_argument("--longest", type=int, default=256, help="tokens an answer at most")
    parser.add_argument("--batch", type=int, default=256, help="our batches, and requests under way at the endpoint")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "generate.json")
    args = parser.parse_args()
    problems = generate("starter", 0, args.n + WARM_UP, seed=0)
    asked = [GenerationRequest(student_messages(p["question"]), i) for i, p in enumerate(problems)]
    folder, settings = resolve(args.model), {"max_new_tokens": args.longest, "temperature": 0.0}
    model, tokenizer = load(folder), load_tokenizer(folder)

    def ours(part: list[GenerationRequest]) -> list[int]:
        batches = [part[i : i + args.batch] for i in range(0, len(part), args.batch)]
        return lengths_of(list(engines.batched(model, tokenizer, batches, **settings)))

    def paged(part: list[GenerationRequest]) -> list[int]:
        return lengths_of(list(engines.paged(model, tokenizer, [part], **settings)))

    few = asked[: WARM_UP + PLAIN_BATCH * PLAIN_BATCHES]
    rows = [
        measure(
            "model.generate", lambda part: hugging_face(model, tokenizer, part, args.longest), few, batch=PLAIN_BATCH
        ),
        measure("ours", ours, asked, batch=args.batch),
    ]
    if torch.cuda.is_available():
        rows.append(measure("continuous batching", paged, asked))
    if args.endpoint:
        chat = Chat(args.name or args.model, args.endpoint, concurrency=args.batch)

        def served(part: list[GenerationRequest]) -> list[int]:
            return lengths_of(list(engines.served(chat, [part], **settings)))

        rows.append(measure("server", served, asked, under_way=args.batch))
    facts = environment()
    machine = facts["gpu"] or f"{facts['cores']} CPU cores"
    about = {
        "command": "python benchmarks/generate.py",
        "machine": machine,
        "model": args.model,
        "longest": args.longest,
    }
    write_text(args.out, json.dumps({**about, "ways": rows, **facts}, indent=1) + "\n")


if __name__ == "__main__":
    main()
