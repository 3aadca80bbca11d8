"""Pushing and pulling through the real client, to a Hub on this machine: what arrives is what was sent."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import small_run
from conftest import ROOT
from hub_server import READ_ONLY, TOKEN, serve_hub
from huggingface_hub import snapshot_download
from loopback import Cut

from distil.cli import main
from distil.models.student import encode_prompt, load_tokenizer
from distil.publish import leaks, upload
from distil.publish.layout import lay_out
from distil.workspace.errors import StageError
from distil.workspace.files import sha256
from distil.workspace.stage import Stage, run_folder

PUSH = ["push", "fast,data", "me/tiny", "--run", "r"]


def outside(home: Path, url: str, *arguments: str) -> list:
    """(command, environment) of another process that knows this Hub by its environment alone."""
    environment = os.environ | {"HF_ENDPOINT": url, "HF_HOME": str(home / "hf"), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return [sys.executable, "-m", "distil", *arguments], environment


def arrived(server, kind: str, name: str) -> dict[str, bytes]:
    files = dict(server.repositories[kind, name]["files"])
    files.pop(".gitattributes")
    return files


def planned(home: Path, name: str) -> dict[str, bytes]:
    folder = home / "artifacts/r/07_eval/publish" / name.replace("/", "--")
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_arrives_is_byte_for_byte_what_was_planned(server, home, capsys):
    assert main(["push", "fast,merged,reward,data", "me/tiny", "--run", "r"]) == 0
    kinds = {"me/tiny": "model", "me/tiny-merged": "model", "me/tiny-reward": "model", "me/tiny-data": "dataset"}
    assert {name for _, name in server.repositories} == set(kinds)
    for name, kind in kinds.items():
        assert server.repositories[kind, name]["private"] is True
        assert arrived(server, kind, name) == planned(home, name) != {}
    student = arrived(server, "model", "me/tiny")
    source = home / "artifacts/r/04_finetune/fast"
    assert student["adapter_model.safetensors"] == (source / "adapter_model.safetensors").read_bytes()
    assert "log.csv" not in student and "results/results.csv" in student
    train = (home / "artifacts/r/03_judge/train/fast.jsonl").read_bytes()
    assert arrived(server, "dataset", "me/tiny-data")["fast/train.jsonl"] == train
    assert TOKEN not in "".join(capsys.readouterr())
    uploads, commits = len(server.uploads()), len(server.commits)
    assert main(["push", "fast,merged,reward,data", "me/tiny", "--run", "r"]) == 0  # ours already: nothing new to send
    assert len(server.uploads()) == uploads and len(server.commits) == commits


def test_weights_are_merged_only_where_memory_allows(server, home, monkeypatch, capsys):
    import psutil

    with monkeypatch.context() as patched:
        patched.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
        assert main(["push", "fast,merged", "me/tiny", "--run", "r"]) == 2
    assert "merging fast takes about" in capsys.readouterr().err and not server.commits


def test_publishing_leaves_the_run_as_it_was(server, home):
    before = sha256(home / "artifacts/r/04_finetune/fast")
    assert main(PUSH) == 0
    assert sha256(home / "artifacts/r/04_finetune/fast") == before


def test_a_killed_push_goes_on_with_what_is_missing(home):
    room, go = threading.Semaphore(2), threading.Event()

    def fault(method, path, server):
        if method == "PUT" and not go.is_set() and not room.acquire(blocking=False):
            go.wait(60)
            raise Cut  # the process that sent it is dead

    with serve_hub(fault) as server:
        command, environment = outside(home, server.url, "push", "data", "me/tiny", "--run", "r")
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(server.blobs) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        first = set(server.blobs)
        assert len(first) == 2 and not server.commits
        go.set()
        seen = len(server.seen)
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        again = {path.rpartition("/")[2] for method, path in server.seen[seen:] if method == "PUT"}
        assert again and not again & first, "what had arrived was not sent again"
        assert arrived(server, "dataset", "me/tiny-data") == planned(home, "me/tiny-data")


def test_a_connection_cut_in_the_middle_is_tried_again(home, monkeypatch):
    cut = []

    def fault(method, path, server):
        if method == "PUT" and not cut:
            cut.append(path)
            raise Cut

    with serve_hub(fault) as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        assert main(["push", "data", "me/tiny", "--run", "r"]) == 0
        assert server.uploads().count(cut[0]) == 2
        assert arrived(server, "dataset", "me/tiny-data") == planned(home, "me/tiny-data")


def test_a_network_that_is_gone(server, home, monkeypatch, capsys):
    def gone(*_):
        raise Cut

    assert main([*PUSH, "--dry-run"]) == 0
    server.fault = gone
    assert main(PUSH) == 2
    said = capsys.readouterr().err
    assert f"the connection to {server.url} was cut or never made" in said and "same command again" in said
    assert TOKEN not in said and not server.repositories


def test_a_network_that_goes_while_the_commit_is_sent(server, home, capsys):
    def gone(method, path, _):
        if "/commit/" in path:
            raise Cut

    server.fault = gone
    assert main(["push", "data", "me/tiny", "--run", "r"]) == 2
    assert "me/tiny-data: the connection to" in capsys.readouterr().err
    server.fault = lambda *_: None
    seen = len(server.seen)
    assert main(["push", "data", "me/tiny", "--run", "r"]) == 0
    assert not [path for method, path in server.seen[seen:] if method == "PUT"], "all had arrived but the commit"
    assert arrived(server, "dataset", "me/tiny-data") == planned(home, "me/tiny-data")


@pytest.mark.parametrize(("token", "repository", "message"), [
    ("hf_" + "wrong" * 8, "me/tiny", "the Hub does not know this token"),
    (READ_ONLY, "me/tiny", "this token may only read"),
    (TOKEN, "them/tiny", "this token writes for me, team, not for 'them'"),
    ("", "me/tiny", "set HF_TOKEN, or give `hf auth login`"),
])  # fmt: skip
def test_a_token_that_will_not_do(server, monkeypatch, capsys, token, repository, message):
    monkeypatch.setenv("HF_TOKEN", token)
    assert main(["push", "fast", repository, "--run", "r"]) == 2
    said = "".join(capsys.readouterr())
    assert message in said and not server.repositories
    assert not token or token not in said


def test_the_token_that_was_stored_by_login_is_taken_where_none_is_set(server, home, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    (home / "stored-token").write_text(TOKEN + "\n")
    assert main(PUSH) == 0


def test_a_name_that_is_taken(server, capsys):
    files = {".gitattributes": b"", "config.json": b"{}", "README.md": b"---\ntags: [mine]\n---\n"}
    server.repositories["model", "me/tiny"] = {"private": False, "files": dict(files)}
    assert main(PUSH) == 2
    assert "me/tiny is taken: it holds files, and distil did not put them there" in capsys.readouterr().err
    assert server.repositories["model", "me/tiny"]["files"] == files and len(server.repositories) == 1


def test_a_run_that_cannot_publish_does_not_begin(server, home, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "wrong" * 8)
    assert main(["run", "--run", "new", "--set", "push=fast", "--set", "repository=me/tiny"]) == 2
    assert "does not know this token" in capsys.readouterr().err
    assert not (home / "artifacts/new").exists()


def test_a_dry_run_lists_every_file_and_needs_nobody(home, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    assert main([*PUSH, "--dry-run"]) == 0
    said = capsys.readouterr().out
    for name in ("me/tiny", "me/tiny-data"):
        for file, data in planned(home, name).items():
            assert f"{len(data):>14,}  {file}\n" in said
        assert planned(home, name)["README.md"].decode() in said
    assert "left out  log.csv" in said


SECRET = "".join(("hf", "_", "A1b2" * 9))


@pytest.mark.parametrize(("name", "content", "message"), [
    ("adapter_config.json", f'{{"note": "{SECRET}"}}', "holds a Hugging Face token"),
    ("chat_template.jinja", "sk-" + "a1" * 12, "holds an API key"),
    ("tokenizer_config.json", "-----BEGIN PRIVATE KEY-----", "holds a secret (Private Key)"),
    ("tokenizer_config.json", "my own secret", "holds the value of TEACHER_API_KEY"),
    ("adapter_config.json", '{"base": "/mnt/models/x"}', "holds the path /mnt/models"),
    ("optimizer.pt", "", "optimizer.pt: state of a trainer"),
    ("checkpoints/checkpoint-4/model.safetensors", "", "cache or checkpoint"),
    (".cache/x.json", "{}", "cache or checkpoint"),
    ("pytorch_model.bin", "", "pickle"),
    (".env", "KEY=1", "key file"),
])  # fmt: skip
def test_what_must_not_leave_is_refused(home, tmp_path, monkeypatch, name, content, message):
    monkeypatch.setenv("TEACHER_API_KEY", "my own secret")
    folder = tmp_path / "student"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text(content)
    with pytest.raises(StageError, match="me/x is not published") as error:
        lay_out("r", "me/x", "model", source=folder, more=[], texts={"README.md": "# x\n"})
    assert message in str(error.value) and SECRET not in str(error.value)
    assert not planned(home, "me/x"), "nothing is left that could be sent"


def test_weights_that_name_a_path_of_this_machine(home, tmp_path):
    import torch
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {"base": str(home / "models")})
    found = leaks.problems([("a.safetensors", tmp_path / "a.safetensors")])
    assert f"a.safetensors: holds the path {home.resolve()}" in found


def test_weights_that_are_not_those_that_were_measured(home):
    (home / "artifacts/r/04_finetune/fast/adapter_config.json").write_text('{"r": 8}')
    with pytest.raises(StageError, match="04_finetune/fast of run 'r' was changed after 04_finetune wrote it"):
        upload.plan("r", "fast", "me/tiny", small_run.STUDENTS)


def test_pulled_again_it_is_the_same_and_a_row_of_07(server, home):
    from distil.models.published import place

    assert main(PUSH) == 0
    stage = Stage("s", "07_eval")
    folder, weights = place("me/tiny", "base", stage)
    assert weights == f"me/tiny@{'a' * 40}"
    for name, data in arrived(server, "model", "me/tiny").items():
        assert (Path(folder) / name).read_bytes() == data
    messages = [{"role": "user", "content": "2 + 2?"}]
    ours = load_tokenizer(str(run_folder("r") / "04_finetune/fast"))
    assert encode_prompt(load_tokenizer(folder), messages) == encode_prompt(ours, messages)
    own, digest = place("fast", "base", Stage("r", "07_eval"))
    assert Path(own) == run_folder("r") / "04_finetune/fast" and digest == sha256(Path(own))
    assert place(own, "base", stage) == (own, digest)


def test_offline_and_unknown_models_say_what_to_do(server, monkeypatch, capsys):
    assert main(["pull", "me/none"]) == 2
    assert f"me/none is not on {server.url}, or HF_TOKEN may not read it" in capsys.readouterr().err
    assert main(["pull", "DistilQwen-ThoughtZ-7B"]) == 2
    assert "there are: DistilQwen2.5-R1-3B" in capsys.readouterr().err
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(["pull", "DistilQwen-ThoughtX-7B"]) == 2
    assert "alibaba-pai/DistilQwen-ThoughtX-7B could not be had" in capsys.readouterr().err
    assert main(PUSH) == 2
    assert "HF_HUB_OFFLINE is set" in capsys.readouterr().err


def test_endpoint_set_after_our_imports_still_holds():
    code = (
        "import os, distil.cli, distil.pipeline.driver, distil.publish.upload, distil.models.published\n"
        "import distil.models.weights, distil.models.student\n"
        "os.environ |= {'HF_ENDPOINT': 'https://mirror.example', 'HF_HUB_OFFLINE': '1'}\n"
        "from huggingface_hub import HfApi, constants\n"
        "print(HfApi().endpoint, constants.HF_HUB_OFFLINE)"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.stdout.split() == ["https://mirror.example", "True"], done.stderr


def test_modelscope_is_asked_where_it_is_named(monkeypatch):
    from distil.models.published import repository
    from distil.models.weights import from_modelscope

    monkeypatch.delenv("DISTIL_SOURCE", raising=False)
    assert repository("DistilQwen-ThoughtX-7B") == "alibaba-pai/DistilQwen-ThoughtX-7B"
    monkeypatch.setenv("UNSLOTH_USE_MODELSCOPE", "1")
    assert from_modelscope() and repository("DistilQwen-ThoughtX-7B") == "PAI/DistilQwen-ThoughtX-7B"
    monkeypatch.setenv("DISTIL_SOURCE", "hub")
    assert not from_modelscope()


def test_what_this_run_began_is_remembered(server, home):
    assert main(PUSH) == 0
    assert json.loads((home / "artifacts/r/07_eval/publish/begun.json").read_text()) == ["me/tiny", "me/tiny-data"]


@pytest.mark.network
def test_the_same_on_the_real_hub(made, tmp_path, monkeypatch):
    """Pushes to a private repository of the token's owner, pulls it back, compares, deletes it. Needs HF_TOKEN."""
    from huggingface_hub import HfApi, constants

    if not os.environ.get("HF_TOKEN"):
        pytest.skip("HF_TOKEN is not set")
    api, home = HfApi(token=os.environ["HF_TOKEN"]), tmp_path / "home"
    shutil.copytree(made, home)
    monkeypatch.setenv("DISTIL_HOME", str(home))
    monkeypatch.setenv("DISTIL_CACHE", str(home / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    name = f"{api.whoami()['name']}/distil-test-{os.getpid()}-{int(time.time())}"
    try:
        assert main(["push", "fast,data", name, "--run", "r"]) == 0
        assert api.repo_info(name).private and api.repo_info(f"{name}-data", repo_type="dataset").private
        for kind, place in (("model", name), ("dataset", f"{name}-data")):
            folder = Path(snapshot_download(place, repo_type=kind))
            for file, data in planned(home, place).items():
                assert (folder / file).read_bytes() == data
        assert main(["push", "fast,data", name, "--run", "r"]) == 0, "ours already"
        with pytest.raises(StageError, match="does not know this token"):
            monkeypatch.setenv("HF_TOKEN", "hf_" + "wrong" * 8)
            upload.check("fast", name, small_run.STUDENTS, "r")
    finally:
        for kind, place in (("model", name), ("dataset", f"{name}-data")):
            api.delete_repo(place, repo_type=kind, missing_ok=True)
