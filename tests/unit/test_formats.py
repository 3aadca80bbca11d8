"""A student's format: written, rendered and read the same in training, measuring and serving."""

import json
import shutil
from pathlib import Path

import pytest
from factories import a_chain, a_problem
from transformers import AutoTokenizer

from distil.chains import student_judge
from distil.chains.select import training_row
from distil.evaluate import answers, engines, settings
from distil.llm.prompts import format_turns, prompt_of
from distil.models import formats, published, serve
from distil.models.student import Generated, encode_prompt, generate, load, load_tokenizer
from distil.models.weights import tiny_random
from distil.train import examples, pairs, preference, rewards, sft
from distil.train.reward_model import reward_text
from distil.workspace.errors import StageError
from distil.workspace.rows import AlignedChain, Pair

# as Qwen3's does: it thinks, unless it is told not to; then an empty thought stands in the prompt
TEMPLATE = (
    "{%- for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
OPENING = TEMPLATE.split("{% if enable_thinking")[0] + "<think>\n{% endif %}"  # as R1's: it begins the thought itself
PROBLEM = a_problem(question="What is 4 + 5?", answer="9", verifier="math")
CHAIN = a_chain(thought="4 is four.\n\n4 + 5 = 9", solution="It is \\boxed{9}")
SETTINGS = {"learning_rate": 1e-3, "max_length": 1024, "method": "lora", "seed": 0}


def with_template(folder: Path, template: str) -> str:
    """A tiny student with another chat template."""
    tiny_random(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def thinker(tmp_path_factory) -> str:
    return with_template(tmp_path_factory.mktemp("a") / "thinker", TEMPLATE)


@pytest.fixture(scope="module")
def opener(tmp_path_factory) -> str:
    return with_template(tmp_path_factory.mktemp("b") / "opener", OPENING)


@pytest.fixture(scope="module")
def taught(thinker, tmp_path_factory) -> dict[str, Path]:
    """A student of each format."""
    out = tmp_path_factory.mktemp("taught")
    for form in formats.FORMATS:
        rows = [training_row(CHAIN, PROBLEM, form)] * 4
        sft.sft(rows, [], thinker, out / form, epochs=1, student_format=form, **SETTINGS)
    return {form: out / form for form in formats.FORMATS}


@pytest.mark.parametrize("form", formats.FORMATS)
def test_what_is_written_is_of_its_form_and_read_after_the_thought(form):
    text = formats.write(CHAIN.thought, CHAIN.solution, form)
    assert formats.fault(text, form) is None
    assert all(formats.fault(text, other) for other in formats.FORMATS if other != form)
    assert formats.said(text) == (CHAIN.full_text if form == "plain" else CHAIN.solution)
    assert formats.untagged(text) == CHAIN.full_text
    assert training_row(CHAIN, PROBLEM, form).output == text


@pytest.mark.parametrize(
    "text",
    [
        "<think>\nIs it \\boxed{9}? Let me",
        "<|begin_of_thought|>\nIt is \\boxed{9}.",
        "<|begin_of_thought|>\nIt is \\boxed{9}.\n<|end_of_thought|>",
        "<think>\n\\boxed{9}\n</think>\n\n",
        "<think>\n\\boxed{9}\n</think>\n\nIt is \\boxed{8}",
    ],
)
def test_a_box_in_the_thought_is_no_answer(text):
    assert answers.right([text], [PROBLEM]) == [False]
    assert rewards.reward_terms(text, PROBLEM, rv=3, cd=2, line=(3.0, 0.0), used=0.5)["correct"] == 0


@pytest.mark.parametrize("form", ["think", "sections"])
def test_broken_forms_are_named(form):
    whole = formats.write("t", "s", form)
    for text in ("t\n\ns", whole.removesuffix("s") if form == "think" else whole[:-5], whole + whole):
        assert formats.fault(text, form), text


def test_the_template_is_pinned_and_pinned_again(thinker):
    asked = prompt_of(PROBLEM)
    rendered = {}
    for form in formats.FORMATS:
        tokenizer = load_tokenizer(thinker, form)
        formats.pin(tokenizer, form)
        assert tokenizer.chat_template.count("set enable_thinking") == 1
        rendered[form] = tokenizer.decode(encode_prompt(tokenizer, asked))
    assert rendered["think"].endswith("assistant\n")
    assert rendered["plain"] == rendered["sections"] == rendered["think"] + "<think>\n\n</think>\n\n"
    with pytest.raises(StageError, match="student_format 'loud': use one of plain, think, sections"):
        load_tokenizer(thinker, "loud")


def test_a_template_without_thought_stays_as_it_is(tmp_path):
    folder = tiny_random(tmp_path / "tiny")
    there = AutoTokenizer.from_pretrained(folder).chat_template
    assert {load_tokenizer(str(folder), form).chat_template for form in formats.FORMATS} == {there}


@pytest.mark.slow
@pytest.mark.parametrize("form", formats.FORMATS)
def test_training_measuring_and_serving_render_one_prompt(form, thinker, taught):
    row = training_row(CHAIN, PROBLEM, form)
    asked = prompt_of(PROBLEM, form)
    (encoded,), _ = examples.encode_rows([row], load_tokenizer(thinker, form), 1024)
    trained = encoded["input_ids"][: encoded["completion_mask"].index(1)]
    measured = encode_prompt(load_tokenizer(str(taught[form])), asked)
    stranger = AutoTokenizer.from_pretrained(
        taught[form]
    )  # what a server or a user loads, who knows nothing of formats
    kwargs = {"add_generation_prompt": True, "return_dict": False}
    assert trained == measured == stranger.apply_chat_template(asked, **kwargs)
    assert stranger.apply_chat_template(asked, enable_thinking=form != "think", **kwargs) == trained, "it is pinned"
    pair = Pair(prompt=asked, chosen="a", rejected="b", gap="small", beta=0.1, problem_id="p", split="train")
    (preferred,) = preference.encode_pairs([pair], stranger)
    assert preferred["prompt_ids"] == trained
    assert stranger(reward_text(stranger, asked, ""), add_special_tokens=False)["input_ids"] == trained
    assert (asked[0]["role"] == "system") == (form == "sections")


@pytest.mark.slow
def test_a_student_keeps_its_format_and_is_asked_in_no_other(thinker, taught, tmp_path):
    assert {form: formats.format_in(folder) for form, folder in taught.items()} == {f: f for f in formats.FORMATS}
    assert formats.KEY not in json.loads((taught["plain"] / "tokenizer_config.json").read_text()), "as it ever was"
    pair = Pair(prompt=prompt_of(PROBLEM), chosen="<think>\na\n</think>\n\nb", rejected="<think>\nc\n</think>\n\nd",
                gap="small", beta=0.1, problem_id="p", split="train")  # fmt: skip
    preference.cogpo([pair] * 4, str(taught["think"]), tmp_path, learning_rate=1e-5, seed=0)
    assert formats.format_in(tmp_path) == "think", "also after it is trained further"

    formats.require("fast", taught["think"], "think")
    with pytest.raises(StageError, match="'fast' was trained with student_format=think.*--set student_format=think"):
        formats.require("fast", taught["think"], "plain")
    with pytest.raises(StageError, match="student_format=think, and student_format=sections"):
        published.place(str(taught["think"]), "base", None, "sections")
    assert published.place(thinker, "base", None, "sections")[0] == thinker, "a stranger says nothing"


@pytest.mark.slow
def test_one_server_renders_as_its_adapters_were_taught(taught, tmp_path):
    options = serve.template_option({"fast": taught["think"], "slow": taught["think"]})
    assert options == ["--chat-template", str(taught["think"] / "chat_template.jinja")]
    with pytest.raises(StageError, match="fast, slow were trained in different student formats"):
        serve.template_option({"fast": taught["think"], "slow": taught["plain"]})
    assert serve.template_option({"fast": tiny_random(tmp_path / "tiny")}) == []


def test_a_server_is_told_whether_to_think(thinker, tmp_path, monkeypatch):
    fields = {form: formats.request_fields(thinker, form) for form in formats.FORMATS}
    assert fields["think"] == {"chat_template_kwargs": {"enable_thinking": True}}
    assert fields["plain"] == fields["sections"] == {"chat_template_kwargs": {"enable_thinking": False}}
    assert (
        formats.request_fields(str(tiny_random(tmp_path / "tiny")), "think")
        == formats.request_fields("", "think")
        == {}
    )
    seen = []

    class Asked(engines.Chat):
        def map(self, prompts, **settings):
            seen.append(self.limits.extra)
            raise StageError("seen")

    monkeypatch.setattr(engines, "Chat", Asked)
    monkeypatch.setenv("DISTIL_EXTRA", '{"min_p": 0.1}')
    limits = {"name": "fast", "store": tmp_path / "s.jsonl", "max_new_tokens": 4, "temperature": 0.0}
    for extra in (fields["plain"], {}):
        with pytest.raises(StageError, match="seen"):
            list(engines.answers("http://127.0.0.1:9/v1", None, [], extra=extra, **limits))
    assert seen == [fields["plain"] | {"min_p": 0.1}, {"min_p": 0.1}]


def test_a_template_that_begins_the_thought(opener):
    """The student then writes what follows `<think>`, and the answer is kept whole."""
    tokenizer = load_tokenizer(opener, "think")
    row = training_row(CHAIN, PROBLEM, "think")
    (encoded,), _ = examples.encode_rows([row], tokenizer, 1024)
    assert tokenizer.decode(encoded["input_ids"]).count("<think>") == 1
    begun = {"role": "assistant", "content": formats.BEGINS["think"] + "4"}
    assert tokenizer.decode(encode_prompt(tokenizer, [*prompt_of(PROBLEM), begun])).endswith("<think>\n4")
    (reply,) = next(generate(load(opener), tokenizer, [prompt_of(PROBLEM)], 4, 1))
    assert reply.text.startswith("<think>\n") and formats.said(reply.text) == ""
    with pytest.raises(StageError, match="begins every answer with <think>: give student_format=think"):
        examples.encode_rows([training_row(CHAIN, PROBLEM)], load_tokenizer(opener), 1024)


def test_rows_of_another_format_are_refused(thinker):
    for wrote, asked in (("think", "plain"), ("plain", "sections"), ("sections", "think")):
        with pytest.raises(StageError, match=f"problem 'p' is not of student_format={asked}"):
            examples.encode_rows([training_row(CHAIN, PROBLEM, wrote)], load_tokenizer(thinker, asked), 1024)


def test_pairs_and_own_mistakes_are_of_the_format(monkeypatch, thinker):
    other = CHAIN.replace(id="k", parent="c", thought="4 + 5 = 8", solution="\\boxed{8}")
    trail = [{"text": "4 + 5 = 9\n\n\\boxed{9}", "difficulty": "easy"}]
    row = AlignedChain(id="c", problem_id="p", kept=True, reason=None, chain=CHAIN, trail=trail)
    made = pairs.build_pairs([row], [other], [], {"p": PROBLEM}, betas={"small": 0.1, "medium": 0.1, "large": 0.1},
                             max_pairs=9, seed=0, student_format="think")  # fmt: skip
    assert {p.gap: (p.chosen, p.rejected) for p in made} == {
        "small": (formats.write(CHAIN.thought, CHAIN.solution, "think"), "<think>\n4 + 5 = 9\n</think>\n\n\\boxed{9}"),
        "medium": ("<think>\n4 + 5 = 9\n</think>\n\n\\boxed{9}", "<think>\n4 + 5 = 8\n</think>\n\n\\boxed{8}"),
        "large": (formats.write(CHAIN.thought, CHAIN.solution, "think"), "<think>\n4 + 5 = 8\n</think>\n\n\\boxed{8}"),
    }

    told = [
        "<think>\nPerhaps \\boxed{9}.\n</think>\n\nIt is \\boxed{8}",  # wrong in due form, whatever it thought
        "<think>\nPerhaps \\boxed{8}.\n</think>\n\nIt is \\boxed{9}",
        "It is \\boxed{8}",
    ]
    limits = []

    def answered(model, tokenizer, prompts, max_new_tokens, **_):
        limits.append(max_new_tokens)
        yield [Generated(text, 9, "stop", 0.1) for text in told]

    monkeypatch.setattr("distil.models.student.generate", answered)
    asked = [PROBLEM.replace(id=str(i)) for i in range(3)]
    found = pairs.own_mistakes(asked, thinker, 3, 0, own_tokens=4000, student_format="think")
    assert [m.text for m in found] == told[:1] and limits == [4000]


def test_the_reward_of_form_asks_for_the_format():
    terms = {"rv": 3, "cd": 2, "line": (3.0, 0.0), "used": 0.5}
    for form in formats.FORMATS:
        text = formats.write(CHAIN.thought, CHAIN.solution, form)
        for asked in formats.FORMATS:
            found = rewards.reward_terms(text, PROBLEM, student_format=asked, **terms)
            assert (found["correct"], found["format"]) == (1.0, float(form == asked)), (form, asked)


def test_a_measurement_says_its_format():
    pinned = settings.pin("held-out", {}, [PROBLEM], "sections", temperature=0.0)
    assert pinned["student_format"] == "sections"
    assert pinned["prompt"][0] == format_turns("sections")[0] and pinned["prompt"][0]["role"] == "system"


@pytest.mark.slow
def test_answers_of_another_format_are_other_answers(thinker, tmp_path):
    asked = {"weights": "w", "max_new_tokens": 4, "batch_size": 2}

    def loaded():
        return load(thinker), load_tokenizer(thinker, "think")

    first = answers.answer([PROBLEM], loaded, tmp_path / "a.jsonl", student_format="think", **asked)
    assert answers.answer([PROBLEM], None, tmp_path / "a.jsonl", student_format="think", **asked) == first
    with pytest.raises(TypeError):  # there is nothing to load it with
        answers.answer([PROBLEM], None, tmp_path / "a.jsonl", **asked)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["think", "sections"])
def test_the_student_judge_lets_it_think(form, thinker, monkeypatch):
    prompts = []

    def going_on(model, tokenizer, asked, *_, **__):
        prompts.extend(tokenizer.decode(encode_prompt(tokenizer, messages)) for messages in asked)
        yield [Generated("\\boxed{9}", 3, "stop", 0.1) for _ in asked]

    monkeypatch.setattr(student_judge, "generate", going_on)
    items = [(CHAIN, PROBLEM), (CHAIN.replace(id="d"), PROBLEM.replace(id="q"))]
    rate = student_judge.by_student(thinker, items, samples=1, batch_size=99, student_format=form)
    assert [row["difficulty"] for row in rate(items, 0)] == ["medium", "medium"]
    for prompt in prompts:
        begun = prompt.rpartition("assistant\n")[2].removeprefix("<think>\n\n</think>\n\n")
        assert begun.startswith(formats.BEGINS[form])
        assert CHAIN.full_text.startswith(begun.removeprefix(formats.BEGINS[form]).strip())
        assert prompt.count("<|im_start|>system") == (form == "sections")
        assert formats.write(CHAIN.thought, CHAIN.solution, form) in prompt, "the example is of the form"


def test_a_folder_copied_by_hand_still_says_its_format(taught, tmp_path):
    shutil.copytree(taught["sections"], tmp_path / "copy")
    assert formats.pinned(load_tokenizer(str(tmp_path / "copy"))) == "sections"
