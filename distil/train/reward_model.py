"""A reward model distilled from the judge: a small model that grades the verbosity, difficulty and truth of a chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distil.llm.prompts import student_messages
from distil.models.student import load_tokenizer
from distil.models.weights import resolve
from distil.workspace.environment import quiet
from distil.workspace.errors import StageError

HEADS = {"rv": 9, "cd": 9, "correct": 1}  # what each head predicts, and its largest grade
PENALTIES = tuple(10.0**k for k in range(-3, 5))  # of the ridge regression; the best by leave-one-out is taken


def rows_worth() -> int | None:
    """How many judged chains to read: all on a GPU, 160 on a CPU."""
    import torch

    return None if torch.cuda.is_available() else 160


def fit_reward_model(rows: Sequence[dict], backbone: str, out: Path) -> tuple[dict, list[dict]]:
    """Fit a head for each of `HEADS` on a frozen backbone and save it, loadable by transformers, to `out`.

    `rows` hold {question, text, rv, cd, correct, held_out}; rv and cd may be None, where the judge gave no grade.
    Returns (quality, predictions) of `fit_heads`. Raises StageError with fewer than 10 graded rows on either side.
    """
    import numpy as np
    import torch

    check_rows(rows)
    model, tokenizer, features = read(rows, backbone)
    weights, quality, predictions = fit_heads(rows, features)
    with torch.no_grad():
        model.score.weight.copy_(torch.tensor(np.array(weights), dtype=torch.float32))
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return quality, predictions


def check_rows(rows: Sequence[dict]) -> None:
    """Raise StageError unless every head has 10 graded rows to fit and 10 to test."""
    for head in HEADS:
        held = [row["held_out"] for row in rows if row[head] is not None]
        if sum(held) < 10 or len(held) - sum(held) < 10:
            raise StageError(
                f"{len(held)} chains graded for {head!r} are too few for a reward model: at least 10 to fit and 10 to "
                "test; judge more chains in 03"
            )


def read(rows: Sequence[dict], backbone: str) -> tuple:
    """(model with unfitted heads, tokenizer, (n, d) features): the backbone's reading of each question and chain."""
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
    texts = [reward_text(tokenizer, row["question"], row["text"]) for row in rows]
    return model, tokenizer, hidden_states(model, tokenizer, texts)


def fit_heads(rows: Sequence[dict], features) -> tuple[list, dict, list[dict]]:
    """(weights, quality, predictions): a ridge regression a head, of the grade as a share of the largest.

    `features` (n, d) as `read` gives them. weights: (d,) for each head. quality: for each head, on held-out rows, the
    `agreement` of the model and of a baseline that knows only the chain's length. predictions: the held-out rows'
    {head, grade, predicted}.
    """
    import numpy as np

    held = np.array([row["held_out"] for row in rows])
    length = np.array([[1.0, np.log1p(len(row["text"]))] for row in rows])
    quality, predictions, weights = {"fitted": int((~held).sum()), "held_out": int(held.sum())}, [], []
    for head, largest in HEADS.items():
        known = np.array([row[head] is not None for row in rows])
        fit, test = known & ~held, known & held
        grades = np.array([row[head] or 0 for row in rows]) / largest
        weights.append(ridge(features[fit], grades[fit]))
        guessed = np.clip(features[test] @ weights[-1], 0, 1) * largest
        by_length = np.clip(length[test] @ ridge(length[fit], grades[fit]), 0, 1) * largest
        quality[f"{head}_model"] = agreement(guessed, grades[test] * largest)
        quality[f"{head}_length_only"] = agreement(by_length, grades[test] * largest)
        predictions += [
            {"head": head, "grade": round(float(grade), 3), "predicted": round(float(guess), 3)}
            for grade, guess in zip(grades[test] * largest, guessed, strict=True)
        ]
    return weights, quality, predictions


def ridge(features, targets):
    """Least squares with an L2 penalty: (d,) weights from (n, d) features and (n,) targets, the penalty one of
    `PENALTIES` by leave-one-out error. There is no intercept: the heads of transformers' classifiers have none."""
    from sklearn.linear_model import RidgeCV

    return RidgeCV(alphas=PENALTIES, fit_intercept=False).fit(features, targets).coef_


def agreement(guess, target) -> dict:
    """{n, spearman, mae}: rank correlation (None if either side is constant), mean absolute error in grades."""
    import numpy as np
    from scipy.stats import spearmanr

    constant = np.ptp(target) == 0 or np.ptp(guess) == 0
    return {
        "n": len(target),
        "spearman": None if constant else round(float(spearmanr(guess, target).statistic), 3),
        "mae": round(float(np.abs(guess - target).mean()), 3),
    }


def calibration(predictions: Sequence[dict], bins: int = 5) -> dict[str, list[tuple[float, float]]]:
    """For each head (mean prediction, mean grade) of equally many held-out rows a bin, from low to high predictions."""
    import numpy as np

    found = {}
    for head in HEADS:
        rows = sorted((row["predicted"], row["grade"]) for row in predictions if row["head"] == head)
        parts = np.array_split(np.array(rows), min(bins, len(rows)))
        found[head] = [tuple(map(float, part.mean(axis=0))) for part in parts]
    return found


def reward_text(tokenizer, question: str, text: str) -> str:
    """What the reward model reads: the question as the student is asked it, and the chain."""
    return tokenizer.apply_chat_template(student_messages(question), tokenize=False, add_generation_prompt=True) + text


def hidden_states(model, tokenizer, texts: Sequence[str], batch_size: int = 16):
    """(n, d) array: the backbone's hidden state at the last token of each text."""
    import numpy as np
    import torch
    from tqdm.auto import tqdm

    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # like lengths together: less padding
    found = np.zeros((len(texts), model.config.hidden_size))
    for start in tqdm(range(0, len(texts), batch_size), desc="reading chains", disable=quiet() or len(texts) < 100):
        chosen = order[start : start + batch_size]
        batch = tokenizer([texts[i] for i in chosen], return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            states = model.model(**batch.to(model.device)).last_hidden_state
        found[chosen] = states[:, -1].double().cpu().numpy()  # padded on the left
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

    def grades(self, questions: Sequence[str], texts: Sequence[str]):
        """(n, 3) array of RV, CD and truth, each clipped to its range."""
        import numpy as np

        read = [reward_text(self.tokenizer, q, t) for q, t in zip(questions, texts, strict=True)]
        weights = self.model.score.weight.detach().double().cpu().numpy()
        largest = np.array(list(HEADS.values()))
        return np.clip(hidden_states(self.model, self.tokenizer, read) @ weights.T, 0, 1) * largest
