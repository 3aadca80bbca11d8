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
    for students, first in (("fast,surprise", "fast"), ("surprise@2", "surprise@2")):
        sets = [f"04.students={students}", f"start_from={first}", f"07.students=base,{students},preferred"]
        with pytest.raises(StageError, match="for the student surprise: give --set surprise=true"):
            preflight.check_students(STAGES, effective("cpu", "r", sets))
        preflight.check_students(STAGES, effective("cpu", "r", [*sets, "surprise=true"]))
        preflight.check_students(STAGES[3:], effective("cpu", "r", sets))


@pytest.mark.parametrize("sets, said", [
    (["04.students=fast,unaligned", "07.students=base,fast"], "'unaligned', and 03 writes no such set: use fast, slow"),
    (["04.students=fast, slow"], "' slow', and 03 writes no such set"),
    (["04.students=fast@1"], "05_prefer.start_from names fast, which no stage will make"),
    (["04.students=fast"], "07_eval.students names slow, which no stage will make"),
    (["07.students=base,fast,shortest"], "07_eval.students names shortest"),
])  # fmt: skip
def test_a_student_that_nobody_makes_is_named_before_the_teacher_is_paid(project, sets, said):
    with pytest.raises(StageError, match=said):
        preflight.check_students(STAGES, effective("cpu", "r", sets))


def test_a_student_that_was_never_trained_is_named_before_07_forgets_what_it_measured(project):
    with pytest.raises(
        StageError, match="fast@2 is missing: run 04_finetune .* 04_finetune.students; or leave fast@2 out of 07"
    ):
        preflight.check_students(["07_eval"], effective("cpu", "r", ["07.students=base,fast@2"]))


def test_no_problem_to_measure_on_is_said(project):
    """It was said that none could be checked without a sandbox."""
    given = effective("cpu", "r", ["n_test=0"])["01_collect"]
    with pytest.raises(ProblemError, match="there is none for test.*--set n_test=N, or add --to 01"):
        preflight.check_problems(given, alone=False)
    preflight.check_problems(given, alone=True)
