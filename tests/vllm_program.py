"""A program called vllm for tests: it listens where it is told to and answers under the names it is given.

Every answer is the number 4 in a box, and the name of the student that was asked; or, where the model has the name of
the recording's teacher, what that once said.
"""

import shutil
import stat
import sys
from pathlib import Path

from conftest import ROOT

PROGRAM = """
import json, sys, time
from types import SimpleNamespace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
words = sys.argv[1:]
if "broken" in words[1]:
    sys.exit("CUDA out of memory")
if "asleep" in words[1]:
    time.sleep(60)
after = words[words.index("--lora-modules") + 1 :] if "--lora-modules" in words else []
store = None
if words[1] == "qwen2.5-coder-1.5b-instruct":
    sys.path.insert(0, ROOT)
    from distil.llm.cache import Store
    store = Store(recording="qwen2.5-coder-1.5b")
names = [words[words.index("--served-model-name") + 1], *(w.split("=")[0] for w in after if "=" in w)]
class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def say(self, what):
        data = json.dumps(what).encode()
        self.send_response(200 if what else 404)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def do_GET(self):
        self.say({"data": [{"id": name} for name in names], "model": words[1]})
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for how in ("stream", "stream_options"):
            body.pop(how, None)  # it answers whole
        reply = store.get(body) if store else None
        reply = reply or SimpleNamespace(
            text="\\\\boxed{4} by " + body["model"], finish_reason="stop", prompt_tokens=1, completion_tokens=3
        )
        message = {"role": "assistant", "content": reply.text}
        choice = {"index": 0, "finish_reason": reply.finish_reason, "message": message}
        usage = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
        self.say({"choices": [choice], "usage": usage} if body["model"] in names else {})
ThreadingHTTPServer.request_queue_size = 1024
ThreadingHTTPServer(("127.0.0.1", int(words[words.index("--port") + 1])), Handler).serve_forever()
"""


def put(folder: Path) -> None:
    """Put it into a folder, with the system's setpriv beside it if there is one."""
    folder.mkdir(exist_ok=True)
    program = folder / "vllm"
    program.write_text(f"#!{sys.executable}\nROOT = {str(ROOT)!r}\n{PROGRAM}")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    if setpriv := shutil.which("setpriv", path="/usr/bin:/bin"):
        (folder / "setpriv").symlink_to(setpriv)
