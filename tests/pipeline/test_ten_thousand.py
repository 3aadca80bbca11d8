"""Ten thousand chains go through the judge's loop: in little memory, resumed after a kill, each coming out once."""

import json
import os
import random
import signal
import subprocess
import sys
import time

from conftest import ROOT
from loopback import serve

from distil.llm.cache import Store, request_key

N, AT_ONCE = 10_000, 32
REQUESTS = 16_250  # 10,000 verdicts, 1,250 asked for again, 2,500 rewrites and their verdicts
MORE_MB = 80  # that the loop may take beyond the chains themselves: about twice the 36 that it took
JOB = """
import json, re, sys
from pathlib import Path
import aiohttp, certifi, tqdm.auto
from distil.llm.cache import Reply
from distil.llm.client import Chat
from distil.chains.collect import make_chain
from distil.chains.judge import align, by_llm
from distil.workspace.rows import Problem

endpoint, store, out, n, at_once, votes = *sys.argv[1:4], *map(int, sys.argv[4:])
def peak_mb() -> float:  # not of getrusage, which begins with the size of the process that started this one
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
problems, chains = {}, []
for i in range(n):
    text = f"{i} + 5 = {i + 5}\\n\\n{i + 5} + 6 = {i + 11}\\n\\n\\\\boxed{{{i + 11}}}"
    problem = Problem(id=str(i), domain="", task="", question=f"What is {i} + 5 + 6?", answer=str(i + 11),
                      verifier="exact", source="")
    problems[str(i)] = problem
    chains.append(make_chain(f"c{i}", problem, "fast", Reply(text, "", "stop", 1, 9), teacher="m"))
before = peak_mb()
chat = Chat("m", endpoint, store=Path(store), concurrency=at_once)
rows = align(chains, problems, by_llm(chat, "pupil", votes), chat, seed=0)
Path(out).write_text("".join(json.dumps([row.id, row.kept, row.reason]) + "\\n" for row in rows))
print(json.dumps({"before": before, "peak": peak_mb(), "asked": chat.asked, "from_store": chat.from_store}))
"""


def answer(body: dict) -> str:
    """Of four chains two suit, one is too brief until it is expanded, and one makes the judge stammer."""
    content = body["messages"][-1]["content"]
    i = int(content.rsplit("What is ", 1)[1].split(" + ", 1)[0])
    if "You judge" not in body["messages"][0]["content"]:
        return f"We add 5.\n\n{i} + 5 = {i + 5}\n\nWe add 6.\n\n{i + 5} + 6 = {i + 11}\n\n\\boxed{{{i + 11}}}"
    if i % 8 == 7:
        return "easy/medium/hard"
    return "Verdict: easy" if i % 4 == 2 and "We add" not in content else "Verdict: medium"


def test_ten_thousand_chains_survive_a_kill_in_bounded_memory(tmp_path):
    store, out = tmp_path / "store.jsonl", tmp_path / "rows.jsonl"
    asked: list[str] = []

    def noted(body: dict) -> str:
        asked.append(request_key(body))
        return answer(body)

    with serve(noted) as (endpoint, _):
        command = [sys.executable, "-c", JOB, endpoint, str(store), str(out), str(N), str(AT_ONCE), "1"]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "DISTIL_BATCH": "1"}
        moment = random.randrange(1, REQUESTS - 500)
        victim = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        while len(asked) < moment and victim.poll() is None:
            time.sleep(0.005)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        stored = {row["key"] for row in Store(store).rows()}
        before = len(asked)  # of which those under way at the kill have no answer
        assert before - AT_ONCE <= len(stored) < REQUESTS, f"killed at request {moment}"
        again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert again.returncode == 0, again.stderr
    told = json.loads(again.stdout)
    assert not stored & set(asked[before:]), "what was stored is not asked for again"
    assert len(set(asked)) == len(Store(store)) == REQUESTS and len(asked) <= REQUESTS + AT_ONCE
    assert told["from_store"] == len(stored) and told["asked"] == REQUESTS - len(stored)

    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [name for name, _, _ in rows] == [f"c{i}" for i in range(N)], "every chain once, in order"
    for i, (_, kept, reason) in enumerate(rows):
        assert (kept, reason) == ((False, "unrated") if i % 8 == 7 else (True, None)), i
    assert told["peak"] - told["before"] < MORE_MB, told
