"""Shared by all tests: the project's folder, and a project of one's own to run in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from distil.llm.keys import PROVIDERS
from distil.llm.limits import MEANT
from distil.llm.roles import ROLES
from distil.pipeline import minutes

ROOT = Path(__file__).parents[1]
os.environ["DISTIL_BATCH"] = "1"  # no progress bars
minutes.speeds = lambda config: {}  # no run here measures the machine: it takes seconds
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch reads it when it loads: threads that wait do not spin
LONGEST = """
    test_smoke.py test_recipe_models.py test_elsewhere.py test_kept_run.py test_several_processes.py
    test_reference_suite.py test_side_by_side.py test_memory.py test_killed.py test_real_server.py test_ten_thousand.py
""".split()
EXPENSIVE = {"attacked", "graded", "made", "measured", "tiny"}  # fixtures that load a student or run many programs


def pytest_collection_modifyitems(items) -> None:
    """Mark what takes seconds; start the longest files first, so that no worker waits for them in the end."""
    for item in items:
        if EXPENSIVE & {*item.fixturenames} or item.nodeid.startswith("tests/pipeline"):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A copy of the notebooks in an empty folder: runs there touch nothing else."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    monkeypatch.setenv("DISTIL_HOME", str(tmp_path))
    limits = [
        f"DISTIL_{who}{limit.upper()}" for limit in MEANT for who in ("", *(f"{role.upper()}_" for role in ROLES))
    ]
    keys = [known["key"] for known in PROVIDERS.values()]
    for name in ("DISTIL_API_KEY", "DISTIL_KEYS", "HF_TOKEN", *keys, *limits):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    return tmp_path


@pytest.fixture
def no_sandbox(monkeypatch) -> None:
    """A machine where no program of a model can be run."""
    monkeypatch.setenv("DISTIL_SANDBOX", "none")
    monkeypatch.delenv("DISTIL_UNSAFE_CODE", raising=False)


@pytest.fixture(scope="session")
def parent() -> Iterator[dict[str, str]]:
    """A process that has imported the libraries; the variables by which its forks are asked for."""
    import warm

    with warm.forks(ROOT) as variables:
        yield variables


@pytest.fixture
def forks(parent, monkeypatch) -> None:
    """Commands of `warm.run` are forks, and so are kernels that this process starts."""
    import warm

    for name, value in parent.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("jupyter_client.provisioning.local_provisioner.launch_kernel", warm.kernel)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A project with a finished run, made once; tests work on copies of it."""
    import small_run

    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    before = {name: os.environ.get(name) for name in ("DISTIL_HOME", "DISTIL_CACHE")}
    os.environ |= {"DISTIL_HOME": str(folder), "DISTIL_CACHE": str(folder / "cache")}
    small_run.make("r")
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    return folder


@pytest.fixture
def home(made, tmp_path, monkeypatch) -> Path:
    """A project with that run, a token, and nothing in the caches of the Hub's client."""
    import hub_server

    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("DISTIL_HOME", str(tmp_path))
    monkeypatch.setenv("DISTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
    for name, value in (("HF_HUB_DISABLE_XET", True), ("HF_TOKEN_PATH", str(tmp_path / "stored-token"))):
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


@pytest.fixture
def server(home, monkeypatch):
    """A Hub on this machine, which the Hub's client of this process takes for the real one."""
    from hub_server import serve_hub

    with serve_hub() as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield server
