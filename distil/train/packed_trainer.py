"""Training on packed rows: every layer compiled, attention by row, the loss of learned tokens only.

A small model's GPU mostly waits for the start of its kernels. A compiled layer starts a tenth of them, and a packed
step computes no padding. The trainer is transformers' own but for its forward pass and its loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from distil.train.packing import CHUNK, NO_TARGET, Shape, packed
from distil.workspace.environment import choose_dtype

SHAPES = 64  # that layers are compiled for: steps of GRPO differ in length. Past it they would run uncompiled, unsaid


def steps_as_batches(batches: Sequence[Sequence[dict]], shape: Shape, pad_token_id: int):
    """The micro batches as a data set; each becomes tensors when it is its turn."""
    from torch.utils.data import Dataset

    class Batches(Dataset):
        def __len__(self) -> int:
            return len(batches)

        def __getitem__(self, place: int) -> dict:
            return packed(batches[place], shape, pad_token_id)

    return Batches()


def only(batch: list[dict]) -> dict:
    """The collator: a micro batch is made already."""
    return batch[0]


def summed_loss(hidden, weight, labels):
    """Sum of -log p over a chunk, in nats: hidden (tokens, width), weight (vocabulary, width), labels (tokens)."""
    import torch

    logits = torch.nn.functional.linear(hidden, weight).float()
    return torch.nn.functional.cross_entropy(logits, labels, ignore_index=NO_TARGET, reduction="sum")


def autocast(device: str):
    """What a forward pass computes in: the dtype of this machine, where that has 16 bits."""
    import torch

    dtype = choose_dtype()[0]
    return torch.autocast(device, dtype, enabled=dtype != torch.float32)


def compiled(decoder, of_chunk: Callable) -> Callable:
    """Compile a decoder's layers in place, and `of_chunk`, which is returned. On a CPU nothing is: it would not pay."""
    import torch

    if not torch.cuda.is_available():
        return of_chunk
    torch.compiler.reset()  # what was compiled for the student before: only so many shapes are kept
    torch._dynamo.config.recompile_limit = SHAPES
    for layer in decoder.layers:
        layer.compile(dynamic=False)
    return torch.compile(of_chunk, dynamic=False)


def make_trainer(
    model,
    arguments,
    *,
    shape: Shape,
    train_dataset,
    eval_dataset,
    learned_a_look: float,
    processing_class,
    callbacks: Sequence,
):
    """A transformers Trainer for a model that was loaded for the backend `packed`.

    `learned_a_look` is the mean number of learned tokens in a batch of `eval_dataset`: divided by it, the mean over
    batches is the mean over tokens.
    """
    import torch
    from torch.utils.checkpoint import checkpoint
    from transformers import Trainer

    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    decoder, head = causal.model, causal.get_output_embeddings()
    chunk_loss = compiled(decoder, summed_loss)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    class PackedTrainer(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            labels = inputs["labels"]
            with autocast(device):
                states = decoder(
                    input_ids=inputs["input_ids"],
                    position_ids=inputs["position_ids"],
                    use_cache=False,
                    starts=inputs["starts"],
                    longest=shape.longest,
                ).last_hidden_state[0]
                states = states.index_select(0, inputs["where"])
                total = states.new_zeros((), dtype=torch.float32)
                for begin in range(0, shape.learned, CHUNK):
                    of_chunk = states[begin : begin + CHUNK], head.weight, labels[begin : begin + CHUNK]
                    total = total + checkpoint(chunk_loss, *of_chunk, use_reentrant=False)
            loss = total / num_items_in_batch  # what all micro batches of a step have learned
            return (loss, None) if return_outputs else loss

        def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
            with torch.no_grad():
                looked_at = self._prepare_inputs(inputs)
                return self.compute_loss(model, looked_at, num_items_in_batch=learned_a_look), None, None

    made = PackedTrainer(
        model=model,
        args=arguments,
        data_collator=only,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        processing_class=processing_class,
        callbacks=list(callbacks),
    )
    made.model_accepts_loss_kwargs = True  # the loss is divided by what all micro batches of a step have learned
    return made
