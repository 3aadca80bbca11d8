"""Packed rows: nothing is lost, no row sees another, and the losses are those of padded rows."""

import pytest
from factories import a_training_row

from distil.train import attention, model, sft
from distil.train.examples import rows_for
from distil.train.packing import NO_TARGET, by_rows, by_tokens, divided, learned_of, packed, shape_of, tokens_of
from distil.workspace.rows import TrainingRow


def row(length: int, prompt: int, first: int = 10) -> dict:
    return {"input_ids": [first + i for i in range(length)], "completion_mask": [0] * prompt + [1] * (length - prompt)}


ROWS = [row(9, 4), row(30, 10, 100), row(5, 2, 200), row(17, 16, 300)]


def test_steps_hold_all_rows_in_order():
    for steps in (by_rows(ROWS, 3), by_tokens(ROWS, 40), by_tokens(ROWS, 6)):
        assert [r for rows in steps for r in rows] == ROWS
    assert [len(rows) for rows in by_rows(ROWS, 3)] == [3, 1]
    assert [tokens_of(rows) for rows in by_tokens(ROWS, 40)] == [39, 22]
    assert [len(rows) for rows in by_tokens(ROWS, 6)] == [1, 1, 1, 1], "a row longer than a step is a step"


def test_parts_of_a_step_are_about_equal():
    parts = divided(ROWS, 2)
    assert sorted(map(tokens_of, parts)) == [30, 31]
    assert [len(part) for part in divided(ROWS[:1], 3)] == [1, 0, 0]


def test_a_packed_batch_holds_every_learned_token_and_no_other():
    batches = divided(ROWS, 2)
    shape = shape_of(batches, 30)
    for batch in batches:
        made = packed(batch, shape, 0)
        ids, starts = made["input_ids"][0], made["starts"].tolist()
        assert len(ids) == shape.tokens and len(starts) == shape.boundaries and starts[-1] == shape.tokens
        assert max(b - a for a, b in zip(starts, starts[1:], strict=False)) <= shape.longest
        assert made["attention_mask"].sum() == tokens_of(batch)
        real = made["labels"] != NO_TARGET
        assert real.sum() == learned_of(batch)
        assert (ids[made["where"][real] + 1] == made["labels"][real]).all(), "each hidden state predicts the next token"
        positions = made["position_ids"][0]
        for start in starts[: len(batch)]:
            assert positions[start] == 0


@pytest.mark.parametrize("dtypes", [("float32", "float32", "bfloat16"), ("float32",) * 3, ("float16",) * 3])
def test_the_kernel_gets_16_bits_of_one_kind(monkeypatch, dtypes):
    """With all weights trained, autocast leaves queries and keys in float32."""
    import torch
    from torch.nn.attention import varlen

    seen = []
    monkeypatch.setattr(varlen, "varlen_attn", lambda q, k, v, *_, **__: seen.append((q, k, v)) or q)
    q, k, v = (torch.zeros(5, heads, 8, dtype=getattr(torch, d)) for heads, d in zip((4, 2, 2), dtypes, strict=True))
    attention.on_gpu(q, k, v, torch.tensor([0, 5]), 5, None, None)
    ((q, k, v),) = seen
    assert q.dtype == k.dtype == v.dtype and q.dtype in (torch.float16, torch.bfloat16)
    assert q.shape == k.shape == v.shape == (5, 4, 8)


def test_a_step_of_so_many_tokens_is_rows_that_can_be_shared():
    rows = [row(10, 2) for _ in range(40)]
    assert rows_for(370, rows) == 40 and rows_for(30, rows) == 3 and rows_for(1, rows) == 1
    assert rows_for(30, rows, processes=2) == 4 and rows_for(370, rows, processes=3) == 48


@pytest.fixture
def packed_on_a_cpu(monkeypatch):
    monkeypatch.setattr(attention, "missing", lambda: None)


def losses(folder) -> list[float]:
    from distil.workspace.files import read_csv

    return [r["loss"] for r in read_csv(folder / "log.csv") if r["loss"] is not None]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_losses_are_those_of_padded_rows(tmp_path, monkeypatch, packed_on_a_cpu, method):
    monkeypatch.setattr("distil.train.examples.by_length", lambda rows, *_: list(rows))  # the same rows a step
    rows = [
        TrainingRow(
            instruction=f"{i} + {i}?",
            output=f"{i} + {i} = {2 * i}\n\n" * (1 + i % 5),
            messages=[{"role": "user", "content": f"{i} + {i}?"}, {"role": "assistant", "content": ""}],
            problem_id=str(i),
        )
        for i in range(24)
    ]
    found = {}
    for name in ("packed", "trl"):
        monkeypatch.setenv("DISTIL_BACKEND", name)
        result = sft.sft(
            rows, rows[:6], "tiny-random", tmp_path / name, train_tokens=2000, learning_rate=1e-3, max_length=256,
            method=method, seed=0, batch_size=4,
        )  # fmt: skip
        assert result.backend == name
        found[name] = losses(tmp_path / name), result.valid_loss, result.tokens
    (ours, our_valid, our_tokens), (theirs, their_valid, their_tokens) = found["packed"], found["trl"]
    assert our_tokens == their_tokens and len(ours) == len(theirs) > 5
    assert ours == pytest.approx(theirs, rel=5e-3) and ours[-1] < ours[0]
    assert our_valid == pytest.approx(their_valid, rel=2e-2)


@pytest.mark.slow
def test_the_validation_loss_is_a_mean_over_tokens(tmp_path, packed_on_a_cpu):
    """However many looks the rows take: with steps of one row, three; with steps of three rows, one."""
    rows = [a_training_row(f"{i}?", "a b " * (2 + 9 * i), str(i)) for i in range(3)]
    settings = {"train_tokens": 10, "learning_rate": 1e-9, "max_length": 256, "method": "full", "seed": 0}
    found = [
        sft.sft(rows, rows, "tiny-random", tmp_path / str(n), batch_size=n, **settings | {"train_tokens": tokens})
        for n, tokens in ((1, 10), (3, 400))
    ]
    assert found[0].valid_loss == pytest.approx(found[1].valid_loss, rel=1e-3)


def test_the_backend_says_why_not(monkeypatch):
    assert model.why_not_packed("tiny-random", "lora") == "there is no GPU"
    monkeypatch.setattr(attention, "missing", lambda: None)
    assert model.why_not_packed("tiny-random", "lora") is None
    assert "Unsloth" in model.why_not_packed("tiny-random", "qlora")
    monkeypatch.setattr(model, "PACKED_FAMILIES", ("gemma9",))
    assert "llama" in model.why_not_packed("tiny-random", "full")


def test_packed_attempts_score_as_padded_ones(tmp_path):
    """GRPO's log probabilities, entropies and gradients, against the model's own logits of a padded batch."""
    import torch
    from transformers import AutoModelForCausalLM

    from distil.models.weights import tiny_random
    from distil.train.packed_policy import PackedPolicy

    tiny = str(tiny_random(tmp_path / "tiny"))
    pad, keep, temperature = 0, 6, 0.7
    rows = [([5, 6, 7], [8, 9, 10, 11, 12, 13]), ([21], [22]), ([31, 32], [33, 34, 35])]
    ids = torch.tensor([[pad] * (3 - len(p)) + p + c + [pad] * (keep - len(c)) for p, c in rows])
    mask = torch.tensor([[0] * (3 - len(p)) + [1] * len(p + c) + [0] * (keep - len(c)) for p, c in rows])
    upward = torch.randn(3, keep, generator=torch.Generator().manual_seed(0))

    plain = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = plain(ids, attention_mask=mask, position_ids=positions).logits[:, 2:-1].float() / temperature
    logps = torch.log_softmax(logits, -1)
    entropies = -(logps.exp() * logps).sum(-1)
    chosen = logps.gather(2, ids[:, 3:, None])[..., 0]
    written = mask[:, 3:]
    (chosen * upward * written).sum().backward()

    attention.register()
    student = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32, attn_implementation=attention.NAME)
    policy = PackedPolicy(student, longest=9, temperature=temperature, pad_token_id=pad)
    ours, our_entropies = policy(ids, mask, keep, 2)
    (ours * upward).sum().backward()

    close = {"atol": 2e-2, "rtol": 2e-2}  # 16 bits, where this machine has them
    torch.testing.assert_close(ours, chosen.detach() * written, **close)
    torch.testing.assert_close(our_entropies, entropies.detach() * written, **close)
    for (name, a), b in zip(student.named_parameters(), plain.parameters(), strict=True):
        if name.endswith("q_proj.weight"):
            assert torch.nn.functional.cosine_similarity(a.grad.flatten(), b.grad.flatten(), 0) > 0.99, name
