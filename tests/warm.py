"""Processes of Python that need not import torch and its kin anew: forks of one process that has done so.

`python -m MODULE` of a test that is about what a command does, not about how it starts, can run as such a fork. So do
the kernels of the notebooks that it starts. A fork has the environment, the folder and the streams it is given; what
a library has read of the environment when it was imported, as the address of the Hub, it has read before.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

HEAVY = """
    datasets datasketch detect_secrets ipykernel.kernelapp math_verify matplotlib.backends.backend_svg matplotlib.pyplot
    matplotlib_inline.backend_inline nbconvert pandas papermill peft reasoning_gym scipy.stats
    sklearn.feature_extraction.text sklearn.linear_model sklearn.metrics torch transformers
    transformers.models.llama.modeling_llama trl trl.trainer
    distil.chains.chats distil.chains.student_judge distil.cli distil.evaluate.recheck distil.evaluate.tables
    distil.pipeline.driver distil.train.grpo distil.train.preference distil.train.sft distil.workspace.plots
""".split()
NAMES = (
    ("transformers", "AutoModelForCausalLM AutoModelForSequenceClassification AutoTokenizer TrainerCallback"),
    ("trl", "DPOTrainer GRPOTrainer SFTTrainer"),
)  # both import their parts when these are asked for
ADDRESS = "WARM_ADDRESS"
BACKEND = "module://matplotlib_inline.backend_inline"  # of matplotlib in a kernel, which reads it when it is imported


class Process:
    """A fork, as far as `subprocess.Popen` is needed here: its parent says how it ended."""

    stdin = stdout = stderr = None

    def __init__(self, command: list[str], *, env: dict[str, str], cwd: str, stdout: int, stderr: int):
        self.args, self.returncode = command, None
        self.line = socket.socket(socket.AF_UNIX)
        self.line.connect(env[ADDRESS])
        request = json.dumps({"command": command, "env": env, "cwd": cwd}).encode()
        socket.send_fds(self.line, [len(request).to_bytes(4)], [stdout, stderr])
        self.line.sendall(request)
        self.pid = int.from_bytes(received(self.line, 4))

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self.line], [], [], 0)[0]:
            self.returncode = int.from_bytes(received(self.line, 4), signed=True)
            self.line.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and not select.select([self.line], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.poll()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def received(line: socket.socket, n: int) -> bytes:
    data = b""
    while len(data) < n:
        part = line.recv(n - len(data))
        if not part:
            raise ConnectionError("the process that forks has gone")
        data += part
    return data


@contextlib.contextmanager
def forks(root: Path, **variables: str) -> Iterator[dict[str, str]]:
    """The variables by which `run` finds the process that forks, which has them too and ends with the block."""
    with tempfile.TemporaryDirectory() as folder:
        variables |= {ADDRESS: f"{folder}/forks"}  # a socket
        environment = os.environ | variables | {"PYTHONPATH": str(root), "MPLBACKEND": BACKEND}
        with subprocess.Popen([sys.executable, __file__], env=environment, stdin=PIPE, stdout=PIPE) as parent:
            assert parent.stdout.readline() == b"ready\n"
            yield variables
            parent.stdin.close()  # it ends


def run(command: list[str], *, env: dict[str, str], timeout: float) -> subprocess.CompletedProcess:
    """As `subprocess.run` with `capture_output` and `text`, of `[python, "-m", MODULE, ...]` or of a script."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        fork = Process(command, env=env, cwd=os.getcwd(), stdout=out.fileno(), stderr=err.fileno())
        try:
            code = fork.wait(timeout)
        except BaseException:
            os.killpg(fork.pid, signal.SIGKILL)
            raise
        out.seek(0), err.seek(0)
        return subprocess.CompletedProcess(command, code, out.read(), err.read())


def kernel(
    command: list[str], *, env: dict[str, str], cwd: str | None = None, stdout=None, stderr=None, **_
) -> Process:
    """In place of jupyter_client's `launch_kernel`. The poller for a parent that has gone would miss its parent."""
    env = {name: value for name, value in env.items() if name != "JPY_PARENT_PID"}
    return Process(command, env=env, cwd=cwd or os.getcwd(), stdout=stdout or 1, stderr=stderr or 2)


def become(command: list[str], env: dict[str, str], cwd: str, streams: list[int]) -> int:
    """Be this command from now on. Returns the exit code."""
    for number, stream in enumerate([os.open(os.devnull, os.O_RDONLY), *streams]):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    random.seed()
    module = "-m" in command
    program, *arguments = command[command.index("-m") + 1 :] if module else command[1:]
    sys.argv, sys.path[0] = [program, *arguments], "" if module else str(Path(program).parent)
    try:
        if module:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def serve(address: str) -> None:
    """Import, say so, then fork whenever asked, until stdin is closed."""
    import jupyter_client.provisioning.local_provisioner as provisioner

    for name in HEAVY:
        importlib.import_module(name)
    for module, names in NAMES:
        for name in names.split():
            getattr(sys.modules[module], name)
    provisioner.launch_kernel = kernel
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    assert threading.active_count() == 1, "a fork has only the thread that forks"
    gc.collect()
    gc.freeze()  # what is imported: a fork that looks through a million objects for garbage takes half a second
    print("ready", flush=True)
    lines: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [], 0.02)
        if sys.stdin in ready:
            return
        if listener in ready:
            line, _ = listener.accept()
            size, streams, _, _ = socket.recv_fds(line, 4, 2)
            request = json.loads(received(line, int.from_bytes(size)))
            pid = os.fork()
            if not pid:
                os.setsid()  # before its id is known to those who ask for its group
                line.sendall(os.getpid().to_bytes(4))
                for other in (listener, line, *lines.values()):
                    other.close()
                code = 1
                try:
                    code = become(request["command"], request["env"], request["cwd"], streams)
                finally:
                    threading._shutdown()
                    atexit._run_exitfuncs()
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(code)
            for stream in streams:
                os.close(stream)
            lines[pid] = line
        while lines and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            with contextlib.suppress(OSError), lines.pop(ended[0]) as line:
                line.sendall(os.waitstatus_to_exitcode(ended[1]).to_bytes(4, signed=True))


if __name__ == "__main__":
    serve(os.environ[ADDRESS])
