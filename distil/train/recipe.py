"""How a fine-tuning is done: the settings that recipes state, checked before any work."""

from __future__ import annotations

from dataclasses import dataclass

from distil.models import formats
from distil.train.examples import default_batch_size
from distil.train.model import LORA, METHODS
from distil.workspace.errors import StageError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of `sft`. Raises StageError for one that cannot be meant."""

    learning_rate: float  # peak of the cosine schedule
    max_length: int  # tokens of a row; longer ones are left out
    method: str  # full, lora or qlora
    seed: int
    epochs: float = 0.0  # rounds through the rows; 0: until `train_tokens` are used
    train_tokens: int = 0  # prompts included; not looked at where there are epochs
    batch_size: int = 0  # rows a step; 0: those of `default_batch_size`
    tokens_a_step: int = 0  # a step is as many rows as have so many tokens; 0: it is `batch_size` rows
    weight_decay: float = 0.0
    warmup_ratio: float = 0.05  # share of the steps in which the learning rate rises
    lora_rank: int = LORA["r"]
    lora_alpha: int = LORA["lora_alpha"]
    student_format: str = "plain"

    def __post_init__(self):
        if self.method not in METHODS:
            raise StageError(f"method {self.method!r}: use one of {', '.join(METHODS)}")
        formats.check(self.student_format)
        wrong = {
            "epochs is 0 or more": self.epochs < 0,
            "train_tokens is above 0, unless epochs are given": self.train_tokens < 1 and not self.epochs,
            "batch_size is 0 (4 on a CPU, 16 on a GPU) or more": self.batch_size < 0,
            "tokens_a_step is 0 or more": self.tokens_a_step < 0,
            "learning_rate is above 0": self.learning_rate <= 0,
            "weight_decay is 0 or more": self.weight_decay < 0,
            "warmup_ratio is from 0 to 1": not 0 <= self.warmup_ratio <= 1,
            "lora_rank is 1 or more": self.lora_rank < 1,
            "lora_alpha is 1 or more": self.lora_alpha < 1,
        }
        for rule, broken in wrong.items():
            if broken:
                name = rule.partition(" ")[0]
                raise StageError(f"{name}={getattr(self, name)}: {rule}")

    @property
    def rows_a_step(self) -> int:
        """`batch_size`, or what is usual on this machine."""
        return self.batch_size or default_batch_size()

    @property
    def adapter(self) -> dict[str, int]:
        """The settings of the LoRA adapter."""
        return {"lora_rank": self.lora_rank, "lora_alpha": self.lora_alpha}

    @property
    def schedule(self) -> dict[str, float]:
        """What every trainer is told alike of a step."""
        names = ("learning_rate", "seed", "weight_decay", "warmup_ratio")
        return {name: getattr(self, name) for name in names}

    @property
    def length(self) -> str:
        """How long it trains, in words: epochs win over train_tokens."""
        return f"{self.epochs:g} epochs" if self.epochs else f"{self.train_tokens:,} tokens"
