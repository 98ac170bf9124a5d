"""Command lines as the README and the documentation have them."""

from __future__ import annotations

__all__ = ["ROOT", "commands"]

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

_MARKDOWN = re.compile(r"^```(?:console|sh|shell)?\n(.*?)^```", re.DOTALL | re.MULTILINE)
_CONTINUED = re.compile(r"(?:[ ]\\|(?<= \|))\n\s+")
_CONSOLE = re.compile(r"\.\. code-block:: console\n\n((?:   .*\n|\n)+)")


def commands() -> dict[str, str]:
    """Each command line, word for word, and the first file that has it."""
    found: dict[str, str] = {}
    for line in _lines(ROOT / "README.md", _MARKDOWN, ""):
        found.setdefault(line, "README.md")
    for page in sorted((ROOT / "docs").glob("*.rst")):
        for line in _lines(page, _CONSOLE, "$ "):
            found.setdefault(line, page.name)
    return found


def _lines(page: Path, block: re.Pattern[str], prompt: str) -> list[str]:
    # What is drawn is no command.
    texts = [text for text in block.findall(page.read_text("utf-8")) if text.isascii()]
    lines = [line.strip() for text in texts for line in _CONTINUED.sub(" ", text).splitlines()]
    return [line.removeprefix(prompt) for line in lines if line and line.startswith(prompt)]
