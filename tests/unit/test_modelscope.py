"""ModelScope through its own client, to a server on this machine. Only where the extra `modelscope` is installed."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler

import pytest
import small_run
from loopback import Server

from distil.cli import main
from distil.publish import upload
from distil.workspace.errors import StageError

TOKEN = "ms-" + "-".join(["0123abcd", "0123", "4567", "89ab", "0123456789ab"])


class ModelScope:
    def __init__(self):
        self.repositories: dict[str, dict] = {}
        self.blobs: dict[str, bytes] = {}
        self.puts: list[str] = []
        self.down = False


@pytest.fixture
def scope(home, monkeypatch):
    package = pytest.importorskip("modelscope_hub")
    state = ModelScope()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_) -> None:
            pass

        def reply(self, status: int, data: object) -> None:
            body = json.dumps({"Code": status, "Success": status == 200, "success": status == 200, "Data": data,
                               "data": data, "Message": "no"}).encode()  # fmt: skip
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def handle_all(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.command == "PUT":
                state.puts.append(self.path.rpartition("/")[2])
                if state.down:
                    return self.reply(503, {})
                state.blobs[state.puts[-1]] = body
                return self.reply(200, {})
            if TOKEN not in str(self.headers):
                return self.reply(401, {})
            if self.path.endswith("/users/me"):
                return self.reply(200, {"username": "me"})
            if self.command == "POST" and self.path in ("/api/v1/models", "/api/v1/datasets"):
                wanted = dict(re.findall(rb'name="(\w+)"\r\n\r\n(.*?)\r\n', body)) if b"form-data" in body else {}
                wanted = {k.decode(): v.decode() for k, v in wanted.items()} or json.loads(body)
                name = f"{wanted.get('Path') or wanted['Owner']}/{wanted['Name']}"
                if name in state.repositories:
                    return self.reply(409, {})
                state.repositories[name] = {"made": wanted, "files": {}}
                return self.reply(200, wanted)
            if found := re.fullmatch(r"/api/v1/repos/\w+/([^/]+/[^/]+)/info/lfs/objects/batch", self.path):
                url = f"http://127.0.0.1:{server.server_address[1]}/blob/"
                objects = [
                    {**one, "actions": {} if one["oid"] in state.blobs else {"upload": {"href": url + one["oid"]}}}
                    for one in json.loads(body)["objects"]
                ]
                return self.reply(200, {"objects": objects})
            if found := re.fullmatch(r"/api/v1/repos/\w+/([^/]+/[^/]+)/commit/master", self.path):
                files = state.repositories[found[1]]["files"]
                for action in json.loads(body)["actions"]:
                    lfs = action["type"] == "lfs"
                    data = state.blobs[action["sha256"]] if lfs else base64.b64decode(action["content"])
                    files[action["path"]] = data
                return self.reply(200, {"Oid": "a"})
            name = "/".join(self.path.split("?")[0].split("/")[-2:])
            return self.reply(200 if name in state.repositories else 404, {"Name": name.partition("/")[2]})

        do_GET = do_POST = do_PUT = handle_all

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", TOKEN)
    package.set_default_config(package.HubConfig())  # the package reads the environment once
    yield state
    server.shutdown()
    server.server_close()


PUSH = ["push", "fast,merged,data", "modelscope:me/tiny", "--run", "r"]


def test_what_arrives_is_what_was_planned(scope, home, capsys):
    assert main(PUSH) == 0
    assert set(scope.repositories) == {"me/tiny", "me/tiny-merged", "me/tiny-data"}
    for name, repository in scope.repositories.items():
        assert str(repository["made"]["Visibility"]) == "1" and repository["made"]["License"] == "other"  # 1: private
        folder = home / "artifacts/r/07_eval/publish" / name.replace("/", "--")
        sent = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        sent.pop(".ms_upload_cache")  # the package's own record of what has arrived
        assert repository["files"] == sent != {}
    assert TOKEN not in "".join(capsys.readouterr())
    assert all(hashlib.sha256(data).hexdigest() == oid for oid, data in scope.blobs.items())
    assert main(PUSH) == 0, "what this run has begun it may go on with"


def test_refused_before_anything_is_sent(scope):
    scope.repositories["me/tiny-data"] = {"made": {}, "files": {}}
    with pytest.raises(StageError, match="me/tiny-data is on ModelScope already"):
        upload.check("fast,data", "modelscope:me/tiny", small_run.STUDENTS, "r")
    modelscope_hub = pytest.importorskip("modelscope_hub")
    modelscope_hub.set_default_config(modelscope_hub.HubConfig(token="wrong"))
    with pytest.raises(StageError, match="ModelScope does not take the token or cannot be reached"):
        upload.check("fast", "modelscope:me/tiny", small_run.STUDENTS, "r")


def test_without_the_package_it_says_how_to_get_it(home, monkeypatch):
    monkeypatch.setattr("distil.models.modelscope.util.find_spec", lambda name: None)
    with pytest.raises(StageError, match=r"pip install -e '\.\[modelscope\]'"):
        upload.check("fast", "modelscope:me/tiny", small_run.STUDENTS, "r")
