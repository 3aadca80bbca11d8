"""The collect stage against a real language model behind a real server: `transformers serve` with the 135M student."""

import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from distil.chains.collect import STYLES, collect
from distil.llm.client import Chat
from distil.models.weights import resolve
from distil.problems.sources import generate

STUDENT = "HuggingFaceTB/SmolLM2-135M-Instruct"
LONGEST = 16  # tokens an answer: enough to see one, few enough for two cores


@pytest.fixture
def server(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = resolve(STUDENT)
    program = str(Path(sys.executable).parent / "transformers")
    command = [program, "serve", folder, "--port", str(port), "--device", "cpu"]
    with open(tmp_path / "server.log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.time() + 120
        while time.time() < deadline:
            assert process.poll() is None, (tmp_path / "server.log").read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1", folder
    finally:
        process.kill()
        process.wait()


def test_chains_of_a_real_model(server, tmp_path, project):
    endpoint, model = server
    problems = [p for p in generate("starter", 5, 5, seed=0) if p.split == "train"][:2]
    for attempt in range(2):
        chat = Chat(model, endpoint, store=tmp_path / "store.jsonl", concurrency=2)
        chains = []
        for style in STYLES:
            answered, failed = collect(problems, chat, style, samples=1, seed=0, max_tokens=LONGEST)
            chains += answered
            assert not failed
        assert chat.asked == (0 if attempt else 4), "the second time everything is in the store"
    assert [c.style for c in chains] == ["fast", "fast", "slow", "slow"]
    for chain in chains:
        assert 0 < chain.n_tokens <= LONGEST and chain.thought + chain.solution
        assert chain.finish_reason in ("stop", "length")
        assert chain.finish_reason == "stop" or not chain.correct, "what was cut off is never correct"
    assert chat.totals()["stored_completion_tokens"] == sum(c.n_tokens for c in chains)
