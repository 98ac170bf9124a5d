"""Classes of the rooms of HTTP have one reason to change: they stay small."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

PACKAGE = Path(__file__).resolve().parent.parent / "reverseproxy"

ROOMS = ("proxy/http", "wire/http", "wire/http1", "wire/http2")

MAX_LINES = 400
MAX_ATTRIBUTES = 20

LARGER: dict[str, tuple[int, int]] = {
    "HttpSettings": (400, 29),
    "Stream": (400, 21),
}
"""Classes that are larger still: their lines and attributes may become fewer, and never more."""


def declared(node: ast.ClassDef) -> set[str]:
    """The attributes of instances that a class names: in its slots, its body, or by assigning to them."""
    names: set[str] = set()
    for statement in node.body:
        if isinstance(statement, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "__slots__" for target in statement.targets
        ):
            names |= {each.value for each in ast.walk(statement.value) if isinstance(each, ast.Constant)}
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            names.add(statement.target.id)
    for each in ast.walk(node):
        if (
            isinstance(each, ast.Attribute)
            and isinstance(each.ctx, ast.Store)
            and isinstance(each.value, ast.Name)
            and each.value.id == "self"
        ):
            names.add(each.attr)
    return names


def classes() -> dict[str, ast.ClassDef]:
    """All classes of the rooms, by name."""
    found = {}
    for room in ROOMS:
        for path in sorted((PACKAGE / room).glob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.ClassDef):
                    found[node.name] = node
    return found


def bases(node: ast.ClassDef, known: dict[str, ast.ClassDef]) -> Iterator[ast.ClassDef]:
    """The classes of the rooms that a class derives from."""
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in known:
            yield known[base.id]
            yield from bases(known[base.id], known)


class SizeTests(SynchronousTestCase):
    """What is large can't become larger, and nothing else becomes large."""

    def test_classes(self) -> None:
        known = classes()
        self.assertGreater(len(known), 80)
        self.assertLessEqual(set(LARGER), set(known), "these are gone")
        for name, node in known.items():
            lines = (node.end_lineno or 0) - node.lineno + 1
            own = declared(node)
            for base in bases(node, known):
                own -= declared(base)
            most_lines, most_attributes = LARGER.get(name, (MAX_LINES, MAX_ATTRIBUTES))
            self.assertLessEqual(
                lines, most_lines, f"{name} has grown: is there a part with a reason of its own?"
            )
            self.assertLessEqual(len(own), most_attributes, f"{name} knows too much: {sorted(own)}")
            if name in LARGER:
                self.assertFalse(
                    lines <= MAX_LINES and len(own) <= MAX_ATTRIBUTES, f"{name} is no exception any more"
                )

    def test_attributes_are_found(self) -> None:
        (node,) = ast.parse(
            "class A(B):\n __slots__ = ('a',)\n b: int\n def f(self):\n  self.c = self.d.e = 1\n"
        ).body
        assert isinstance(node, ast.ClassDef)
        self.assertEqual(declared(node), {"a", "b", "c"})
