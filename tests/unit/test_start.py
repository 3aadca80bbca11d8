"""`distil start`: the stages before a notebook come out of the package, whole, and nothing of one's own is lost."""

import ast
import io
import json
import re
import tarfile

import pytest
import small_run
from conftest import ROOT

from benchmarks import start as packing
from distil.cli import main
from distil.pipeline import progress, start
from distil.publish import leaks
from distil.workspace.files import sha256, write_jsonl, write_text
from distil.workspace.parameters import effective
from distil.workspace.stage import STAGES, needed, notebook_path, read_meta, run_folder

READ = re.compile(r'stage\.(?:read|input)\(\s*f?"(\d\d_\w+/[\w./]+)"')


def read_by(stage: str) -> list[str]:
    """The files of earlier stages that a notebook reads by name."""
    cells = json.loads(notebook_path(stage).read_text(encoding="utf-8"))["cells"]
    return READ.findall("\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"))


@pytest.mark.parametrize("stage", STAGES)
def test_a_notebook_finds_all_that_it_reads(project, capsys, stage):
    assert main(["start", stage[:2]]) == 0
    told, before = capsys.readouterr().out, STAGES[: STAGES.index(stage)]
    assert f"distil run --profile class --run class --from {stage[:2]}" in told and "  run = 'class'" in told
    for name in read_by(stage):
        assert needed("class", name).exists()
    for done in before:
        assert f"{done:13} is there, finished" in told
        for name, wrote in read_meta("class", done)["outputs"].items():
            assert sha256(needed("class", f"{done}/{name}")) == wrote, name
    assert {path.name for path in run_folder("class").iterdir()} == {".lock", *before}
    assert main(["run", "--profile", "class", "--run", "class", "--from", stage[:2], "--dry-run"]) == 0


def test_what_the_other_notebooks_name_otherwise_is_there(project):
    assert main(["start", "07"]) == 0
    assert len(read_by("05_prefer")) > 2 and not read_by("04_finetune"), "it names sets of its parameter"
    values = effective("class", "class", [])
    for name in values["04_finetune"]["students"].split(","):
        needed("class", f"03_judge/train/{name}.jsonl"), needed("class", f"03_judge/valid/{name}.jsonl")
        assert (needed("class", f"04_finetune/{name}") / "tokenizer.json").exists()
    assert "meta.json" == needed("class", "04_finetune/meta.json").name
    for name in ("05_prefer/preferred", "06_reinforce/reinforced"):
        assert (needed("class", name) / "adapter_model.safetensors").exists()


def test_no_stage_is_made_again_while_the_code_is_that_of_the_run(project, monkeypatch, capsys):
    assert main(["start", "07"]) == 0
    values = effective("class", "class", [])
    monkeypatch.setattr(progress, "asked_with", lambda stage: {})
    monkeypatch.setattr(progress, "notebook_digest", lambda stage: read_meta("class", stage)["notebook"])
    assert {stage: progress.why_again("class", stage, values[stage]) for stage in STAGES[:6]} == dict.fromkeys(
        STAGES[:6]
    )
    write_text(run_folder("class") / "04_finetune/fast/adapter_config.json", "{}")
    assert progress.why_again("class", "04_finetune", values["04_finetune"]) == "04_finetune/fast is not what it was"


def test_stages_of_other_code_are_said_to_be(project, monkeypatch, capsys):
    monkeypatch.setattr(progress, "asked_with", lambda stage: {"code": "other"})
    monkeypatch.setattr(progress, "notebook_digest", lambda stage: read_meta("class", stage)["notebook"])
    assert main(["start", "03"]) == 0
    told = capsys.readouterr().out
    assert "since then the package's code changed: without --from they would be made anew" in told


def test_the_values_for_work_by_hand_are_those_of_the_profile(project, capsys):
    assert main(["start", "04", "--run", "late"]) == 0
    told = capsys.readouterr().out.partition("cell of parameters has to say")[2]
    given = dict(re.findall(r"(?m)^  (\w+) = (.*)$", told))
    profile = effective("class", "late", [])["04_finetune"]
    usual = effective("cpu", "late", [])["04_finetune"]
    wanted = {name: value for name, value in profile.items() if name == "run" or value != usual[name]}
    assert {name: ast.literal_eval(value) for name, value in given.items()} == wanted and wanted["run"] == "late"


def test_what_is_there_already_stays_as_it_is(project, capsys):
    assert main(["start", "04"]) == 0
    place = run_folder("class")
    assert main(["start", "04"]) == 0, "the same again is no other"
    (place / "02_rewrite/chains.jsonl").unlink()
    assert main(["start", "04"]) == 0 and (place / "02_rewrite/chains.jsonl").exists(), "what was cut off is made whole"
    write_text(place / "02_rewrite/chains.jsonl", "mine\n")
    capsys.readouterr()
    assert main(["start", "06"]) == 2
    told = capsys.readouterr().err
    assert "chains.jsonl is there already" in told and "distil start 06 --run class-late" in told
    assert (place / "02_rewrite/chains.jsonl").read_text() == "mine\n"
    assert not (place / "04_finetune").exists(), "nothing was written"
    assert main(["start", "06", "--run", "class-late"]) == 0


@pytest.mark.parametrize(("arguments", "message"), [
    (["09"], "unknown stage '09'"),
    (["fine"], "unknown stage 'fine'"),
    (["05", "--run", "a/b"], "run name"),
    (["05", "--run", "reference"], "the repository's own result"),
])  # fmt: skip
def test_refused(project, capsys, arguments, message):
    assert main(["start", *arguments]) == 2
    assert message in capsys.readouterr().err and not (project / "artifacts").exists()


def test_the_kept_run_is_small_and_gives_nothing_away(project):
    assert start.KEPT_RUN.stat().st_size < packing.LIMIT_MB * 1e6
    assert main(["start", "07"]) == 0
    files = [p for stage in STAGES[:6] for p in (run_folder("class") / stage).rglob("*") if p.is_file()]
    assert leaks.problems((p.relative_to(project).as_posix(), p) for p in files) == []
    assert not [p for p in files if p.suffix == ".json" and leaks.PATHS.search(p.read_text(encoding="utf-8"))
                and p.name != "tokenizer.json"]  # fmt: skip
    about = json.loads((ROOT / "benchmarks/results/class.json").read_text())
    assert {read_meta("class", stage)["commit"] for stage in STAGES[:6]} == {about["commit"]}
    profile, values = effective("class", "class", []), {s: read_meta("class", s)["params"] for s in STAGES[:6]}
    assert all(profile[s][name] == value for s in values for name, value in values[s].items())
    accuracy = {row["student"]: row["accuracy"] for row in about["students"]}
    assert accuracy["fast"] > accuracy["base"], "the lesson shows what it is about"


def test_nothing_is_unpacked_outside_the_run(project, monkeypatch, tmp_path):
    with tarfile.open(tmp_path / "evil.tar.xz", "w:xz") as archive:
        archive.addfile(tarfile.TarInfo("01_collect/../../../evil"), io.BytesIO())
    monkeypatch.setattr(start, "KEPT_RUN", tmp_path / "evil.tar.xz")
    with pytest.raises(tarfile.FilterError):
        main(["start", "02"])
    assert not [*tmp_path.rglob("evil")]


def kept_of(run: str) -> dict[str, dict]:
    return {stage: read_meta(run, stage) for stage in STAGES[:6]}


@pytest.fixture
def packed(home, monkeypatch):
    """The finished run of a tiny student, packed as the kept one is."""
    rows = [small_run.problem(i) for i in range(16)]  # and those that its students have learned from
    rows += [small_run.problem(i).replace(id=f"train-{i}", split="train", question=f"{i} * 1 =") for i in range(12)]
    write_jsonl(run_folder("r") / "01_collect/problems.jsonl", rows)
    (home / "kept.tar.xz").write_bytes(packing.pack("r", kept_of("r")))
    monkeypatch.setattr(start, "KEPT_RUN", home / "kept.tar.xz")


def test_a_notebook_runs_on_what_was_put_there(packed, capsys):
    assert main(["start", "07", "--run", "late"]) == 0
    assert not (run_folder("late") / "06_reinforce/reward_model").exists()
    trained = run_folder("late") / "04_finetune/fast/adapter_model.safetensors"
    before = trained.stat().st_mtime_ns
    few = ["--set", "students=base,fast,reinforced", "--set", "max_new_tokens=8"]
    assert main(["run", "--profile", "smoke", "--run", "late", "--from", "07", *few]) == 0
    assert "| reinforced |" in capsys.readouterr().out and trained.stat().st_mtime_ns == before


def test_digests_are_those_of_what_is_kept(packed, monkeypatch):
    assert main(["start", "07", "--run", "late"]) == 0
    for stage, meta in kept_of("late").items():
        for name, wrote in meta["outputs"].items():
            assert sha256(needed("late", f"{stage}/{name}")) == wrote, name
        for name, wrote in meta["inputs"].items():
            assert sha256(needed("late", name)) == wrote, name
    assert (run_folder("r") / "04_finetune/fast/README.md").exists(), "peft names the base's folder in it"
    assert not [*run_folder("late").rglob("README.md")]


def test_what_gives_something_away_is_not_packed(home):
    write_text(run_folder("r") / "04_finetune/fast/special.json", '{"made": "/mnt/somebody/x"}')
    with pytest.raises(SystemExit, match="special.json: holds the path /mnt/somebody"):
        packing.pack("r", kept_of("r"))


def test_the_same_run_packs_to_the_same_bytes(home):
    assert packing.pack("r", kept_of("r")) == packing.pack("r", kept_of("r"))
