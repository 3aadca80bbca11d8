"""Is our own client worth reading, beside the `openai` package with `aiolimiter`?

python benchmarks/client.py            (two minutes; writes results/client.json)
python benchmarks/client.py --show     (prints the comparison from that file)

Both ask the server of tests/loopback.py, which runs in a process of its own, for the same answers: ours with a store
on disk, the other with its own retries, a rate limit and a semaphore, and storing nothing. Each run is a fresh
process. A first request, which brings the imports, is not counted.

Decision: ours is kept as long as `--show` says that it takes less processor time, the field `gain[].cpu` of the
result file; that time is what one process waits for when hundreds of requests are under way. Around `openai` we should
still have to write what makes up most of our lines: the store that is cache, resume and recording; a budget that is
never passed; limits by tokens that learn from what answers took; one pause for all when a server asks for it; the end
of a run whose endpoint is down; the choice between a fault of one prompt and one that no request can get past.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata, util
from pathlib import Path

from distil.llm.client import Chat
from distil.workspace.environment import environment
from distil.workspace.files import write_text

HERE = Path(__file__).parent
RESULT = HERE / "results" / "client.json"
REQUESTS, REPEATS = 2000, 5
CONCURRENCY = (64, 256)
PEERS = ("openai", "aiolimiter")  # no dependencies of the project
ANSWER = "one small step, and then another\n\n" * 25 + "\\boxed{42}"
FIGURES = {"requests_per_s": "requests a second", "cpu_s": "seconds of processor time", "peak_mb": "MB at most"}


def prompts(n: int) -> list[list[dict]]:
    return [[{"role": "user", "content": f"What is {i} + 1? Think step by step."}] for i in range(n)]


def ours(endpoint: str, concurrency: int) -> dict:
    """Seconds, wall and processor, of `Chat.map`."""
    with tempfile.TemporaryDirectory() as folder:
        chat = Chat("m", endpoint, store=Path(folder) / "store.jsonl", concurrency=concurrency, rpm=1e7)
        chat.map(prompts(1), max_tokens=299)
        begun, cpu = time.perf_counter(), time.process_time()
        replies = chat.map(prompts(REQUESTS), max_tokens=300, temperature=0.7)
        seconds = {"s": time.perf_counter() - begun, "cpu_s": time.process_time() - cpu}
        assert all(reply.text.endswith("{42}") for reply in replies) and len(chat.store) == REQUESTS + 1
    return seconds


def by_openai(endpoint: str, concurrency: int) -> dict:
    """Seconds, wall and processor, of AsyncOpenAI behind a semaphore and a rate limit as wide as ours."""
    import openai
    from aiolimiter import AsyncLimiter

    async def collect() -> dict:
        places, rate = asyncio.Semaphore(concurrency), AsyncLimiter(1e7, 60)
        async with openai.AsyncOpenAI(base_url=endpoint, api_key="none", max_retries=5, timeout=600) as client:

            async def ask(prompt: list[dict], seed: int) -> str:
                async with places, rate:
                    reply = await client.chat.completions.create(
                        model="m", messages=prompt, max_tokens=300, temperature=0.7, top_p=0.95, seed=seed
                    )
                return reply.choices[0].message.content

            await ask(prompts(1)[0], 0)
            begun, cpu = time.perf_counter(), time.process_time()
            replies = await asyncio.gather(*(ask(prompt, 0) for prompt in prompts(REQUESTS)))
            seconds = {"s": time.perf_counter() - begun, "cpu_s": time.process_time() - cpu}
        assert all(reply.endswith("{42}") for reply in replies)
        return seconds

    return asyncio.run(collect())


def peak_mb() -> float:
    """Peak memory of this process; not of getrusage, which begins with the size of the process that started it."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def serve() -> None:
    """Print the address of a server, and run it until standard input ends."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    import loopback

    with loopback.serve(lambda body: ANSWER) as (endpoint, _):
        print(endpoint, flush=True)
        sys.stdin.read()


def measure(client: str, concurrency: int) -> dict:
    """Medians over fresh processes, each with a fresh server."""
    again = [sys.executable, __file__]
    env = os.environ | {"DISTIL_BATCH": "1", "PYTHONPATH": str(HERE.parent)}
    runs = []
    for _ in range(REPEATS):
        server = subprocess.Popen(
            [*again, "--role", "server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )
        try:
            command = [*again, "--role", client, server.stdout.readline().strip(), str(concurrency)]
            runs.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout))
        finally:
            server.kill()
            server.wait()
    middle = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    row = {"client": client, "concurrency": concurrency, "requests_per_s": round(REQUESTS / middle["s"])}
    row |= {"cpu_s": round(middle["cpu_s"], 3), "peak_mb": round(middle["peak_mb"])}
    print(row, flush=True)
    return row | {"all_s": [round(run["s"], 3) for run in runs], "all_cpu_s": [round(run["cpu_s"], 3) for run in runs]}


def gain(rows: list[dict], concurrency: int) -> dict:
    """How many times more requests a second, less processor time and less memory ours takes."""
    own, other = ({r["client"]: r for r in rows if r["concurrency"] == concurrency}[c] for c in ("ours", "openai"))
    return {
        "concurrency": concurrency,
        "requests_per_s": round(own["requests_per_s"] / other["requests_per_s"], 2),
        "cpu": round(other["cpu_s"] / own["cpu_s"], 2),
        "memory": round(other["peak_mb"] / own["peak_mb"], 2),
    }


def show() -> None:
    """The comparison in words, from the result file."""
    result = json.loads(RESULT.read_text())
    for row in result["rows"]:
        figures = ", ".join(f"{row[name]:g} {words}" for name, words in FIGURES.items())
        print(f"{row['client']}, {row['concurrency']} at once: {figures}")
    for row in result["gain"]:
        print(
            f"{row['concurrency']} at once: ours has {row['requests_per_s']} times the requests a second; openai takes "
            f"{row['cpu']} times the processor time and {row['memory']} times the memory"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", action="store_true", help="print what the result file says, and measure nothing")
    parser.add_argument("--role", choices=("server", "ours", "openai"), help=argparse.SUPPRESS)
    parser.add_argument("endpoint", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("concurrency", nargs="?", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.show:
        return show()
    if args.role == "server":
        return serve()
    if args.role:
        seconds = (ours if args.role == "ours" else by_openai)(args.endpoint, args.concurrency)
        print(json.dumps(seconds | {"peak_mb": peak_mb()}))
        return None
    if missing := [name for name in PEERS if not util.find_spec(name)]:
        sys.exit(f"{' and '.join(missing)} not installed: python -m pip install {' '.join(missing)}")
    rows = [measure(client, concurrency) for concurrency in CONCURRENCY for client in ("ours", "openai")]
    result = {
        "command": "python benchmarks/client.py",
        "what": f"{REQUESTS} requests to a server on the same machine that answers at once; median of {REPEATS} "
        "processes; cpu_s and peak_mb are those of the client's process; ours stores its answers, openai does not",
        "load": [round(x, 2) for x in os.getloadavg()],
        "rows": rows,
        "gain": [gain(rows, concurrency) for concurrency in CONCURRENCY],
        **environment(),
    }
    result["versions"] |= {name: metadata.version(name) for name in (*PEERS, "aiohttp", "httpx")}
    write_text(RESULT, json.dumps(result, indent=1) + "\n")
    show()


if __name__ == "__main__":
    main()
