"""What can be known to fail before anything is asked, trained or written."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, fields

from distil.chains import existing, yields
from distil.evaluate import engines, suites
from distil.evaluate.seen import SETS
from distil.llm import roles
from distil.llm.cache import ChatError
from distil.llm.endpoints import Role, check_model
from distil.llm.limits import Limits
from distil.models import published, templates
from distil.models.vllm_server import VLLM
from distil.pipeline import report
from distil.problems.errors import ProblemError
from distil.problems.sources import load
from distil.publish import upload
from distil.sandbox import confine
from distil.train import own_rows, side_by_side
from distil.train.recipe import Recipe
from distil.verify.registry import verifiable
from distil.workspace.environment import root
from distil.workspace.errors import StageError
from distil.workspace.profiles import DISK_GB
from distil.workspace.stage import needed
from distil.workspace.students import PLACES, home, recipe_of
from distil.workspace.students import check as check_names

# the roles that a stage asks, each with the parameter that says how many tokens an answer may have
BUDGETS = {
    "01_collect": (("fast_teacher", "fast_tokens"), ("slow_teacher", "slow_tokens")),
    "02_rewrite": (("rewriter", "rewrite_tokens"),),
    "03_judge": (("judge", "verdict_tokens"), ("rewriter", "rewrite_tokens")),
}
# names of models that think before they answer
THINKS = re.compile(
    r"deepseek-reasoner|\br1\b|\bqwq|(?<!non-)(?<!no-)thinking|\bo[134]\b|\bgpt-5(?!-chat)"
    r"|\bqwen3(?!.*(?:instruct|coder|max))",
    re.IGNORECASE,
)
LEAST_FOR_A_THOUGHT = 2048  # tokens
LEAST = {"n_train": 1, "n_test": 0, "samples": 1, "tries": 1, "votes": 0, "max_rounds": 0}
ADVISED = {"verdict_tokens": 8192, "rewrite_tokens": 8192, "fast_tokens": 32768, "slow_tokens": 32768}


@dataclass(frozen=True)
class Asked:
    """A role that a stage asks: the model behind it, and its budget, `tokens` an answer, set by `parameter`."""

    stage: str
    role: str
    model: str
    endpoint: str
    parameter: str
    tokens: int

    @property
    def who(self) -> Role:
        return Role(self.role, self.model, self.endpoint)

    @property
    def recorded(self) -> bool:
        return self.endpoint.startswith("recorded:")


def check(profile: str, stages: list[str], values: dict[str, dict]) -> None:
    """Raise ChatError, ProblemError or StageError for what can be known to fail."""
    if "07_eval" in stages:
        base = values["04_finetune"]["student"] if "04_finetune" in stages else None
        names = ("push", "repository", "students", "run", "base_name")
        upload.check(**{name: values["07_eval"][name] for name in names}, base=base)
    for stage in stages:
        check_numbers(stage, values[stage])
        if stage in BUDGETS:
            yields.check(values[stage]["min_share"])
    asked = roles_asked(stages, values)
    teachers = [one for one in asked if one.stage == "01_collect"]
    if "01_collect" in stages and not teachers and not values["01_collect"]["chains"]:
        raise StageError("fast_teacher and slow_teacher are none, and chains names no file: nothing would be collected")
    roles.check([one.who for one in asked])
    check_students(stages, values)
    check_served(asked)
    check_formats(stages, values)
    for one in asked:
        check_budget(one)
    if "07_eval" in stages:
        suites.check(values["07_eval"]["suite"])
        engines.read(values["07_eval"]["engine"])
        published.check(values["07_eval"]["students"], values["07_eval"]["engine"])
    if "01_collect" in stages:
        check_problems(values["01_collect"], alone=len(stages) == 1)
    if "04_finetune" in stages:
        check_training(values["04_finetune"])
    report.exporter()
    check_disk(profile)


def roles_asked(stages: list[str], values: dict[str, dict]) -> list[Asked]:
    """Every role of the stages, without those that are `none`. Raises ChatError for a role that cannot be asked."""
    found = []
    for stage in stages:
        given = values[stage]
        for name, parameter in BUDGETS.get(stage, ()):
            there = name == "slow_teacher" and given["chains"]  # chains that exist are not asked for
            role = roles.read(name, "none" if there else given[name], given["teacher"], given["endpoint"])
            if role is not None:
                found.append(Asked(stage, name, role.model, role.endpoint, parameter, given[parameter]))
    return found


def check_numbers(stage: str, given: dict) -> None:
    """Raise StageError for a number of 01 to 03 below what it can be."""
    for name, value in given.items() if stage in BUDGETS else ():
        least = 1 if name.endswith("_tokens") else LEAST.get(name)
        if least is not None and value < least:
            raise StageError(f"{stage}.{name}={value}: give {least} or more")


def check_students(stages: list[str], values: dict[str, dict]) -> None:
    """Raise StageError for students that no stage will make.

    Rows of one's own make one student, and only 04 and 07 know what to do with it. Without slow chains there is no
    slow student, and without the parameter `surprise` none of that name. What 05 to 07 name is made by 04, or was.
    """
    if "04_finetune" not in stages:
        for stage, parameter, name in later_students(stages, values):
            try:
                needed(values[stage]["run"], home(name))
            except StageError as error:
                todo = f"04 trains those of 04_finetune.students; or leave {name} out of {stage}.{parameter}"
                raise StageError(f"{error}. {todo}") from None
        return
    made = values["04_finetune"]["students"].split(",")
    if "surprise" in map(recipe_of, made) and "03_judge" in stages and not values["03_judge"]["surprise"]:
        raise StageError("03 makes no training set for the student surprise: give --set surprise=true, or leave it out")
    if values["04_finetune"]["train"] and len(stages) > 1:
        raise StageError(
            "train=FILE needs no other stage than 04: give --from 04 --to 04, then measure its student, which is named "
            "after the file, with --from 07 --set 07_eval.students=base,NAME"
        )
    if not values["04_finetune"]["train"]:
        check_names(made, values["04_finetune"]["seed"])
    for name in made:
        if "03_judge" in stages and recipe_of(name) not in SETS:
            raise StageError(f"04_finetune.students names {name!r}, and 03 writes no such set: use {', '.join(SETS)}")
    for stage, parameter, name in later_students(stages, values):
        if name not in made:
            raise StageError(
                f"{stage}.{parameter} names {name}, which no stage will make: leave it out, or name a student "
                f"of 04_finetune.students={','.join(made)}, to which seeds are added as in {made[0]}@1"
            )
    first = values["01_collect"]
    if "01_collect" in stages and first["slow_teacher"] == roles.NONE and not first["chains"]:
        for stage in ("04_finetune", "07_eval"):
            if stage in stages and "slow" in map(recipe_of, values[stage]["students"].split(",")):
                raise StageError(
                    f"slow_teacher=none leaves no chains for the student slow of {stage}.students: leave it out, as in "
                    f"--set {stage}.students=fast"
                )


def later_students(stages: list[str], values: dict[str, dict]) -> list[tuple[str, str, str]]:
    """(stage, parameter, student) of the students that 05 to 07 ask for and do not make themselves."""
    after = [stage for stage in ("05_prefer", "06_reinforce") if stage in stages]
    found = [(stage, "start_from", values[stage]["start_from"]) for stage in after]
    names = published.own(values["07_eval"]["students"]) if "07_eval" in stages else []
    return found + [("07_eval", "students", name) for name in names if PLACES.get(recipe_of(name)) not in stages]


def check_served(asked: list[Asked]) -> None:
    """Raise StageError if a stage would serve two models itself: one GPU has no room for both."""
    for stage in BUDGETS:
        served = sorted({one.model for one in asked if one.stage == stage and one.endpoint == VLLM})
        if len(served) > 1:
            raise StageError(
                f"{stage} would serve {' and '.join(served)} on one GPU: serve one of them yourself, and name it as "
                "MODEL@URL"
            )


def check_formats(stages: list[str], values: dict[str, dict]) -> None:
    """Raise StageError if students would be taught one format and trained further or measured in another."""
    given = {stage: values[stage]["student_format"] for stage in stages if "student_format" in values[stage]}
    if len(set(given.values())) > 1:
        said = ", ".join(f"{stage} has {student_format!r}" for stage, student_format in given.items())
        raise StageError(f"student_format must be the same in all stages: {said}. Give --set student_format=FORMAT")


def check_budget(asked: Asked) -> None:
    """Raise ChatError if a model's answers would end within its thought, or its context has no room for them."""
    if asked.recorded:
        return
    if asked.tokens < LEAST_FOR_A_THOUGHT and thinks(asked):
        raise ChatError(
            f"{asked.role}: {asked.model} thinks before it answers, and {asked.tokens} tokens would end within the "
            f"thought. Give --set {asked.stage}.{asked.parameter}={ADVISED[asked.parameter]}; it is a bound, and what "
            "is not written is not paid"
        )
    try:
        check_model(asked.who, asked.tokens)
    except ChatError as error:
        raise ChatError(f"{error} ({asked.stage}.{asked.parameter}={asked.tokens})") from None


def thinks(asked: Asked) -> bool:
    """Is this a model known to think before it answers, and not told to leave it?"""
    told_not_to = '"enable_thinking": false' in json.dumps(Limits.read(role=asked.role).extra)
    return bool(THINKS.search(asked.model)) and not told_not_to


def check_problems(given: dict, alone: bool) -> None:
    """Raise ProblemError for problems, or chains that exist, that cannot be used; `alone`: no stage follows 01."""
    name = "chains" if given["chains"] else "problems"
    source, numbers = given[name], (given["n_train"], given["n_test"], given["seed"])
    rows = existing.check(source, *numbers) if name == "chains" else load(source, *numbers)
    for split in () if alone else ("train", "test"):
        of_split = [row for row in rows if row.split == split]
        unchecked = sum(not verifiable(row) for row in of_split)
        if unchecked and (unchecked == len(of_split) or not confine.ON_LINUX):
            raise ProblemError(
                f"{name}={source}: {unchecked} of {len(of_split)} problems for {split} ask for programs, which cannot "
                f"be checked without a sandbox: {confine.HOW}. Or add --to 01, which only collects"
            )
        if name == "problems" and not of_split:
            raise ProblemError(
                f"problems={source}: there is none for {split}, so that nothing could be learned or measured: give "
                f"more, --set n_{split}=N, or add --to 01"
            )


def check_training(given: dict) -> None:
    """Raise StageError for settings of 04, a student or rows of one's own, that cannot be trained with."""
    Recipe(**{setting.name: given[setting.name] for setting in fields(Recipe)})
    side_by_side.check(given["at_once"])
    templates.check_folder(given["student"])
    if given["train"]:
        own_rows.check(given["train"], given["student_format"])


def check_disk(profile: str) -> None:
    """Raise StageError if less disk is free than the profile wants."""
    wanted, free = DISK_GB[profile], shutil.disk_usage(root()).free / 1e9
    if free < wanted:
        raise StageError(
            f"{free:.1f} GB of disk are free at {root()}, profile {profile} wants {wanted}: make room, "
            "or set DISTIL_HOME to a folder on a larger disk that holds the notebooks"
        )
