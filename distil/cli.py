"""The command `distil`: run, status, doctor, record."""

from __future__ import annotations

import argparse
import sys

from distil.profiles import PROFILES
from distil.stage import STAGES


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="distil", description="Distil a fast-thinking student: run the notebooks headless."
    )
    commands = top.add_subparsers(dest="command", required=True)

    def add_run_options(command: argparse.ArgumentParser) -> None:
        command.add_argument("--profile", default="cpu", help=f"one of {', '.join(PROFILES)} (default: cpu)")
        command.add_argument("--run", default=None, help="name of the run (default: the profile's)")
        command.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="[STAGE.]NAME=VALUE",
            dest="sets",
            help="change a parameter, for one stage or for all that have it; may be repeated",
        )

    command = commands.add_parser("run", help="run the stages in order; skips what is done, resumes what is not")
    add_run_options(command)
    command.add_argument("--from", default=STAGES[0], dest="first", metavar="STAGE", help="first stage, such as 02")
    command.add_argument("--to", default=STAGES[-1], dest="last", metavar="STAGE", help="last stage, such as 05")
    command.add_argument("--force", action="store_true", help="run also what is done and unchanged")
    command.add_argument("--dry-run", action="store_true", help="check everything, print the parameters, run nothing")

    command = commands.add_parser("status", help="what is done, and where it lies")
    command.add_argument("--run", default="cpu")

    commands.add_parser("doctor", help="what this machine has: GPU, dtype, disk, keys, versions")

    command = commands.add_parser("record", help="run 01-03 against a live teacher and pack its answers as a recording")
    add_run_options(command)
    command.add_argument("--name", required=True, help="name of the recording: `endpoint=recorded:NAME` replays it")
    command.add_argument("--endpoint", required=True, help="URL of the teacher's OpenAI-compatible API")
    command.add_argument("--teacher", required=True, help="the model's name at that endpoint")
    command.add_argument(
        "--revision", required=True, help="which weights these are: repository and commit, or file and sha256"
    )
    command.add_argument("--licence", required=True, help="licence of the model, for the card")
    return top


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 a stage failed, 2 bad input (found before anything started)."""
    args = parser().parse_args(argv)
    from distil import doctor, driver, record
    from distil.chat import ChatError
    from distil.parameters import ParameterError
    from distil.problems import ProblemError
    from distil.stage import StageError

    try:
        if args.command == "run":
            return driver.run(
                args.profile, args.run or args.profile, args.first, args.last, args.sets, args.force, args.dry_run
            )
        if args.command == "status":
            return doctor.status(args.run)
        if args.command == "doctor":
            return doctor.doctor()
        return record.record(args)
    except (ChatError, ParameterError, ProblemError, StageError) as error:
        print(f"distil: {error}", file=sys.stderr)
        return 2
