"""Rows for tests: what a test does not care about has a value here."""

from __future__ import annotations

from distil.workspace.rows import Chain, Problem, TrainingRow


def a_problem(**fields) -> Problem:
    """A problem with a text as its answer, or with other `fields`."""
    usual = {"id": "p", "domain": "test", "task": "sum", "question": "", "answer": "", "verifier": "exact"}
    return Problem(**(usual | {"source": "a test"} | fields))


def a_chain(**fields) -> Chain:
    """A fast chain for the problem `p`, or with other `fields`."""
    usual = {"id": "c", "problem_id": "p", "style": "fast", "thought": "", "solution": "", "teacher": "m"}
    return Chain(**(usual | {"n_tokens": 9, "finish_reason": "stop", "correct": True} | fields))


def a_training_row(question: str, output: str, problem_id: str = "p") -> TrainingRow:
    """What a student is taught to answer to a question."""
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": output}]
    return TrainingRow(instruction=question, output=output, messages=messages, problem_id=problem_id)
