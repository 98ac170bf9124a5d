"""Collect the problems of a configuration, from parsing to building."""

from __future__ import annotations

__all__ = ["Diagnostics"]

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeVar

from reverseproxy.errors import ConfigError, PluginUnknown
from reverseproxy.problems import Key, Place, Problem

_T = TypeVar("_T")

NOWHERE: Final[Mapping[tuple[Key, ...], Place]] = MappingProxyType({})


class Diagnostics:
    """
    The errors, warnings and notes about a configuration.

    Problems are ordered by their places in the document, if L{seen} was called for these, and
    otherwise by when they were added.
    """

    def __init__(self, file: str | None = None, elsewhere: Mapping[tuple[Key, ...], Place] = NOWHERE) -> None:
        """
        @param file: the file of places that have none; L{None} to leave them as they are, if only
            the caller knows it.
        @param elsewhere: the places of the document's values that are in files of their own.
        """
        self._document = Place(file)
        self._elsewhere = elsewhere
        self._errors: dict[Problem, None] = {}
        self._wrong: set[Place] = set()
        self._warnings: dict[Problem, None] = {}
        self._missing: dict[Problem, None] = {}
        self._notes: dict[tuple[str, str], list[Problem]] = {}
        self._begins: dict[Place, int] = {}
        self._ends: dict[Place, int] = {}
        self._places = 0

    def seen(self, place: Place) -> None:
        """Note that the document has a value at this place, which has a file."""
        self._places += 1
        self._begins.setdefault(place, self._places)

    def done(self, place: Place) -> None:
        """Note that the object or list at this place ends here."""
        self._places += 1
        self._ends.setdefault(place, self._places)

    def error(self, place: Place, reason: str) -> None:
        """Add an error, unless there is one at that place or around it already."""
        place = self._placed(place)
        if place in self._wrong or any(each in self._wrong for each in place.around):
            return
        self._wrong.add(place)
        self._errors[Problem.at(place, reason)] = None

    def is_wrong(self, place: Place) -> bool:
        """Return whether there is an error at exactly this place."""
        return place in self._wrong

    def add(self, problem: Problem) -> None:
        """Add an error, even if there are others at its place; equal ones are added once."""
        self._errors.setdefault(self._with_place(problem))

    def warn(self, place: Place, reason: str) -> None:
        """Add a warning."""
        self.add_warning(Problem.at(place, reason))

    def add_warning(self, problem: Problem) -> None:
        """Add a warning."""
        self._warnings.setdefault(self._with_place(problem))

    def miss(self, place: Place, reason: str) -> None:
        """Add what is missing now, such as a credential, but may be added while the process runs."""
        self._missing.setdefault(Problem.at(self._placed(place), reason))

    def note(self, place: Place, reason: str) -> None:
        """Add a note; equal notes about keys of the same name become one."""
        self._notes.setdefault((place.name, reason), []).append(Problem.at(place, reason))

    def _placed(self, place: Place) -> Place:
        """Return a place with its file."""
        place = place.within(self._document)
        if self._elsewhere and place.file == self._document.file:
            for end in range(len(place.keys), 0, -1):
                found = self._elsewhere.get(place.keys[:end])
                if found is not None:
                    return Place(found.file, (*found.keys, *place.keys[end:]))
        return place

    def _with_place(self, problem: Problem) -> Problem:
        return Problem.at(self._placed(problem.place), problem.reason)

    def raise_errors(self, *warnings: Problem) -> None:
        """
        Raise all errors, if there are any.

        @param warnings: further warnings.
        @raise ConfigError: with all of them, and with the warnings.
        """
        if self._errors:
            raise ConfigError(*self.errors, warnings=(*warnings, *self.warnings))

    def attempt(self, place: Place, build: Callable[[], _T], named: Place | None = None) -> _T | None:
        """
        Build the part of the configuration at a place.

        @param named: the place of the plug-in's name, if a plug-in builds it.
        @return: L{None} if it fails, after its errors are added.
        """
        try:
            return build()
        except ConfigError as error:
            for problem in error.problems:
                self.add(problem.within(place))
            for warning in error.warnings:
                self.add_warning(warning.within(place))
        except PluginUnknown as error:
            self.add(Problem.at(named or place, str(error)))
        except ValueError as error:
            self.add(Problem.at(place, str(error)))
        return None

    @property
    def errors(self) -> tuple[Problem, ...]:
        """All errors."""
        return tuple(sorted(self._errors, key=self._position))

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """All warnings."""
        return tuple(sorted(self._warnings, key=self._position))

    @property
    def missing(self) -> tuple[Problem, ...]:
        """What is missing now, but may be added while the process runs."""
        return tuple(self._missing)

    @property
    def notes(self) -> tuple[Problem, ...]:
        """All notes: the first place of each kind, and the number of the others."""
        notes = []
        for places in self._notes.values():
            first, *others = sorted(places, key=self._position)
            more = f" (and in {len(others)} more place{'s' * (len(others) > 1)})" if others else ""
            notes.append(Problem.at(first.place, first.reason + more))
        return tuple(sorted(notes, key=self._position))

    def _position(self, problem: Problem) -> int:
        """
        Return the position of a problem's place in the document.

        For a missing key, that is the end of the object that it is missing in.
        """
        place = problem.place
        if place in self._begins:
            return self._begins[place]
        for end in range(len(place.keys) - 1, -1, -1):
            around = Place(place.file, place.keys[:end])
            if around in self._ends:
                return self._ends[around]
        return -1
