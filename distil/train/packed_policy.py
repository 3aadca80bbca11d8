"""Log probabilities of completions on packed rows: what GRPO's loss is made of.

TRL pads every attempt to the longest of its batch, on both sides, and starts each layer's kernels one by one. Here the
attempts lie end to end, and the layers are compiled (`distil.train.packed_trainer`).
"""

from __future__ import annotations

from distil.train.packed_trainer import autocast, compiled
from distil.train.packing import CHUNK, Shape, learned_of, packed, rounded_up, tokens_of

ROUGH = 2048  # tokens: lengths differ from step to step, and each new shape costs a compilation


def rows_of(input_ids, attention_mask, logits_to_keep: int) -> list[dict]:
    """The rows of a padded batch as `packing` has them: the last `logits_to_keep` columns were written by the student.

    Both tensors are (rows, columns); prompts are padded on the left, completions on the right.
    """
    prompt = input_ids.shape[1] - logits_to_keep
    rows = []
    for ids, mask in zip(input_ids.tolist(), attention_mask.tolist(), strict=True):
        kept = [place for place, real in enumerate(mask) if real]
        rows.append(
            {"input_ids": [ids[place] for place in kept], "completion_mask": [int(place >= prompt) for place in kept]}
        )
    return rows


def shape_for(rows: list[dict], longest: int) -> Shape:
    """A shape that holds the rows, one of few."""
    return Shape(
        tokens=rounded_up(tokens_of(rows), ROUGH),
        boundaries=len(rows) + -(-ROUGH // longest) + 1,
        learned=rounded_up(learned_of(rows), CHUNK),
        longest=longest,
    )


def chunk_scores(hidden, weight, labels, temperature: float):
    """(log p of the labels, entropy), both (tokens,), in nats, at a temperature; no gradient goes through the entropy.

    hidden is (tokens, width), weight (vocabulary, width), labels (tokens).
    """
    import torch

    logits = torch.nn.functional.linear(hidden, weight).float() / temperature
    normalizer = torch.logsumexp(logits, dim=-1)
    chosen = logits.gather(1, labels[:, None])[:, 0]
    with torch.no_grad():
        entropy = normalizer - (torch.softmax(logits, dim=-1) * logits).sum(-1)
    return chosen - normalizer, entropy


class PackedPolicy:
    """A student that was loaded for the backend `packed`; called, it scores a padded batch."""

    def __init__(self, model, *, longest: int, temperature: float, pad_token_id: int):
        """`longest` is what a prompt and its completion have at most, in tokens."""
        causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.decoder, self.head = causal.model, causal.get_output_embeddings()
        self.longest, self.temperature, self.pad_token_id = rounded_up(longest), temperature, pad_token_id
        self.scores = compiled(self.decoder, chunk_scores)

    def __call__(self, input_ids, attention_mask, logits_to_keep: int, batch_size: int):
        """(log probabilities, entropies), each (rows, logits_to_keep) in float32, 0 where a completion has ended.

        At most `batch_size` rows go through the model at a time.
        """
        import torch

        parts = [
            self.part(input_ids[begin : begin + batch_size], attention_mask[begin : begin + batch_size], logits_to_keep)
            for begin in range(0, len(input_ids), batch_size)
        ]
        logps, entropies = zip(*parts, strict=True)
        return torch.cat(logps), torch.cat(entropies)

    def part(self, input_ids, attention_mask, logits_to_keep: int):
        """The same of rows that go through the model at once."""
        import torch
        from torch.utils.checkpoint import checkpoint

        rows = rows_of(input_ids, attention_mask, logits_to_keep)
        shape = shape_for(rows, self.longest)
        batch = {name: value.to(input_ids.device) for name, value in packed(rows, shape, self.pad_token_id).items()}
        labels = batch["labels"].clamp(min=0)
        with autocast(input_ids.device.type):
            states = self.decoder(
                input_ids=batch["input_ids"],
                position_ids=batch["position_ids"],
                use_cache=False,
                starts=batch["starts"],
                longest=shape.longest,
            ).last_hidden_state[0]
            states = states.index_select(0, batch["where"])
            chunks = [
                checkpoint(
                    self.scores,
                    states[begin : begin + CHUNK],
                    self.head.weight,
                    labels[begin : begin + CHUNK],
                    self.temperature,
                    use_reentrant=False,
                )
                for begin in range(0, shape.learned, CHUNK)
            ]
        mask = attention_mask[:, -logits_to_keep:].bool()
        found = []
        for values in zip(*chunks, strict=True):
            written = torch.cat(values)[: learned_of(rows)]
            found.append(written.new_zeros(mask.shape).masked_scatter(mask, written))
        return found[0], found[1]
