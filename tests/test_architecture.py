"""The tree in C{docs/architecture.rst} is the tree of the package."""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "reverseproxy"

ENTRY = re.compile(r"(?P<indent> +)(?P<name>\w+(?:/|\.py))(?P<rest>.*)")
FILES = re.compile(r"(?<![\w/*.])[\w*]+\.py\b")


def drawn(page: str) -> Iterator[Path]:
    """
    What the page's tree names, relative to the package; with patterns where it has such.

    @param page: the text of C{architecture.rst}.
    """
    tree = page.split("\n   reverseproxy/\n", 1)[1].split("\n\n", 1)[0]
    above = [(3, Path())]  # indents and folders on the way down
    for line in tree.splitlines():
        entry = ENTRY.fullmatch(line)
        if entry is None:
            continue
        indent = len(entry["indent"])
        while above[-1][0] >= indent:
            above.pop()
        folder = above[-1][1]
        if entry["name"].endswith("/"):
            folder /= entry["name"]
            above.append((indent, folder))
            yield folder
            names = FILES.findall(entry["rest"])
        else:
            names = FILES.findall(line)
        yield from (folder / name for name in names)


def there() -> set[Path]:
    """What the tree should name at least: files of the package's top, and folders wherever they are."""
    files = {path.relative_to(PACKAGE) for path in PACKAGE.glob("*.py") if not path.name.startswith("__")}
    folders = {path.parent.relative_to(PACKAGE) for path in PACKAGE.glob("*/**/__init__.py")}
    return files | folders


LITERALS = re.compile(r"``([\w/]+\.py)``")


class WalkTests(SynchronousTestCase):
    """The files that walks and the table of behaviours name are there."""

    def test_files(self) -> None:
        page = (ROOT / "docs" / "architecture.rst").read_text("utf-8")
        walks = page.split("\nFour walks through the code\n", 1)[1].split("\nWho may import whom\n", 1)[0]
        named = LITERALS.findall(walks)
        self.assertGreater(len(named), 70)
        self.check(named)

    def test_files_of_behaviours(self) -> None:
        page = (ROOT / "docs" / "architecture.rst").read_text("utf-8")
        table = page.split("\nWhere to find a behaviour\n", 1)[1].split("\nPackages\n", 1)[0]
        named = LITERALS.findall(table)
        self.assertGreater(len(named), 60)
        self.check(named)

    def check(self, named: list[str]) -> None:
        missing = [
            each
            for each in named
            if not ((PACKAGE / each).exists() if "/" in each else any(PACKAGE.rglob(each)))
        ]
        self.assertEqual(missing, [], "docs/architecture.rst names what reverseproxy/ does not have")


class LayerTests(SynchronousTestCase):
    """The layers of imports that the page shows are those that import-linter enforces."""

    def test_layers(self) -> None:
        contracts = configparser.ConfigParser()
        contracts.read(ROOT / ".importlinter", "utf-8")
        enforced = contracts["importlinter:contract:packages"]["layers"].split("\n")
        page = (ROOT / "docs" / "architecture.rst").read_text("utf-8")
        section = page.split("\nWho may import whom\n", 1)[1]
        shown = section.split(".. code-block:: text\n\n", 1)[1].split("\n\n", 1)[0].split("\n")
        self.assertIn("__main__", enforced)
        self.assertEqual([line.strip() for line in shown], [line for line in enforced if line])


class TreeTests(SynchronousTestCase):
    """What the page names is there, and what is there is named."""

    def setUp(self) -> None:
        self.drawn = set(drawn((ROOT / "docs" / "architecture.rst").read_text("utf-8")))

    def test_named_things_are_there(self) -> None:
        self.assertGreater(len(self.drawn), 100)
        missing = [str(path) for path in self.drawn if not any(PACKAGE.glob(str(path)))]
        self.assertEqual(sorted(missing), [], "docs/architecture.rst names what reverseproxy/ does not have")

    def test_what_is_there_is_named(self) -> None:
        unnamed = [str(path) for path in there() - self.drawn]
        self.assertEqual(sorted(unnamed), [], "the tree of docs/architecture.rst should name these")
