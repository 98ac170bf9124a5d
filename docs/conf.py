"""How Sphinx builds the documentation."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
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
    report = (Path(app.srcdir) / "performance.md").read_text("utf-8")
    _write(generated / "performance.rst", "\n".join(_from_report(report, Path(app.srcdir))))


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


_INLINE = re.compile(
    r"`(?P<code>[^`]+)`|\[(?P<title>[^]]+)\]\((?P<target>[^)]+)\)"
    r"|\*\*(?P<strong>[^*]+)\*\*|\*(?P<emphasis>[^*]+)\*"
)
_IMAGE = re.compile(r"!\[(?P<title>[^]]*)\]\((?P<target>[^)]+)\)")
_UNDERLINES = {"#": "=", "##": "-", "###": "~"}


def _from_report(text: str, folder: Path) -> Iterator[str]:
    """
    Turn the Markdown that C{benchmarks/report.py} writes into reStructuredText.

    @param folder: what links are relative to; those to other places of the report become plain text.
    """
    last = ""
    for line in text.splitlines():
        kind = line[:1] if line[:1] in "|-" else ""
        if kind != last:
            yield ""
            if kind == "|":
                yield from (".. list-table::", "   :header-rows: 1", "")
        last = kind
        marks, _, title = line.partition(" ")
        if image := _IMAGE.fullmatch(line):
            yield from (f".. image:: {image['target']}", f"   :alt: {image['title']}")
        elif kind == "|":
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if not all(re.fullmatch(":?-{3,}:?", cell) for cell in cells):
                for mark, cell in zip("*" + " " * len(cells), cells, strict=False):
                    yield f"   {mark} - {_inline(cell, folder)}"
        elif marks in _UNDERLINES:
            title = _inline(title, folder)
            yield from (title, _UNDERLINES[marks] * len(title))
        elif kind:
            yield f"- {_inline(title, folder)}"
        else:
            yield _inline(line, folder)


def _inline(text: str, folder: Path) -> str:
    """Turn code, links and emphasis of a line of Markdown into reStructuredText."""
    parts, end = [], 0
    for match in _INLINE.finditer(text):
        parts.append(_plain(text[end : match.start()]))
        end = match.end()
        if match["code"]:
            part = f"``{match['code']}``"
        elif match["target"] and (folder / match["target"]).is_file():
            part = f":download:`{match['title']} <{match['target']}>`"
        elif match["target"]:
            part = _plain(match["title"])
        elif match["strong"]:
            part = f"**{match['strong']}**"
        else:
            part = f"*{match['emphasis']}*"
        parts.append(f"\\ {part}\\ ")
    return "".join([*parts, _plain(text[end:])])


def _plain(text: str) -> str:
    """Escape what reStructuredText would take for markup."""
    return re.sub(r"([\\*`|_])", r"\\\1", text)
