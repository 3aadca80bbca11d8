"""EasyDistill's files become commands; what is left out is listed; keys are never shown."""

import json
import shlex

import pytest

from distil.chains import existing
from distil.cli import main, parser
from distil.llm.prompts import messages
from distil.workspace.parameters import effective

# the two files of the recipe of DistilQwen2.5-0324, field by field as published
STAGE1 = {
    "job_type": "cot_long2short_api",
    "dataset": {"input_path": "./raw.json", "output_path": "./raw_simplified.json"},
    "inference": {
        "base_url": "ENDPOINT",
        "api_key": "not-to-be-seen",
        "stream": True,
        "prompt": messages("long2short", question="", answer="", chain="")[0]["content"],
        "max_new_tokens": 1024,
    },
}
STAGE2 = {
    "job_type": "kd_black_box_api",
    "dataset": {"labeled_path": "distil_qwen_0324.json", "template": "chat_template_kd.jinja", "seed": 42},
    "models": {"student": "model/Qwen/Qwen2.5-1.5B-Instruct/"},
    "training": {
        "output_dir": "result_stage2/",
        "num_train_epochs": 3,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 8,
        "save_steps": 1000,
        "logging_steps": 1,
        "learning_rate": 2e-5,
        "weight_decay": 0.05,
        "warmup_ratio": 0.1,
        "lr_scheduler_type": "cosine",
    },
}
LOCAL = {
    "job_type": "kd_black_box_local",
    "dataset": {"instruction_path": "train.json", "labeled_path": "labelled.json", "seed": 1},
    "inference": {
        "system_prompt": "Be brief.",
        "temperature": 0.8,
        "enforce_eager": False,
        "base_url": "ENDPOINT",
        "max_new_tokens": 4096,
    },
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


def raw(n: int) -> list[dict]:
    """Slow chains as the recipe has them: no gold answer, but a boxed one at the end."""
    output = "<think>\nThe numbers are {0} and 1.\n</think>\n\nThe answer is \\boxed{{{1}}}."
    return [{"instruction": f"What is {i} + 1?", "output": output.format(i, i + 1)} for i in range(n)]


def test_stage_1_shortens_the_chains_of_its_file(project, capsys):
    (project / "raw.json").write_text(json.dumps(raw(40)))
    command, notes = convert(project, capsys, "distilqwen2.5-0324_stage1.json", STAGE1)
    assert command[:8] == ["distil", "run", "--run", "distilqwen2.5-0324", "--from", "01", "--to", "03"]
    found = accepted([*command, "--set", "teacher=qwq-32b", "--set", "endpoint=http://localhost:8000/v1"])
    assert found["02_rewrite"]["rewrite_tokens"] == found["03_judge"]["rewrite_tokens"] == 1024
    collect = found["01_collect"]
    assert (collect["fast_teacher"], collect["n_train"], collect["n_test"]) == ("none", 36, 4)
    problems, removed, chains = existing.load(collect["chains"], collect["n_train"], collect["n_test"], collect["seed"])
    assert len(problems) == 40 and removed == [] and len(chains) == 36 and all(c.correct for c in chains)
    assert "not-to-be-seen" not in " ".join(command) + notes and "inference.api_key" in notes
    assert "inference.base_url: not a URL" in notes and "DASHSCOPE_API_KEY" in notes
    assert "add --set teacher=MODEL" in notes and "--set endpoint=URL" in notes, "it names neither"
    assert "inference.prompt" not in notes, "it is the prompt that 02 has"


def test_a_file_that_is_not_there_stays_as_it_is_written_and_is_named(project, capsys):
    command, notes = convert(project, capsys, "x_stage1.json", STAGE1)
    assert accepted(command)["01_collect"]["chains"] == "./raw.json?answer=boxed"
    assert "dataset.input_path: ./raw.json is neither beside the configuration nor here" in notes


def test_a_file_of_chains_that_cannot_be_read(project, capsys):
    (project / "raw.json").write_bytes(b"\xd5\xfd[]")
    (project / "x.json").write_text(json.dumps(STAGE1))
    assert main(["import-config", str(project / "x.json")]) == 2
    assert "raw.json, line 1: not UTF-8" in capsys.readouterr().err


def test_a_model_and_an_address_are_taken(project, capsys):
    models = {"teacher": "qwq-32b"}
    config = STAGE1 | {"models": models, "inference": {"base_url": "https://dashscope.aliyuncs.com/compatible-mode/v1"}}
    command, notes = convert(project, capsys, "x.json", config)
    found = accepted(command)["02_rewrite"]
    assert (found["teacher"], found["endpoint"]) == ("qwq-32b", config["inference"]["base_url"])
    assert "add --set teacher" not in notes and "endpoint=URL" not in notes


def test_stage_2_trains_on_its_file_with_its_own_settings(project, capsys, monkeypatch):
    monkeypatch.chdir(project)
    (project / "distil_qwen_0324.json").write_text(json.dumps(raw(3)))
    command, notes = convert(project, capsys, "distilqwen2.5-0324_stage2.json", STAGE2)
    assert command[:8] == ["distil", "run", "--run", "distilqwen2.5-0324", "--from", "04", "--to", "04"]
    found = accepted(command)["04_finetune"]
    assert (found["student"], found["learning_rate"]) == ("Qwen/Qwen2.5-1.5B-Instruct", 2e-5)
    assert (found["epochs"], found["batch_size"], found["weight_decay"], found["warmup_ratio"]) == (3, 8, 0.05, 0.1)
    assert (found["train"], found["seed"], found["method"]) == (str(project / "distil_qwen_0324.json"), 42, "full")
    for field in ("dataset.template", "training.output_dir", "training.save_steps"):
        assert field in notes
    for field in ("labeled_path", "num_train_epochs", "batch_size", "weight_decay", "warmup", "lr_scheduler_type"):
        assert field not in notes, "04 does it"


def test_train_only_and_a_longest_row(project, capsys):
    training = {"max_length": 4096, "per_device_train_batch_size": 2, "bf16": True}
    config = {"job_type": "kd_black_box_train_only", "dataset": {"labeled_path": "l.json"}, "training": training}
    command, notes = convert(project, capsys, "x.json", config)
    found = accepted(command)["04_finetune"]
    assert (found["max_length"], found["batch_size"], found["train"]) == (4096, 2, "l.json")
    assert "training.bf16" in notes and "dataset.labeled_path: l.json is neither" in notes


def test_a_job_that_does_both(project, capsys):
    command, notes = convert(project, capsys, "kd.json", LOCAL)
    assert command[:8] == ["distil", "run", "--run", "kd", "--from", "01", "--to", "04"]
    found = accepted(command)["01_collect"]
    assert (found["teacher"], found["fast_tokens"], found["slow_tokens"]) == ("Qwen/Qwen2.5-7B-Instruct", 4096, 4096)
    assert found["chains"] == accepted(command)["04_finetune"]["train"] == "", "its teacher writes the chains"
    for field in (
        "dataset.instruction_path",
        "dataset.labeled_path",
        "inference.base_url",
        "inference.system_prompt",
        "inference.temperature",
        "inference.enforce_eager",
    ):
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
    ('{"job_type": "kd_black_box_api", "training": {"gradient_accumulation_steps": "8"}}', "must be whole numbers"),
])  # fmt: skip
def test_refused(project, capsys, text, message):
    (project / "x.json").write_text(text)
    assert main(["import-config", str(project / "x.json")]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_file(project, capsys):
    assert main(["import-config", "nowhere.json"]) == 2
    assert "no such file" in capsys.readouterr().err
