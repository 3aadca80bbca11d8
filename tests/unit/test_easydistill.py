"""EasyDistill's files become commands; what is left out is listed; keys are never shown."""

import json
import shlex

import pytest

from distil.cli import main, parser
from distil.llm.prompts import messages
from distil.workspace.parameters import effective

STAGE1 = {
    "job_type": "cot_long2short_api",
    "dataset": {"input_path": "raw.json", "output_path": "short.json"},
    "inference": {
        "base_url": "http://localhost:8000/v1",
        "api_key": "not-to-be-seen",
        "stream": True,
        "prompt": messages("long2short", question="", answer="", chain="")[0]["content"],
        "max_new_tokens": 1024,
    },
}
STAGE2 = {
    "job_type": "kd_black_box_api",
    "dataset": {"labeled_path": "short.json", "template": "kd.jinja", "seed": 42},
    "models": {"student": "model/Qwen/Qwen2.5-1.5B-Instruct/"},
    "training": {
        "output_dir": "result/",
        "num_train_epochs": 3,
        "per_device_train_batch_size": 1,
        "learning_rate": 2e-5,
        "max_length": 4096,
        "lr_scheduler_type": "cosine",
        "bf16": True,
    },
}
LOCAL = {
    "job_type": "kd_black_box_local",
    "dataset": {"instruction_path": "train.json", "labeled_path": "labelled.json", "seed": 1},
    "inference": {"system_prompt": "Be brief.", "temperature": 0.8, "enforce_eager": False, "base_url": "ENDPOINT"},
    "models": {"teacher": "teacher/Qwen/Qwen2.5-7B-Instruct/", "student": "Qwen/Qwen2.5-0.5B-Instruct"},
}


def convert(project, capsys, name, config) -> tuple[list[str], str]:
    """(the printed command as words, the notes below it)."""
    (project / name).write_text(json.dumps(config))
    assert main(["import-config", str(project / name)]) == 0
    command, _, notes = capsys.readouterr().out.partition("\n")
    return shlex.split(command), notes


def accepted(command: list[str]) -> dict:
    """The parameters that our own command line makes of it."""
    args = parser().parse_args(command[1:])
    return effective(args.profile, args.run, args.sets)


def test_stage_1(project, capsys):
    command, notes = convert(project, capsys, "distilqwen2.5-0324_stage1.json", STAGE1)
    assert command[:8] == ["distil", "run", "--run", "distilqwen2.5-0324", "--from", "01", "--to", "03"]
    assert accepted(command)["02_rewrite"]["endpoint"] == "http://localhost:8000/v1"
    assert "not-to-be-seen" not in " ".join(command) + notes and "inference.api_key" in notes
    assert "DISTIL_API_KEY" in notes and "teacher: not in the file" in notes and "dataset.input_path" in notes
    assert "inference.prompt" not in notes, "it is the prompt that 02 has"


def test_stage_2_goes_on_with_the_same_run(project, capsys):
    command, notes = convert(project, capsys, "distilqwen2.5-0324_stage2.json", STAGE2)
    assert command[:8] == ["distil", "run", "--run", "distilqwen2.5-0324", "--from", "04", "--to", "04"]
    found = accepted(command)["04_finetune"]
    assert (found["student"], found["learning_rate"]) == ("Qwen/Qwen2.5-1.5B-Instruct", 2e-5)
    assert (found["max_length"], found["seed"], found["method"]) == (4096, 42, "full")
    for field in ("dataset.labeled_path", "training.num_train_epochs", "training.output_dir", "training.bf16"):
        assert field in notes
    assert "lr_scheduler_type" not in notes, "04 has the same schedule"


def test_a_job_that_does_both(project, capsys):
    command, notes = convert(project, capsys, "kd.json", LOCAL)
    assert command[:8] == ["distil", "run", "--run", "kd", "--from", "01", "--to", "04"]
    assert accepted(command)["01_collect"]["teacher"] == "Qwen/Qwen2.5-7B-Instruct"
    for field in ("inference.base_url", "inference.system_prompt", "inference.temperature", "inference.enforce_eager"):
        assert field in notes


def test_a_file_with_labelled_data_only(project, capsys):
    config = {"job_type": "cot_long2short_api", "dataset": {"labeled_path": "short.json"}}
    command, notes = convert(project, capsys, "short.json", config)
    assert command[4:8] == ["--from", "04", "--to", "04"] and "teacher" not in notes


def test_a_key_inside_the_address_is_not_shown(project, capsys):
    config = STAGE1 | {"inference": {"base_url": "https://user:hidden@example.org/v1?key=hidden", "my_token": "hidden"}}
    command, notes = convert(project, capsys, "x.json", config)
    assert "hidden" not in " ".join(command) + notes


@pytest.mark.parametrize(("text", "message"), [
    ("job_type: kd", "not JSON"),
    ("[]", "no field `job_type`"),
    ("{}", "known job types: kd_black_box_api"),
    ('{"job_type": "kd_magic"}', "unknown job type 'kd_magic'; there are: kd_black_box_api"),
    ('{"job_type": "kd_white_box"}', "logits"),
    ('{"job_type": "kd_black_box_api", "training": 3}', "`training` must be an object"),
    ('{"job_type": "kd_black_box_api", "training": {"learning_rate": "fast"}}', "expected float"),
])  # fmt: skip
def test_refused(project, capsys, text, message):
    (project / "x.json").write_text(text)
    assert main(["import-config", str(project / "x.json")]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_file(project, capsys):
    assert main(["import-config", "nowhere.json"]) == 2
    assert "no such file" in capsys.readouterr().err
