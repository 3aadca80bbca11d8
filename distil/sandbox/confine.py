"""What keeps a program in: bubblewrap if it works here, else sandlock. Limits alone only if asked for.

bubblewrap (package `bubblewrap` of Debian, Fedora, conda-forge) needs user namespaces. It hides the network, other
processes and the machine's files. sandlock (a wheel, Linux 6.12 or later) needs no namespaces. It closes files by
Landlock and the network by seccomp; Landlock ignores chmod and its like, so `CHANGES` refuses them. Both were tried as
root and as a user.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import shutil
import signal
import struct
import subprocess
import sys
import sysconfig
import tempfile
from importlib import util
from pathlib import Path

from distil.sandbox.launcher import Launched, SandboxError, launch

INSIDE = Path(__file__).with_name("inside.py")
SCRATCH_BYTES = 16 << 20  # of the folder that a program under bubblewrap may write to
ON_LINUX = sys.platform == "linux"
HOW = (
    "install bubblewrap (apt-get install bubblewrap) where user namespaces are allowed, or run on Linux 6.12 or later, "
    "where the package sandlock works; DISTIL_UNSAFE_CODE=1 runs programs with limits of time and memory only"
    if ON_LINUX
    else "programs that a model wrote run on Linux only: take problems without programs, or Linux (WSL2 on Windows, a "
    "virtual machine or a container)"
)
# What no program needs here, and what the other walls leave open: more processes, memory that no limit counts, files'
# owners and modes, other processes' limits. Numbers of Linux on x86-64 and on aarch64 (None: there is none).
REFUSED = {
    "fork": (57, None),
    "vfork": (58, None),
    "ptrace": (101, 117),
    "socket": (41, 198),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "pivot_root": (155, 41),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "io_uring_setup": (425, 425),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
}
MACHINES = {"x86_64": (0, 0xC000003E, 56), "aarch64": (1, 0xC00000B7, 220)}  # column, AUDIT_ARCH, clone
CLONE3 = 435
CHANGES = """chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes utimensat futimesat
setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr setpriority ioprio_set
sched_setaffinity sched_setscheduler sched_setparam sched_setattr prlimit64 setrlimit""".split()
OWN = ("fork", "vfork", "socket")  # that sandlock watches itself


def libraries() -> list[str]:
    """Folders that the interpreter needs: its own library, and the system's."""
    wanted = [Path(sys.base_prefix) / "lib", *map(Path, ("/lib", "/lib64", "/usr/lib", "/usr/lib64"))]
    return [str(folder) for folder in wanted if folder.is_dir()]


def packages() -> list[str]:
    """Folders of installed packages in `libraries`: hidden, for one of them may hold the tests of a benchmark."""
    found = [Path(sysconfig.get_path("stdlib")) / name for name in ("site-packages", "dist-packages")]
    found += Path("/usr/lib").glob("python3*/dist-packages")
    return [str(folder) for folder in found if folder.is_dir()]


def refusals() -> bytes:
    """A seccomp filter (BPF) that refuses the calls of `REFUSED`, and every new process that is no thread.

    A limit on the number of processes does not bind root. The filter cannot read the flags of clone3, so it answers
    that there is no such call; the C library then calls clone.
    """
    column, machine, clone = MACHINES[platform.machine()]
    load, equal, above, has, leave = 0x20, 0x15, 0x35, 0x45, 0x06
    refuse, unknown, allow = 0x50001, 0x50000 + 38, 0x7FFF0000
    steps = [(load, 0, 0, 4), (equal, 1, 0, machine), (leave, 0, 0, 0x80000000), (load, 0, 0, 0)]
    steps += [(above, 0, 1, 0x40000000), (leave, 0, 0, unknown)]  # the x32 calls of x86-64
    for numbers in REFUSED.values():
        if numbers[column] is not None:
            steps += [(equal, 0, 1, numbers[column]), (leave, 0, 0, refuse)]
    steps += [(equal, 0, 1, CLONE3), (leave, 0, 0, unknown)]
    steps += [(equal, 0, 3, clone), (load, 0, 0, 16), (has, 1, 0, 0x10000), (leave, 0, 0, refuse), (leave, 0, 0, allow)]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def bubblewrap(role: str, file: Path, limits: dict[str, int], filter_fd: int) -> list[str]:
    """The command that runs a role of inside.py on a file, with bubblewrap around it."""
    python = os.path.realpath(sys.executable)
    command = [shutil.which("bwrap") or "bwrap", "--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534"]
    command += ["--cap-drop", "ALL", "--die-with-parent", "--new-session", "--clearenv", "--seccomp", str(filter_fd)]
    for folder in libraries():
        command += ["--ro-bind", folder, folder]
    for folder in packages():
        command += ["--tmpfs", folder, "--remount-ro", folder]
    for name in (python, "/etc/ld.so.cache"):
        command += ["--ro-bind-try", name, name]
    for name in ("/dev/null", "/dev/urandom"):
        command += ["--dev-bind", name, name]
    command += ["--ro-bind", str(INSIDE), "/box/inside.py", "--ro-bind", str(file), "/box/main"]
    command += ["--size", str(SCRATCH_BYTES), "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp", "--"]
    return [*command, python, "-I", "-S", "-B", "/box/inside.py", role, "/box/main", json.dumps(limits)]


def sandlock(role: str, file: Path, limits: dict[str, int]) -> dict:
    """The same with sandlock, as an order for launch.py: a program there may write nowhere."""
    python = os.path.realpath(sys.executable)
    policy = {
        "fs_readable": [*libraries(), python, str(INSIDE), str(file), "/dev/urandom"],
        "fs_writable": ["/dev/null"],
        "fs_denied": packages(),
        "max_memory": limits["AS"],
        "max_processes": 1,
        "clean_env": True,
        "extra_deny_syscalls": [*(name for name in REFUSED if name not in OWN), *CHANGES],
    }
    return {
        "folder": str(file.parent),
        "limits": limits,
        "policy": policy,
        "command": [python, "-I", "-S", "-B", str(INSIDE), role, str(file), "{}"],  # no limit can be set any more
    }


class Started(subprocess.Popen):
    """A process in a session of its own, which `kill` ends whole; bubblewrap takes with it what it holds."""

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def start(
    how: str, role: str, file: Path, limits: dict[str, int], *, stdin: int, stdout: int, stderr: int
) -> Started | Launched:
    """Start inside.py in a role on a file: `how` is bwrap, sandlock or limits. Streams are descriptors."""
    if how == "sandlock":
        return launch(sandlock(role, file, limits), [stdin, stdout, stderr])
    streams = {"stdin": stdin, "stdout": stdout, "stderr": stderr, "env": {}, "start_new_session": True}
    if how == "limits":
        command = [sys.executable, "-I", "-S", "-B", str(INSIDE), role, str(file), json.dumps(limits)]
        return Started(command, cwd=file.parent, **streams)
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as pipe:
        pipe.write(refusals())
    try:
        return Started(bubblewrap(role, file, limits, reader), pass_fds=[reader], **streams)
    finally:
        os.close(reader)


def limits_of(timeout_s: float, memory_mb: int, output_bytes: int) -> dict[str, int]:
    """Limits for inside.py, {name of RLIMIT: value}. Processor time ends two seconds after the clock's `timeout_s`."""
    return {"AS": memory_mb << 20, "CPU": int(timeout_s) + 2, "FSIZE": output_bytes, "NOFILE": 64, "CORE": 0}


@functools.cache
def works(how: str) -> bool:
    """Does bwrap or sandlock run a program here that cannot read a file outside?"""
    there = shutil.which("bwrap") and platform.machine() in MACHINES if how == "bwrap" else util.find_spec("sandlock")
    if not there:
        return False
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "r+b") as null, tempfile.TemporaryFile() as said:
        main, other = Path(folder) / "main.py", Path(folder) / "other"
        other.touch()
        main.write_text(f"try:\n    open({str(other)!r})\nexcept OSError:\n    print('shut in')\n", encoding="utf-8")
        streams = {"stdin": null.fileno(), "stdout": said.fileno(), "stderr": null.fileno()}
        process = start(how, "program", main, limits_of(20, 512, 1 << 20), **streams)
        try:
            process.wait(20)
            said.seek(0)
            return said.read() == b"shut in\n"
        except (subprocess.TimeoutExpired, SandboxError):
            return False
        finally:
            process.kill()


def mechanism() -> str | None:
    """bwrap or sandlock, whichever works; else `limits` if DISTIL_UNSAFE_CODE is 1; else None. Off Linux always None.

    DISTIL_SANDBOX names one of the two, or `none`, to look no further. Raises SandboxError for another value.
    """
    wanted = os.environ.get("DISTIL_SANDBOX", "")
    if wanted not in ("", "none", "bwrap", "sandlock"):
        raise SandboxError(f"DISTIL_SANDBOX={wanted}: must be bwrap, sandlock or none")
    if not ON_LINUX:
        return None
    for how in ("bwrap", "sandlock"):
        if wanted in ("", how) and works(how):
            return how
    return "limits" if os.environ.get("DISTIL_UNSAFE_CODE") == "1" else None
