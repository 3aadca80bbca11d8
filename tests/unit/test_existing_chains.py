"""Chains that exist: the forms of a file, data sets in a folder that stands for the Hub, and what is refused."""

import json

import pytest

from distil.chains import existing
from distil.chains.existing_rows import hub_row
from distil.problems.errors import ProblemError
from distil.problems.hub import CHAIN_SETS, chains_map
from distil.verify.answers import extract_boxed
from distil.workspace.errors import StageError
from distil.workspace.rows import Chain

THOUGHT = "The numbers are {i} and 1.\n\nWait, let me add them again.\n\nIt stays {sum}."
SAID = "Adding gives {sum}.\n\nThe answer is \\boxed{{{sum}}}."


def rows_of(n: int, **form: str) -> list[dict]:
    """`n` sums in a form: names of fields with templates of {i}, {sum}, {thought} and {said}."""
    rows = []
    for i in range(n):
        words = {"i": i, "sum": i + 1}
        words |= {"thought": THOUGHT.format(**words), "said": SAID.format(**words)}
        rows.append({name: template.format(**words) for name, template in form.items()})
    return rows


def write(path, rows, mark: str = "") -> str:
    text = json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(mark.encode() + text.encode())
    return str(path)


R1 = {"question": "What is {i} + 1?", "answer": "{sum}", "output": "<think>\n{thought}\n</think>\n\n{said}"}
FORMS = {
    "think tags": R1,
    "a field of its own": {"problem": "What is {i} + 1?", "answer": "{sum}", "reasoning_content": "{thought}",
                           "response": "{said}"},
    "thought and solution": {"instruction": "What is {i} + 1?", "answer": "{sum}", "thought": "{thought}",
                             "solution": "{said}"},
    "sections": {"instruction": "What is {i} + 1?", "answer": "{sum}", "output":
                 "<|begin_of_thought|>\n\n{thought}\n\n<|end_of_thought|>\n\n"
                 "<|begin_of_solution|>\n\n{said}\n\n<|end_of_solution|>"},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["r1.jsonl", "r1.json"])
def test_every_form_of_a_file_gives_thought_and_solution(tmp_path, form, name):
    source = write(tmp_path / name, rows_of(12, **FORMS[form]), mark="\ufeff")
    problems, removed, chains = existing.load(source, 8, 3, seed=0)
    assert removed == [] and [p.split for p in problems] == ["test"] * 3 + ["train"] * 8
    assert {c.problem_id for c in chains} == {p.id for p in problems if p.split == "train"}
    by_id = {p.id: p for p in problems}
    for chain in chains:
        problem = by_id[chain.problem_id]
        i = int(problem.question.split()[2])
        assert chain.correct and chain.style == "slow" and chain.teacher == name and chain.finish_reason == "stop"
        assert chain.thought == THOUGHT.format(i=i, sum=i + 1) and chain.solution == SAID.format(sum=i + 1)
        assert chain.id == f"{problem.id}-slow-0" and problem.answer == str(i + 1) and problem.verifier == "math"


def test_a_chat_and_several_generations_are_read_too(tmp_path):
    chats = [
        {"messages": [{"role": "user", "content": f"What is {i} + 1?"},
                      {"role": "assistant", "content": SAID.format(sum=i + 1), "reasoning_content": "Add."}],
         "answer": i + 1, "model": "r1"}
        for i in range(4)
    ]  # fmt: skip
    _, _, chains = existing.load(write(tmp_path / "chats.jsonl", chats), 3, 1, 0)
    assert len(chains) == 3 and all(c.correct and c.thought == "Add." and c.teacher == "r1" for c in chains)

    several = [{"problem": f"What is {i} + 1?", "answer": str(i + 1),
                "generations": [SAID.format(sum=i + 1), SAID.format(sum=i + 2)]} for i in range(4)]  # fmt: skip
    problems, _, chains = existing.load(write(tmp_path / "several.jsonl", several), 3, 1, 0)
    assert [c.correct for c in chains] == [True, False] * 3 and len({c.id for c in chains}) == 6
    assert {c.why for c in chains if not c.correct} == {"wrong answer"} and len(problems) == 4


def test_what_a_row_says_of_its_chain_is_kept(tmp_path):
    more = {"n_tokens": 1234, "style": "fast", "rv": 3, "cognitive_difficulty": 4.5, "teacher": "DeepSeek-V3"}
    rows = [row | more for row in rows_of(3, question=R1["question"], answer=R1["answer"], output="{said}")]
    rows[0]["split"], rows[1]["finish_reason"], rows[2]["input"] = "validation", "length", "Be brief."
    problems, _, chains = existing.load(write(tmp_path / "x.jsonl", rows), 2, 1, 0)
    assert [p.question for p in problems if p.split == "test"] == ["What is 0 + 1?"]
    cut, whole = sorted(chains, key=lambda chain: chain.finish_reason)
    assert cut.why == "cut off at the token limit" and whole.correct
    assert (whole.n_tokens, whole.style, whole.rv, whole.cd, whole.teacher) == (1234, "fast", 3, 4.5, "DeepSeek-V3")
    assert Chain.from_dict(whole.to_dict()) == whole
    assert any(p.question == "What is 2 + 1?\n\nBe brief." for p in problems)


def test_chains_of_one_question_stay_together_and_ids_stay_when_sizes_change(tmp_path):
    rows = rows_of(20, **R1)
    source = write(tmp_path / "x.jsonl", [*rows, *rows])
    problems, _, chains = existing.load(source, 15, 5, 0)
    assert len(problems) == 20 and len(chains) == 30
    assert existing.load(source, 15, 5, 0)[0] == problems
    fewer = existing.load(write(tmp_path / "y.jsonl", rows[5:]), 3, 2, 1)[0]
    ids = {p.question: p.id.removeprefix("x") for p in problems}
    assert all(p.id.removeprefix("y") == ids[p.question] for p in fewer)
    assert {p.id for p in existing.load(source, 15, 5, 1)[0] if p.split == "test"} != {p.id for p in problems[:5]}


def test_a_training_question_of_the_test_set_is_removed_with_its_chains(tmp_path):
    rows = [row | {"split": "train"} for row in rows_of(5, **R1)]
    exam = [row | {"split": "test"} | {"question": row["question"].upper()} for row in rows[:2]]
    problems, removed, chains = existing.load(write(tmp_path / "x.jsonl", [*rows, *exam]), 5, 2, 0)
    assert [row["reason"] for row in removed] == ["same question as a test problem"] * 2
    assert len(problems) == 5 and {c.problem_id for c in chains} == {p.id for p in problems if p.split == "train"}


def test_the_boxed_answer_can_stand_for_a_gold_answer(tmp_path):
    rows = rows_of(10, instruction=R1["question"], output=R1["output"])
    rows[4]["output"] = "It is five."
    problems, removed, chains = existing.load(write(tmp_path / "raw.json", rows) + "?answer=boxed", 7, 2, 0)
    assert len(problems) == 9 and len(removed) == 1 and "row 5" in removed[0]["reason"]
    answers = {p.id: p.answer for p in problems}
    assert len(chains) == 7 and all(c.correct and extract_boxed(c.solution) == answers[c.problem_id] for c in chains)


PLAIN = rows_of(8, instruction="What is {i} + 1?", output="{said}")
GOOD = rows_of(8, **R1)


def changed(line: int, **fields) -> list[dict]:
    return [row | fields if number == line else row for number, row in enumerate(GOOD, 1)]


@pytest.mark.parametrize(("rows", "message"), [
    (PLAIN, r"no field `answer`.*04_finetune.train=.*x.jsonl.*chains=.*x.jsonl\?answer=boxed"),
    ([{"question": "q", "answer": "1"}], "line 1: no field for the chain: name it one of generations, chain, output"),
    ([{"answer": "1", "output": "o"}], "line 1: no field for the question: name it one of question, problem"),
    (changed(7, output=" "), "line 7: field `output` is empty"),
    (changed(7, output=[]), "line 7: field `output` is empty"),
    (changed(7, output=None), "line 7: field `output` is null"),
    (changed(3, output={"a": 1}), "line 3: field `output` is an object"),
    (changed(3, answer=None), "line 3: field `answer` is null"),
    (changed(3, answer=[1, 2]), "line 3: field `answer` is a list"),
    (changed(3, answer=""), "line 3: field `answer` is empty"),
    (changed(3, question=""), "line 3: field `question` is empty"),
    (changed(3, style="long2short"), "line 3: style 'long2short' must be one of fast, slow"),
    (changed(3, rv=12), "line 3: field `rv` is 12, no number from 0 to 9"),
    (changed(3, split="holdout"), "line 3: split 'holdout' is unknown"),
    ([*GOOD, {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "answer": "1"}],
     "line 9: this row has `messages` and `answer`, but line 1 has `question` and `answer` and `output`"),
    ([*GOOD, PLAIN[0]], "line 9: this row has `instruction` and `output`, but line 1 has"),
    ([{"messages": [{"role": "user", "content": "q"}], "answer": "1"}], "line 1: `messages` must be one user's"),
    ([{"messages": "q", "answer": "1"}], "line 1: field `messages` must be a list"),
    ([row | {"answer": "77"} for row in GOOD],
     r"0 of 6 chains are right \(0%\); the first wrong one, .*line \d: wrong answer. Is field `answer`"),
    (GOOD[:2], "holds 2 different questions, too few for n_test=2"),
])  # fmt: skip
def test_refused_with_file_and_line(tmp_path, rows, message):
    source = write(tmp_path / "x.jsonl", rows)
    for look in (existing.load, existing.check):
        with pytest.raises(ProblemError, match=message):
            look(source, 10, 2, 0)


def test_a_file_in_which_no_output_is_boxed(tmp_path):
    source = write(tmp_path / "x.jsonl", rows_of(30, instruction="What is {i} + 1?", output="It is {sum}."))
    with pytest.raises(ProblemError, match="0 of 30 rows have an answer; the first: no boxed answer.*line 1"):
        existing.check(source + "?answer=boxed", 10, 2, 0)


@pytest.mark.parametrize(("source", "message"), [
    ("r1", r"give a .jsonl or .json file, or hub:NAME with NAME one of openr1-math, openthoughts, omnithought"),
    ("x.jsonl?question=q", "a file has one option"),
    ("hub:openr1", "no ready-made map of that name; there are: openr1-math"),
    ("hub:openr1-math?splits=train", "unknown option 'splits'"),
    ("hub:acme/r1?question=q&answer=a", r"question=FIELD&answer=FIELD&chain=FIELD"),
])  # fmt: skip
def test_a_source_that_cannot_be_meant(source, message):
    with pytest.raises(ProblemError, match=message):
        existing.check(source, 10, 2, 0)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(StageError, match="no such file"):
        existing.check(str(tmp_path / "nowhere.jsonl"), 10, 2, 0)
    path = tmp_path / "gbk.jsonl"
    path.write_bytes(json.dumps({"question": "一加一?"}, ensure_ascii=False).encode("gbk"))
    with pytest.raises(StageError, match="line 1: not UTF-8"):
        existing.check(str(path), 10, 2, 0)


# one row of each set, as far as its fields are known; contents are made up
RECORDS = {
    "openr1-math": {
        "problem": "What is 2 + 3?", "solution": "It is 5.", "answer": "5", "problem_type": "Algebra",
        "question_type": "math-word-problem", "source": "olympiads", "uuid": "u",
        "is_reasoning_complete": [True, False],
        "generations": ["<think>\nAdd.\n</think>\n\nSo \\boxed{5}.", "<think>\nAdd, or"], "correctness_count": 1,
        "correctness_math_verify": [True, False], "finish_reasons": None, "messages": [],
    },
    "openthoughts": {
        "problem": "What is 7 * 8?", "deepseek_reasoning": "Seven\n\neights.", "deepseek_solution": r"\boxed{56}",
        "domain": "math", "ground_truth_solution": r"$\boxed{56}$", "source": "numina_math", "test_cases": None,
        "starter_code": None,
    },
    "omnithought": {
        "question": "What is 1 + 1?", "answer": "2", "reasoning": [
            {"full_response": r"<think>Two.</think> \boxed{2}", "Cognitive_Difficulty": {"level": 1, "judge": "x"},
             "Reasoning_Verbosity": {"level": 2, "judge": "x"}},
            {"full_response": r"<think>Three.</think> \boxed{3}", "Cognitive_Difficulty": {"level": 0},
             "Reasoning_Verbosity": {"level": 7}},
        ],
    },
}  # fmt: skip
EXPECTED = {  # correct, Reasoning Verbosity, Cognitive Difficulty
    "openr1-math": [(True, None, None), (False, None, None)],
    "openthoughts": [(True, None, None)],
    "omnithought": [(True, 2.0, 1.0), (False, 7.0, 0.0)],
}


@pytest.mark.parametrize("name", CHAIN_SETS)
def test_ready_made_maps_read_their_schemas(name):
    problem, given = hub_row(RECORDS[name], 1, chains_map(name, {}))
    chains = [existing.make(problem, "c", chain) for chain in given]
    assert [(c.correct, c.rv, c.cd) for c in chains] == EXPECTED[name]
    assert chains[0].thought and chains[0].solution and chains[0].n_tokens > 0
    if name == "openr1-math":
        assert chains[1].finish_reason == "length" and chains[0].finish_reason == "stop"


@pytest.fixture
def local_set(tmp_path, monkeypatch):
    """A data set in a folder: `datasets` streams it under the name acme/r1 as it would from the Hub."""
    import datasets

    folder = tmp_path / "acme" / "r1"
    folder.mkdir(parents=True)
    rows = [{"q": row["question"], "data": {"gold": row["answer"]}, "r": row["output"]} for row in rows_of(60, **R1)]
    rows[0]["data"]["gold"] = ""
    write(folder / "train.jsonl", rows)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return "hub:acme/r1?question=q&answer=data.gold&chain=r&unreadable=drop"


def test_a_data_set_of_ones_own_names_fields_within_fields(local_set):
    problems, _, chains = existing.load(local_set, 12, 4, 0)
    assert [p.split for p in problems] == ["test"] * 4 + ["train"] * 12
    assert len(chains) == 12 and all(c.correct and c.thought and c.teacher == "acme/r1" for c in chains)
    assert existing.load(local_set, 12, 4, 0)[0] == problems
    assert {p.id for p in existing.load(local_set, 12, 4, 1)[0]} != {p.id for p in problems}
    with pytest.raises(ProblemError, match=r"no field 'data.answer'; there are: q, data, r"):
        existing.load(local_set.replace("data.gold", "data.answer"), 12, 4, 0)


def test_rows_of_a_data_set_are_read_until_there_are_enough(monkeypatch):
    """A set without an end: what is asked for decides how much is read."""
    import datasets

    read = []

    class Endless:
        def shuffle(self, seed, buffer_size):
            return self

        def __iter__(self):
            for i in range(10**9):
                read.append(i)
                yield RECORDS["openthoughts"] | {"problem": f"What is 56 + 0 * {i}?"}

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, streaming, **__: Endless())
    problems, _, chains = existing.load("hub:openthoughts", 20, 5, 0)
    assert len(problems) == 25 and len(chains) == 20 and len(read) <= 26
    with pytest.raises(ProblemError, match="none of 1000 rows can be used, the first because: no answer to be read"):
        existing.load("hub:openthoughts?answer=source", 20, 5, 0)


def test_the_hub_that_cannot_be_reached_is_one_clear_error(monkeypatch):
    import datasets

    def refuse(*_, **__):
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    existing.check("hub:omnithought", 10, 2, 0)  # fetches nothing
    with pytest.raises(ProblemError, match="hub:omnithought .*cannot be reached from here"):
        existing.load("hub:omnithought", 10, 2, 0)


@pytest.mark.network
@pytest.mark.parametrize("name", CHAIN_SETS)
def test_maps_of_chains_against_the_hub(name):
    problems, _, chains = existing.load(f"hub:{name}", 20, 5, 0)
    assert len(problems) >= 20 and sum(bool(c.correct) for c in chains) > 10


@pytest.mark.parametrize(("word", "why"), [
    ("eos_token", None),
    (None, None),
    ("MAX_TOKENS", "cut off at the token limit"),
    ("content_filter", "refused by the provider's content filter"),
])  # fmt: skip
def test_the_end_of_a_chain_is_read_as_servers_say_it(tmp_path, word, why):
    rows = [row | {"finish_reason": word if i % 2 else "stop"} for i, row in enumerate(rows_of(9, **R1))]
    _, _, chains = existing.load(write(tmp_path / "x.jsonl", rows), 8, 1, 0)
    told = {chain.why for chain in chains}
    assert told == {None, why} and all(chain.correct for chain in chains if chain.why is None)
