"""The command `distil`: run the notebooks, look at, verify, serve and publish what they made."""

from __future__ import annotations

import argparse
import io
import os
import sys
from pathlib import Path

from distil.workspace.profiles import PROFILES
from distil.workspace.stage import STAGES


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
    command.add_argument(
        "--force",
        action="store_true",
        help="run also what is done and unchanged; answers that are kept are not asked anew",
    )
    before = command.add_mutually_exclusive_group()
    before.add_argument(
        "--dry-run",
        action="store_true",
        help="check, print the parameters, what will be asked and whether anybody listens; ask and run nothing",
    )
    before.add_argument("--pilot", type=int, metavar="N", help="run 01 to 03 on N problems, print what all would take")

    command = commands.add_parser("start", help="enter a class late: put the finished stages before NN into a run")
    command.add_argument("number", metavar="NN", help="the notebook to go on with, such as 05")
    command.add_argument("--run", default="class", help="name of the run (default: class)")

    command = commands.add_parser("status", help="what is done, and where it lies")
    command.add_argument("--run", default="cpu")

    command = commands.add_parser("verify", help="work out a run's tables and figures anew from the answers it kept")
    command.add_argument("--run", default="cpu")

    command = commands.add_parser("verify-reference", help="the same for the run kept in the repository")
    command.add_argument("folder", nargs="?", help="where it lies (default: artifacts/reference of this project)")

    commands.add_parser("doctor", help="what this machine has: GPU, dtype, disk, keys, versions")

    command = commands.add_parser("serve", help="serve the base and all students of a run with vLLM, for 07 to measure")
    command.add_argument("--run", default="cpu")
    command.add_argument("more", nargs="*", metavar="-- OPTIONS", help="vLLM's own, such as -- --port 8001")

    command = commands.add_parser("push", help="publish what a finished run made, privately, on the Hub or ModelScope")
    command.add_argument("what", help="a student, merged, reward, data; separated by commas")
    command.add_argument("repository", help="OWNER/NAME, or modelscope:OWNER/NAME")
    command.add_argument("--run", default="cpu")
    command.add_argument("--base-name", default="", help="OWNER/NAME of the base on the Hub, if it is a folder here")
    command.add_argument("--dry-run", action="store_true", help="list every file and the cards, send nothing")

    command = commands.add_parser("pull", help="download a published student: 07 measures it as one more row")
    command.add_argument("name", help="such as DistilQwen-ThoughtX-7B, or any OWNER/NAME")

    command = commands.add_parser("record", help="run 01-03 against a live teacher and pack its answers as a recording")
    add_run_options(command)
    command.add_argument("--name", required=True, help="name of the recording: `endpoint=recorded:NAME` replays it")
    command.add_argument("--endpoint", required=True, help="URL of the teacher's OpenAI-compatible API, or vllm")
    command.add_argument("--teacher", required=True, help="the model's name at that endpoint")
    command.add_argument(
        "--revision", required=True, help="which weights these are: repository and commit, or file and sha256"
    )
    command.add_argument("--licence", required=True, help="licence of the model, for the card")

    command = commands.add_parser("filter", help="keep the problems of a file that a served student sometimes solves")
    command.add_argument("input", metavar="IN.jsonl", help="problems, as for `--set problems=`")
    command.add_argument("output", metavar="OUT.jsonl", help="the kept ones; the others go to OUT.removed.jsonl")
    command.add_argument("--endpoint", required=True, help="URL of the student's OpenAI-compatible API, or vllm")
    command.add_argument("--model", required=True, help="the student's name at that endpoint")
    command.add_argument("--samples", type=int, default=4, help="answers to each problem (default: 4)")
    command.add_argument("--low", type=float, default=0.01, help="lowest share of right answers kept (default: 0.01)")
    command.add_argument("--high", type=float, default=0.99, help="highest share kept (default: 0.99)")
    command.add_argument("--max-tokens", type=int, default=2048, help="longest answer, in tokens (default: 2048)")

    command = commands.add_parser("import-config", help="turn an EasyDistill JSON file into a `distil run` command")
    command.add_argument("file", metavar="FILE")
    return top


def verify_reference(folder: str | None) -> int:
    """Work the kept run out anew with the repository's own benchmarks. Raises StageError outside a clone."""
    from distil.workspace.errors import StageError

    clone = Path(__file__).parents[1]
    if not (clone / "benchmarks" / "reference_run").is_dir():
        raise StageError(
            "verify-reference belongs to the repository, not to the installed package: clone it, install it with "
            "`pip install -e .`, and give the command again"
        )
    if str(clone) not in sys.path:
        sys.path.append(str(clone))
    from benchmarks.reference_run import kept

    return kept.verify(folder)


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 a stage failed, 2 bad input (found before anything started)."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that lacks a sign ends no run
    args = parser().parse_args(argv)
    from distil.evaluate import pass_rate, recheck
    from distil.llm.cache import ChatError
    from distil.models import published, serve
    from distil.pipeline import doctor, driver, easydistill, pilot, record, start
    from distil.problems.errors import ProblemError
    from distil.publish import upload
    from distil.workspace.errors import StageError
    from distil.workspace.parameters import ParameterError

    try:
        if args.command == "run" and args.pilot is not None:
            if (args.first, args.last, args.force) != (STAGES[0], STAGES[-1], False):
                raise StageError("--pilot runs 01 to 03: leave out --from, --to and --force")
            return pilot.pilot(args.profile, args.run or args.profile, args.sets, args.pilot)
        if args.command == "run":
            return driver.run(
                args.profile,
                args.run or args.profile,
                sets=args.sets,
                first=args.first,
                last=args.last,
                force=args.force,
                dry_run=args.dry_run,
            )
        if args.command == "start":
            return start.start(args.number, args.run)
        if args.command == "status":
            return doctor.status(args.run)
        if args.command == "verify":
            return recheck.verify(args.run)
        if args.command == "verify-reference":
            return verify_reference(args.folder)
        if args.command == "doctor":
            return doctor.doctor()
        if args.command == "serve":
            return serve.serve(args.run, args.more)
        if args.command == "push":
            return upload.push(args.run, args.what, args.repository, args.dry_run, args.base_name)
        if args.command == "pull":
            return published.show(args.name)
        if args.command == "filter":
            return pass_rate.filter_file(args)
        if args.command == "import-config":
            return easydistill.import_config(args.file)
        return record.record(args)
    except (ChatError, ParameterError, ProblemError, StageError) as error:
        print(f"distil: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read what is printed has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to print goes nowhere
        return 1
