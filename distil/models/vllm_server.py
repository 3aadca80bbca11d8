"""A vLLM server that we start and stop ourselves. The address `vllm` asks for one."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from distil.models.weights import resolve
from distil.workspace import processes
from distil.workspace.errors import StageError

VLLM = "vllm"
LOG = "server.log"  # in the run's folder
DEFAULT_CONCURRENCY = 512  # where DISTIL_CONCURRENCY says nothing: nobody else asks a server of our own
STREAM_INTERVAL = 64  # tokens an event; nobody reads along
START_TIMEOUT = 1200  # seconds until a server has to be ready: the first start on a machine compiles
ALTERNATIVE = {  # by the parameter whose value is `vllm`
    "endpoint": "give endpoint=recorded:NAME, or the URL of a server that you start yourself",
    "engine": "give engine=transformers:75, or the URL of a server that you start yourself (distil serve)",
}
# in a process of its own: who asks torch keeps a piece of the GPU for as long as it lives
FREE = "import torch; print(*(torch.cuda.mem_get_info() if torch.cuda.is_available() else (0, 0)))"


def serve_command(model: str, name: str) -> list[str]:
    """The command `vllm serve` for one whole model. `--generation-config vllm` leaves sampling to each request.

    Answers come as streams. An event a token is what the server's one process sends most of the time where a small
    model answers many at once, so that events are of `STREAM_INTERVAL` tokens.
    """
    options = ["--generation-config", "vllm", "--stream-interval", str(STREAM_INTERVAL)]
    return ["vllm", "serve", resolve(model), "--served-model-name", name, *options]


def check(parameter: str) -> None:
    """Raise StageError if there is no vLLM here. `parameter` (endpoint or engine) is what asks for it."""
    if not shutil.which("vllm"):
        raise StageError(
            f"{parameter}=vllm: vllm is not installed here (pip install vllm, on a machine with a GPU); "
            f"{ALTERNATIVE[parameter]}"
        )


def free_memory() -> tuple[int, int]:
    """(free, all) bytes of the first GPU; zeros without one."""
    done = subprocess.run([sys.executable, "-c", FREE], capture_output=True, encoding="utf-8")
    free, whole = map(int, done.stdout.split()) if done.returncode == 0 else (0, 0)
    return free, whole


class Server:
    """One server at a time, from `start` to `stop`. `parameter` (endpoint or engine) is what asks for it.

    The server ends when this object is deleted, as when its cell is run again. On Linux it also ends with this process,
    however that ends. The file `log` has its output.
    """

    process: subprocess.Popen | None = None

    def __init__(self, log: Path, parameter: str):
        self.log, self.parameter, self.url = log, parameter, ""

    def __del__(self):
        self.stop()

    @property
    def runs(self) -> bool:
        """Is it running, and was it ready? A server whose start was interrupted is started anew."""
        return bool(self.url) and self.process.poll() is None

    def start(self, words: Sequence[str], share: float) -> None:
        """Run the command `words` until it answers at `url`, with that `share` of the GPU's free memory.

        Raises StageError if there is no vLLM, if it ends before, or if it is never ready.
        """
        check(self.parameter)
        self.stop()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = [*words, "--host", "127.0.0.1", "--port", str(port), *memory_share(share)]
        self.process = processes.start(words, self.log)
        url = f"http://127.0.0.1:{port}/v1"
        self._wait(url)
        self.url = url

    def stop(self) -> None:
        """End the server, if there is one."""
        if self.process is not None:
            processes.stop(self.process)
        self.process, self.url = None, ""

    def _wait(self, url: str) -> None:
        begun, directly = time.monotonic(), urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while time.monotonic() - begun < START_TIMEOUT:
            if (code := self.process.poll()) is not None:
                raise StageError(
                    f"vllm ended with code {code} before it answered. Mend what {self.log} says, or "
                    f"{ALTERNATIVE[self.parameter]}; its last lines: {processes.last_lines(self.log)}"
                )
            try:
                with directly.open(f"{url}/models", timeout=10):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(1)
        self.stop()
        raise StageError(
            f"vllm was not ready after {START_TIMEOUT} seconds; {self.log} says how far it came. "
            f"Give the command again, or {ALTERNATIVE[self.parameter]}"
        )


def memory_share(share: float) -> list[str]:
    """vLLM's option for the part of the GPU's memory that it may take: a share of what others have left free."""
    free, whole = free_memory()
    return ["--gpu-memory-utilization", f"{share * free / whole:.2f}"] if whole else []
