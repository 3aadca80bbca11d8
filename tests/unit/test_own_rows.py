"""04 on a user's file: both forms read, and what is wrong with a line is said before any work."""

import json

import pytest

from distil.models import formats
from distil.train import own_rows, sft
from distil.workspace.errors import StageError

GOOD = {"instruction": "1 + 1?", "output": "It is 2."}
ASK, ANSWER = {"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}


def written(folder, rows, name="mine.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_both_forms_and_both_kinds_of_file(tmp_path):
    (row,) = own_rows.read(written(tmp_path, [GOOD | {"input": "In words.", "system": "Be brief.", "id": 7}]), "plain")
    assert [turn["role"] for turn in row.messages] == ["system", "user", "assistant"]
    assert row.instruction == row.messages[1]["content"] == "1 + 1?\n\nIn words." and row.output == "It is 2."
    listed = tmp_path / "list.json"
    listed.write_text("\ufeff" + json.dumps([{"messages": [ASK, ANSWER, ASK, ANSWER]}] * 3, indent=1), encoding="utf-8")
    rows = own_rows.read(str(listed), "plain")
    assert len(rows) == own_rows.check(str(listed)) == 3
    assert rows[0].messages == [ASK, ANSWER, ASK, ANSWER] and rows[0].output == "2"


def test_a_format_brings_its_system_turn_and_is_checked(tmp_path):
    output = formats.write("1 and 1", "2", "sections")
    path = written(tmp_path, [GOOD | {"output": output}, GOOD | {"output": output, "system": "Mine."}])
    systems = [row.messages[0]["content"] for row in own_rows.read(path, "sections")]
    assert "<|begin_of_thought|>" in systems[0] and systems[1] == "Mine."
    with pytest.raises(StageError, match="mine.jsonl, line 1: the output is not of student_format=plain: it holds <"):
        own_rows.check(path)
    with pytest.raises(StageError, match="line 1: the output is not of student_format=think"):
        own_rows.check(written(tmp_path, [GOOD]), "think")


@pytest.mark.parametrize(
    "bad, said",
    [
        ({"question": "1 + 1?", "answer": "2"}, r'neither of the forms \{"instruction", .* it has: question, answer'),
        ({}, "it has: no field"),
        ({"messages": [ASK, ANSWER]}, "has 'messages', and the rows before it have 'instruction'"),
        (GOOD | {"output": " \n"}, "'output' is empty or no text"),
        ({"instruction": "1 + 1?"}, "'output' is missing"),
        (GOOD | {"output": 2}, "'output' is empty or no text"),
        (GOOD | {"instruction": ""}, "'instruction' is empty or no text"),
        (GOOD | {"input": ["a"]}, "'input' is empty or no text"),
    ],
)
def test_a_bad_row_is_named_by_its_line(bad, said, tmp_path):
    with pytest.raises(StageError, match=f"mine.jsonl, line 2: .*{said}"):
        own_rows.check(written(tmp_path, [GOOD, bad]))


@pytest.mark.parametrize(
    "turns, said",
    [
        ([ANSWER, ASK], "the last message is of role 'user'"),
        ([{"role": "human", "content": "1 + 1?"}, ANSWER], "unknown role 'human': use system, user, assistant"),
        ([ASK, ASK, ANSWER], "by turns"),
        ([ANSWER], "by turns"),
        ([ASK, {"role": "system", "content": "s"}, ANSWER], "by turns"),
        ([ASK, {"role": "assistant", "content": ""}], "'content' is empty"),
        ([ASK, {"role": "assistant"}], "'content' is missing"),
        ([], "is a list of"),
        ("1 + 1?", "is a list of"),
    ],
)
def test_a_bad_conversation_is_named_by_its_line(turns, said, tmp_path):
    with pytest.raises(StageError, match=f"mine.jsonl, line 1: .*{said}"):
        own_rows.check(written(tmp_path, [{"messages": turns}]))


def test_an_instruction_falls_on_one_side(tmp_path):
    rows = [GOOD | {"instruction": f"{i % 40} + 1?", "system": f"s{i}"} for i in range(120)]
    train, valid = own_rows.read_split(written(tmp_path, rows), "plain", 0)
    assert len(train) + len(valid) == 120 and 0 < len(valid) < 40
    assert not {row.instruction for row in train} & {row.instruction for row in valid}


def test_the_student_is_called_after_its_file():
    default = "fast,slow"
    assert own_rows.student_name(default, "my data/0324 fast.v1.json") == "0324-fast.v1"
    assert own_rows.student_name("mine", "x.jsonl") == "mine"
    for students, path in ((default, "base.jsonl"), ("reinforced", "x.jsonl"), ("teacher", "x.jsonl")):
        with pytest.raises(StageError, match="which is another one: give students=NAME"):
            own_rows.student_name(students, path)
    for students, path in ((default, "数据.jsonl"), ("../x", "x.jsonl")):
        with pytest.raises(StageError, match="with letters, digits"):
            own_rows.student_name(students, path)


@pytest.mark.slow
def test_the_command_of_several_gpus_takes_the_file_and_every_setting(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DISTIL_HOME", str(tmp_path))
    path = written(tmp_path, [GOOD | {"instruction": f"{i} + 1?"} for i in range(30)])
    words = f"r mine --train {path} --student tiny-random --epochs 1 --batch-size 8 --learning-rate 2e-5 --method lora "
    words += "--max-length 128 --weight-decay 0.05 --warmup-ratio 0.1 --lora-rank 4 --lora-alpha 8"
    sft.main(words.split())
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["epochs"] == 1.0 and told["examples"] == told["distinct"] == len(
        own_rows.read_split(path, "plain", 0)[0]
    )
    kept = json.loads((tmp_path / "artifacts/r/04_finetune/mine/sft.json").read_text())["request"]
    assert (kept["weight_decay"], kept["warmup_ratio"], kept["lora_rank"], kept["batch_size"]) == (0.05, 0.1, 4, 8)
    with pytest.raises(SystemExit, match="distil.train.sft: train_tokens=0: train_tokens is above 0"):
        sft.main(words.replace("--epochs 1", "").split())
