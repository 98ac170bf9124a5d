"""How Sphinx builds the documentation."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import reverseproxy
from reverseproxy.config import reference

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "reverseproxy"
author = "the reverseproxy contributors"
project_copyright = "2026, the reverseproxy contributors"
version = release = reverseproxy.__version__

html_theme = "furo"
html_title = f"reverseproxy {version}"
exclude_patterns = ["_build", "reference"]  # which pages include
nitpicky = True
# Types in signatures are Python's, Twisted's, or inside.
nitpick_ignore_regex = [("py:.*", ".*")]
extensions = ["sphinx.ext.autodoc"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
smartquotes = False


def setup(app: Sphinx) -> None:
    """Write the pages that are made from the code, before Sphinx looks for pages."""
    app.connect("config-inited", _generate)
    app.connect("autodoc-process-docstring", _from_epytext)


def _from_epytext(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Turn the fields and the links of our docstrings into Sphinx's."""
    text = "\n".join(lines)
    for ours, theirs in (("@param", ":param"), ("@raise", ":raises"), ("@ivar", ":ivar")):
        text = re.sub(rf"^{ours} ([^:]+):", rf"{theirs} \1:", text, flags=re.MULTILINE)
    text = re.sub(r"^@return:", ":returns:", text, flags=re.MULTILINE)
    # A list of fields begins behind an empty line.
    text = re.sub(r"(?<=[^\n])\n(:(?:param|raises|ivar|returns)\b)", r"\n\n\1", text)
    text = re.sub(r"[LC]\{([^<}]*?)(?:<[^>]*>)?\}", r"``\1``", text)
    lines[:] = text.split("\n")


def _generate(app: Sphinx, _: object) -> None:
    generated = Path(app.srcdir) / "reference"
    generated.mkdir(exist_ok=True)
    _write(generated / "configuration.rst", reference.generate())
    changelog = (Path(app.srcdir).parent / "CHANGELOG.md").read_text()
    _write(generated / "changelog.rst", _from_markdown(changelog))


def _write(path: Path, text: str) -> None:
    """Leave a file that is up to date alone, so that builds stay incremental."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def _from_markdown(text: str) -> str:
    """Turn the little Markdown that the changelog uses into reStructuredText."""
    lines = []
    for line in text.splitlines():
        marks, _, title = line.partition(" ")
        if marks in ("#", "##"):
            lines += [title, ("=" if marks == "#" else "-") * len(title)]
        else:
            lines.append(line.replace("`", "``"))
    return "\n".join(lines) + "\n"
