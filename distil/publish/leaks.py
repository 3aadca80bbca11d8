"""What must not be published: tokens and keys, paths of this machine, caches, states of a trainer."""

from __future__ import annotations

import fnmatch
import json
import os
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from distil.workspace.environment import root

if TYPE_CHECKING:
    from detect_secrets.plugins.base import BasePlugin

# tokens that no detector of detect-secrets 1.5 knows: it has none for the first three, of OpenAI's keys only the older
# ones, of GitHub's not the fine-grained ones, of clouds not Alibaba's, of private keys not the encrypted ones
UNKNOWN_TOKENS = {
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}",
    "a ModelScope token": r"\bms-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "an API key": r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{20,}",
    "a GitHub token": r"\bgithub_pat_[A-Za-z0-9_]{30,}",
    "a cloud access key": r"\bLTAI[A-Za-z0-9]{12,24}\b",
    "a private key": r"-----BEGIN ENCRYPTED PRIVATE KEY-----",
}
# these fire on what is no secret: digests, any long word, any address, a vocabulary's pieces
GUESSES = {"Base64 High Entropy String", "Hex High Entropy String", "Secret Keyword", "Public IP (ipv4)"}
SECRET_VARIABLES = re.compile(r"TOKEN$|_KEY$|SECRET|PASSWORD")
PATHS = re.compile(r"(?<![\w.:/-])(?:/(?:home|root|mnt|work|Users|tmp|data|workspace|content)/[\w.-]+|[A-Z]:\\\\?\w+)")
STATES = ("optimizer*", "scheduler.pt", "rng_state*", "scaler.pt", "training_args.bin", "trainer_state.json", "*.pt")
PICKLES = ("*.pth", "*.bin", "*.pkl", "*.pickle", "*.ckpt")
CACHES = ("__pycache__", ".cache", ".ipynb_checkpoints", ".git", "checkpoints", "checkpoint-*", "*.lock", ".lock")
KEY_FILES = (".env", "*.pem", "*.key", "id_rsa*", ".netrc", "token", "credentials*")
KINDS = {"state of a trainer": STATES, "pickle": PICKLES, "cache or checkpoint": CACHES, "key file": KEY_FILES}
SETTINGS = (".json", ".md", ".yaml", ".yml")  # what this project or a library wrote
VOCABULARIES = ("tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json")
TEXT = (".json", ".jsonl", ".jinja", ".txt", ".md", ".yaml", ".yml", ".csv", ".model")


@cache
def detectors() -> list[BasePlugin]:
    """The detectors of detect-secrets that know a token by its form. None of them asks the token's provider."""
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    return [kind() for name, kind in get_mapping_from_secret_type_to_class().items() if name not in GUESSES]


def by_name(path: str) -> str | None:
    """Why a file of this relative path is not for publishing; None if its name says nothing against it."""
    for kind, patterns in KINDS.items():
        if any(fnmatch.fnmatch(part, pattern) for part in Path(path).parts for pattern in patterns):
            return kind
    return None


def in_text(text: str) -> list[str]:
    """What a text gives away, in words; the secret itself is never among them."""
    found = [what for what, pattern in UNKNOWN_TOKENS.items() if re.search(pattern, text)]
    found += [f"a secret ({known.secret_type})" for known in detectors() if any(known.analyze_string(text))]
    for name, value in os.environ.items():
        if SECRET_VARIABLES.search(name) and len(value) >= 8 and value in text:
            found.append(f"the value of {name}")
    return found


def paths(text: str, everywhere: bool) -> list[str]:
    """Paths of this machine in a text; with `everywhere` also whatever looks like a path of another one."""
    mine = [path for path in (f"{Path.home()}{os.sep}", str(root().resolve())) if len(path) > 2]
    forms = [form for path in mine for form in (path, path.replace("\\", "\\\\"), path.replace("\\", "/"))]
    own = [form for form in forms if form in text]  # those of Windows are doubled in JSON, and may lean the other way
    return [f"the path {path}" for path in dict.fromkeys([*own, *(PATHS.findall(text) if everywhere else [])])]


def in_file(path: Path) -> list[str]:
    """What a file gives away: its whole text, or of safetensors what they say of themselves."""
    if path.suffix == ".safetensors":
        with open(path, "rb") as handle:
            header = handle.read(int.from_bytes(handle.read(8), "little"))
        text, everywhere = json.dumps(json.loads(header).get("__metadata__", {})), True
    elif path.suffix in TEXT:
        # a vocabulary holds pieces of paths, and a teacher's answer may speak of /tmp: neither is one of this machine
        text, everywhere = path.read_text(encoding="utf-8"), path.suffix in SETTINGS and path.name not in VOCABULARIES
    else:
        return []
    return in_text(text) + ([] if path.name in VOCABULARIES else paths(text, everywhere))


def problems(files: Iterable[tuple[str, Path]]) -> list[str]:
    """A line for each thing in `files` (path in the repository, local path) that must not be published."""
    found = []
    for name, path in files:
        kind = by_name(name)
        found += [f"{name}: {kind}"] if kind else [f"{name}: holds {what}" for what in in_file(path)]
    return found
