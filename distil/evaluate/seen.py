"""Which questions students were trained on, so that none of them is measured with one."""

from __future__ import annotations

from collections.abc import Sequence

from distil.llm.prompts import prompt_of
from distil.workspace.rows import Problem, TrainingRow
from distil.workspace.stage import Stage
from distil.workspace.students import recipe_of

SETS = ("fast", "slow", "shortest", "random", "adaptive", "surprise")  # that 03 writes
EARLIER = ("unaligned",)  # and wrote once


def questions(stage: Stage, problems: Sequence[Problem], names: Sequence[str], tuned: dict) -> set[str]:
    """The questions in the training sets of the students `names`, fast and slow among them.

    `problems` are all of 01, `tuned` are the parameters of 04: where it trained on a file of one's own, 03 is not read.
    """
    if tuned.get("train"):
        rows = stage.read(f"04_finetune/rows/{tuned['students']}.jsonl", TrainingRow)
        return {row.instruction.strip() for row in rows}
    question = {problem.id: problem.question.strip() for problem in problems}
    sets = [name for name in (*SETS, *EARLIER) if name in ("fast", "slow", *map(recipe_of, names))]
    return {
        question[row.problem_id] for name in sets for row in stage.read(f"03_judge/train/{name}.jsonl", TrainingRow)
    }


def as_asked(problems: Sequence[Problem]) -> set[str]:
    """The questions of problems, alone and in the words in which a student is asked them."""
    return {text.strip() for p in problems for text in (p.question, prompt_of(p)[-1]["content"])}
