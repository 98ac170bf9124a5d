"""What is wrong with a configuration, and in which order it is told."""

from __future__ import annotations

__all__ = ["Findings", "below"]

import re
from collections.abc import Iterator
from typing import Final

from reverseproxy.config._values import quote
from reverseproxy.errors import Problem

_END: Final = "\0"

_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+")


def below(path: str, name: str | int) -> str:
    """Extend a path of the document by a key or an index."""
    if isinstance(name, int):
        return f"{path}[{name}]"
    if not _PLAIN.fullmatch(name):
        return f"{path}[{quote(name)}]"
    return f"{path}.{name}" if path else name


class Findings:
    """
    What is wrong with a configuration, and what is only worth a warning or a note.

    Problems are in the order in which their places were first seen, which is
    that of the document.
    """

    def __init__(self) -> None:
        self._errors: list[Problem] = []
        self._wrong: set[tuple[str, str]] = set()
        self._warnings: dict[Problem, None] = {}
        self._notes: dict[tuple[str, str], list[Problem]] = {}
        self._order: dict[tuple[str, str], int] = {}

    def seen(self, file: str, path: str) -> None:
        """Note that the document has something at this place."""
        self._order.setdefault((file, path), len(self._order))

    def done(self, file: str, path: str) -> None:
        """Note that this is where the object or list at this place ends."""
        self.seen(file, path + _END)

    def error(self, file: str, path: str, message: str) -> None:
        """Add an error, unless there is one at that place or around it already."""
        if (file, path) in self._wrong or any((file, each) in self._wrong for each in _around(path)):
            return
        self._wrong.add((file, path))
        self._errors.append(Problem(file, path, message))

    def warn(self, file: str, path: str, message: str) -> None:
        """Add a warning."""
        self._warnings.setdefault(Problem(file, path, message))

    def note(self, file: str, path: str, message: str) -> None:
        """Add what is worth one line, however often it is so of keys of this name."""
        name = path.rpartition(".")[2]
        self._notes.setdefault((name, message), []).append(Problem(file, path, message))

    @property
    def errors(self) -> tuple[Problem, ...]:
        """All errors, in the order of the document."""
        return tuple(sorted(self._errors, key=self._position))

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """All warnings, in the order of the document."""
        return tuple(sorted(self._warnings, key=self._position))

    @property
    def notes(self) -> tuple[Problem, ...]:
        """What was noted: the first place of each kind, and how many more there are."""
        notes = []
        for places in self._notes.values():
            first, *others = sorted(places, key=self._position)
            more = f" (and in {len(others)} more place{'s' * (len(others) > 1)})" if others else ""
            notes.append(Problem(first.file, first.path, first.message + more))
        return tuple(sorted(notes, key=self._position))

    def _position(self, problem: Problem) -> int:
        """
        Where a problem's place was first seen.

        For what is missing, that is the end of what it is missing in.
        """
        path = problem.path
        if (problem.file, path) in self._order:
            return self._order[problem.file, path]
        while path:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
            if (problem.file, path + _END) in self._order:
                return self._order[problem.file, path + _END]
        return -1


def _around(path: str) -> Iterator[str]:
    """What a path may be below, as far as its text says; the document as a whole is not told."""
    for end, character in enumerate(path):
        if character in ".[" and end:
            yield path[:end]
