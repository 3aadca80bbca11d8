"""How close does `Chat.map` come to what the endpoint allows, and what does a store of 200,000 answers take?

python benchmarks/collect.py        (three minutes, and six more the first time; 400 MB in the temporary folder)
python benchmarks/collect.py --ours     the figures of other libraries stay those of the file, from before it streamed

Writes results/collect.json. The server runs in its own process and streams each answer within 200 ms. The other
libraries do not fit beside our lock: each is installed into an environment of its own, kept in the cache folder.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

os.environ["DISTIL_BATCH"] = "1"

from peer import prompts as peer_prompts

from distil.llm.client import Chat
from distil.models.weights import cache_folder
from distil.workspace.environment import environment
from distil.workspace.files import write_text

HERE = Path(__file__).parent
RESULT = HERE / "results" / "collect.json"
REQUESTS, LATENCY, SEQUENTIAL, REPEATS = 1000, 0.2, 50, 3
CONCURRENCY = (64, 100)
STORED = 200_000
PEERS = {
    "bespokelabs-curator": ["bespokelabs-curator==0.1.31"],
    "distilabel": ["distilabel[openai]==1.5.3", "requests"],  # it imports requests and does not ask for it
}
OPEN = """
import resource, sys, time
from pathlib import Path
from distil.llm.cache import Store
before = time.perf_counter()
store = Store(Path(sys.argv[1]))
seconds = time.perf_counter() - before
print(len(store), seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def prompts(n: int) -> list[list[dict]]:
    return [[{"role": "user", "content": text}] for text in peer_prompts(n)]


def timed(endpoint: str, n: int, concurrency: int, store: Path) -> float:
    """Seconds for `n` new requests, answers stored; imports are done by a first request, which does not count."""
    chat = Chat("m", endpoint, store=store, concurrency=concurrency)
    chat.map([[{"role": "user", "content": "the first"}]], max_tokens=300)
    begun = time.perf_counter()
    replies = chat.map(prompts(n), max_tokens=300, temperature=0.7)
    seconds = time.perf_counter() - begun
    assert all(replies) and len(chat.store) == n + 1
    return seconds


def collecting(folder: Path) -> tuple[list[dict], list[dict]]:
    """(rows by concurrency, rows by peer)."""
    server = subprocess.Popen(
        [sys.executable, HERE / "slow_server.py", str(LATENCY)], stdout=subprocess.PIPE, text=True
    )
    try:
        endpoint = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
        one_by_one = timed(endpoint, SEQUENTIAL, 1, folder / "sequential.jsonl") * REQUESTS / SEQUENTIAL
        rows = []
        for concurrency in CONCURRENCY:
            times = [
                timed(endpoint, REQUESTS, concurrency, folder / f"{concurrency}-{i}.jsonl") for i in range(REPEATS)
            ]
            ideal = REQUESTS * LATENCY / concurrency
            ours = statistics.median(times)
            rows.append(
                {
                    "concurrency": concurrency,
                    "ours_s": round(ours, 3),
                    "all_s": [round(t, 3) for t in times],
                    "ideal_s": ideal,
                    "ratio": round(ours / ideal, 3),
                    "sequential_s": round(one_by_one, 1),
                }
            )
        return rows, known_peers() if "--ours" in sys.argv[1:] else peers(endpoint)
    finally:
        server.kill()


def opening(folder: Path) -> dict:
    """Seconds and peak memory (MB) of a fresh process that opens a store of 200,000 answers of about 2 kB."""
    path = folder / "large.jsonl"
    template = json.loads((folder / f"{CONCURRENCY[0]}-0.jsonl").read_text().splitlines()[1])
    with open(path, "w", encoding="utf-8") as handle:
        for i in range(STORED):
            handle.write(json.dumps(template | {"key": f"{i:064x}"}, ensure_ascii=False) + "\n")
    done = []
    for _ in range(REPEATS):
        told = subprocess.run([sys.executable, "-c", OPEN, path], capture_output=True, text=True, check=True)
        done.append([float(word) for word in told.stdout.split()])
    assert all(rows == STORED for rows, _, _ in done)
    return {
        "store_rows": STORED,
        "store_line_bytes": round(path.stat().st_size / STORED),
        "store_open_s": round(statistics.median(seconds for _, seconds, _ in done), 2),
        "store_rss_mb": round(max(mb for *_, mb in done)),
    }


async def by_openai(endpoint: str) -> float:
    """Seconds for the same requests through the `openai` package, which stores nothing."""
    import openai

    places = asyncio.Semaphore(CONCURRENCY[0])
    async with openai.AsyncOpenAI(base_url=endpoint, api_key="none") as client:

        async def ask(prompt: list[dict]) -> None:
            async with places:
                await client.chat.completions.create(model="m", messages=prompt, max_tokens=300, temperature=0.7)

        await ask(prompts(1)[0])
        begun = time.perf_counter()
        await asyncio.gather(*(ask(prompt) for prompt in prompts(REQUESTS)))
        return time.perf_counter() - begun


def peer(name: str, endpoint: str) -> dict:
    """Seconds of another library's run: of all requests, and of one, which is what it takes to begin and end."""
    folder = cache_folder() / "peers" / name
    python = folder / "bin" / "python"
    made = folder / "installed"
    if not made.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        done = subprocess.run([python, "-m", "pip", "install", "-q", *PEERS[name]], capture_output=True, text=True)
        if done.returncode:
            return {"name": name, "not_measured": f"does not install: {done.stderr.strip().splitlines()[-1]}"}
        made.touch()
    seconds = {}
    for n in (1, REQUESTS):
        command = [python, HERE / "peer.py", name, endpoint, str(n), str(CONCURRENCY[0])]
        runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(REPEATS)]
        seconds[n] = statistics.median(float(re.search(r"^SECONDS (\S+)", out, re.MULTILINE)[1]) for out in runs)
    version = PEERS[name][0].partition("==")[2]
    about = {"name": name, "version": version, "concurrency": CONCURRENCY[0]}
    return about | {"s": round(seconds[REQUESTS], 3), "s_one_request": round(seconds[1], 3)}


def peers(endpoint: str) -> list[dict]:
    rows = [peer(name, endpoint) for name in PEERS]
    times = [asyncio.run(by_openai(endpoint)) for _ in range(REPEATS)]
    seconds = round(statistics.median(times), 3)
    version = metadata.version("openai")
    return [*rows, {"name": "openai", "version": version, "concurrency": CONCURRENCY[0], "s": seconds}]


def known_peers() -> list[dict]:
    """The other libraries' rows as the last whole measurement left them."""
    return [row | {"streamed": False} for row in json.loads(RESULT.read_text())["peers"]]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows, others = collecting(folder)
        best = min(rows, key=lambda row: row["ratio"])
        result = {
            "command": " ".join(["python benchmarks/collect.py", *sys.argv[1:]]),
            "what": f"{REQUESTS} requests to a server on this machine that streams each answer in {LATENCY} s; median "
            f"of {REPEATS}; sequential_s is {SEQUENTIAL} requests one by one, scaled to {REQUESTS}",
            "load": [round(x, 2) for x in os.getloadavg()],
            **{key: best[key] for key in ("concurrency", "ours_s", "ideal_s", "ratio", "sequential_s")},
            "rows": rows,
            **opening(folder),
            "peers": others,
            **environment(),
        }
    write_text(RESULT, json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
