"""What is found about a configuration, from its text to what is built of it."""

from __future__ import annotations

__all__ = ["Diagnostics"]

from collections.abc import Callable
from typing import TypeVar

from reverseproxy.errors import ConfigError, PluginUnknown
from reverseproxy.problems import Place, Problem

_T = TypeVar("_T")


class Diagnostics:
    """
    What is wrong with a configuration, and what is only worth a warning or a note.

    Problems are in the order in which their places were first seen, which is that of the
    document where it has been read here, and otherwise in that in which they were found.
    """

    def __init__(self, file: str | None = None) -> None:
        """
        @param file: the document of places that have none, of those within a part too; L{None} to
            leave them as they are, for whoever knows it.
        """
        self._document = Place(file)
        self._errors: dict[Problem, None] = {}
        self._wrong: set[Place] = set()
        self._warnings: dict[Problem, None] = {}
        self._missing: dict[Problem, None] = {}
        self._notes: dict[tuple[str, str], list[Problem]] = {}
        self._begins: dict[Place, int] = {}
        self._ends: dict[Place, int] = {}
        self._places = 0

    def seen(self, place: Place) -> None:
        """Note that the document has something at this place, which is one by its file's name."""
        self._places += 1
        self._begins.setdefault(place, self._places)

    def done(self, place: Place) -> None:
        """Note that this is where the object or list at this place ends."""
        self._places += 1
        self._ends.setdefault(place, self._places)

    def error(self, place: Place, reason: str) -> None:
        """Add an error, unless there is one at that place or around it already."""
        place = place.within(self._document)
        if place in self._wrong or any(each in self._wrong for each in place.around):
            return
        self._wrong.add(place)
        self._errors[Problem.at(place, reason)] = None

    def is_wrong(self, place: Place) -> bool:
        """Return whether there is an error just there."""
        return place in self._wrong

    def add(self, problem: Problem) -> None:
        """Add an error, whatever else is wrong there; what several parts share is wrong once."""
        self._errors.setdefault(problem.within(self._document))

    def warn(self, place: Place, reason: str) -> None:
        """Add a warning."""
        self.add_warning(Problem.at(place, reason))

    def add_warning(self, problem: Problem) -> None:
        """Add a warning that somebody else has found."""
        self._warnings.setdefault(problem.within(self._document))

    def miss(self, place: Place, reason: str) -> None:
        """Add what isn't there yet, and without which a part will not work."""
        self._missing.setdefault(Problem.at(place, reason).within(self._document))

    def note(self, place: Place, reason: str) -> None:
        """Add what is worth one line, however often it is so of keys of this name."""
        self._notes.setdefault((place.name, reason), []).append(Problem.at(place, reason))

    def raise_errors(self, *warnings: Problem) -> None:
        """
        Raise an error if there are any.

        @param warnings: others than those that are here.
        @raise ConfigError: with all of them, and with the warnings.
        """
        if self._errors:
            raise ConfigError(*self.errors, warnings=(*warnings, *self.warnings))

    def attempt(self, place: Place, build: Callable[[], _T], named: Place | None = None) -> _T | None:
        """
        Build the part of the configuration that stands at a place.

        @param named: where the plug-in is named that builds it, if one does.
        @return: L{None} if it fails, which is an error in its place.
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
        """What isn't there yet, and without which a part will not work."""
        return tuple(self._missing)

    @property
    def notes(self) -> tuple[Problem, ...]:
        """What was noted: the first place of each kind, and how many more there are."""
        notes = []
        for places in self._notes.values():
            first, *others = sorted(places, key=self._position)
            more = f" (and in {len(others)} more place{'s' * (len(others) > 1)})" if others else ""
            notes.append(Problem.at(first.place, first.reason + more))
        return tuple(sorted(notes, key=self._position))

    def _position(self, problem: Problem) -> int:
        """
        Where a problem's place was first seen.

        For what is missing, that is the end of what it is missing in.
        """
        place = problem.place
        if place in self._begins:
            return self._begins[place]
        for end in range(len(place.keys) - 1, -1, -1):
            around = Place(place.file, place.keys[:end])
            if around in self._ends:
                return self._ends[around]
        return -1
