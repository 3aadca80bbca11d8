"""Students of other families: one BOS, the token that ends an answer, and padding, where they are trained or asked."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch
from factories import GEMMA, GPT2, LLAMA, PHI, a_chain, a_problem, a_student
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from distil.chains import student_judge
from distil.chains.select import training_row
from distil.evaluate import engines
from distil.llm.prompts import prompt_of
from distil.models import formats, student, templates
from distil.models.student import encode_prompt, generate, load, load_tokenizer
from distil.models.weights import resolve, tiny_random
from distil.pipeline import preflight
from distil.train import examples, gkd, grpo, packing, preference, reward_model, rewards, sft
from distil.train.recipe import Recipe
from distil.workspace.errors import StageError
from distil.workspace.rows import Pair

FAMILIES = {"llama": LLAMA, "gemma": GEMMA, "phi": PHI, "gpt2": GPT2}
PROBLEM = a_problem(question="What is 4 + 5?", answer="9")
CHAIN = a_chain(thought="4 + 5 = 9", solution="\\boxed{9}")
ROW = training_row(CHAIN, PROBLEM)
SETTINGS = {"learning_rate": 1e-3, "max_length": 512, "seed": 0}
PAIR = Pair(prompt=prompt_of(PROBLEM), chosen="4 + 5 = 9", rejected="4 + 5 = 8", gap="small", beta=0.1, problem_id="p",
            split="train")  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    return {name: a_student(tmp_path_factory.mktemp(name) / name, like) for name, like in FAMILIES.items()}


def bos_counts(batches: list, tokenizer) -> set[int]:
    """How many BOS each row has."""
    return {row.count(tokenizer.bos_token_id) for batch in batches for row in batch}


@pytest.fixture
def seen(monkeypatch) -> list:
    """The ids of every batch that a model of this test reads."""
    batches = []
    embed = torch.nn.Embedding.forward

    def forward(self, ids):
        batches.append(ids.tolist())
        return embed(self, ids)

    monkeypatch.setattr(torch.nn.Embedding, "forward", forward)
    return batches


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "gemma"])
def test_one_bos_in_every_training_and_in_every_prompt(name, folders, tmp_path, seen):
    """TRL put two before the texts of preference training: one of its own, one of the template's."""
    folder, tokenizer = folders[name], load_tokenizer(folders[name])
    assert tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id, "this tokenizer adds one by itself"

    def looked_at() -> set[int]:
        counts = bos_counts(seen, tokenizer)
        seen.clear()
        return counts

    sft.sft([ROW] * 4, [ROW], folder, tmp_path / "sft", epochs=1, method="full", **SETTINGS)
    assert looked_at() == {1}
    preference.cogpo([PAIR] * 4, str(tmp_path / "sft"), tmp_path / "dpo", learning_rate=1e-5, seed=0)
    assert looked_at() == {1}
    graded = [
        reward_model.GradedChain(problem_id=str(i), asked=prompt_of(PROBLEM), text=f"{i}", rv=i % 9, cd=3,
                                 correct=i % 2, held_out=i % 2 == 0) for i in range(40)
    ]  # fmt: skip
    reward_model.fit_reward_model(graded, folder, tmp_path / "rm")
    assert looked_at() == {1}
    teacher = tmp_path / "teacher"
    a_student(teacher, FAMILIES[name])
    gkd.distil_from_logits([ROW] * 4, str(tmp_path / "sft"), str(teacher), tmp_path / "gkd", train_tokens=300,
                           on_policy=0.5, **SETTINGS)  # fmt: skip
    assert looked_at() == {1}
    items = [(CHAIN, PROBLEM), (CHAIN.replace(id="d"), PROBLEM.replace(id="q"))]
    student_judge.by_student(folder, items, samples=1, batch_size=2, max_new_tokens=2)(items, 0)
    prompts = [batch for batch in seen if len(batch[0]) > 1]  # the others are written tokens
    seen.clear()
    assert bos_counts(prompts, tokenizer) == {1}
    packed = packing.packed(examples.encode([ROW], tokenizer), packing.Shape(256, 4, 256, 256), tokenizer.pad_token_id)
    assert packed["input_ids"][0].tolist().count(tokenizer.bos_token_id) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "gemma", "gpt2"])
def test_grpo_asks_as_every_measurement_does(name, folders, tmp_path, monkeypatch):
    folder, asked = folders[name], []
    monkeypatch.setattr(grpo, "reward_terms", lambda text, *_, **__: dict.fromkeys(rewards.TERMS, len(text) % 7))
    monkeypatch.setattr(grpo, "RewardModel", lambda _: SimpleNamespace(grades=lambda a, t: [(3, 3, 1)] * len(t)))
    make = grpo.trainer_class

    def watched(policy):
        class Watched(make(policy)):
            def _generate_single_turn(self, prompt_ids, *args, **kwargs):
                asked.extend(prompt_ids)
                return super()._generate_single_turn(prompt_ids, *args, **kwargs)

        return Watched

    monkeypatch.setattr(grpo, "trainer_class", watched)
    (tmp_path / "rm").mkdir()
    grpo.grpo([PROBLEM] * 2, folder, str(tmp_path / "rm"), tmp_path / "out", line=(3.0, 0.0), steps=1, group=4,
              learning_rate=1e-4, gated=True, seed=0, max_completion=4,
              weights=rewards.parse_weights("full")[0])  # fmt: skip
    assert asked and all(list(ids) == encode_prompt(load_tokenizer(folder), prompt_of(PROBLEM)) for ids in asked)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_row_ends_with_the_token_that_the_template_ends_an_answer_with(name, folders):
    """Gemma, Phi and Llama's base name another one in their tokenizer's files, and ran on to the limit."""
    tokenizer = load_tokenizer(folders[name])
    end = tokenizer.convert_tokens_to_ids(FAMILIES[name]["end"])
    ((encoded,), _) = examples.encode_rows([ROW], tokenizer, 512)
    learned = [i for i, m in zip(encoded["input_ids"], encoded["completion_mask"], strict=True) if m]
    assert tokenizer.eos_token_id == end and learned[-1] == end and learned.count(end) == 1
    assert tokenizer.decode(learned[:-1]) == ROW.output
    whole = tokenizer.apply_chat_template(ROW.messages, return_dict=False)
    assert whole[: len(encoded["input_ids"])] == encoded["input_ids"], "what is trained is what the template writes"
    (pair,) = preference.encode_pairs([PAIR], tokenizer)
    for side in ("chosen_ids", "rejected_ids"):
        assert pair[side][-1] == end and pair[side].count(end) == 1


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("name", ["gemma", "phi"])
def test_a_student_stops_where_its_template_ends_the_turn(name, method, folders, tmp_path):
    out, tokens = tmp_path / "student", 30_000 if method == "full" else 300
    sft.sft([ROW] * 4, [], folders[name], out, train_tokens=tokens, method=method, **SETTINGS | {"learning_rate": 1e-2})
    model, tokenizer = load(str(out)), load_tokenizer(str(out))
    end = tokenizer.convert_tokens_to_ids(FAMILIES[name]["end"])
    assert AutoTokenizer.from_pretrained(out).eos_token == FAMILIES[name]["end"], (
        "also for those who know nothing of us"
    )
    assert end in json.loads((out / "generation_config.json").read_text())["eos_token_id"]
    told = formats.request_fields(str(out), "plain")
    assert end in templates.stop_ids(model, tokenizer)
    if method == "full":
        (reply,) = next(generate(model, tokenizer, [prompt_of(PROBLEM)], 64, 1))
        assert (reply.text, reply.finish_reason) == (ROW.output, "stop")
        assert reply.n_tokens == len(tokenizer(ROW.output, add_special_tokens=False)["input_ids"]) + 1
        request, limits = engines.GenerationRequest(prompt_of(PROBLEM), 0), {"max_new_tokens": 64, "temperature": 0.0}
        ((again,),) = engines.paged(model, tokenizer, [[request]], **limits)
        assert (again.text, again.finish_reason) == (ROW.output, "stop")
        stranger = AutoModelForCausalLM.from_pretrained(out)
        ids = torch.tensor([encode_prompt(tokenizer, prompt_of(PROBLEM))])
        assert stranger.generate(ids, do_sample=False, max_new_tokens=64)[0, -1] == end
        assert told == {}, "a server reads the file itself"
    else:
        assert end in told["stop_token_ids"], "a server takes the end token of the base"


@pytest.mark.slow
def test_a_student_whose_tokenizer_is_right_is_saved_as_ever(tmp_path):
    tiny = str(tiny_random(tmp_path / "tiny"))
    sft.sft([ROW] * 4, [], tiny, tmp_path / "out", epochs=1, method="lora", **SETTINGS)
    assert not (tmp_path / "out/generation_config.json").exists()
    assert formats.request_fields(str(tmp_path / "out"), "plain") == {}


def test_the_publishers_own_ends_stop_an_answer_too(folders):
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=[1, 7]))
    tokenizer = load_tokenizer(folders["gemma"])
    assert templates.stop_ids(model, tokenizer) == [1, 4, 7]
    model.generation_config.eos_token_id = None
    assert templates.stop_ids(model, tokenizer) == [4]


@pytest.mark.parametrize(("name", "pad"), [("llama", "<|end_of_text|>"), ("gemma", "<pad>"),
                                           ("phi", "<|endoftext|>"), ("gpt2", "<|endoftext|>")])  # fmt: skip
def test_there_is_a_token_to_pad_with(name, pad, folders):
    """One special token alone was a StopIteration."""
    assert load_tokenizer(folders[name]).pad_token == pad


@pytest.mark.slow
def test_a_student_of_one_special_token_learns_to_stop(folders, tmp_path):
    """Its padding is its end token: what is masked is the padding, not the end."""
    rows = [ROW, training_row(CHAIN.replace(thought="4 and 5 are " + "9 " * 9), PROBLEM.replace(question="So?"))] * 2
    out = tmp_path / "out"
    sft.sft(rows, rows, folders["gpt2"], out, train_tokens=40_000, method="full", **SETTINGS | {"learning_rate": 1e-2})
    asked = [row.messages[:-1] for row in rows[:2]]
    replies = next(generate(load(str(out)), load_tokenizer(str(out)), asked, 96, 2))
    assert [reply.finish_reason for reply in replies] == ["stop", "stop"]
    preference.cogpo([PAIR] * 4, str(out), tmp_path / "dpo", learning_rate=1e-5, seed=0)


def test_a_base_model_without_a_template_is_refused_before_work(tmp_path):
    folder = a_student(tmp_path / "base", GPT2 | {"template": None})
    began = []

    class Note(TrainerCallback):
        def on_train_begin(self, args, state, control, **_):
            began.append(state)

    with pytest.raises(StageError, match="base has no chat template, as base models often have none: choose"):
        sft.sft([ROW], [], folder, tmp_path / "out", epochs=1, method="full", callbacks=[Note()], **SETTINGS)
    assert not began and not (tmp_path / "out").exists()
    with pytest.raises(StageError, match="has no chat template"):  # before the stages that cost money
        given = {"student": folder, "train": "", "at_once": 1}
        preflight.check_training(asdict(Recipe(**SETTINGS, method="full", epochs=1)) | given)
    with pytest.raises(StageError, match="has no chat template"):
        reward_model.reward_text(load_tokenizer(folder), prompt_of(PROBLEM), "")


def test_a_template_that_asks_for_no_answer_is_refused(tmp_path):
    template = GEMMA["template"].partition("{% if add_generation_prompt")[0]
    folder = a_student(tmp_path / "silent", GEMMA | {"template": template})
    with pytest.raises(
        StageError, match="writes '<start_of_turn>model' before an answer, and not where one is to begin"
    ):
        examples.encode_rows([ROW], load_tokenizer(folder), 512)


def test_no_token_at_all_that_ends_an_answer_is_said(tmp_path):
    like = {"tokens": ["<unk>"], "named": {"eos_token": "<unk>"}, "template": "{{ messages[0].content }}"}
    folder = a_student(tmp_path / "endless", like)
    config = tmp_path / "endless/tokenizer_config.json"
    config.write_text(json.dumps({k: v for k, v in json.loads(config.read_text()).items() if k != "eos_token"}))
    with pytest.raises(StageError, match="names no token that ends an answer.*set eos_token"):
        load_tokenizer(folder)


def test_a_relative_folder_is_a_folder_and_a_path_that_is_not_there_is_no_model(tmp_path, monkeypatch):
    tiny_random(tmp_path / "models/mine")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("DISTIL_HOME", str(tmp_path))
    for here in (tmp_path, tmp_path / "elsewhere"):  # a notebook is opened in another folder than `distil run`
        monkeypatch.chdir(here)
        assert resolve("models/mine") == str(tmp_path / "models/mine")
    for path in ("./models/mine2", "/models/mine", "C:\\models\\mine", "a/b/c", "~/nothing"):
        with pytest.raises(StageError, match="there is no folder .*name one that is there"):
            resolve(path)
    assert resolve("OWNER/NAME") == "OWNER/NAME"
    assert student.base_of(str(tmp_path / "models/mine")) is None
