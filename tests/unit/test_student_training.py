"""The student, its training and its measurement, on a tiny random model made on the spot."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from factories import a_chain, a_problem
from transformers import TrainerCallback

from distil.chains.select import training_row
from distil.evaluate.answers import answer
from distil.llm.prompts import student_messages
from distil.models.student import Generated, encode_prompt, generate, growing_cache, load, load_tokenizer
from distil.models.weights import tiny_random
from distil.train import common, examples, log, model, pairs, preference, sft
from distil.train.common import evaluations
from distil.workspace.environment import choose_dtype
from distil.workspace.errors import StageError
from distil.workspace.files import read_csv
from distil.workspace.rows import AlignedChain, Pair
from distil.workspace.statistics import difference, interval, pass_at_k

PROBLEM = a_problem(question="What is 4 + 5?", answer="9")
CHAIN = a_chain(thought="4 + 5 = 9", solution="\\boxed{9}")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    return str(tiny_random(tmp_path_factory.mktemp("cache") / "tiny"))


def test_a_process_trains_on_one_gpu_though_it_sees_several(tmp_path):
    from transformers import TrainingArguments

    arguments = TrainingArguments(
        **common.trainer_arguments(tmp_path, steps=10, learning_rate=1e-4, seed=0, batch_size=16, micro_batch_size=16)
    )
    arguments._n_gpu = 2  # as transformers finds it on a machine with two
    assert arguments.train_batch_size == 32, "a step would be of other rows than on one GPU"
    assert common.on_one_gpu(arguments).train_batch_size == 16


def test_the_output_layer_runs_where_weights_are_shared_out(tiny, tmp_path, monkeypatch):
    """FSDP loses the tied embeddings otherwise, once a look at the validation rows and a checkpoint have come."""
    seen = []

    class Look(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            seen.append(args.loss_type)

    settings = {"train_tokens": 100, "learning_rate": 1e-3, "max_length": 256, "method": "lora", "seed": 0}
    for sharded in ("false", "true"):
        monkeypatch.setenv("ACCELERATE_USE_FSDP", sharded)
        sft.sft([training_row(CHAIN, PROBLEM)], [], tiny, tmp_path / sharded, **settings, callbacks=[Look()])
    assert seen == ["chunked_nll", "nll"]


def test_training_and_inference_render_the_same_tokens(tiny):
    tokenizer = load_tokenizer(tiny)
    encoded, too_long = examples.encode_rows([training_row(CHAIN, PROBLEM)], tokenizer, 512)
    ids, mask = encoded[0]["input_ids"], encoded[0]["completion_mask"]
    prompt = encode_prompt(tokenizer, student_messages(PROBLEM.question))
    assert ids[: len(prompt)] == prompt and mask == [0] * len(prompt) + [1] * (len(ids) - len(prompt))
    assert ids[-1] == tokenizer.eos_token_id and tokenizer.decode(ids[len(prompt) : -1]) == "4 + 5 = 9\n\n\\boxed{9}"
    assert too_long == 0 and tokenizer.pad_token_id != tokenizer.eos_token_id


def test_long_rows_are_left_out_and_counted_never_cut(tiny):
    encoded, too_long = examples.encode_rows([training_row(CHAIN, PROBLEM)] * 3, load_tokenizer(tiny), 20)
    assert (encoded, too_long) == ([], 3)


def test_the_budget_is_kept_and_every_row_comes_once_before_any_comes_twice():
    rows = [{"input_ids": [i] * (i + 5), "completion_mask": []} for i in range(10)]
    filled = examples.fill_budget(rows, 150, seed=1)
    total = sum(len(r["input_ids"]) for r in filled)
    assert 150 <= total < 150 + 14
    assert len({r["input_ids"][0] for r in filled[:10]}) == 10
    assert sorted(map(str, examples.by_length(filled, 0, 4))) == sorted(map(str, filled))


def test_the_student_learns_to_answer_and_to_stop(tiny, tmp_path):
    rows = [training_row(CHAIN, PROBLEM)] * 4
    out = tmp_path / "student"
    settings = {"train_tokens": 40_000, "learning_rate": 1e-2, "max_length": 256, "method": "full", "seed": 0}
    result = sft.sft(rows, rows[:1], tiny, out, **settings)
    assert 40_000 <= result.tokens <= 40_256 and result.epochs > 10 and result.loss < 1
    assert result.validated == "1 of 1" and result.trained == load(tiny).num_parameters() - 259 * 64
    logged = [row for row in read_csv(out / "log.csv") if row["loss"] is not None]
    assert all(row["tokens_per_s"] > 0 and row["memory_gb"] > 0 and row["learning_rate"] is not None for row in logged)
    assert logged[-1]["num_tokens"] == pytest.approx(result.tokens, rel=0.05), "padding is not counted"
    reply = next(generate(load(str(out)), load_tokenizer(str(out)), [student_messages(PROBLEM.question)], 64, 1))[0]
    assert reply.finish_reason == "stop" and reply.text == "4 + 5 = 9\n\n\\boxed{9}"
    written = (out / "model.safetensors").stat().st_mtime_ns
    assert sft.sft(rows, rows[:1], tiny, out, **settings) == result, "finished work is not done again"
    assert (out / "model.safetensors").stat().st_mtime_ns == written


def test_tokens_are_counted_where_the_trainer_does_not(tiny, tmp_path):
    """As with Unsloth, whose rows of the log have no `num_tokens`."""
    seen, rows = (
        log.throughput_callback(),
        [training_row(CHAIN, PROBLEM)] * 3 + [training_row(CHAIN.replace(thought="4"), PROBLEM)],
    )
    settings = {"train_tokens": 1000, "learning_rate": 1e-3, "max_length": 256, "method": "lora", "seed": 0}
    result = sft.sft(rows, [], tiny, tmp_path, **settings, callbacks=[seen])
    assert sum(seen.batches) == result.tokens == read_csv(tmp_path / "log.csv")[-2]["num_tokens"]
    state = SimpleNamespace(global_step=2, log_history=[{"loss": 1.0}])
    seen.tokens, seen.at = 0.0, seen.at - 1000
    seen.on_log(SimpleNamespace(gradient_accumulation_steps=1), state, None)
    assert state.log_history[0]["tokens_per_s"] == pytest.approx(sum(seen.batches[:2]) / 1000, abs=0.1)


def test_an_adapter_names_its_base_and_loads(tiny, tmp_path):
    rows = [training_row(CHAIN, PROBLEM)] * 4
    sft.sft(rows, [], tiny, tmp_path / "a", train_tokens=500, learning_rate=1e-3, max_length=256, method="lora", seed=0)
    assert json.loads((tmp_path / "a" / "adapter_config.json").read_text())["base_model_name_or_path"] == tiny
    assert load(str(tmp_path / "a")).num_parameters() == load(tiny).num_parameters()


def test_a_step_takes_the_rows_it_is_told_and_callbacks_see_it(tiny, tmp_path):
    seen = []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            seen.append((state.global_step, args.per_device_train_batch_size * args.gradient_accumulation_steps))

    rows, settings = [training_row(CHAIN, PROBLEM)] * 4, {"learning_rate": 1e-3, "max_length": 256, "method": "lora"}
    result = sft.sft(rows, [], tiny, tmp_path, train_tokens=700, seed=0, batch_size=2, callbacks=[Watch()],
                          **settings)  # fmt: skip
    assert seen == [(step + 1, 2) for step in range(-(-result.examples // 2))]


def test_validation_rows_are_a_sample_of_all_tasks(tiny):
    """The first 32 of a file that comes a task after the other were three of twelve tasks."""
    tokenizer, sizes = load_tokenizer(tiny), {f"task{i}": 10 + i for i in range(12)}
    rows = [
        training_row(CHAIN.replace(thought=f"{task} {i}"), PROBLEM.replace(id=f"{task}{i}", task=task))
        for task, n in sizes.items() for i in range(n)
    ]  # fmt: skip

    def taken(rows, n=32, seed=0):
        chosen, of = examples.validation_sample(rows, tokenizer, 512, n, seed)
        whole = [row["input_ids"] for row in examples.encode(rows, tokenizer)]
        assert (len(chosen), of) == (min(n, len(rows)), len(rows))
        return [whole.index(row["input_ids"]) for row in chosen]

    places = taken(rows)
    assert places == sorted(places) == taken(rows) != taken(rows, seed=1), "in the order of the file, and seeded"
    per_task = [sum(rows[place].task == task for place in places) for task in sizes]
    assert sum(per_task) == 32 and set(per_task) <= {1, 2, 3, 4}, "each in proportion"
    untold = taken([row.replace(task="") for row in rows])
    assert untold[-1] - untold[0] > len(rows) / 2, "rows without tasks are drawn from all"
    assert taken(rows[:20]) == list(range(20)), "few are all looked at"
    long = training_row(CHAIN.replace(thought="9 " * 900), PROBLEM)
    assert examples.validation_sample([long, *rows[:4]], tokenizer, 512, 32, 0)[1] == 4


@pytest.mark.parametrize(("backend", "embeddings"), [("trl", 259 * 64), ("packed", 259 * 64), ("unsloth", 259 * 64)])
def test_full_trains_the_same_weights_with_every_backend(tiny, monkeypatch, backend, embeddings):
    """Unsloth trained the embeddings, too."""
    from transformers import AutoModelForCausalLM

    class FastLanguageModel:  # as Unsloth's does for full fine-tuning: every weight learns
        @staticmethod
        def from_pretrained(folder, **settings):
            assert settings["full_finetuning"]
            return AutoModelForCausalLM.from_pretrained(folder).requires_grad_(True), None

    monkeypatch.setitem(sys.modules, "unsloth", SimpleNamespace(FastLanguageModel=FastLanguageModel))
    monkeypatch.setattr(model, "backend", lambda *_: backend)
    loaded = model.load_for_training(tiny, "full", max_length=64, seed=0)
    assert not loaded.get_input_embeddings().weight.requires_grad
    assert model.trained_weights(loaded) == loaded.num_parameters() - embeddings
    further = model.load_student_for_training(tiny)
    assert model.trained_weights(further) == model.trained_weights(loaded), "also where it is trained further"


def test_no_row_that_fits_is_a_clear_error(tiny, tmp_path):
    with pytest.raises(StageError, match="max_length=20"):
        sft.sft([training_row(CHAIN, PROBLEM)], [], tiny, tmp_path, train_tokens=100, learning_rate=1e-3,
                     max_length=20, method="full", seed=0)  # fmt: skip
    with pytest.raises(StageError, match="full, lora, qlora"):
        model.load_for_training(tiny, "magic", max_length=64, seed=0)


def test_a_row_without_output_is_refused(tiny):
    row = training_row(CHAIN.replace(thought="", solution=" "), PROBLEM)
    with pytest.raises(StageError, match="problem 'p' has no output"):
        examples.encode_rows([row], load_tokenizer(tiny), 256)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "has no chat template, as base models often have none"),
        ("{{ raise_exception('System role not supported') }}", "chat template of .* cannot render .*system, user"),
    ],
)
def test_a_template_that_cannot_render_the_prompt_is_named(tiny, template, said):
    tokenizer = load_tokenizer(tiny)
    tokenizer.chat_template = template
    with pytest.raises(StageError, match=said):
        encode_prompt(tokenizer, [{"role": "system", "content": "be brief"}, {"role": "user", "content": "1 + 1?"}])


def test_a_killed_training_goes_on_only_with_the_same_settings(tiny, tmp_path, monkeypatch):
    """Killed after its first checkpoint: the same request goes on from there, another one begins anew."""
    from transformers import TrainerCallback

    class Kill(TrainerCallback):
        def on_save(self, args, state, control, **_):
            raise KeyboardInterrupt

    began = []

    class Note(TrainerCallback):
        def on_train_begin(self, args, state, control, **_):
            began.append(state.global_step)

    rows = [training_row(CHAIN, PROBLEM)] * 4
    settings = {"train_tokens": 2_000, "learning_rate": 1e-3, "max_length": 256, "method": "full", "seed": 0}
    for again in (settings, settings | {"learning_rate": 2e-3}):
        out = tmp_path / str(again["learning_rate"])
        with pytest.raises(KeyboardInterrupt):
            sft.sft(rows, [], tiny, out, **settings, callbacks=[Kill()])
        assert list((out / "checkpoints").glob("checkpoint-*"))
        sft.sft(rows, [], tiny, out, **again, callbacks=[Note()])
        assert not (out / "checkpoints").exists()
    assert began[0] > 0 and began[1] == 0


def test_the_growing_cache_gives_the_default_ones_answers(tiny):
    model, tokenizer = load(tiny).float(), load_tokenizer(tiny)
    batch = tokenizer(["one two", "a longer prompt than that"], return_tensors="pt", padding=True).to(model.device)
    settings = {"max_new_tokens": 150, "min_new_tokens": 150, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(
        model.generate(**batch, **settings), model.generate(**batch, **settings, past_key_values=growing_cache())
    )


@pytest.mark.parametrize(
    ("instructions", "dtype"),
    [
        ({"avx2": True, "avx512_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"neon": True, "bf16": True}, torch.bfloat16),
    ],
)
def test_the_cpu_decides_on_the_dtype_and_no_stopwatch(instructions, dtype, monkeypatch):
    """On a busy machine a measurement once had a killed training go on in another precision."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    chosen, why = choose_dtype()
    assert chosen == dtype and "bfloat16" in why


def test_a_killed_evaluation_ends_with_the_same_answers(tiny, tmp_path):
    problems = [PROBLEM.replace(id=f"p{i}", question="What is " + "1 + " * i + "1?") for i in range(7)]
    settings = {"weights": "first", "max_new_tokens": 12, "batch_size": 3}
    model = load(tiny), load_tokenizer(tiny)
    whole = answer(problems, lambda: model, tmp_path / "whole.jsonl", **settings)
    lines = (tmp_path / "whole.jsonl").read_text().split("\n")
    (tmp_path / "cut.jsonl").write_text("\n".join(lines[:4]) + lines[4][:20])
    again = answer(problems, lambda: model, tmp_path / "cut.jsonl", **settings)
    assert [r.replace(seconds=0) for r in again] == [r.replace(seconds=0) for r in whole]

    def refuse():
        raise AssertionError("everything was answered already")

    assert answer(problems, refuse, tmp_path / "whole.jsonl", **settings) == whole
    changed = [problems[0].replace(question="Another one?"), *problems[1:]]
    for asked, more in ((problems, {"weights": "second"}), (problems, {"max_new_tokens": 9}), (changed, {})):
        with pytest.raises(AssertionError, match="answered already"):  # the answers there are another student's
            answer(asked, refuse, tmp_path / "cut.jsonl", **settings | more)
    fewer = answer(problems[:1], lambda: model, tmp_path / "whole.jsonl", **settings)
    assert len(fewer) == 1 and len((tmp_path / "whole.jsonl").read_text().splitlines()) == len(problems)


def test_pass_at_k_against_enumeration():
    from itertools import combinations

    for n in range(1, 8):
        for c in range(n + 1):
            for k in range(1, n + 1):
                draws = [any(i < c for i in draw) for draw in combinations(range(n), k)]
                assert pass_at_k(n, c, k) == pytest.approx(sum(draws) / len(draws))
    assert pass_at_k([4, 4], [0, 4], 2).tolist() == [0, 1]
    with pytest.raises(ValueError, match="pass@5"):
        pass_at_k(4, 1, 5)


def test_intervals_cover():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        low, high = interval((rng.random(100) < 0.3).tolist())
        covered += low <= 0.3 <= high
    assert 0.92 <= covered / 400 <= 0.98
    gap = difference([True] * 60 + [False] * 40, [True] * 40 + [False] * 60, seed=0)
    assert gap["ci_low"] > 0 and gap["difference"] == pytest.approx(0.2)


PAIRS = [
    Pair(prompt=student_messages(f"What is {i} + 5?"), chosen=f"{i} + 5 = {i + 5}\n\n\\boxed{{{i + 5}}}",
         rejected=f"{i} + 5 = 1\n\n\\boxed{{1}}", gap="large", beta=beta, problem_id=str(i), split="train")
    for i, beta in enumerate((0.1, 0.2, 0.5, 0.5))
]  # fmt: skip


def losses(tiny, tmp_path, betas, cogpo: bool):
    import datasets
    from transformers import AutoModelForCausalLM
    from trl import DPOConfig, DPOTrainer

    torch.manual_seed(0)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny), load_tokenizer(tiny)
    reference = AutoModelForCausalLM.from_pretrained(tiny)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    encoded = preference.encode_pairs(
        [row.replace(beta=beta) for row, beta in zip(PAIRS, betas, strict=True)], tokenizer
    )
    config = DPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", beta=betas[0],
                       per_device_train_batch_size=4, disable_dropout=True)  # fmt: skip
    texts = [
        {side: tokenizer.decode(row[f"{side}_ids"]) for side in ("prompt", "chosen", "rejected")} for row in encoded
    ]
    kind = preference.cogpo_trainer_class() if cogpo else DPOTrainer
    trainer = kind(model=model, ref_model=reference, args=config, processing_class=tokenizer,
                   train_dataset=datasets.Dataset.from_list(encoded if cogpo else texts))  # fmt: skip
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    loss = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
    return loss.item(), gradient, trainer, batch


def test_with_equal_betas_cogpo_is_dpo(tiny, tmp_path):
    ours, our_gradient, *_ = losses(tiny, tmp_path, [0.2] * 4, cogpo=True)
    theirs, their_gradient, *_ = losses(tiny, tmp_path, [0.2] * 4, cogpo=False)
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert torch.allclose(our_gradient, their_gradient, atol=1e-5)


def test_with_unequal_betas_cogpo_is_the_formula(tiny, tmp_path):
    betas = [0.1, 0.2, 0.5, 0.5]
    ours, _, trainer, batch = losses(tiny, tmp_path, betas, cogpo=True)

    def logps(model):
        with torch.no_grad():
            logits = model.double()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        chosen = logits[:, :-1].log_softmax(-1).gather(2, batch["input_ids"][:, 1:, None])[..., 0]
        return (chosen * batch["completion_mask"][:, 1:]).sum(1)

    ratio = logps(trainer.model) - logps(trainer.ref_model)
    delta = ratio[:4] - ratio[4:]
    by_hand = -torch.nn.functional.logsigmoid(torch.tensor(betas, dtype=torch.float64) * delta).mean().item()
    assert ours == pytest.approx(by_hand, abs=1e-4)


def test_pairs_that_would_be_cut_are_dropped_and_none_left_is_an_error(tiny, tmp_path):
    encoded = preference.encode_pairs(PAIRS, load_tokenizer(tiny))
    assert all(preference.too_long(row, 30) for row in encoded)
    longest = [max(len(row["prompt_ids"] + row[side]) for side in ("chosen_ids", "rejected_ids")) for row in encoded]
    for row, length in zip(encoded, longest, strict=True):
        assert preference.too_long(row, length - 1) and not preference.too_long(row, length)
    with pytest.raises(StageError, match="none of 4 pairs"):
        preference.cogpo(PAIRS, tiny, tmp_path, learning_rate=1e-5, seed=0, max_length=30)


def aligned(kept, first, last, name="p"):
    trail = [{"difficulty": first, "text": "before"}]
    chain = a_chain(id=last, problem_id=name, thought=last, solution="", n_tokens=len(last))
    return AlignedChain(id=f"{name}-0", kept=kept, reason=None, problem_id=name, trail=trail, chain=chain)


CORRUPTED = [a_chain(parent="p-0", thought="bad", solution="")]
OWN = [pairs.Mistake(problem_id="p", text="mine")]


def test_pairs_of_four_gaps():
    betas = pairs.parse_betas("small:0.1,medium:0.2,large:0.5,own:0.3")
    rows = pairs.build_pairs(
        [aligned(True, "easy", "after")], CORRUPTED, OWN, {"p": PROBLEM}, betas=betas, max_pairs=10, seed=0
    )
    assert {(r.gap, r.chosen, r.rejected, r.beta) for r in rows} == {
        ("small", "after", "before", 0.1), ("medium", "before", "bad", 0.2), ("large", "after", "bad", 0.5),
        ("own", "after", "mine", 0.3),
    }  # fmt: skip
    wordy = aligned(True, "medium", "after all is said").replace(id="p-1")
    again = pairs.build_pairs(
        [aligned(True, "easy", "after"), wordy], CORRUPTED, OWN, {"p": PROBLEM}, betas=betas, max_pairs=10, seed=0
    )
    assert again == rows, "the wordier chain was neither corrupted nor taught"
    many = [aligned(True, "easy", f"after {i}", name=str(i)) for i in range(200)]
    named = {str(i): PROBLEM.replace(id=str(i)) for i in range(200)}
    rows = pairs.build_pairs(many, [], [], named, betas={"small": 0.1}, max_pairs=50, seed=0)
    parts = {part: {r.problem_id for r in rows if r.split == part} for part in ("train", "valid")}
    assert len(parts["train"]) == 50 and len(parts["valid"]) == pairs.WATCHED and not parts["train"] & parts["valid"]
    one = [aligned(True, "easy", "after")], CORRUPTED, OWN, {"p": PROBLEM}
    assert len(pairs.build_pairs(*one, betas=betas, max_pairs=4, seed=0)) == 4
    with pytest.raises(StageError, match="'large' is trained on: all 1 were set aside, or left out by max_pairs=2"):
        pairs.build_pairs(*one, betas=betas, max_pairs=2, seed=0)


@pytest.mark.parametrize(("rows", "corrupted", "own", "gap"), [
    ([], [], [], "small"),
    ([aligned(True, "medium", "after")], CORRUPTED, OWN, "small"),
    ([aligned(True, "easy", "before")], CORRUPTED, OWN, "small"),  # chosen and rejected would be the same
    ([aligned(True, "easy", "after")], [], OWN, "medium"),
    ([aligned(True, "easy", "after")], CORRUPTED, [], "own"),
])  # fmt: skip
def test_a_gap_without_pairs_is_named_with_the_way_out(rows, corrupted, own, gap):
    betas = pairs.parse_betas("small:0.1,medium:0.2,large:0.5,own:0.3")
    with pytest.raises(StageError, match=f"no pair for the gap '{gap}'.*Leave it out") as error:
        pairs.build_pairs(rows, corrupted, own, {"p": PROBLEM}, betas=betas, max_pairs=10, seed=0)
    assert f"{gap}:" not in str(error.value).split("betas=")[1]


@pytest.mark.parametrize("text", ["0.1", "small", "small:x", "small:0", "small:-1", "small:nan", "small:inf", "tiny:1",
                                  "small:1,small:2", ""])  # fmt: skip
def test_betas_are_refused(text):
    with pytest.raises(StageError, match="betas"):
        pairs.parse_betas(text)


def test_faulty_pairs_are_refused_before_training(tiny, tmp_path):
    def attempt(rows, **more):
        preference.cogpo(rows, tiny, tmp_path, learning_rate=1e-5, seed=0, **more)

    with pytest.raises(StageError, match="no preference pair"):
        attempt([])
    with pytest.raises(StageError, match="pair 2 .*the same text"):
        attempt([PAIRS[0], PAIRS[1].replace(rejected=PAIRS[1].chosen + " ")])
    with pytest.raises(StageError, match="beta is 0"):
        attempt([PAIRS[0].replace(beta=0)])
    with pytest.raises(StageError, match="use one of sigmoid"):
        attempt(PAIRS, loss="hinge")


@pytest.mark.parametrize("loss", list(preference.LOSSES))
def test_preference_training_moves_the_margin(tiny, tmp_path, loss):
    rows = [PAIRS[i % 4].replace(split="valid" if i < 6 else "train") for i in range(40)]
    result = preference.cogpo(rows, tiny, tmp_path, learning_rate=1e-3, seed=0, loss=loss)
    held = result.gaps["large"]
    assert result.pairs == 34 and held["n"] == 6 and held["margin"] > 0
    assert held["chosen"] > held["rejected"], "the chosen side gained on the rejected"
    assert preference.cogpo(rows, tiny, tmp_path, learning_rate=1e-3, seed=0, loss=loss) == result


def test_own_mistakes_are_wrong_answers_in_due_form(tiny, monkeypatch):
    texts = ["\\boxed{15}", "\\boxed{9}", "I do not know", "\\boxed{9}"]
    ends = ["stop", "stop", "stop", "length"]

    def generate(model, tokenizer, prompts, **_):
        numbers = [int(p[-1]["content"].split()[2].rstrip("?")) for p in prompts]
        yield [Generated(texts[i], 3, ends[i], None) for i in numbers]

    monkeypatch.setattr("distil.models.student.generate", generate)
    problems = [a_problem(id=str(i), question=f"Number is {i} What is 7 + 8?", answer="15") for i in range(4)]
    found = pairs.own_mistakes(problems, tiny, 10, seed=0)
    assert found == [pairs.Mistake(problem_id="1", text="\\boxed{9}")]


def test_validation_takes_a_tenth_of_a_training_at_most_or_happens_twice():
    assert (
        evaluations(298, 32) == 2 and evaluations(426, 32) == 2 and evaluations(427, 32) == 4 and evaluations(1, 0) == 4
    )
