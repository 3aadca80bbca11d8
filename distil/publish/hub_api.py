"""What is asked of the Hub itself, through its own client, with its faults put into words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from distil.workspace.errors import StageError

NEW = {".gitattributes"}  # what the Hub itself puts into a new repository
AGAIN = "give the same command again: what has arrived is not sent again"


@contextmanager
def in_words(what: str) -> Iterator[None]:
    """Raises StageError for whatever the client raises; no request, header or token is in its message."""
    import httpx
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        yield
    except OfflineModeIsEnabled:
        raise StageError(f"{what}: HF_HUB_OFFLINE is set, so that nothing can be published") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        said = (error.server_message or "").strip()[:200]
        reason = {
            401: "the Hub does not know this token: set HF_TOKEN, or give `hf auth login`",
            403: "this token may not write there: make one with write access for this owner",
        }.get(status, f"the Hub answered {status}{f' ({said})' if said else ''}; {AGAIN}")
        raise StageError(f"{what}: {reason}") from None
    except (httpx.HTTPError, OSError, RuntimeError, ValueError) as error:
        cause = error.__cause__ or error
        raise StageError(
            f"{what}: the connection to {constants.ENDPOINT} was cut or never made ({type(cause).__name__}); {AGAIN}"
        ) from None


def check(names: Sequence[tuple[str, str]], token: str | None) -> None:
    """Is the token known, may it write for this owner, and are the names free or ours? Raises StageError if not."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    if not token:
        raise StageError("publishing needs a token with write access: set HF_TOKEN, or give `hf auth login`")
    api, owner = HfApi(token=token), names[0][0].partition("/")[0]
    with in_words("publishing cannot be prepared"):
        me = api.whoami()
    if me.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise StageError("this token may only read: make one with write access, and set it as HF_TOKEN")
    owners = [me["name"], *(org["name"] for org in me.get("orgs", []))]
    if owner not in owners:
        raise StageError(f"repository {names[0][0]!r}: this token writes for {', '.join(owners)}, not for {owner!r}")
    for name, kind in names:
        with in_words(name):
            try:
                info = api.repo_info(name, repo_type=kind)
            except RepositoryNotFoundError:
                continue
        files = {file.rfilename for file in info.siblings or []}
        if files - NEW and "distil" not in (info.tags or []):
            raise StageError(f"{name} is taken: it holds files, and distil did not put them there; choose another name")


def send(repository: str, kind: str, folder: Path, token: str | None) -> str:
    """Upload a folder to a private repository, made if there is none; returns its address. Raises StageError.

    `upload_folder` it is, not `upload_large_folder`, which the client has deprecated: through the Hub's chunk store
    (hf-xet) an upload goes on from its last chunk, and without that from its last whole file, with no record kept here.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with in_words(repository):
        address = api.create_repo(repository, repo_type=kind, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, repo_type=kind, folder_path=folder, commit_message="Upload by distil")
    return str(address)
