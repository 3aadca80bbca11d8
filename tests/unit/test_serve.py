"""`distil serve`: the command for vLLM, or what stands in its way."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from distil.cli import main
from distil.stage import run_folder


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
