"""Bad input is found before anything starts: one clear line, exit code 2, nothing written."""

import json
import shutil
import socket
import subprocess
import sys

import pytest

from distil.cli import main
from distil.evaluate import engines, suites
from distil.pipeline import preflight
from distil.publish import facts
from distil.workspace.files import write_text
from distil.workspace.parameters import effective
from distil.workspace.profiles import DISK_GB, PROFILES
from distil.workspace.stage import RESPONSES, STAGES, Lock, run_folder


@pytest.mark.parametrize(("arguments", "message"), [
    (["--profile", "cqu"], "unknown profile 'cqu'; did you mean 'cpu'?"),
    (["--from", "09"], "unknown stage '09'"),
    (["--from", "05", "--to", "03"], "lies after"),
    (["--set", "learning_rat=1"], "unknown parameter 'learning_rat'; did you mean 'learning_rate'?"),
    (["--set", "04.votes=1"], "unknown parameter 'votes'"),
    (["--set", "n_train=many"], "01_collect.n_train='many': expected int"),
    (["--set", "n_train=1.5"], "expected int"),
    (["--set", "turns=perhaps"], "01_collect.turns='perhaps': expected bool, like False"),
    (["--set", "04.learning_rate=nan"], "expected float, like 0.001"),
    (["--set", "push=quick", "--set", "repository=me/tiny"], "push='quick': name one of the students that 07 measures"),
    (["--set", "push=merged", "--set", "repository=me/tiny"], "name one of the students"),
    (["--set", "push=fast"], "repository '': write OWNER/NAME"),
    (["--set", "push=fast", "--set", "repository=me/tiny/x"], "write OWNER/NAME"),
    (["--set", "push=fast", "--set", "repository=me/ti ny"], "Repo id must use alphanumeric chars"),
    (["--set", "push=fast", "--set", f"repository=me/{'x' * 95}"], "is 96: 'me/xxx"),
    (["--set", "push=fast", "--set", "repository=me/tiny"], "set HF_TOKEN, or give `hf auth login`"),
    (["--set", "n_train"], "write [stage.]name=value"),
    (["--set", "run=x"], "named by --run"),
    (["--run", "a/b"], "run name"),
    (["--set", "endpoint=https://api.deepseek.com/v1"], "needs a key"),
    (["--set", "endpoint=recorded:none"], "no recording 'none'"),
    (["--set", "problems=mine.jsonl"], "no such file"),
    (["--set", "suite=enigma"], "no suite 'enigma'; there are: held-out, harder"),
    (["--set", "suite=aime2024?samples=none"], "n and samples are whole numbers"),
    (["--set", "engine=llama"], "engine 'llama': use transformers:75, paged, vllm, or a URL"),
    (["--set", "engine=https://api.deepseek.com/v1"], "needs a key"),
    (["--set", "endpoint=http://localhost:99999/v1"], "v1: the port is a number from 1 to 65535"),
    (["--set", "engine=http://localhost:port/v1"], "v1: the port is a number from 1 to 65535"),
    (["--set", "07.students=base,teacher"], "the teacher answers through a server only: give engine=vllm"),
    (["--set", "min_share=2"], "min_share=2: a share lies between 0 and 1"),
    (["--set", "slow_teacher=r1@vllm"], "slow_teacher: r1 thinks before it answers, and 1024 tokens would end within"),
    (["--set", "fast_teacher=none", "--set", "slow_teacher=none"], "and chains names no file"),
    (["--set", "judge=@vllm"], "judge: no model is named"),
    (["--set", "chains=mine.jsonl"], "mine.jsonl"),
    (["--set", "04.epochs=-1"], "epochs=-1.0: epochs is 0 or more"),
    (["--set", "problems=enigma"], "no problem suite 'enigma'"),
    (["--set", "problems=hub:enigma"], "hub:enigma: no ready-made map of that name; there are: gsm8k"),
    (["--set", "chains=r1.jsonl"], "r1.jsonl: no such file"),
    (["--set", "min_share=1.5"], "a share lies between 0 and 1"),
    (["--set", "judge=none"], "judge=none: only fast_teacher and slow_teacher can be left out"),
    (["--set", "judge=foo@HTTPS://api.deepseek.com/v1"], "judge=foo@HTTPS://api.deepseek.com/v1: HTTPS://api"),
    (["--set", "judge=foo@api.deepseek.com/v1"], "behind the @ is no endpoint"),
    (["--set", "judge=foo@"], "nothing behind the @ is no endpoint"),
    (["--set", "fast_tokens=-5"], "01_collect.fast_tokens=-5: give 1 or more"),
    (["--set", "samples=0"], "01_collect.samples=0: give 1 or more"),
    (["--set", "slow_teacher=none"], "--set 04_finetune.students=fast"),
    (["--set", "train=mine.jsonl"], "give --from 04 --to 04"),
    (["--from", "04", "--to", "04", "--set", "train=mine.jsonl"], "mine.jsonl: no such file"),
    (["--set", "lora_rank=0"], "lora_rank=0: lora_rank is 1 or more"),
    (["--set", "at_once=0"], "at_once=0: give 1, or how many students are trained side by side"),
    (["--set", "04.at_once=many"], "04_finetune.at_once='many': expected int, like 1"),
    (["--set", "04.student_format=think"], "student_format must be the same in all stages"),
    (["--set", "problems=starter?against=exam.jsonl"], "no such file"),
])  # fmt: skip
def test_refused(project, capsys, arguments, message):
    assert main(["run", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (project / "artifacts").exists() and not (project / "papermill_runs").exists()


def test_pages_that_could_not_be_written(project, capsys, monkeypatch):
    """An hour of answers on, a stage must not fail for want of a template."""
    monkeypatch.setattr("nbconvert.exporters.templateexporter.jupyter_path", lambda *names: [])
    assert main(["run"]) == 2
    assert "no pages can be written of the executed notebooks: No template" in capsys.readouterr().err
    assert not (project / "artifacts").exists()


def test_numbers_as_people_write_them(project, capsys):
    sets = ["04.learning_rate=1e-4", "07.max_new_tokens=12", "turns=true", "06.learning_rate=1"]
    assert main(["run", *(word for text in sets for word in ("--set", text)), "--dry-run"]) == 0
    said = capsys.readouterr().out.partition("\n\n")[0]  # below stands what will be asked
    lines = {line.split()[0]: json.loads(line.split(maxsplit=1)[1]) for line in said.splitlines()}
    assert lines["04_finetune"]["learning_rate"] == 1e-4 and lines["07_eval"]["max_new_tokens"] == 12
    assert lines["01_collect"]["turns"] is True and lines["06_reinforce"]["learning_rate"] == 1.0


def test_values_of_another_type_in_a_profile(project, capsys, monkeypatch):
    monkeypatch.setitem(PROFILES, "mine", {"04_finetune": {"learning_rate": "1e-4", "train_tokens": True}})
    monkeypatch.setitem(DISK_GB, "mine", 0)
    assert main(["run", "--profile", "mine", "--dry-run"]) == 2
    assert "04_finetune.train_tokens=True: expected int, like 40000" in capsys.readouterr().err
    monkeypatch.setitem(PROFILES, "mine", {"04_finetune": {"learning_rate": "1e-4", "train_tokens": 9}})
    found = effective("mine", "r", ["train_tokens=8"])["04_finetune"]
    assert (found["learning_rate"], found["train_tokens"]) == (1e-4, 8), "--set comes last"


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_gives_parameters_that_can_be_meant(project, monkeypatch, profile):
    for name in ("DEEPSEEK_API_KEY", "DASHSCOPE_API_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setattr(preflight, "check_model", lambda role, tokens: None)  # it asks the endpoints
    values = effective(profile, "r", [])
    asked = preflight.roles_asked(list(STAGES), values)
    assert [one.role for one in asked] == ["fast_teacher", "slow_teacher", "rewriter", "judge", "rewriter"]
    for one in asked:
        preflight.check_budget(one)
    preflight.check_training(values["04_finetune"])
    suites.read(values["07_eval"]["suite"])
    engines.read(values["07_eval"]["engine"])
    taught = values["04_finetune"]["students"].split(",")
    assert {name.partition("@")[0] for name in taught} <= set(facts.SETS)
    assert set(values["07_eval"]["students"].split(",")) <= {"teacher", "base", "preferred", "reinforced", *taught}
    assert profile in DISK_GB


def test_a_server_that_is_not_there(project, capsys, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
    command = ["run", "--set", f"endpoint={endpoint}"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert (
        f"nobody listens at {endpoint} (Connection refused): start the server there" in said and said.count("\n") == 1
    )
    assert not (project / "artifacts").exists() and main([*command, "--dry-run"]) == main(["run", "--dry-run"]) == 0
    write_text(run_folder("cpu") / RESPONSES, "")  # answers are kept: they may be all that is needed
    monkeypatch.setattr("distil.pipeline.driver.run_stage", lambda *_: False)
    assert main(command) == 1


def test_a_bad_line_of_the_users_file(project, capsys):
    (project / "mine.jsonl").write_text('{"question": "1+1?", "answer": "2"}\n{"question": "2+2?"}\n')
    assert main(["run", "--set", "problems=mine.jsonl"]) == 2
    assert "mine.jsonl, line 2: field `answer` is missing" in capsys.readouterr().err


def test_code_alone_can_be_collected_but_not_learned(project, capsys, no_sandbox):
    row = '{"question": "Add %d.", "verifier": "code", "tests": ["f() == 1"]}\n'
    (project / "code.jsonl").write_text("".join(row % i for i in range(4)))
    command = ["run", "--dry-run", "--set", "problems=code.jsonl", "--set", "n_test=2"]
    assert main(command) == 2
    assert "add --to 01" in capsys.readouterr().err
    assert main([*command, "--to", "01"]) == 0


def test_another_run_is_writing(project, capsys):
    import subprocess
    import sys

    code = "import time; from distil.workspace.stage import *; Lock(run_folder('cpu'))"
    code += "; print('in', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "in\n"
        assert main(["run"]) == 2
        assert "another process is writing" in capsys.readouterr().err
    finally:
        other.kill()
        other.wait()
    Lock(run_folder("cpu")).release()


def test_too_little_disk(project, capsys, monkeypatch):
    usage = shutil.disk_usage(project)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=10**8))
    assert main(["run"]) == 2
    assert "0.1 GB of disk are free" in capsys.readouterr().err


def test_status_and_doctor(project, capsys):
    assert main(["status", "--run", "nope"]) == 1
    assert "no run 'nope'" in capsys.readouterr().out
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "dtype" in said and "vllm " in said


def test_a_reader_may_go_away(project):
    """`distil doctor | head -1` ends without a word of its own."""
    command = [sys.executable, "-u", "-m", "distil", "doctor"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("project")
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()


def test_a_folder_without_notebooks_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DISTIL_HOME", str(tmp_path))
    assert main(["run"]) == 2
    said = capsys.readouterr().err
    assert (
        "01_collect.ipynb is missing: run this in the folder that holds `notebooks/`" in said and said.count("\n") == 1
    )


RIGHT = {"question": "What is 2 + 2?", "answer": "4", "output": "2 + 2 = 4\n\n\\boxed{4}"}
GBK = json.dumps(RIGHT | {"question": "二加二是多少"}, ensure_ascii=False).encode("gbk")


@pytest.mark.parametrize("parameter, content, message", [
    ("chains", [RIGHT | {"question": f"Q{i}", "answer": "5"} for i in range(30)], "line 1"),
    ("chains", [RIGHT, RIGHT | {"question": "Q", "output": " "}], "line 2"),
    ("chains", [RIGHT, {"question": "Q", "answer": "4", "generations": ["\\boxed{4}"]}], "line 2"),
    ("chains", GBK, "not UTF-8"),
    ("train", [{"instruction": "Q", "output": "4"}, {"instruction": "Q", "output": ""}], "line 2"),
    ("train", [{"instruction": "Q", "output": "4"}, {"messages": []}], "line 2"),
    ("train", GBK, "not UTF-8"),
    ("problems", GBK, "not UTF-8"),
])  # fmt: skip
def test_a_file_of_ones_own_that_cannot_be_meant(project, capsys, parameter, content, message):
    """Found before anything is asked: exit code 2, one line, nothing written."""
    file = project / "mine.jsonl"
    file.write_bytes(content if isinstance(content, bytes) else "\n".join(map(json.dumps, content)).encode())
    stages = ["--from", "04", "--to", "04"] if parameter == "train" else []
    sets = [f"{parameter}=mine.jsonl", "n_train=20", "n_test=2"]  # below the project folder, wherever one is
    assert main(["run", *stages, *(word for text in sets for word in ("--set", text))]) == 2
    said = capsys.readouterr().err
    assert "mine.jsonl" in said and message in said and said.count("\n") == 1, said
    assert not (project / "artifacts").exists()
