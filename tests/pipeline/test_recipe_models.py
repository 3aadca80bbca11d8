"""The recipe's own models: DeepSeek V3 and R1 teach, QwQ rewrites, a thinking Qwen3 judges, in one run.

Each stands behind an endpoint of its own on this machine, which behaves as the real one does, with a key of its own.
The run is killed while R1 answers, and given again; then the tiny student learns from what they said. What is killed
is started as users start it, the other commands are forks (see `warm`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import providers
import pytest
import warm
from conftest import ROOT
from minds import Mind, thought

from distil.cli import main
from distil.problems.sources import generate
from distil.workspace.files import read_jsonl
from distil.workspace.rows import AlignedChain, Chain

AT_ONCE = 8
MODELS = {
    "fast_teacher": ("deepseek-chat", providers.DEEPSEEK),
    "slow_teacher": ("deepseek-reasoner", providers.DEEPSEEK),
    "rewriter": ("qwq-32b", providers.DASHSCOPE),
    "judge": ("qwen3-32b", providers.DASHSCOPE),
}
OTHERS = {  # the same roles behind other servers, each with its own way to say what was thought
    "fast_teacher": ("o4-mini", providers.OPENAI),
    "slow_teacher": ("Qwen/QwQ-32B", providers.VLLM),
    "rewriter": ("Qwen/QwQ-32B", providers.WITHOUT_PARSER),
    "judge": ("Qwen/QwQ-32B", providers.SGLANG),
}
BUDGETS = ["fast_tokens=8192", "slow_tokens=16384", "rewrite_tokens=8192", "verdict_tokens=8192"]
STUDENTS = ["04.students=fast", "07.students=base,fast,preferred,reinforced"]  # slow chains are too long for the tiny


class Setting:
    """Four endpoints, their keys, a project folder, and the variables by which forks are asked for."""

    def __init__(self, folder: Path, endpoints: dict[str, providers.Endpoint], models: dict, forks: dict[str, str]):
        self.folder, self.endpoints, self.models, self.forks = folder, endpoints, models, forks

    @property
    def sets(self) -> list[str]:
        roles = [f"{role}={self.models[role][0]}@{endpoint.url}" for role, endpoint in self.endpoints.items()]
        return [word for text in [*roles, *BUDGETS, *STUDENTS] for word in ("--set", text)]

    @property
    def environment(self) -> dict[str, str]:
        names = {role: f"KEY_OF_{role.upper()}" for role in self.endpoints}
        keys = ",".join(f"{endpoint.host}={names[role]}" for role, endpoint in self.endpoints.items())
        return {names[role]: key_of(role) for role in self.endpoints} | {
            "DISTIL_KEYS": keys,
            "DISTIL_HOME": str(self.folder),
            "DISTIL_CACHE": str(self.folder / "cache"),
            "DISTIL_CONCURRENCY": str(AT_ONCE),
            "PYTHONPATH": str(ROOT),
        }

    def command(self, *more: str) -> list[str]:
        return [sys.executable, "-m", "distil", "run", "--profile", "smoke", "--run", "t", *self.sets, *more]

    def start(self, *more: str) -> subprocess.Popen:
        """A process of its own, with kernels of its own."""
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(self.command(*more), env=os.environ | self.environment, start_new_session=True, **quiet)

    def run(self, *more: str) -> str:
        """What it printed; it must come to its end."""
        done = warm.run(self.command(*more), env=os.environ | self.environment | self.forks, timeout=900)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def file(self, name: str) -> Path:
        return self.folder / "artifacts" / "t" / name


def key_of(role: str) -> str:
    return f"sk-{role.replace('_', '-')}-4f1c9e"


def asked(endpoint: providers.Endpoint) -> Counter:
    """How often each request was answered; only `max_tokens` to `seed` make a request, not how it is sent."""
    return Counter(json.dumps(body, sort_keys=True) for body in endpoint.requests)


@contextmanager
def served(folder: Path, models: dict, forks: dict[str, str]) -> Iterator[Setting]:
    """A project folder, and the endpoints of `models` by role."""
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    mind = Mind({problem.question: problem.answer for problem in generate("starter", 48, 8, 0)})
    with ExitStack() as stack:
        endpoints = {
            role: stack.enter_context(providers.serve(behind, mind, key=key_of(role), pause=0.02))
            for role, (_, behind) in models.items()
        }
        yield Setting(folder, endpoints, models, forks)


@pytest.fixture(scope="module")
def setting(tmp_path_factory, parent) -> Iterator[Setting]:
    with served(tmp_path_factory.mktemp("recipe"), MODELS, parent) as found:
        yield found


@pytest.fixture(scope="module")
def piloted(setting) -> str:
    """What a pilot of six problems printed, before the run."""
    return setting.run("--pilot", "6")


@pytest.fixture(scope="module")
def collected(setting, piloted) -> str:
    """What the run of 01 to 03 printed that was given again after it was killed; the pilot's requests are forgotten."""
    for endpoint in setting.endpoints.values():
        endpoint.requests.clear()
    slow = setting.endpoints["slow_teacher"]
    slow.hold_at = 30
    victim = setting.start("--to", "03")
    deadline = time.time() + 240
    while len(slow.requests) < 30 and victim.poll() is None and time.time() < deadline:
        time.sleep(0.01)
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    slow.hold_at = None
    slow.release.set()
    assert 30 <= len(slow.requests) < 96, "it was killed in the middle"
    return setting.run("--to", "03")


def test_the_right_chains_of_both_teachers_are_collected(setting, collected):
    chains = read_jsonl(setting.file("01_collect/chains.jsonl"), Chain)
    for style, teacher in (("fast", "deepseek-chat"), ("slow", "deepseek-reasoner")):
        of_style = [chain for chain in chains if chain.style == style]
        assert len(of_style) == 96 and {chain.teacher for chain in of_style} == {teacher}
        assert sum(chain.correct for chain in of_style) >= 0.95 * 96
    slow = [chain for chain in chains if chain.style == "slow"]
    assert min(chain.n_tokens for chain in slow) > 2000 and max(chain.n_tokens for chain in slow) > 7000
    assert all("\\boxed" in chain.solution and "\\boxed" not in chain.thought for chain in slow)


def test_no_verdict_is_lost(setting, collected):
    aligned = read_jsonl(setting.file("03_judge/aligned.jsonl"), AlignedChain)
    assert not [row for row in aligned for entry in row.trail if entry["difficulty"] == "unrated"]
    assert {row.trail[0]["difficulty"] for row in aligned} == {"easy", "medium"}
    assert any(entry["action"] == "expand" for row in aligned for entry in row.trail if row.kept), "and mended"
    scores = read_jsonl(setting.file("03_judge/scores.jsonl"))
    assert all(row["rv"] == 3 and row["judge"] == "qwen3-32b" for row in scores)
    assert not any(endpoint.cut_off for endpoint in setting.endpoints.values())
    short = read_jsonl(setting.file("02_rewrite/chains.jsonl"), Chain)
    lost = read_jsonl(setting.file("02_rewrite/rejected.jsonl"), Chain)
    assert len(short) >= 0.95 * (len(short) + sum(chain.style == "long2short" for chain in lost))
    assert {chain.teacher for chain in short} == {"qwq-32b"} and max(chain.n_tokens for chain in short) < 1500


def test_nothing_is_asked_twice(setting, collected):
    for role, endpoint in setting.endpoints.items():
        counts = asked(endpoint)
        twice = counts.total() - len(counts)
        assert twice <= (AT_ONCE if role == "slow_teacher" else 0), f"{role}: only what was under way at the kill"
    before = {role: len(endpoint.requests) for role, endpoint in setting.endpoints.items()}
    assert setting.run("--to", "03").count("unchanged, skipped") == 3
    assert before == {role: len(endpoint.requests) for role, endpoint in setting.endpoints.items()}


def test_each_key_goes_to_its_own_host_and_into_no_file(setting, collected):
    for role, endpoint in setting.endpoints.items():
        assert set(endpoint.keys) == {f"Bearer {key_of(role)}"}, role
        assert not [words for words in endpoint.refused if "key" in words]
    files = [p for p in setting.folder.rglob("*") if p.is_file() and "cache" not in p.parts]
    assert len(files) > 30
    assert not [p for p in files if any(key_of(role).encode() in p.read_bytes() for role in MODELS)]


def test_what_was_asked_of_whom_is_on_record(setting, collected):
    for stage, roles in (
        ("01_collect", ("fast_teacher", "slow_teacher")),
        ("02_rewrite", ("rewriter",)),
        ("03_judge", ("judge", "rewriter")),
    ):
        usage = json.loads(setting.file(f"{stage}/meta.json").read_text())["figures"]["usage"]
        assert {role: used["model"] for role, used in usage.items()} == {role: MODELS[role][0] for role in roles}
        assert all(used["asked"] + used["from_store"] > 0 and used["cut_off"] == 0 for used in usage.values())


def table(said: str) -> dict[str, list[str]]:
    """The rows of the table by role: model, endpoint, requests, tokens in and out, dollars, hours, limits."""
    lines = said[said.index("role  ") :].splitlines()[1:]
    return {line.split()[0]: line.split()[1:] for line in lines if line.split() and line.split()[0] in MODELS}


def test_the_pilot_says_what_it_saw_and_what_the_run_will_take(setting, piloted, collected):
    assert "slow chains right: 12 of 12 (100%)" in piloted
    assert re.search(r"judged chains unrated: 0 of \d+ \(0%\)", piloted)
    assert "01 slow_teacher: cut off at the token limit: 0 of" in piloted
    assert "seen in run 't-pilot'" in piloted and "assumed" not in piloted
    rows = table(piloted)
    usage = json.loads(setting.file("01_collect/meta.json").read_text())["figures"]["usage"]
    for role, used in usage.items():
        model, endpoint, requests, _, tokens_out = rows[role][:5]
        assert (model, endpoint) == (MODELS[role][0], setting.endpoints[role].url)
        truly = used["asked"] + used["from_store"], used["asked_completion_tokens"] + used["stored_completion_tokens"]
        for said, true in zip((requests, tokens_out), truly, strict=True):
            assert int(said.replace(",", "")) == pytest.approx(true, rel=0.35), "from an eighth of the problems"


def test_all_seven_notebooks_with_the_tiny_student(setting, collected):
    said = setting.run()
    assert said.count("unchanged, skipped") == 3 and "| student | accuracy (95% CI) |" in said
    results = setting.file("07_eval/results.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in results[1:]] == ["base", "fast", "preferred", "reinforced"]


def test_other_servers_play_the_same_roles(tmp_path, parent):
    """OpenAI's newest refuses max_tokens and a temperature; vLLM, SGLang and a server without a parser think aloud."""
    with served(tmp_path / "others", OTHERS, parent) as setting:
        setting.run("--to", "03", "--set", "samples=1")
        chains = read_jsonl(setting.file("01_collect/chains.jsonl"), Chain)
        assert sum(chain.correct for chain in chains) >= 0.95 * 96
        assert (
            min(chain.n_tokens for chain in chains if chain.style == "slow")
            > 300
            > max(chain.n_tokens for chain in chains if chain.style == "fast")
        ), "a fast chain is what was said"
        short = read_jsonl(setting.file("02_rewrite/chains.jsonl"), Chain)
        assert len(short) >= 0.9 * 48 and not any("</think>" in chain.full_text for chain in [*chains, *short])
        aligned = read_jsonl(setting.file("03_judge/aligned.jsonl"), AlignedChain)
        assert not [row for row in aligned if row.trail[0]["difficulty"] == "unrated"]
        for role, endpoint in setting.endpoints.items():
            assert set(endpoint.keys) == {f"Bearer {key_of(role)}"}, role
        usage = json.loads(setting.file("01_collect/meta.json").read_text())["figures"]["usage"]
        assert usage["fast_teacher"]["left_out"] == ["max_tokens: sent as max_completion_tokens", "temperature"]
        assert sum(setting.endpoints["fast_teacher"].refused.values()) <= 2 * AT_ONCE * 2, "learned, not asked anew"


def test_chains_that_exist_are_verified_shortened_and_judged(setting):
    """A file of a reasoning model's chains takes both teachers' place; one of thirty boxes a wrong answer."""
    rows = []
    for number, problem in enumerate(generate("starter", 25, 5, 0)):
        answer = problem.answer if number else "nonsense"
        words = " ".join(thought(problem.question, 0, 500, 900))
        rows.append({"question": problem.question, "answer": problem.answer, "teacher": "r1", "rv": 7, "cd": 2})
        rows[-1] |= {"output": f"<think>\n{words}\n</think>\n\nThis comes to {answer}.\n\n\\boxed{{{answer}}}"}
    file = setting.folder / "r1.json"
    file.write_text("\ufeff" + json.dumps(rows), encoding="utf-8")
    sets = [f"chains={file}", "fast_teacher=none", "n_train=24", "n_test=6", "min_share=0.05"]
    before = [len(setting.endpoints[role].requests) for role in ("fast_teacher", "slow_teacher")]
    setting.run("--run", "existing", "--to", "03", *(word for text in sets for word in ("--set", text)))
    assert before == [len(setting.endpoints[role].requests) for role in ("fast_teacher", "slow_teacher")]
    folder = setting.folder / "artifacts" / "existing"
    chains = read_jsonl(folder / "01_collect/chains.jsonl", Chain)
    assert {chain.style for chain in chains} == {"slow"} and {chain.teacher for chain in chains} == {"r1"}
    assert len(chains) - sum(chain.correct for chain in chains) <= 1 and len(chains) >= 20
    short = read_jsonl(folder / "02_rewrite/chains.jsonl", Chain)
    assert len(short) >= 0.9 * sum(chain.correct for chain in chains)
    assert any(row.kept for row in read_jsonl(folder / "03_judge/aligned.jsonl", AlignedChain))
    scores = read_jsonl(folder / "03_judge/scores.jsonl")
    given = [row for row in scores if row["judge"] == "data set"]
    assert given and all((row["rv"], row["cd"]) == (7, 2) for row in given), "what a data set says is not asked for"


def refused(setting: Setting, monkeypatch, capsys, *more: str, without: str = "") -> str:
    """What a command says that must be refused before anything is asked or written."""
    for name, value in setting.environment.items():
        monkeypatch.setenv(name, value)
    if without:
        monkeypatch.delenv(without)
    before = [len(endpoint.requests) for endpoint in setting.endpoints.values()]
    code = main(["run", "--profile", "smoke", "--run", "bad", *setting.sets, *more])
    said = capsys.readouterr().err
    assert code == 2 and said.count("\n") == 1, said
    assert before == [len(endpoint.requests) for endpoint in setting.endpoints.values()]
    assert not (setting.folder / "artifacts" / "bad").exists()
    return said


def test_a_key_that_is_missing_for_one_role_of_four(setting, monkeypatch, capsys):
    said = refused(setting, monkeypatch, capsys, without="KEY_OF_JUDGE")
    assert "KEY_OF_JUDGE" in said and setting.endpoints["judge"].host in said


def test_a_role_without_a_model(setting, monkeypatch, capsys):
    said = refused(setting, monkeypatch, capsys, "--set", f"judge=@{setting.endpoints['judge'].url}")
    assert "judge" in said and "model" in said


def test_a_judge_that_has_no_room_to_think(setting, monkeypatch, capsys):
    said = refused(setting, monkeypatch, capsys, "--set", "verdict_tokens=48")
    assert "judge: qwen3-32b thinks before it answers, and 48 tokens" in said
    assert "--set 03_judge.verdict_tokens=8192" in said


def test_a_budget_over_the_models_context(setting, monkeypatch, capsys):
    with providers.serve(providers.VLLM, Mind({})) as endpoint:
        rewriter = f"rewriter=Qwen/QwQ-32B@{endpoint.url}"
        said = refused(setting, monkeypatch, capsys, "--set", rewriter, "--set", "rewrite_tokens=40000")
        assert "40000" in said.replace(",", "") and "32768" in said.replace(",", "") and "rewrite" in said
        assert not endpoint.requests
