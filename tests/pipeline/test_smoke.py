"""All seven notebooks, headless, with a tiny student and the real recording; then killed, changed and repeated.

They run once, in `done`, as users run them. A test that changes what they wrote works on a copy of its own, `mine`;
commands on it are forks of one process that has imported the libraries, except where they are killed.
"""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import vllm_program
import warm
from conftest import ROOT
from hub_server import TOKEN, serve_hub
from loopback import Cut

from distil.cli import main
from distil.workspace.files import read_jsonl
from distil.workspace.stage import STAGES

COMMAND = [sys.executable, "-m", "distil", "run", "--profile", "smoke", "--run", "t"]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    return folder


@pytest.fixture(scope="module")
def cache(home) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DISTIL_CACHE", str(home / "cache"))
        yield


def environment_of(home: Path) -> dict[str, str]:
    return os.environ | {"DISTIL_HOME": str(home), "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def done(home, cache) -> subprocess.CompletedProcess:
    return on_a_terminal(COMMAND, environment_of(home))


def on_a_terminal(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess:
    """Run a command that takes its output for a terminal; `stdout` has stderr in it."""
    ours, theirs = os.openpty()
    running = subprocess.Popen(command, env=environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    told = b""
    try:
        while part := os.read(ours, 4096):
            told += part
    except OSError:  # so Linux says that nobody writes any more
        pass
    os.close(ours)
    return subprocess.CompletedProcess(command, running.wait(60), told.decode().replace("\r\n", "\n"), "")


def run(home: Path, *more: str, **variables: str) -> subprocess.CompletedProcess:
    return warm.run([*COMMAND, *more], env=environment_of(home) | variables, timeout=600)


@pytest.fixture
def mine(done, forks, home, tmp_path) -> Path:
    """A copy of the finished run; what is downloaded or made of weights stays with the first one."""
    return shutil.copytree(home, tmp_path / "mine", ignore=shutil.ignore_patterns("cache"))


def meta(home: Path, stage: str) -> dict:
    return json.loads((home / "artifacts" / "t" / stage / "meta.json").read_text())


def test_the_run_ends_with_the_table(done):
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| student | accuracy (95% CI) |" in done.stdout and "report: " in done.stdout


def test_a_line_moved_while_it_ran(done):
    for stage, bar in (("04_finetune", "slow: step "), ("06_reinforce", "reinforced: step ")):
        drawn = [line for line in done.stdout.split("\r") if line.startswith(f"{stage:13} ") and bar in line]
        assert drawn and all(" min | " in line and " of " in line for line in drawn), (stage, bar)
    kept = [line.rpartition("\r")[2] for line in done.stdout.split("\n")]
    assert [line[:18] for line in kept if line[14:22] == "done in "] == [f"{stage:13} done" for stage in STAGES]


def test_every_stage_wrote_what_the_contract_says(done, home):
    for stage in STAGES:
        facts = meta(home, stage)
        assert facts["seconds"] > 0 and facts["versions"]["distil"] and facts["params"]["seed"] == 0
        assert all((home / "artifacts" / "t" / stage / name).exists() for name in facts["outputs"])
        for name, digest in facts["inputs"].items():
            source, _, file = name.partition("/")
            if file in meta(home, source)["outputs"]:
                assert meta(home, source)["outputs"][file] == digest
    counts = meta(home, "01_collect")["figures"]
    assert counts["problems"] == 56 and counts["chains"] == 192 and counts["correct"] > 0


def test_counts_in_are_counts_out(done, home):
    folder = home / "artifacts" / "t"
    slow = [c for c in read_jsonl(folder / "01_collect/chains.jsonl") if c["style"] == "slow" and c["correct"]]
    short = read_jsonl(folder / "02_rewrite/chains.jsonl")
    lost = [r for r in read_jsonl(folder / "02_rewrite/rejected.jsonl") if "-long2short" in r["id"]]
    assert len(slow) == len(short) + len(lost)
    aligned = read_jsonl(folder / "03_judge/aligned.jsonl")
    assert all(row["reason"] for row in aligned if not row["kept"])
    both = {c["problem_id"] for c in slow} & {row["problem_id"] for row in aligned}
    for name in ("fast", "slow", "shortest", "random", "adaptive"):
        rows = [row for part in ("train", "valid") for row in read_jsonl(folder / f"03_judge/{part}/{name}.jsonl")]
        assert len(rows) == len(both) and {row["problem_id"] for row in rows} == both, name


def verify(home: Path) -> tuple[int, str]:
    command = [sys.executable, "-m", "distil", "verify", "--run", "t"]
    told = warm.run(command, env=environment_of(home), timeout=120)
    return told.returncode, told.stdout + told.stderr


def test_what_is_shown_follows_from_what_is_kept(mine, monkeypatch, capsys):
    code, said = verify(mine)
    assert code == 0 and "every table and figure of 07 follows" in said, said
    monkeypatch.setenv("DISTIL_HOME", str(mine))
    folder = mine / "artifacts" / "t" / "07_eval"
    for name, change, complaint in (
        ("completions/fast.jsonl", ('"n_tokens": 24', '"n_tokens": 23'), "tokens.csv: is not what the answers give"),
        ("completions/fast.jsonl", ('"correct": false', '"correct": true'), "was stored as"),
        ("results.csv", ("fast,8,0.0,", "fast,8,0.5,"), "results.csv: is not what the answers give"),
        ("differences.jsonl", ('"difference": 0.0', '"difference": 0.1'), "differences.jsonl: is not what"),
    ):
        kept = (folder / name).read_bytes()
        before, after = (part.encode() for part in change)
        assert before in kept, (name, change)
        (folder / name).write_bytes(kept.replace(before, after, 1))
        assert main(["verify", "--run", "t"]) == 1
        (folder / name).write_bytes(kept)
        assert complaint in capsys.readouterr().out
    assert main(["verify", "--run", "t"]) == 0


def test_a_run_of_the_notebooks_can_be_kept(mine, monkeypatch, capsys):
    command = [sys.executable, "-m", "benchmarks.reference", "t"]
    told = subprocess.run(command, cwd=ROOT, env=environment_of(mine), capture_output=True, text=True, timeout=120)
    assert told.returncode == 0, told.stdout + told.stderr
    monkeypatch.setenv("DISTIL_HOME", str(mine))
    code, said = main(["verify-reference"]), capsys.readouterr().out
    assert code == 0 and "every table, figure and claim follows" in said, said
    kept = mine / "artifacts/reference"
    claimed = json.loads((kept / "claim.json").read_text())
    assert claimed["problems"] == 8 and claimed["asked_of_teacher"] is None
    assert claimed["teacher"]["where"] == "training problems"
    assert 0 < claimed["teacher"]["accuracy"]["fast"] < 1
    with open(kept / "costs.csv") as handle:
        costs = {row["stage"]: row for row in csv.DictReader(handle)}
    assert list(costs) == list(STAGES)
    trained = [
        json.loads(file.read_text())["result"]["seconds"] for file in mine.glob("artifacts/t/04_finetune/*/sft.json")
    ]
    assert float(costs["04_finetune"]["kept_minutes"]) == round(sum(trained) / 60, 2)
    assert float(costs["04_finetune"]["minutes"]) >= round(meta(mine, "04_finetune")["seconds"] / 60, 2)
    for name in ("04_finetune/slow/log.csv", "06_reinforce/reinforced/rewards.csv", "03_judge/flow.png"):
        assert (kept / name).read_bytes() == (mine / "artifacts/t" / name).read_bytes()
    assert "distil run --profile smoke --run t" in json.loads((kept / "about.json").read_text())["command"]


def test_students_were_trained_and_measured(done, home):
    folder = home / "artifacts" / "t"
    with open(folder / "07_eval/results.csv") as handle:
        results = list(csv.DictReader(handle))
    assert [r["student"] for r in results] == ["base", "slow", "fast", "preferred", "reinforced"]
    assert all(int(r["n"]) == 8 and 0 <= float(r["ci_low"]) <= float(r["accuracy"]) <= 1 for r in results)
    log = (folder / "04_finetune/fast/log.csv").read_text().splitlines()
    assert "loss" in log[0] and len(log) > 5
    adapter = json.loads((folder / "04_finetune/fast/adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "tiny-random"
    card = (folder / "07_eval/README.md").read_text()
    assert "tiny-random" in card and (folder / "07_eval/results.md").read_text() in card
    for name in (
        "07_eval/accuracy_tokens",
        "07_eval/tokens",
        "03_judge/flow",
        "04_finetune/loss",
        "06_reinforce/rewards",
    ):
        assert (folder / f"{name}.png").stat().st_size > 5000 and (folder / f"{name}.svg").exists()


def test_a_file_of_ones_own_is_trained_on_and_measured(mine):
    rows = [{"instruction": f"{i} + {i}?", "output": f"<think>\n{i} + {i}\n</think>\n\n{2 * i}"} for i in range(60)]
    (mine / "my rows.json").write_text(json.dumps(rows))
    shutil.rmtree(mine / "artifacts" / "t" / "03_judge")
    own = ["--set", f"train={mine / 'my rows.json'}", "--set", "04.epochs=2", "--set", "04.batch_size=8"]
    think = ["--set", "04.student_format=think", "--set", "07.student_format=think"]
    taught = run(mine, "--from", "04", "--to", "04", *own, *think)
    assert taught.returncode == 0, taught.stdout + taught.stderr
    params = meta(mine, "04_finetune")["params"]
    assert (params["students"], params["epochs"], params["batch_size"]) == ("my-rows", 2.0, 8)
    measured = run(mine, "--from", "07", *own, *think, "--set", "07.students=base,my-rows")
    assert measured.returncode == 0, measured.stdout + measured.stderr
    asked = json.loads((mine / "artifacts/t/07_eval/asked.json").read_text())
    assert asked["student_format"] == "think" and meta(mine, "07_eval")["figures"]["my-rows_tokens_per_answer"] > 0


def test_two_seeds_of_fast_and_slow_are_trained_and_measured(mine):
    students = "fast,slow,fast@1,slow@1"
    taught = run(mine, "--from", "04", "--to", "04", "--set", f"04.students={students}", "--set", "at_once=3")
    assert taught.returncode == 0, taught.stdout + taught.stderr
    folder = mine / "artifacts" / "t"
    beside = {log.parent.name for log in folder.glob("04_finetune/*/process.log")}
    assert beside == {"fast@1", "slow@1"}, "the others were finished"
    asked = [json.loads((folder / f"04_finetune/{name}/sft.json").read_text()) for name in students.split(",")]
    losses = [row["result"]["loss"] for row in asked]
    assert losses[0] != losses[2] and losses[1] != losses[3], "another seed is another student"
    with open(folder / "04_finetune/loss.csv") as handle:
        assert {row["series"].split()[0] for row in csv.DictReader(handle)} == {"fast", "slow"}, "one curve a recipe"
    measured = run(mine, "--from", "07", "--set", f"07.students=base,{students}")
    assert measured.returncode == 0, measured.stdout + measured.stderr
    with open(folder / "07_eval/results.csv") as handle:
        rows = {row["student"]: row for row in csv.DictReader(handle)}
    assert {name: row["seeds"] for name, row in rows.items()} == {"base": "1", "fast": "2", "slow": "2"}
    assert meta(mine, "07_eval")["outputs"].keys() >= {"by_checkpoint.csv", "completions/slow@1.jsonl"}
    gap = read_jsonl(folder / "07_eval/differences.jsonl")[-1]
    assert (gap["of"], gap["to"], gap["seeds"]) == ("fast", "slow", 2) and gap["tokens_ratio"] > 0
    assert "| fast (2 seeds) |" in measured.stdout and "| fast@1 |" in (folder / "07_eval/README.md").read_text()
    assert verify(mine)[0] == 0
    further = run(mine, "--from", "06", "--to", "06", "--set", "06.start_from=fast@1")
    assert further.returncode == 0, further.stdout + further.stderr
    assert "04_finetune/fast@1" in meta(mine, "06_reinforce")["inputs"]


def test_another_suite_is_measured_beside_the_held_out_problems(mine):
    folder = mine / "artifacts" / "t" / "07_eval"
    before = (folder / "results.csv").read_bytes()
    harder = run(mine, "--from", "07", "--set", "suite=harder?n=5&samples=3", "--set", "07.students=base,fast")
    assert harder.returncode == 0, harder.stdout + harder.stderr
    asked = json.loads((folder / "harder/asked.json").read_text())
    assert (asked["suite"], asked["samples"], asked["temperature"], asked["top_p"]) == ("harder", 3, 0.6, 0.95)
    assert asked["engine"] == "transformers" and asked["batch_size"] == 75 and asked["source"]["problems"] == 5
    for student in ("base", "fast"):
        rows = read_jsonl(folder / f"harder/completions/{student}.jsonl")
        assert sorted({(row["id"], row["sample"]) for row in rows}) == sorted(
            (row["id"], row["sample"]) for row in rows
        )
        assert len(rows) == 15
    assert (folder / "harder/pass_at_k.png").stat().st_size > 5000
    assert verify(mine)[0] == 0, "verified is what was measured last"
    table = (folder / "harder/results.md").read_text()
    assert table in harder.stdout and (folder / "results.csv").read_bytes() == before
    back = run(mine, "--from", "07")
    assert back.returncode == 0 and (folder / "results.md").read_text() in back.stdout
    assert (folder / "results.csv").read_bytes() == before, "no answer was asked for twice"


def servers_of(folder: Path) -> list[list[str]]:
    """The commands of the servers that a run has started; none of them listens any more."""
    started = [line.split() for line in (folder / "server.log").read_text().splitlines() if line.startswith("vllm")]
    for words in started:
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", int(words[words.index("--port") + 1])), timeout=5)
    return started


def test_the_notebook_starts_and_ends_its_own_servers(mine, tmp_path):
    vllm_program.put(tmp_path / "bin")
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    asked = ["--from", "07", "--set", "engine=vllm", "--set", "suite=held-out?samples=2"]
    served = run(mine, *asked, "--set", "students=teacher,base,fast", PATH=path)
    assert served.returncode == 0, served.stdout + served.stderr
    folder = mine / "artifacts" / "t"
    for student in ("teacher", "base", "fast"):
        rows = read_jsonl(folder / f"07_eval/held-out/completions/{student}.jsonl")
        assert len(rows) == 16 and all(row["text"].endswith(f"by {student}") for row in rows)
    assert json.loads((folder / "07_eval/held-out/asked.json").read_text())["engine"] == "vllm"
    names = [words[words.index("--served-model-name") + 1] for words in servers_of(folder)]
    assert names == ["teacher", "base"], "one with the teacher, one with all students"


def test_a_teacher_served_by_the_notebooks_gives_what_its_recording_gives(done, forks, home, tmp_path):
    vllm_program.put(tmp_path / "bin")
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    served = run(home, "--run", "served", "--to", "03", "--set", "endpoint=vllm", PATH=path)
    assert served.returncode == 0, served.stdout + served.stderr
    recorded, folder = home / "artifacts" / "t", home / "artifacts" / "served"
    for name in ("01_collect/chains.jsonl", "02_rewrite/chains.jsonl", "03_judge/train/fast.jsonl"):
        assert (folder / name).read_bytes() == (recorded / name).read_bytes()
    assert len(servers_of(folder)) == 3, "one a notebook"


def test_the_report_links_every_notebook(done, home):
    folder = home / "papermill_runs" / "t"
    index = (folder / "index.html").read_text()
    for stage in STAGES:
        assert f'href="{stage}.html"' in index and (folder / f"{stage}.html").stat().st_size > 100_000


def test_a_second_run_does_nothing_and_a_changed_parameter_only_what_follows(mine):
    again = run(mine, "--to", "04")
    assert again.stdout.count("unchanged, skipped") == 4, again.stdout
    changed = run(mine, "--to", "02", "--set", "02.tries=1")
    assert changed.stdout.count("unchanged, skipped") == 1 and "02_rewrite    done" in changed.stdout
    back = run(mine, "--to", "04")
    assert back.stdout.count("unchanged, skipped") == 3, "02 came out as before, so what follows it stands"
    assert "02_rewrite    done" in back.stdout


def test_a_failing_cell_is_named(mine):
    failed = run(mine, "--to", "01", "--set", "01.seed=99")
    assert failed.returncode == 1
    assert "01_collect    FAILED in cell [" in failed.stdout and "holds no answer" in failed.stdout
    assert run(mine, "--to", "01").returncode == 0


def kill_when(written: Callable[[], object], home: Path, *more: str) -> None:
    """Start the run and send SIGKILL to it and its kernel as soon as a file is there."""
    command = [*COMMAND, *more]
    victim = subprocess.Popen(command, env=environment_of(home), stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.time() + 240
    while not written() and victim.poll() is None and time.time() < deadline:
        time.sleep(0.02)
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()


def test_killed_while_measuring(home, mine):
    """SIGKILL in 07: answers that were written are kept, and all of them are those of the undisturbed run."""
    folder = mine / "artifacts/t/07_eval"
    shutil.rmtree(folder)
    kill_when((folder / "completions/slow.jsonl").exists, mine)
    assert not (folder / "results.csv").exists(), "it was killed in the middle of measuring"
    kept = (folder / "completions/base.jsonl").stat().st_mtime_ns
    again = run(mine)
    assert again.returncode == 0 and again.stdout.count("unchanged, skipped") == 6, again.stdout
    assert (folder / "completions/base.jsonl").stat().st_mtime_ns == kept, "answered once"
    for student in ("base", "slow", "fast", "preferred", "reinforced"):
        texts = [
            [(r["id"], r["text"], r["n_tokens"], r["correct"]) for r in read_jsonl(f / f"completions/{student}.jsonl")]
            for f in (folder, home / "artifacts/t/07_eval")
        ]
        assert texts[0] == texts[1], student


def test_killed_while_training(home, mine):
    """SIGKILL in 04: the next run skips 01 to 03 and ends with the losses of the undisturbed run."""
    for stage in STAGES[3:]:
        shutil.rmtree(mine / "artifacts/t" / stage)
    folder = mine / "artifacts/t/04_finetune"
    checkpoints = folder / "fast/checkpoints"
    kill_when(lambda: list(checkpoints.glob("checkpoint-*/trainer_state.json")), mine, "--to", "04")
    assert list(checkpoints.glob("checkpoint-*")), "it was killed in the middle of training"
    again = run(mine, "--to", "04")
    assert again.returncode == 0 and again.stdout.count("unchanged, skipped") == 3, again.stdout
    for student in ("fast", "slow"):
        logs = [
            json.loads((h / f"artifacts/t/04_finetune/{student}/sft.json").read_text())["result"] for h in (home, mine)
        ]
        assert logs[0]["loss"] == logs[1]["loss"] and logs[0]["valid_loss"] == logs[1]["valid_loss"]


def test_published_from_the_notebook(mine):
    """A push that is cut off fails the notebook and costs nothing; the token is in nothing that is kept."""
    with serve_hub(cut_commits) as hub:
        environment = {
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(mine / "hf"),
            "HF_HUB_DISABLE_XET": "1",
        }
        with warm.forks(ROOT, **environment) as variables:  # their parent has read them
            command = ["--from", "07", "--set", "push=fast,data", "--set", "repository=me/tiny"]
            failed = run(mine, *command, **variables)
            assert failed.returncode == 1 and "the connection to" in failed.stdout, failed.stdout + failed.stderr
            hub.fault = lambda *_: None
            sent = run(mine, *command, **variables)
            assert sent.returncode == 0, sent.stdout + sent.stderr
            card = (mine / "artifacts/t/07_eval/README.md").read_bytes()
            notebook = json.loads((mine / "papermill_runs/t/07_eval.ipynb").read_text())
            pulled = run(mine, "--from", "07", "--set", "students=base,fast,me/tiny", **variables)
            assert pulled.returncode == 0, pulled.stdout + pulled.stderr
        student, data = hub.repositories["model", "me/tiny"], hub.repositories["dataset", "me/tiny-data"]
    assert student["private"] and data["private"]
    assert student["files"]["README.md"] == card
    assert data["files"]["fast/train.jsonl"] == (mine / "artifacts/t/03_judge/train/fast.jsonl").read_bytes()
    with open(mine / "artifacts/t/07_eval/results.csv") as handle:
        rows = {row.pop("student"): row for row in csv.DictReader(handle)}
    timed = ("seconds_per_answer", "tokens_per_second")
    fast, again = ({k: v for k, v in rows[name].items() if k not in timed} for name in ("fast", "me/tiny"))
    assert fast == again, "what was pulled answers as what was pushed"
    assert "widgets" not in notebook["metadata"]
    printed = "".join(
        "".join(o.get("text", "")) for c in notebook["cells"] if c["cell_type"] == "code" for o in c["outputs"]
    )
    assert f"{hub.url}/me/tiny\n" in printed and f"{hub.url}/datasets/me/tiny-data\n" in printed
    kept = [p for folder in ("papermill_runs/t", "artifacts/t") for p in (mine / folder).rglob("*") if p.is_file()]
    assert not [p for p in kept if TOKEN.encode() in p.read_bytes()]
    assert run(mine, "--to", "06").stdout.count("unchanged, skipped") == 6, "publishing changed no stage's files"


def cut_commits(method: str, path: str, hub) -> None:
    if "/commit/" in path:
        raise Cut
