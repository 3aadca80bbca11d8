"""Where this repository lives: one constant, and a command that writes it into the notebooks' badges and install cells.

python -m benchmarks.address OWNER/REPOSITORY
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from distil.workspace.environment import root
from distil.workspace.files import write_text

REPOSITORY = "OWNER/REPOSITORY"


def main(new: str) -> int:
    """Replace the address in this file, the notebooks and the pages. Exit code 2 for a name that is not OWNER/NAME."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", new):
        print(f"{new!r}: write OWNER/REPOSITORY", file=sys.stderr)
        return 2
    pages = [root() / "README.md", *sorted((root() / "docs").rglob("*.md*"))]
    for path in (*sorted((root() / "notebooks").glob("*.ipynb")), *pages, Path(__file__)):
        text = path.read_text(encoding="utf-8")
        if REPOSITORY in text:
            write_text(path, text.replace(REPOSITORY, new))
            print(f"{path.name}: {text.count(REPOSITORY)} places")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1] if len(sys.argv) == 2 else ""))
