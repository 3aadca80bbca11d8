"""Rows that hold chains of thought: which field is what, of the user's own file and of a data set on the Hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distil.chains.collect import STYLES
from distil.llm.finish import finish_reason
from distil.llm.tokens import estimate
from distil.problems.errors import ProblemError
from distil.problems.fields import field_of, text_of
from distil.problems.hub_rows import is_wanted, problem_of, value_of
from distil.problems.sources import place, problem_from, say_cut, was_cut
from distil.verify.answers import extract_boxed
from distil.workspace.files import read_table
from distil.workspace.rows import Problem

QUESTION = ("question", "problem", "instruction")  # of several the first that is there
CHAIN = ("generations", "chain", "output", "response", "solution")
REASONING = ("reasoning", "reasoning_content", "thought")
OF_PROBLEM = ("answer", "verifier", "choices", "tests", "entry_point", "prompt", "domain", "task", "split")
ROLES = (["user", "assistant"], ["system", "user", "assistant"])  # one question, one answer
HIGHEST_SCORE = 9  # of Reasoning Verbosity and Cognitive Difficulty


@dataclass(frozen=True, kw_only=True)
class Given:
    """A chain as its source gives it, not verified yet; `where` says where it stands."""

    where: str
    text: str
    reasoning: str
    teacher: str
    style: str = "slow"
    n_tokens: int
    finish_reason: str = "stop"
    rv: float | None = None
    cd: float | None = None


def file_rows(path: Path, boxed: bool) -> Iterator[tuple[Problem | dict, list[Given]]]:
    """(problem, its chains) of each row of the user's file.

    With `boxed` the gold answer is the one that the row's chain boxes; a row without one gives a row of
    `removed.jsonl` in place of a problem. Raises ProblemError, naming the line, for a row of another form than the
    first, and for a field that is missing, empty or not what it should be; StageError for a file that cannot be read.
    """
    first: tuple[str, tuple] | None = None
    cut = 0
    for number, row in read_table(path):
        where = place(path, number)
        try:
            row = from_messages(row) if "messages" in row else dict(row)
            form = form_of(row, boxed)
            if first is None:
                complete(form, path)
                first = where, form
            if form != first[1]:
                raise ValueError(
                    f"this row has {in_words(form)}, but {first[0].rpartition(', ')[2]} has {in_words(first[1])}: one "
                    "form a file; split it"
                )
            problem, given = file_row(row, form, where, path.name)
            cut += isinstance(problem, Problem) and not boxed and was_cut(row, problem)
            yield problem, given
        except ProblemError:
            raise
        except ValueError as error:
            raise ProblemError(f"{where}: {error}") from None
    say_cut(path, cut)


def from_messages(row: dict) -> dict:
    """A row that holds a chat as one with `question` and `chain`. Raises ValueError unless it is one of one turn."""
    messages = row["messages"]
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise ValueError("field `messages` must be a list of {role, content}")
    roles = [message.get("role") for message in messages]
    if roles not in ROLES:
        raise ValueError(f"`messages` must be one user's and one assistant's, not {', '.join(map(str, roles))}")
    asked, answer = messages[-2], messages[-1]
    others = {name: value for name, value in row.items() if name not in (*QUESTION, *CHAIN, *REASONING)}
    thoughts = {name: answer[name] for name in REASONING if name in answer}
    return others | thoughts | {"question": asked.get("content"), "chain": answer.get("content")}


def form_of(row: Mapping[str, Any], boxed: bool) -> tuple[str, str, str]:
    """The names of the fields with question, answer and chain; empty where there is none. A chat is told apart."""
    question, chain = (next((name for name in names if name in row), "") for names in (QUESTION, CHAIN))
    answer = "boxed" if boxed else next((name for name in ("answer", "tests") if name in row), "")
    return ("messages", answer, "messages") if "messages" in row else (question, answer, chain)


def in_words(form: tuple[str, str, str]) -> str:
    return " and ".join(f"`{name}`" for name in dict.fromkeys(form) if name not in ("", "boxed")) or "none of them"


def complete(form: tuple[str, str, str], path: Path) -> None:
    """Raise ValueError, saying what to do, for a form that lacks question, answer or chain."""
    question, answer, chain = form
    if not question or not chain:
        missing, names = ("chain", CHAIN) if question else ("question", QUESTION)
        raise ValueError(f"no field for the {missing}: name it one of {', '.join(names)}, or use `messages`")
    if not answer:
        raise ValueError(
            "no field `answer`, so that nothing can verify its chain. To train on such rows as they are, give the file "
            f"to 04: --from 04 --to 04 --set 04_finetune.train={path}; to shorten chains that end in a boxed "
            f"answer, which then is what a rewrite must keep: 'chains={path}?answer=boxed'"
        )


def file_row(row: dict, form: tuple[str, str, str], where: str, file: str) -> tuple[Problem | dict, list[Given]]:
    """(problem, chains) of a row of that form. Raises ValueError."""
    question, chain = ("question", "chain") if form[0] == "messages" else (form[0], form[2])
    texts = row[chain] if isinstance(row[chain], list) else [row[chain]]
    texts = [text_of(text, chain).strip() for text in texts]
    if not texts or not all(texts):
        raise ValueError(f"field `{chain}` is empty")
    teacher = next((text_of(row[name], name) for name in ("teacher", "model") if row.get(name)), file)
    thoughts = next((text_of(row[name], name) for name in REASONING if row.get(name)), "") if len(texts) == 1 else ""
    style = row.get("style") or "slow"
    if style not in STYLES:
        raise ValueError(f"style {style!r} must be one of {', '.join(STYLES)}")
    given = [
        Given(
            where=where,
            text=text,
            reasoning=thoughts,
            teacher=teacher,
            style=style,
            n_tokens=count(row, text + thoughts),
            finish_reason=finish_reason(row.get("finish_reason")) or "stop",
            rv=score(row, ("rv", "reasoning_verbosity")),
            cd=score(row, ("cd", "cognitive_difficulty")),
        )
        for text in texts
    ]
    about = {name: row[name] for name in OF_PROBLEM if name in row}
    about["question"] = "\n\n".join(text_of(row[name], name) for name in (question, "input") if row.get(name))
    if form[1] != "boxed":
        return problem_from(about, where, id="", source=file), given
    about["answer"] = extract_boxed(texts[0]) or ""
    try:
        return problem_from(about, where, id="", source=file), given
    except ProblemError as error:  # of an answer that nobody gave as one: this row is of no use
        reason = {"reason": f"no boxed answer that can be read: {error}"}
        return about | reason | {"collides_with": None, "collides_with_question": None}, given


def count(row: Mapping[str, Any], text: str) -> int:
    """The tokens of a chain: as the row counts them, else estimated."""
    for name in ("n_tokens", "completion_tokens"):
        if isinstance(row.get(name), int):
            return row[name]
    return estimate(text)


def score(row: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    """A score from 0 to 9 in the first of the fields that is there, or None. Raises ValueError for another value."""
    for name in names:
        try:
            value = field_of(row, name)
        except KeyError:
            continue
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= HIGHEST_SCORE:
            raise ValueError(f"field `{name}` is {value!r}, no number from 0 to {HIGHEST_SCORE}")
        return float(value)
    return None


def hub_row(record: dict, number: int, mapping: dict) -> tuple[Problem, list[Given]] | None:
    """(problem, chains) of a data set's row; None for a row that the map does not want or that holds no chain.

    Raises ProblemError for a field that is not there or not what it should be, Unreadable for a row that the map drops.
    """
    if not is_wanted(record, mapping, number):
        return None
    where = f"hub:{mapping['name']}, row {number}"
    problem = problem_of(record, mapping, "", number)
    parts = value_of(record, mapping["each"], mapping, number) if mapping.get("each") else [record]
    if not isinstance(parts, list):
        raise ProblemError(f"{where}: field {mapping['each']!r} is no list of chains")
    given = []
    for part in parts:
        texts = value_of(part, mapping["chain"], mapping, number)
        thoughts = value_of(part, mapping["reasoning"], mapping, number) if mapping.get("reasoning") else ""
        done = field_of(record, mapping["complete"]) if mapping.get("complete") else None
        texts = texts if isinstance(texts, list) else [texts]
        for k, text in enumerate(texts):
            if not text:
                continue
            try:
                scores = {key: score(part, (mapping[key],)) for key in ("rv", "cd") if mapping.get(key)}
                text, thought = text_of(text, mapping["chain"]), text_of(thoughts or "", mapping.get("reasoning", ""))
            except ValueError as error:
                raise ProblemError(f"{where}: {error}") from None
            given.append(
                Given(
                    where=where,
                    text=text,
                    reasoning=thought,
                    teacher=mapping.get("teacher", mapping["repository"]),
                    n_tokens=count({}, text + thought),
                    finish_reason="length" if done and k < len(done) and not done[k] else "stop",
                    **scores,
                )
            )
    return (problem, given) if given else None
