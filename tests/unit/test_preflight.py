"""What the driver refuses before a stage starts, though each value by itself could be meant."""

import pytest

from distil.pipeline import preflight
from distil.problems.errors import ProblemError
from distil.workspace.errors import StageError
from distil.workspace.parameters import effective

STAGES = ["01_collect", "02_rewrite", "03_judge", "04_finetune", "05_prefer", "06_reinforce", "07_eval"]


def asked(*sets: str) -> list[preflight.Asked]:
    return preflight.roles_asked(STAGES, effective("cpu", "r", list(sets)))


def test_one_gpu_serves_one_model_a_stage(project):
    preflight.check_served(asked("endpoint=vllm"))
    preflight.check_served(asked("endpoint=vllm", "judge=QwQ@http://localhost:8000/v1"))
    preflight.check_served(asked("02.rewriter=Qwen/QwQ-32B@vllm"))
    with pytest.raises(StageError, match="03_judge would serve Qwen/QwQ-32B and qwen2.5.* MODEL@URL"):
        preflight.check_served(asked("endpoint=vllm", "judge=Qwen/QwQ-32B"))


def test_students_have_one_format(project):
    preflight.check_formats(STAGES, effective("cpu", "r", ["student_format=think"]))
    values = effective("cpu", "r", ["04.student_format=think"])
    with pytest.raises(StageError, match="03_judge has 'plain', 04_finetune has 'think'.*student_format=FORMAT"):
        preflight.check_formats(STAGES, values)
    preflight.check_formats(["04_finetune"], values)


def test_a_student_of_a_set_that_03_will_not_make(project):
    for students in ("fast,surprise", "surprise@2"):
        with pytest.raises(StageError, match="for the student surprise: give --set surprise=true"):
            preflight.check_students(STAGES, effective("cpu", "r", [f"04.students={students}"]))
        preflight.check_students(STAGES, effective("cpu", "r", [f"04.students={students}", "surprise=true"]))
        preflight.check_students(STAGES[3:], effective("cpu", "r", [f"04.students={students}"]))


def test_no_problem_to_measure_on_is_said(project):
    """It was said that none could be checked without a sandbox."""
    given = effective("cpu", "r", ["n_test=0"])["01_collect"]
    with pytest.raises(ProblemError, match="there is none for test.*--set n_test=N, or add --to 01"):
        preflight.check_problems(given, alone=False)
    preflight.check_problems(given, alone=True)
