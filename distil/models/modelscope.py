"""ModelScope: models from there, and what is published there. Its package is optional (extra `modelscope`)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from importlib import util
from pathlib import Path

from distil.workspace.environment import quiet
from distil.workspace.errors import StageError

AGAIN = "give the same command again: what has arrived is not sent again"


def needed() -> None:
    """Raises StageError if the package is not installed."""
    if not util.find_spec("modelscope_hub"):
        raise StageError("ModelScope's package is not installed: pip install -e '.[modelscope]'")


def download(model: str) -> Path:
    """A model's folder, downloaded unless it lies in the cache. Raises StageError if it cannot be had."""
    needed()
    from modelscope_hub import HubApi
    from modelscope_hub.errors import HubError

    try:
        return Path(HubApi().download_repo(model, "model"))
    except (HubError, OSError) as error:
        raise StageError(f"{model} could not be had from ModelScope: {type(error).__name__}") from None


def check(names: Sequence[tuple[str, str]], begun: Collection[str]) -> None:
    """Token and names, asked of ModelScope before anything is trained. Raises StageError.

    `names` are (repository, kind), `begun` those that this run has created itself, which it may go on with.
    """
    needed()
    from modelscope_hub import HubApi
    from modelscope_hub.errors import HubError

    api = HubApi()
    try:
        api.whoami()
        taken = [name for name, kind in names if name not in begun and api.repo_exists(name, kind)]
    except HubError as error:
        raise StageError(
            f"ModelScope does not take the token or cannot be reached ({type(error).__name__}): set "
            "MODELSCOPE_API_TOKEN, or give `modelscope login`"
        ) from None
    if taken:
        raise StageError(f"{taken[0]} is on ModelScope already: choose another name")


def send(repository: str, kind: str, folder: Path) -> str:
    """Upload a folder to a private repository, made if there is none; returns its address. Raises StageError.

    An upload that was cut off goes on: the package keeps a record of what has arrived.
    """
    needed()
    import yaml
    from modelscope_hub import HubApi, HubConfig
    from modelscope_hub.errors import AlreadyExistsError, HubError

    api, card = HubApi(), (folder / "README.md").read_text(encoding="utf-8")
    licence = yaml.safe_load(card.split("---")[1]).get("license", "other")  # without one the package says Apache-2.0
    try:
        try:
            api.create_repo(repository, kind, visibility="private", license=licence)
        except AlreadyExistsError:
            pass
        api.upload_folder(repository, kind, folder, commit_message="Upload by distil", disable_tqdm=quiet())
    except (HubError, OSError) as error:
        raise StageError(f"{repository}: the push was cut off ({type(error).__name__}); {AGAIN}") from None
    return f"{HubConfig().endpoint}/{kind}s/{repository}"
