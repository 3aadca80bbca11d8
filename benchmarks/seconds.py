"""How many seconds and tokens does an answer take? The students of a finished run on one server, asked in turn.

python benchmarks/seconds.py RUN [--students base,slow,fast] [--engine vllm|URL] [--teacher URL] [--n 64]
                             [--at-once 1 64 512] [--out FILE]

Writes results/seconds.json. Students answer RUN's held-out problems greedily, asked as 07 asks them, with its token
limit. With 1 request at a time they are `--n` problems, drawn evenly over the families; with more under way they are
all problems, over again until there are as many requests. `vllm` starts one server with the base and all adapters; a
URL has them under their names (`distil serve --run RUN`). `--teacher` is a server with the teacher's model under the
name `teacher`; it is asked in the students' words.

Servers keep what they read of a prompt: so each student first answers all problems once, which does not count. Then
come three rounds, in each every student in turn; figures are medians of the rounds, beside their least and most.
Seconds are what a user waits, at this end of the connection, judging left out; DISTIL_RPM and the like would count.

Answers are kept in artifacts/RUN/seconds as they come. Killed or not, no measured answer is asked for twice, but where
many requests were under way: their seconds hold together only, so these start anew.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from seconds_table import KEY, ROUNDS, SEED, Timed, asked, key_of, table
from served import Served, facts, served

from distil.evaluate import suites
from distil.llm.cache import ChatError, Reply, request
from distil.llm.client import Chat
from distil.llm.prompts import prompt_of
from distil.llm.transport import RequestError, Transport, run_coroutine
from distil.problems.errors import ProblemError
from distil.workspace.errors import StageError
from distil.workspace.files import digest, read_jsonl, write_text
from distil.workspace.row_cache import RowCache
from distil.workspace.rows import Problem
from distil.workspace.stage import needed, run_folder


def ask(chat: Chat, bodies: Sequence[dict], at_once: int, done: Callable[[int, Reply, float], None]) -> float:
    """Send requests, `at_once` of them under way, past every store; `done` gets number, reply and latency of each.

    Returns the seconds of wall time. Raises StageError if one failed for good or its tokens are not counted, ChatError
    where none can succeed.
    """
    seconds = 0.0

    async def work(jobs, transport: Transport) -> None:
        for number, body in jobs:
            begun = time.perf_counter()
            reply, latency = await transport.send(body), time.perf_counter() - begun
            if reply.estimated:
                raise StageError(f"{chat.endpoint} does not count the tokens of its answers: measure at another server")
            done(number, reply, latency)

    async def all_of_them() -> None:
        nonlocal seconds
        jobs = iter(enumerate(bodies))
        async with chat.transport as transport:
            begun = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                for _ in range(min(at_once, len(bodies))):
                    group.create_task(work(jobs, transport))
            seconds = time.perf_counter() - begun

    try:
        run_coroutine(all_of_them())
    except RequestError as failure:
        raise StageError(f"{chat.endpoint} left a question to {chat.model!r} unanswered: {failure}. The measured "
                         "answers are kept: give the command again") from None  # fmt: skip
    return seconds


def measure(args: argparse.Namespace) -> None:
    students, params, servers = served(args.run, args.students.split(","), args.engine, args.teacher)
    held_out = read_jsonl(needed(args.run, "01_collect/problems.jsonl"), Problem)
    problems, _ = suites.load(suites.read("held-out"), [p for p in held_out if p.split == "test"], SEED)
    plan = {at_once: asked(problems, at_once, args.n) for at_once in sorted({*args.at_once})}
    machine, longest = facts(), params["max_new_tokens"]

    def body(student: Served, problem: Problem) -> dict:
        prompt = prompt_of(problem, params["student_format"])
        return request(student.name, prompt, max_tokens=longest, extra=student.extra)

    bodies = {s.name: {p.id: body(s, p) for p in problems} for s in students}
    wanted = {(s.name, at_once, r, i): digest(s.weights, s.engine, machine["gpu"], bodies[s.name][p.id])
              for s in students for at_once, of in plan.items() for r in range(ROUNDS)
              for i, p in enumerate(of)}  # fmt: skip
    cache = RowCache(run_folder(args.run) / "seconds" / "answers.jsonl", Timed, key_of, wanted)
    chats: dict[str, Chat] = {}  # of the students whose prompts the server has read

    def one_round(number: int, student: Served, at_once: int) -> None:
        keys = [(student.name, at_once, number, i) for i in range(len(plan[at_once]))]
        if all(key in cache.rows for key in keys):
            return
        if at_once > 1:
            cache.discard(keys)
        own, missing = bodies[student.name], [key for key in keys if key not in cache.rows]
        if student.name not in chats:
            chats[student.name] = Chat(student.name, student.url(), concurrency=max(plan), extra=student.extra)
            ask(chats[student.name], list(own.values()), max(plan), lambda *_: None)
        answers: list[Timed] = []

        def done(i: int, reply: Reply, latency: float) -> None:
            key, problem = missing[i], plan[at_once][missing[i][-1]]
            answers.append(Timed(**dict(zip(KEY, key, strict=True)), id=problem.id, of=wanted[key], text=reply.text,
                                 n_tokens=reply.completion_tokens, finish_reason=reply.finish_reason,
                                 latency=latency, share=latency))  # fmt: skip
            if at_once == 1:
                cache.append(answers[-1:])

        asked_now = [own[plan[at_once][key[-1]].id] for key in missing]
        wall = ask(chats[student.name], asked_now, at_once, done)
        if at_once > 1:
            cache.append([row.replace(share=wall / len(answers)) for row in answers])

    about = {"command": f"python benchmarks/seconds.py {shlex.join(sys.argv[1:])}", "max_new_tokens": longest}
    known: dict = {}
    try:
        for number in range(ROUNDS):
            for student in students:
                for at_once in plan:
                    one_round(number, student, at_once)
                found = table(cache, plan, [s.name for s in students], known)
                write_text(args.out, json.dumps({**about, **found, **machine}, indent=1) + "\n")
                print(f"round {number + 1} of {ROUNDS}: {student.name}", flush=True)
    finally:
        servers.stop()
    print(json.dumps(found["ratios"], indent=1))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--students", default="base,slow,fast")
    parser.add_argument("--engine", default="vllm")
    parser.add_argument("--teacher", default="", metavar="URL")
    parser.add_argument("--n", type=int, default=64, help="problems that are asked one at a time")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 64, 512])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "seconds.json")
    args = parser.parse_args()
    if min(args.n, *args.at_once) < 1:
        parser.error("--n and --at-once are 1 or more")
    try:
        measure(args)
    except (ChatError, ProblemError, StageError) as error:
        print(f"seconds: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
