"""
Problems of a configuration, and their places.

Each L{Problem} has a L{Place}: a path in a document, or in a part of it that is checked
separately.  The caller, who knows the place of the part, turns it into one of the document.
"""

from __future__ import annotations

__all__ = ["DOCUMENT", "Key", "PART", "Place", "Problem", "quote"]

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

Key = str | int
"""A key of an object, as the document writes it, or the index of an item of a list."""

_LONGEST: Final = 80
"""The most characters of a document's text in a message."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+")
_PART: Final = re.compile(r'\.?(?P<name>[A-Za-z0-9_-]+)|\[(?P<index>\d+)\]|\[(?P<quoted>"(?:[^"\\]|\\.)*")\]')


def quote(text: str, longest: int = _LONGEST) -> str:
    """
    Return a text of a document in JSON, shortened if it is long.

    @param longest: the most characters; the default is enough to find the text in the document.
    """
    shown = text if len(text) <= longest else text[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return json.dumps(shown, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


class Place(NamedTuple):
    """
    A place in a document.

    @ivar file: the file, as the user named it; empty for a document without a name, or whose
        name only the caller knows; L{None} for a place within a part that is checked separately.
    @ivar keys: the path from the document, or from that part.
    @ivar line: the line of a syntax error, from 1; 0 for other places.
    @ivar column: its column, likewise.
    """

    file: str | None = None
    keys: tuple[Key, ...] = ()
    line: int = 0
    column: int = 0

    @classmethod
    def of(cls, path: str, file: str | None = None) -> Place:
        """
        Parse a path in the format of C{path}.

        @raise ValueError: if it is not one.
        """
        keys: list[Key] = []
        position = 0
        while position < len(path):
            part = _PART.match(path, position)
            if part is None or (part["name"] and (path[position] == ".") != bool(keys)):
                raise ValueError(f"{path!r} is no path in a document")
            if part["index"]:
                keys.append(int(part["index"]))
            else:
                keys.append(part["name"] or json.loads(part["quoted"]))
            position = part.end()
        return cls(file, tuple(keys))

    @property
    def path(self) -> str:
        """The path for messages: C{servers[0].listeners[1].address}; empty for the whole document."""
        path = ""
        for key in self.keys:
            if isinstance(key, int):
                path += f"[{key}]"
            elif not _PLAIN.fullmatch(key):
                path += f"[{quote(key)}]"
            else:
                path += f".{key}" if path else key
        return path

    @property
    def around(self) -> Iterator[Place]:
        """The places that contain this one, from the outside, without the whole document."""
        for end in range(1, len(self.keys)):
            yield Place(self.file, self.keys[:end])

    @property
    def name(self) -> str:
        """The last key; empty for an item of a list, and for the whole document."""
        last = self.keys[-1] if self.keys else ""
        return last if isinstance(last, str) else ""

    def __truediv__(self, key: Key) -> Place:
        """Return the place of a key in the value at this place."""
        return Place(self.file, (*self.keys, key))

    def within(self, part: Place) -> Place:
        """Return this place in the document, given that of its part; a place in a document stays."""
        if self.file is None:
            return self._replace(file=part.file, keys=(*part.keys, *self.keys))
        return self._replace(file=self.file or part.file or "")


DOCUMENT: Final = Place("")
"""The whole document that is loaded or built; the caller adds its name."""

PART: Final = Place()
"""The whole of a part that is checked separately; the caller adds its place."""


@dataclass(frozen=True, slots=True, init=False)
class Problem:
    """
    One problem of a configuration.

    @ivar place: its place.
    @ivar reason: what is wrong with which value, and what is allowed.
    """

    place: Place
    reason: str

    def __init__(self, file: str, path: str, message: str) -> None:
        """
        Make one from texts, for programs that use this one; this project itself uses L{at}.

        @param file: the configuration file, as the user named it; empty for a problem of a part
            that is checked separately.
        @param path: the place in it, such as C{servers[0].listeners[1].address}; empty for the whole of it.
        @param message: what is wrong with which value, and what is allowed.
        """
        object.__setattr__(self, "place", Place.of(path, file or None))
        object.__setattr__(self, "reason", message)

    @classmethod
    def at(cls, place: Place, reason: str) -> Problem:
        """Make one with a place."""
        problem = cls("", "", reason)
        object.__setattr__(problem, "place", place)
        return problem

    @property
    def file(self) -> str:
        """The configuration file, as the user named it."""
        return self.place.file or ""

    @property
    def path(self) -> str:
        """The place in the document, such as C{servers[0].listeners[1].address}; empty for all of it."""
        return self.place.path

    @property
    def message(self) -> str:
        """What is wrong with which value, and what is allowed; with the line, where there is only text."""
        place = self.place
        return f"line {place.line}, column {place.column}: {self.reason}" if place.line else self.reason

    def within(self, part: Place) -> Problem:
        """Return the same problem in the document, given the place of its part."""
        return Problem.at(self.place.within(part), self.reason)

    def to_message(self) -> list[Any]:
        """Return the problem as JSON, for another process of this server."""
        return [*self.place, self.reason]

    @classmethod
    def from_message(cls, message: Sequence[Any]) -> Problem:
        """Parse what L{to_message} has returned."""
        file, keys, line, column, reason = message
        return cls.at(Place(file, tuple(keys), line, column), reason)

    def __str__(self) -> str:
        """Format as C{file: path.in.document: message}."""
        return ": ".join(part for part in (self.file, self.path, self.message) if part)
