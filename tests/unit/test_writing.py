"""How a student's answers are written on a CPU: heads that share keys, and a copy that writes while it learns."""

import pytest

from distil.models import grouped_heads, student
from distil.models.weights import tiny_random
from distil.train import writing

torch = pytest.importorskip("torch")
LENGTHS = (9, 4, 7)
ENDS = [1]


def model_of(heads: int, groups: int, attention: str = "sdpa"):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    shape = {"vocab_size": 97, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3}
    config = Qwen2Config(**shape, num_attention_heads=heads, num_key_value_heads=groups, attn_implementation=attention)
    return Qwen2ForCausalLM(config).eval()


def rows() -> tuple:
    """(tokens, mask): rows of `LENGTHS`, padded on the left."""
    torch.manual_seed(1)
    tokens, mask = torch.randint(3, 97, (len(LENGTHS), max(LENGTHS))), torch.ones(len(LENGTHS), max(LENGTHS)).long()
    for row, length in enumerate(LENGTHS):
        mask[row, : max(LENGTHS) - length] = 0
    return tokens, mask


def greedy(model, most: int = 30, ends: list[int] = ENDS, ended=None) -> list[list[int]]:
    settings = {"do_sample": False, "eos_token_id": ends, "pad_token_id": 0}
    return student.write(model, *rows(), ends, most, settings, ended)


def logits_of_the_next(model, past: int) -> "torch.Tensor":
    """Of the last position, where all before are in the cache."""
    from transformers.cache_utils import DynamicCache

    (tokens, mask), cache = rows(), DynamicCache()
    with torch.inference_mode():
        model(tokens[:, :past], attention_mask=mask[:, :past], past_key_values=cache)
        return model(tokens[:, past:], attention_mask=mask, past_key_values=cache).logits


@pytest.mark.parametrize(("heads", "groups"), [(6, 2), (6, 1), (6, 6)])
def test_heads_that_share_keys_see_the_same_together(heads, groups):
    model, settings = model_of(heads, groups), {"do_sample": False, "eos_token_id": ENDS, "pad_token_id": 0}
    for past in (max(LENGTHS) - 1, max(LENGTHS) - 3):  # one new position, and several
        wanted = logits_of_the_next(model, past)
        with grouped_heads.grouped_heads(model):
            assert model.config._attn_implementation == grouped_heads.NAME
            assert torch.allclose(logits_of_the_next(model, past), wanted, atol=1e-5)
        assert model.config._attn_implementation == "sdpa"
    tokens, mask = rows()
    plain = model.generate(tokens, attention_mask=mask, max_new_tokens=30, **settings)[:, tokens.shape[1] :].tolist()
    assert [answer + [0] * (30 - len(answer)) for answer in greedy(model)] == [
        answer + [0] * (30 - len(answer)) for answer in plain
    ]


def test_no_key_is_copied_for_a_single_position(monkeypatch):
    model, seen = model_of(6, 2), []
    attention = torch.nn.functional.scaled_dot_product_attention

    def counted(query, key, *args, **how):
        seen.append((query.shape[1], key.shape[1]))
        return attention(query, key, *args, **how)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    greedy(model, 4)
    assert seen[-1] == (2, 2), "both have the groups, not the heads"


def test_another_attention_is_left_as_it_is():
    model = model_of(6, 2, attention="eager")
    with grouped_heads.grouped_heads(model):
        assert model.config._attn_implementation == "eager"


def test_a_mask_for_each_head_stays_one():
    query, key = torch.randn(2, 6, 1, 8), torch.randn(2, 2, 5, 8)
    mask, module = torch.randn(2, 6, 1, 5), torch.nn.Module()
    module.num_key_value_groups = 3
    shared = key.repeat_interleave(3, dim=1)
    wanted = torch.nn.functional.scaled_dot_product_attention(query, shared, shared, attn_mask=mask)
    assert torch.allclose(grouped_heads.attend(module, query, key, key, mask)[0], wanted.transpose(1, 2), atol=1e-6)


def test_answers_end_at_their_end_token_and_by_what_is_told():
    whole = greedy(model_of(6, 2))
    assert {len(answer) for answer in whole} == {30}
    end = whole[0][5]
    until_end = [answer[: answer.index(end) + 1] if end in answer else answer for answer in whole]
    assert greedy(model_of(6, 2), ends=[end]) == until_end != whole
    told = greedy(model_of(6, 2), ended=lambda answers: [True] * len(answers))
    assert [answer[: student.BLOCK] for answer in whole] == told


def test_the_copy_is_the_student_as_it_would_be_loaded(monkeypatch, tmp_path):
    """Bit by bit, and tied weights are tied; in bfloat16, too, positions are counted in float32."""
    from peft import LoraConfig, get_peft_model

    monkeypatch.setattr(writing, "choose_dtype", lambda: (torch.bfloat16, "for this test"))
    monkeypatch.setattr(student, "choose_dtype", lambda: (torch.bfloat16, "for this test"))
    model_of(6, 2).save_pretrained(tmp_path)
    copied, loaded = writing.merged_copy(model_of(6, 2)), student.load(str(tmp_path))
    (tokens, mask), wanted = rows(), loaded.state_dict()
    assert copied.state_dict().keys() == wanted.keys() and copied.dtype == torch.bfloat16
    assert all(torch.equal(weight, wanted[name]) for name, weight in copied.state_dict().items())
    assert torch.equal(copied(tokens, attention_mask=mask).logits, loaded(tokens, attention_mask=mask).logits)
    model = get_peft_model(model_of(6, 2), LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    torch.nn.init.normal_(model.get_base_model().model.layers[0].self_attn.q_proj.lora_B["default"].weight)
    wanted = {
        name: weight.bfloat16() for name, weight in writing.copy.deepcopy(model).merge_and_unload().state_dict().items()
    }
    assert all(torch.equal(weight, wanted[name]) for name, weight in writing.merged_copy(model).state_dict().items())


def test_on_a_gpu_the_trainer_writes_itself(monkeypatch):
    """Also while the model still lies on the CPU, from where the trainer takes it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    model = model_of(6, 2)
    writing.write_with_a_copy(model)
    assert "generate" not in model.__dict__


@pytest.mark.parametrize("adapter", [True, False])
def test_who_learns_writes_with_a_copy_that_says_the_same(adapter, monkeypatch):
    from peft import LoraConfig, get_peft_model
    from transformers import GenerationConfig

    monkeypatch.setattr(writing, "choose_dtype", lambda: (torch.float32, "for this test"))
    model = model_of(6, 2)
    if adapter:
        model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.3)
    tokens, mask = rows()
    config = GenerationConfig(do_sample=False, max_new_tokens=30, eos_token_id=ENDS, pad_token_id=0)
    wanted = model.generate(input_ids=tokens, attention_mask=mask, generation_config=config)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    writing.write_with_a_copy(model)
    model.train()
    found = model.generate(input_ids=tokens, attention_mask=mask, generation_config=config)
    assert torch.equal(found, wanted)
    assert model.training and model.config._attn_implementation == "sdpa", "it learns as before"
    assert before.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name or (not adapter and "down_proj" in name):
                weight.mul_(-1)
    changed = model.generate(input_ids=tokens, attention_mask=mask, generation_config=config)
    assert not torch.equal(changed, found), "each time it is the student of now"


def test_memory_for_the_copy_is_planned(tmp_path, monkeypatch):
    tiny = str(tiny_random(tmp_path / "tiny"))
    monkeypatch.setattr(writing.memory, "weights_gib", lambda *asked: {(tiny, "full"): 3.5}[asked])
    assert writing.engine_settings(tiny, 20, 1) == ({}, 3.5)
