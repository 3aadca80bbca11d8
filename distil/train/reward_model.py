"""A reward model distilled from the judge: it grades the verbosity, the difficulty and the truth of a chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distil.models.student import load_tokenizer
from distil.models.templates import prompt_text
from distil.models.weights import resolve
from distil.train.errors import resource_errors_explained
from distil.workspace.bars import bar
from distil.workspace.environment import choose_dtype
from distil.workspace.errors import StageError
from distil.workspace.rows import Row

HEADS = {"rv": 9, "cd": 9, "correct": 1}  # what each head predicts, and its largest grade
PENALTIES = tuple(10.0**k for k in range(-3, 5))  # of the ridge regression; the best by leave-one-out is taken


@dataclass(kw_only=True)
class GradedChain(Row):
    """A chain with the grades that a reward model learns. None: the judge gave no grade."""

    problem_id: str
    asked: list[dict]  # chat messages: the problem as a student is asked it
    text: str
    rv: float | None  # verbosity, 0-9
    cd: float | None  # difficulty, 0-9
    correct: int  # by the verifier, 0 or 1
    held_out: bool = False  # for the test of the heads

    def grade(self, head: str) -> float | None:
        """Its grade for one of `HEADS`."""
        return getattr(self, head)


@dataclass
class Agreement:
    """How near predicted grades are to given ones."""

    n: int
    spearman: float | None  # rank correlation; None if either side is constant
    mae: float  # mean absolute error, in grades


@dataclass
class Prediction:
    """A held-out chain's grade, and what the model predicted."""

    head: str
    grade: float
    predicted: float


# by head and predictor: `model`, or `length_only`, the baseline that knows only the chain's length
Quality = dict[tuple[str, str], Agreement]
BATCH = 16  # texts read at once
BATCH_TOKENS = 16_384  # padding counted: a long chain is read by itself


def max_graded_chains() -> int | None:
    """How many graded chains to fit on: all on a GPU, 160 on a CPU."""
    import torch

    return None if torch.cuda.is_available() else 160


def fit_reward_model(rows: Sequence[GradedChain], backbone: str, out: Path) -> tuple[Quality, list[Prediction]]:
    """Fit a head for each of `HEADS` on a frozen backbone and save it, loadable by transformers, to `out`.

    Returns (quality, predictions) of `fit_heads`. Raises StageError with fewer than 10 graded rows on either side, or
    if the disk is full.
    """
    import numpy as np
    import torch

    check_rows(rows)
    model, tokenizer, features = read_features(rows, backbone)
    weights, quality, predictions = fit_heads(rows, features)
    with torch.no_grad():
        model.score.weight.copy_(torch.tensor(np.array(weights), dtype=torch.float32))
    out.mkdir(parents=True, exist_ok=True)
    with resource_errors_explained(out / "checkpoints"):
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
    return quality, predictions


def check_rows(rows: Sequence[GradedChain]) -> None:
    """Raise StageError unless every head has 10 graded rows to fit and 10 to test."""
    for head in HEADS:
        held = [row.held_out for row in rows if row.grade(head) is not None]
        if sum(held) < 10 or len(held) - sum(held) < 10:
            raise StageError(
                f"{len(held)} chains graded for {head!r} are too few for a reward model: at least 10 to fit and 10 to "
                "test; judge more chains in 03"
            )


def read_features(rows: Sequence[GradedChain], backbone: str) -> tuple:
    """(model with unfitted heads, tokenizer, (n, d) features): the backbone's state after each question and chain."""
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    tokenizer = load_tokenizer(resolve(backbone))
    talk = logging.get_verbosity()
    logging.set_verbosity_error()  # else a warning that the heads are new, which they are meant to be
    model = AutoModelForSequenceClassification.from_pretrained(
        resolve(backbone), num_labels=len(HEADS), problem_type="regression", dtype=torch.float32
    ).to("cuda" if torch.cuda.is_available() else "cpu")
    logging.set_verbosity(talk)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.id2label = dict(enumerate(HEADS))
    texts = [reward_text(tokenizer, row.asked, row.text) for row in rows]
    return model, tokenizer, hidden_states(model, tokenizer, texts)


def fit_heads(rows: Sequence[GradedChain], features) -> tuple[list, Quality, list[Prediction]]:
    """(weights, quality, predictions): for each head a ridge regression of the grade as a share of the largest.

    `features` is (n, d), from `read_features`; the weights of a head are (d,). Quality and predictions are of the
    held-out rows.
    """
    import numpy as np

    held = np.array([row.held_out for row in rows])
    length = np.array([[1.0, np.log1p(len(row.text))] for row in rows])
    quality: Quality = {}
    predictions, weights = [], []
    for head, largest in HEADS.items():
        known = np.array([row.grade(head) is not None for row in rows])
        fit, test = known & ~held, known & held
        grades = np.array([row.grade(head) or 0 for row in rows]) / largest
        weights.append(ridge(features[fit], grades[fit]))
        guessed = np.clip(features[test] @ weights[-1], 0, 1) * largest
        by_length = np.clip(length[test] @ ridge(length[fit], grades[fit]), 0, 1) * largest
        quality[head, "model"] = agreement(guessed, grades[test] * largest)
        quality[head, "length_only"] = agreement(by_length, grades[test] * largest)
        predictions += [
            Prediction(head, grade=round(float(grade), 3), predicted=round(float(guess), 3))
            for grade, guess in zip(grades[test] * largest, guessed, strict=True)
        ]
    return weights, quality, predictions


def ridge(features, targets):
    """Least squares with an L2 penalty: (d,) weights from (n, d) features and (n,) targets.

    The penalty is the one of `PENALTIES` with the smallest leave-one-out error. There is no intercept: the heads of
    transformers' classifiers have none.
    """
    from sklearn.linear_model import RidgeCV

    return RidgeCV(alphas=PENALTIES, fit_intercept=False).fit(features, targets).coef_


def agreement(guess, target) -> Agreement:
    """How near the guesses (n,) are to the targets (n,), both in grades."""
    import numpy as np
    from scipy.stats import spearmanr

    constant = np.ptp(target) == 0 or np.ptp(guess) == 0
    return Agreement(
        n=len(target),
        spearman=None if constant else round(float(spearmanr(guess, target).statistic), 3),
        mae=round(float(np.abs(guess - target).mean()), 3),
    )


def calibration(predictions: Sequence[Prediction], bins: int = 5) -> dict[str, list[tuple[float, float]]]:
    """For each head a list of (mean prediction, mean grade), one a bin of equally many held-out rows, lowest first."""
    import numpy as np

    found = {}
    for head in HEADS:
        rows = sorted((row.predicted, row.grade) for row in predictions if row.head == head)
        parts = np.array_split(np.array(rows), min(bins, len(rows)))
        found[head] = [tuple(map(float, part.mean(axis=0))) for part in parts]
    return found


def reward_text(tokenizer, asked: list[dict], text: str) -> str:
    """What the reward model reads: the problem as the student is asked it, and the chain."""
    return prompt_text(tokenizer, asked) + text


def hidden_states(model, tokenizer, texts: Sequence[str]):
    """(n, d) array: the backbone's hidden state at the last token of each text.

    Of a text longer than the backbone's context its end is read. A batch has `BATCH` texts, or as many as have
    `BATCH_TOKENS` tokens with their padding.
    """
    import numpy as np
    import torch

    tokenizer.truncation_side = "left"
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # like lengths together: less padding
    found = np.zeros((len(texts), model.config.hidden_size))
    shown = bar(total=len(texts), desc="reading chains", unit="chain", hidden=len(texts) < 100)
    while order:
        chosen, size = order[:BATCH], BATCH
        while True:
            batch = tokenizer(
                [texts[i] for i in chosen],
                return_tensors="pt",
                padding=True,
                add_special_tokens=False,
                truncation=True,
                max_length=model.config.max_position_embeddings,
            )
            if batch["input_ids"].numel() <= BATCH_TOKENS or size == 1:
                break
            size //= 2
            chosen = order[:size]
        on_gpu = model.device.type == "cuda"  # where 32 bits take ten times as long
        with torch.inference_mode(), torch.autocast("cuda", choose_dtype()[0], enabled=on_gpu):
            states = model.model(**batch.to(model.device)).last_hidden_state
        found[chosen] = states[:, -1].double().cpu().numpy()  # padded on the left
        order = order[len(chosen) :]
        shown.update(len(chosen))
    shown.close()
    return found


@dataclass
class RewardModel:
    """The distilled judge: grades of verbosity and difficulty (0-9) and of truth (0-1) of chains."""

    folder: str

    def __post_init__(self):
        import torch
        from transformers import AutoModelForSequenceClassification

        self.tokenizer = load_tokenizer(self.folder)
        model = AutoModelForSequenceClassification.from_pretrained(self.folder, dtype=torch.float32).eval()
        self.model = model.to("cuda" if torch.cuda.is_available() else "cpu")

    def grades(self, asked: Sequence[list[dict]], texts: Sequence[str]):
        """(n, 3) array of RV, CD and truth of the answers to problems, asked as `prompt_of` asks them."""
        import numpy as np

        shown = [reward_text(self.tokenizer, a, t) for a, t in zip(asked, texts, strict=True)]
        weights = self.model.score.weight.detach().double().cpu().numpy()
        largest = np.array(list(HEADS.values()))
        return np.clip(hidden_states(self.model, self.tokenizer, shown) @ weights.T, 0, 1) * largest
