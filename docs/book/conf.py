"""The book of `make book`: notebooks and pages where they lie, as a site that needs no network.

Settings of Sphinx, and what Sphinx and MyST lack: the table of contents of a README, formulas as MathML, and links to
what is no page of the book. Those go to the repository; while it has no address, to a copy, and folders are text.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx import addnodes
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from benchmarks.address import REPOSITORY  # noqa: E402

project = html_title = "distil"
root_doc = "README"
include_patterns = ["README.md", "CONTRIBUTING.md", "artifacts/README.md", "docs/*.md", "notebooks/*.ipynb"]
exclude_patterns = [".*", "build", "distil", "papermill_runs"]  # not walked through
extensions = ["myst_nb"]
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath"]
myst_dmath_allow_space = myst_dmath_allow_digits = False  # prices are no formulas
myst_heading_anchors = 6  # as GitHub names them
highlight_language = "none"
suppress_warnings = ["misc.highlighting_failure"]  # commands of IPython among Python
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["book.css"]
html_copy_source = False
html_math_renderer = "mathml"

CONTENTS = """

```{toctree}
:hidden:
:caption: Handbook
:glob:

notebooks/*
```

```{toctree}
:hidden:
:caption: Guides
:titlesonly:

docs/commands
docs/own-problems
docs/teachers
docs/own-chains
docs/gpu
docs/measuring
docs/sandbox
docs/publishing
docs/systems
docs/teaching
docs/teaching-answers
```

```{toctree}
:hidden:
:caption: Results
:titlesonly:

docs/results
docs/reproducing
artifacts/README
```

```{toctree}
:hidden:
:caption: Contributing
:titlesonly:

CONTRIBUTING
```
"""


def add_contents(app: Sphinx, docname: str, source: list[str]) -> None:
    """Give the first page the table of contents."""
    if docname == root_doc:
        source[0] += CONTENTS


def lead_outside(app: Sphinx, doctree: nodes.document) -> None:
    """Lead links to what is no page to the repository; write badges, which lie elsewhere, as words."""
    known = app.config.repository != "/".join(("OWNER", "REPOSITORY"))
    for image in [*doctree.findall(nodes.image)]:
        if "://" in image["uri"]:
            badge = image.parent
            if known or app.config.repository not in badge.get("refuri", ""):
                image.replace_self(nodes.Text(image["alt"]))
            else:
                badge.parent.remove(badge)
    for link in [*doctree.findall(lambda node: isinstance(node, addnodes.pending_xref | addnodes.download_reference))]:
        path = Path(app.env.relfn2path(link["reftarget"], app.env.docname)[1])
        if link.get("refdomain") == "doc":
            if link["reftarget"] in app.env.found_docs:
                continue
            path = ROOT / f"{link['reftarget']}.md"  # a page of the repository, not of the book
        if link.get("reftype") != "myst" or not path.exists():
            continue  # Sphinx finds it, or says that it cannot
        if known:
            kind = "tree" if path.is_dir() else "blob"
            where = path.resolve().relative_to(ROOT).as_posix()
            address = f"https://github.com/{app.config.repository}/{kind}/main/{where}"
            link.replace_self(nodes.reference("", "", *link.children, refuri=address))
        elif isinstance(link, addnodes.pending_xref):
            link.replace_self(link.children)


def formula(translator: nodes.NodeVisitor, node: nodes.Element) -> None:
    """Write a formula as MathML."""
    translator.body.append(tex2mathml(node.astext(), as_block=isinstance(node, nodes.math_block)))
    raise nodes.SkipNode


def add_index(app: Sphinx, exception: Exception | None) -> None:
    """Write the first page under the name that browsers and servers look for."""
    if exception is None:
        shutil.copy(app.outdir / f"{root_doc}.html", app.outdir / "index.html")


def setup(app: Sphinx) -> None:
    app.add_config_value("repository", REPOSITORY, "env")
    app.connect("source-read", add_contents)
    app.connect("doctree-read", lead_outside, priority=400)  # before pictures and downloads are collected
    app.connect("build-finished", add_index)
    app.add_html_math_renderer("mathml", (formula, None), (formula, None))
