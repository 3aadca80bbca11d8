"""`distil serve` and the engine `vllm`: the command for vLLM, or what stands in its way; servers come and go."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import vllm_program
from conftest import ROOT
from factories import a_problem

from distil.cli import main
from distil.evaluate import engines
from distil.evaluate.answers import answer
from distil.llm.client import Chat
from distil.models import serve
from distil.models import vllm_server as vllm_module
from distil.models.serve import Servers
from distil.workspace.errors import StageError
from distil.workspace.stage import run_folder


@pytest.fixture
def project(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("DISTIL_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def test_vllm_gets_the_base_and_every_adapter(project):
    program = project / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(f'#!{shutil.which("sh", path="/usr/bin:/bin")}\necho served: "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    command = [sys.executable, "-m", "distil", "serve", "--run", "r", "--", "--port", "8001"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()[-1].split()
    fast, reinforced = (run_folder("r") / place for place in ("04_finetune/fast", "06_reinforce/reinforced"))
    assert said[:2] == ["served:", "serve"] and said[3:5] == ["--served-model-name", "base"]
    assert (Path(said[2]) / "config.json").exists()
    wanted = ["--max-lora-rank", "8", "--lora-modules", f"fast={fast}", f"reinforced={reinforced}", "--port", "8001"]
    assert said[-7:] == wanted, "the smallest rank vLLM knows that holds 4"


def test_without_vllm_the_command_is_said(project, capsys):
    assert main(["serve", "--run", "r"]) == 2
    said = capsys.readouterr()
    assert said.out.startswith("vllm serve ") and "not installed here" in said.err


def test_what_one_server_cannot_have_is_refused(project, capsys):
    (run_folder("r") / "06_reinforce/reinforced/adapter_config.json").unlink()
    assert main(["serve", "--run", "r"]) == 2
    assert "reinforced of run 'r' is a whole model" in capsys.readouterr().err
    for folder in ("04_finetune/fast", "06_reinforce/reinforced"):
        shutil.rmtree(run_folder("r") / folder)
    assert main(["serve", "--run", "r"]) == 2
    assert "no finished student" in capsys.readouterr().err
    assert main(["serve", "--run", "none"]) == 2
    assert "run 04_finetune first" in capsys.readouterr().err


@pytest.fixture
def vllm(project):
    """A program called vllm on the path; what it was told, and what it said."""
    vllm_program.put(project / "bin")
    return lambda: (run_folder("r") / "server.log").read_text().splitlines()


def what(url: str) -> dict:
    with urllib.request.urlopen(f"{url}/models", timeout=10) as reply:
        return json.loads(reply.read())


def test_one_server_for_all_adapters_and_another_for_the_teacher(vllm):
    servers = Servers("r")
    base, places = serve.students("r")
    url = servers.address("base", base)
    assert [row["id"] for row in what(url)["data"]] == ["base", *places]
    process = servers.server.process
    assert servers.address("fast", str(places["fast"])) == url and servers.server.process is process, "it has them all"
    teachers = servers.address("teacher", "some/teacher")
    assert what(teachers) == {"data": [{"id": "teacher"}], "model": "some/teacher"}
    assert process.poll() is not None, "one at a time: each takes the GPU's memory"
    process = servers.server.process
    servers.stop()
    assert process.poll() is not None and servers.server.process is None
    assert [line.split()[:2] for line in vllm()] == [["vllm", "serve"]] * 2


def test_a_server_takes_a_share_of_what_others_leave(vllm, monkeypatch):
    monkeypatch.setattr(vllm_module, "free_memory", lambda: (40 * 2**30, 80 * 2**30))
    servers = Servers("r")
    servers.address("teacher", "m")
    servers.stop()
    assert vllm()[-1].split()[-2:] == ["--gpu-memory-utilization", "0.45"]
    chat = Chat("m", "vllm", store=run_folder("r") / "responses.jsonl")
    chat.map([QUESTION], max_tokens=5)
    chat.close()
    assert vllm()[-1].split()[-2:] == ["--gpu-memory-utilization", "0.38"], "more is left where a student is asked, too"


def test_a_cell_that_is_run_again_leaves_no_server_behind(vllm):
    servers = Servers("r")
    servers.address("teacher", "m")
    process = servers.server.process
    servers = Servers("r")
    assert process.poll() is not None and servers.server.process is None


def test_an_adapter_from_elsewhere_is_served_on_its_base(vllm, tmp_path):
    _, places = serve.students("r")
    elsewhere = shutil.copytree(places["fast"], tmp_path / "pulled")
    servers = Servers("r")
    assert [row["id"] for row in what(servers.address("me/tiny", str(elsewhere)))["data"]] == ["base", "me/tiny"]
    servers.stop()


def test_answers_are_measured_through_it_and_a_server_starts_only_for_missing_ones(vllm, tmp_path, monkeypatch):
    problem = a_problem(question="What is 2 + 2?", answer="4")
    servers = Servers("r")
    settings = {"weights": "w", "max_new_tokens": 10, "batch_size": 3, "engine": "vllm"}
    asked = []
    monkeypatch.setattr(engines, "Chat", lambda *args, **more: asked.append(Chat(*args, **more)) or asked[-1])
    for _ in range(2):
        (row,) = answer([problem], lambda: servers.address("fast", "-"), tmp_path / "fast.jsonl", **settings)
        assert row.correct and row.text.endswith("by fast") and row.n_tokens == 3
        servers.stop()
    assert len(vllm()) == 1 and asked[0].limits.concurrency == 512


def test_a_server_that_dies_says_why(vllm):
    servers = Servers("r")
    with pytest.raises(StageError, match="vllm ended with code 1 .*server.log.*engine=.*CUDA out of memory"):
        servers.address("teacher", "broken/teacher")


def test_a_server_that_is_never_ready_is_ended(vllm, monkeypatch):
    monkeypatch.setattr(vllm_module, "START_TIMEOUT", 2)
    servers = Servers("r")
    with pytest.raises(StageError, match="vllm was not ready after 2 seconds; .*server.log.*distil serve"):
        servers.address("teacher", "asleep/teacher")
    assert servers.server.process is None


@pytest.mark.skipif(not shutil.which("setpriv"), reason="no setpriv here")
def test_a_server_ends_with_who_started_it(vllm):
    code = "from distil.models.serve import Servers; s = Servers('r')"
    code += "; print(s.address('teacher', 'm'), flush=True); input()"
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    url = parent.stdout.readline().strip()
    assert what(url)["model"] == "m"
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    for _ in range(100):
        try:
            what(url)
        except OSError:
            return
        time.sleep(0.05)
    raise AssertionError("the server outlived the kernel that started it, and keeps the GPU's memory")


QUESTION = [{"role": "user", "content": "What is 2 + 2?"}]


def test_a_teacher_of_our_own_is_served_only_when_an_answer_is_missing(vllm):
    store = run_folder("r") / "responses.jsonl"
    chat = Chat("some/teacher", "vllm", store=store)
    assert chat.limits.concurrency == 512 and not (run_folder("r") / "server.log").exists()
    (reply,) = chat.map([QUESTION], max_tokens=5)
    assert reply.text == "\\boxed{4} by some/teacher"
    url = chat.server.url
    assert what(url) == {"data": [{"id": "some/teacher"}], "model": "some/teacher"}
    chat.map([QUESTION], max_tokens=6)
    assert chat.server.url == url, "it goes on"
    chat.close()
    assert not chat.server.runs
    again = Chat("some/teacher", "vllm", store=store)
    assert again.map([QUESTION], max_tokens=5) == [reply] and not again.server.runs and len(vllm()) == 1
    again.map([QUESTION], max_tokens=7)
    chat.map([QUESTION], max_tokens=8)
    assert len(vllm()) == 3 and chat.server.runs and again.server.runs
    process = again.server.process
    del again
    assert process.poll() is not None, "it ends when nobody can ask it any more"
    chat.close()


def test_as_many_requests_as_the_environment_says(vllm, monkeypatch):
    monkeypatch.setenv("DISTIL_CONCURRENCY", "7")
    assert Chat("m", "vllm").limits.concurrency == 7 and Chat("m", "vllm", concurrency=3).limits.concurrency == 3


def test_a_teacher_that_cannot_be_served_says_why(vllm):
    with pytest.raises(StageError, match="vllm ended with code 1 .*server.log.*endpoint=recorded.*CUDA out of memory"):
        Chat("broken/teacher", "vllm", store=run_folder("r") / "responses.jsonl").map([QUESTION], max_tokens=5)


@pytest.mark.parametrize(("first", "last", "parameter"), [("01", "03", "endpoint"), ("07", "07", "engine")])
def test_without_vllm_the_run_is_refused_before_it_starts(project, capsys, first, last, parameter):
    sets = ["--set", f"{parameter}=vllm", "--set", "07.students=base"]
    asked = ["run", "--run", "r", "--from", first, "--to", last, *sets]
    assert main(asked) == 2
    assert f"{parameter}=vllm: vllm is not installed here" in capsys.readouterr().err
    assert main([*asked, "--dry-run"]) == 0
