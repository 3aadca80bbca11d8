"""What runs inside the sandbox: a program with stdin and stdout, a candidate's functions, or the tests that call them.

`python -I -S -B inside.py ROLE FILE LIMITS`; ROLE is program, candidate or tests. The package is not there, so nothing
of it is imported. Candidate and tests run in two sandboxes, joined by two pipes. The tests see plain values that the
candidate's functions return; the candidate sees arguments. Neither sees more of the other.
"""

from __future__ import annotations

import json
import os
import sys

LONGEST = 1 << 24  # bytes of one message
SCALARS = (type(None), bool, int, float, str)


class NotPlain(Exception):
    """A value that is no plain literal."""


def pack(value: object) -> object:
    """A plain value as JSON can carry it: scalars as they are, the rest as [kind, ...]. Raises NotPlain."""
    if type(value) in SCALARS:
        return value
    for kind, base in (("l", list), ("t", tuple), ("s", set), ("f", frozenset)):
        if isinstance(value, base):
            return [kind, *map(pack, value)]
    if isinstance(value, dict):
        return ["d", *([pack(key), pack(item)] for key, item in value.items())]
    if isinstance(value, range):
        return ["r", value.start, value.stop, value.step]
    if isinstance(value, (bytes, bytearray)):
        return ["b", value.hex()]
    if isinstance(value, complex):
        return ["c", value.real, value.imag]
    for base in (int, float, str):  # their children: an IntEnum, a str of one's own
        if isinstance(value, base):
            return base.__new__(base, value) if base is not str else str.__str__(value)
    if hasattr(value, "__next__"):  # a generator is read to its end, which the limits bring nearer
        return ["i", *map(pack, value)]
    raise NotPlain(f"{type(value).__name__} is no plain value")


def unpack(value: object) -> object:
    """What `pack` packed, in Python's own types alone. Raises NotPlain for anything else."""
    if type(value) in SCALARS:
        return value
    try:
        kind, *parts = value
        if kind == "d":
            return {unpack(key): unpack(item) for key, item in parts}
        if kind == "b":
            return bytes.fromhex(*parts)
        if kind in ("r", "c"):
            return {"r": range, "c": complex}[kind](*parts)
        return {"l": list, "t": tuple, "s": set, "f": frozenset, "i": iter}[kind]([unpack(part) for part in parts])
    except (TypeError, ValueError, KeyError) as error:
        raise NotPlain(f"a reply that is no value: {error}") from None


def limit(limits: dict[str, int]) -> None:
    """Set resource limits that this process cannot raise again: {name of RLIMIT: value}."""
    import resource

    for name, value in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))


def private_pipes() -> tuple:
    """(reader, writer) of what stdin and stdout were; both, and stderr, are /dev/null from now on."""
    reader, writer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    return reader, writer


def send(writer, message: dict) -> None:
    writer.write(json.dumps(message).encode() + b"\n")
    writer.flush()


def program(path: str) -> None:
    """Run a file as the main program."""
    with open(path, encoding="utf-8") as handle:
        source = handle.read()
    sys.argv = [path]
    exec(compile(source, "main.py", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})


def candidate(path: str) -> None:
    """Define what the file says, then answer calls until the pipe ends. Exceptions are answers too."""
    reader, writer = private_pipes()
    with open(path, encoding="utf-8") as handle:
        parts = json.load(handle)
    names: dict = {"__name__": "candidate"}

    def answer(work) -> None:
        try:
            message = work()
        except BaseException as error:
            message = {"error": type(error).__name__, "says": str(error)[:300]}
        send(writer, message)

    def define() -> dict:
        for source in parts:
            exec(compile(source, "candidate.py", "exec"), names)
        return {}

    def call() -> dict:
        function = names[asked["name"]] if asked["name"] in names else getattr(names["Solution"](), asked["name"])
        args, kwargs = unpack(asked["args"]), unpack(asked["kwargs"])
        value = pack(function(*args, **kwargs))
        after = pack(args)  # a function may change its arguments
        return {"value": value} | ({"args": after} if after != asked["args"] else {})

    answer(define)
    for line in reader:
        asked = json.loads(line)
        answer(call)
    os._exit(0)  # whatever threads and exit handlers there are


def tests(path: str) -> None:
    """Run the tests against functions that are calls through the pipe; the result, one line, goes to stderr.

    The path names a JSON object {setup, tests, entry_point}. `setup` is trusted: what the problem itself defines.
    """
    result = os.fdopen(os.dup(2), "wb")
    reader, writer = private_pipes()
    with open(path, encoding="utf-8") as handle:
        problem = json.load(handle)

    def decide(passed: bool, reason: str) -> None:
        send(result, {"passed": passed, "reason": reason[:300]})
        os._exit(0)

    def receive() -> dict:
        line = reader.readline(LONGEST)
        if not line.endswith(b"\n"):  # no exception: a test that catches all would go on
            decide(False, "the answer of a call is too long" if line else "the program ended before its tests did")
        try:
            message = json.loads(line)
            if type(message) is dict and not message.keys() - {"value", "args", "error", "says"}:
                return message
        except (ValueError, RecursionError):
            pass
        return decide(False, "an answer that is no answer")

    calls = 0

    def function(name: str):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            packed = pack(list(args))
            send(writer, {"name": name, "args": packed, "kwargs": pack(kwargs)})
            message = receive()
            if "error" in message:
                raise exception(message)
            try:
                value, after = unpack(message.get("value")), unpack(message.get("args", packed))
            except (NotPlain, RecursionError) as error:
                return decide(False, str(error))
            for mine, theirs in zip(args, after, strict=False):
                if type(mine) is type(theirs) is list:
                    mine[:] = theirs
                elif type(mine) is type(theirs) in (dict, set):
                    mine.clear()
                    mine.update(theirs)
            return value

        return call

    start = receive()
    if "error" in start:
        decide(False, f"{start['error']}: {start.get('says')}")
    names: dict = {"__name__": "tests"}
    try:
        exec(compile(problem["setup"], "setup.py", "exec"), names)
        names |= {name: function(name) for name in unknown_names(problem["tests"], names)}
        if problem["entry_point"]:
            names[problem["entry_point"]] = function(problem["entry_point"])
        exec(compile(problem["tests"], "tests.py", "exec"), names)
        if problem["entry_point"] and "check" in names:
            names["check"](names[problem["entry_point"]])
    except AssertionError as error:
        decide(False, f"wrong: {error}" if str(error) else "wrong")
    except BaseException as error:
        decide(False, f"{type(error).__name__}: {error}")
    decide(calls > 0, "passed" if calls else "the tests call no function of the program")


def exception(message: dict) -> Exception:
    """The candidate's exception, as Python's own class of that name if there is one: a test may expect it."""
    import builtins

    kind = getattr(builtins, str(message["error"]), None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        return RuntimeError(f"{message['error']}: {message.get('says')}")
    try:
        return kind(message.get("says"))
    except TypeError:  # a UnicodeDecodeError wants five arguments
        return RuntimeError(f"{message['error']}: {message.get('says')}")


def unknown_names(source: str, known: dict) -> set[str]:
    """Names that tests use and neither they, nor `known`, nor Python defines: the candidate's functions."""
    import ast
    import builtins

    used, made = set(), set(known) | set(dir(builtins))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else made).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            made.add(node.name)
        elif isinstance(node, ast.arg):
            made.add(node.arg)
        elif isinstance(node, ast.alias):
            made.add((node.asname or node.name).partition(".")[0])
    return used - made


if __name__ == "__main__":
    limit(json.loads(sys.argv[3]))
    sys.set_int_max_str_digits(0)
    {"program": program, "candidate": candidate, "tests": tests}[sys.argv[1]](sys.argv[2])
