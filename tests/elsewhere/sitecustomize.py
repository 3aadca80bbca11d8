"""Another system, as far as this one can play it: what Windows or macOS lack is missing, $ELSEWHERE says which.

Python imports this when it starts, if this folder is on PYTHONPATH. All changes for the package only: libraries have
parts of their own for each system, and those for another are not here.
"""

import builtins
import os
import resource
import types


def usage_in_bytes(who: int) -> types.SimpleNamespace:
    """As macOS counts memory; Linux has KiB."""
    return types.SimpleNamespace(ru_maxrss=resource.getrusage(who).ru_maxrss * 1024)


SYSTEM = os.environ["ELSEWHERE"]  # win32 or darwin
MODULES = {"win32": {"fcntl", "resource", "pwd", "grp", "termios"}, "darwin": set()}[SYSTEM]
NAMES = {  # of a module: None is missing
    "win32": {
        "os": dict.fromkeys("sched_getaffinity fork killpg setsid uname getuid geteuid".split()),
        "signal": dict.fromkeys("SIGKILL SIGALRM setitimer alarm ITIMER_REAL".split()),
    },
    "darwin": {"os": {"sched_getaffinity": None}, "resource": {"getrusage": usage_in_bytes}},
}[SYSTEM] | {"sys": {"platform": SYSTEM}}
import_as_usual = builtins.__import__


class Seeming(types.ModuleType):
    """A module but for some names, which are given or missing (None)."""

    def __init__(self, module: types.ModuleType, names: dict[str, object]):
        super().__init__(module.__name__)
        self.__dict__.update({"_module": module, "_names": names})

    def __getattr__(self, name: str) -> object:
        if name in self._names and self._names[name] is None:
            raise AttributeError(name)
        return self._names.get(name) or getattr(self._module, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._module, name, value)


def memory_info(self) -> types.SimpleNamespace:
    found = memory_as_usual(self)
    return types.SimpleNamespace(**found._asdict(), peak_wset=found.rss)


def import_elsewhere(name, globals=None, locals=None, fromlist=(), level=0):
    """For modules of the package: what this system has not is not there."""
    global memory_as_usual
    asked_by = (globals or {}).get("__name__") or ""
    if asked_by.partition(".")[0] != "distil":
        return import_as_usual(name, globals, locals, fromlist, level)
    if name in MODULES:
        raise ImportError(f"no module {name} on {SYSTEM}")
    module = import_as_usual(name, globals, locals, fromlist, level)
    if name == "psutil" and SYSTEM == "win32" and module.Process.memory_info is not memory_info:
        memory_as_usual, module.Process.memory_info = module.Process.memory_info, memory_info
    return Seeming(module, NAMES[name]) if name in NAMES else module


builtins.__import__ = import_elsewhere
