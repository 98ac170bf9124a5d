"""
Limits of the sizes of classes, and of the number of ignored types.

What exceeds them is listed with its size, which may not grow; the list may only become shorter.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from operator import gt
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = ROOT / "reverseproxy"

MOST_LINES: Final = 400
"""Lines of a class."""

MOST_ATTRIBUTES: Final = 20
"""Attributes that a class gives its objects."""

MOST_IGNORED: Final = 20
"""How often a type is ignored."""

LARGER: Final[dict[str, tuple[int, int]]] = {}
"""By the class's module and name: lines and attributes that it may have."""

RECORDS: Final[dict[str, tuple[int, str]]] = {
    "config._agents.TunnelAgentConfig": (29, "the agent's object in MOSN's document, key by key"),
    "config._clusters.ClusterConfig": (34, "a cluster in MOSN's document, key by key"),
    "config._tls.TlsContextConfig": (21, "a tls_context in MOSN's document, key by key"),
}
"""
Frozen records with more fields than a class may have attributes, with how many, and what they mirror.

A record of a configuration has a field for each key of an object of the document: to take it apart
would put keys where no user finds them.  It decides nothing, and nothing changes it.
"""


@cache
def modules() -> dict[str, tuple[ast.Module, str]]:
    """All modules, each with its text."""
    found: dict[str, tuple[ast.Module, str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        text = path.read_text("utf-8")
        found[name] = ast.parse(text), text
    return found


def attributes(cls: ast.ClassDef) -> set[str]:
    """What a class's methods set, and what it declares, in slots or not."""
    found = {
        node.attr
        for node in ast.walk(cls)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }
    for statement in cls.body:
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and "ClassVar" not in ast.unparse(statement.annotation)
        ):
            found.add(statement.target.id)
        elif isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__slots__":
            found |= {each.value for each in ast.walk(statement.value) if isinstance(each, ast.Constant)}
    return found - {"__weakref__"}


def is_data(cls: ast.ClassDef) -> bool:
    """Whether all there is to a class are its fields: the keys of a configuration, or what is handed over."""
    bases = {ast.unparse(base) for base in cls.bases}
    decorators = {ast.unparse(each) for each in cls.decorator_list}
    return bool(bases & {"Model", "TypedModel", "NamedTuple"}) or any(
        each.startswith("dataclass(") and "frozen=True" in each for each in decorators
    )


def classes() -> Iterator[tuple[str, int, int]]:
    """Each class's name, lines and attributes."""
    for name, (tree, _) in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                short = f"{name.removeprefix('reverseproxy.')}.{node.name}"
                yield short, lines, 0 if is_data(node) else len(attributes(node))


def records() -> Iterator[tuple[str, int]]:
    """Each frozen record's name, and its fields."""
    for name, (tree, _) in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and is_data(node):
                yield f"{name.removeprefix('reverseproxy.')}.{node.name}", len(attributes(node))


def imports(name: str, tree: ast.Module) -> set[str]:
    """Which of our modules a module imports when it is imported."""
    found: set[str] = set()
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
    # A package is imported before what is in it, and says itself what it takes from there.
    return {each for each in found if each in modules() and not name.startswith(f"{each}.") and each != name}


def circles() -> list[list[str]]:
    """Modules that can't be imported without one another, by Tarjan's algorithm."""
    graph = {name: imports(name, tree) for name, (tree, _) in modules().items()}
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = lowest[name] = len(number)
        stack.append(name)
        for other in graph[name]:
            if other not in number:
                visit(other)
                lowest[name] = min(lowest[name], lowest[other])
            elif other in stack:
                lowest[name] = min(lowest[name], number[other])
        if lowest[name] == number[name]:
            circle = stack[stack.index(name) :]
            del stack[-len(circle) :]
            if len(circle) > 1:
                found.append(sorted(circle))

    for name in graph:
        if name not in number:
            visit(name)
    return found


class FigureTests(SynchronousTestCase):
    """The code has no more of these than it had."""

    def test_classes(self) -> None:
        """None has more lines or attributes than a class may have, but for those that always had."""
        too_large = {
            name: (lines, count)
            for name, lines, count in classes()
            if any(map(gt, (lines, count), LARGER.get(name, (MOST_LINES, MOST_ATTRIBUTES))))
        }
        self.assertEqual(too_large, {}, f"at most {MOST_LINES} lines, {MOST_ATTRIBUTES} attributes")

    def test_list(self) -> None:
        """Classes that are listed as larger are there."""
        self.assertEqual(set(LARGER) - {name for name, _, _ in classes()}, set())

    def test_records(self) -> None:
        """Frozen records are no way around that: each large one mirrors something, and nothing else."""
        large = {name: count for name, count in records() if count > MOST_ATTRIBUTES}
        self.assertEqual(set(large), set(RECORDS))
        for name, count in large.items():
            self.assertLessEqual(count, RECORDS[name][0], name)

    def test_ignored_types(self) -> None:
        ignored = sum(text.count("type: ignore") for _, text in modules().values())
        self.assertLessEqual(ignored, MOST_IGNORED)

    def test_circles(self) -> None:
        """No module needs itself to be imported."""
        self.assertEqual(circles(), [])

    def test_search(self) -> None:
        """Circles would be found, and large classes."""
        self.assertGreater(len(modules()), 300)
        known = modules()
        first, second = ast.parse("import reverseproxy.errors"), ast.parse("from reverseproxy import clock")
        self.patch(
            __import__(__name__, fromlist=["modules"]),
            "modules",
            lambda: {**known, "reverseproxy.clock": (first, ""), "reverseproxy.errors": (second, "")},
        )
        self.assertIn(["reverseproxy.clock", "reverseproxy.errors"], circles())
        text = "class A:\n    __slots__ = ('a',)\n    b: int\n    def f(self): self.c = self.d = self.e.f = 1"
        (cls,) = ast.parse(text).body
        assert isinstance(cls, ast.ClassDef)
        self.assertEqual(attributes(cls), {"a", "b", "c", "d"})
