"""
A document matched with the models: values by the models' field names, each with its place
in the document.
"""

from __future__ import annotations

__all__ = ["Tree"]

from collections.abc import Iterator
from typing import Any, Final

from reverseproxy.config._base import (
    Model,
)
from reverseproxy.config._document import Object
from reverseproxy.config._matching import Matcher, ReadDirectory, refuse_unsupported
from reverseproxy.config._nodes import Items, Location, Node, info_of, step
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.problems import Place

_CLUSTERS: Final[Location] = ("cluster_manager", "clusters")
_ROUTERS: Final[Location] = ("servers", 0, "routers")


class Tree:
    """
    The tree of a document's values.

    @ivar root: the whole document, a L{Node}.
    """

    def __init__(
        self,
        model: type[Model],
        document: Object,
        file: str,
        findings: Diagnostics,
        directory: ReadDirectory,
        substituted: bool = False,
    ) -> None:
        """
        @param directory: called to read each directory that the document names; raises L{OSError}.
        @param substituted: whether environment variables have been substituted.
        """
        self._findings = findings
        self._removed: set[Place] = set()  # wrong values, and what they were part of
        self.root = Matcher(findings, directory, substituted).match(model, document, Place(file))

    # places

    def locate(self, location: Location) -> Place:
        """
        Return the place of a location in the document.

        A location that is not in the document is placed in the innermost object that is.
        """
        here: Any = self.root
        place: Place = self.root.place
        for part in location:
            if isinstance(here, Node):
                place = here.place_of(str(part))
            elif isinstance(here, Items) and isinstance(part, int) and part < len(here):
                place = here.place_of(part)
            elif here is None or isinstance(here, dict | list):
                place = place / part
            else:
                break
            here = step(here, part)
            if isinstance(here, Node):
                place = here.place
        return place

    def get(self, location: Location) -> Any:
        """Return the value at a location; L{None} if there is none."""
        here: Any = self.root
        for part in location:
            here = step(here, part)
        return here

    def elsewhere(self) -> Iterator[tuple[Location, Place]]:
        """Yield the locations and places of what the document has in files of their own."""
        routers = self.get(_ROUTERS)
        lists: list[Location] = [_CLUSTERS]
        lists += [(*_ROUTERS, number, "virtual_hosts") for number in range(len(routers or ()))]
        for location in lists:
            for number, node in enumerate(self.get(location) or ()):
                if isinstance(node, Node) and node.place.file != self.root.place.file:
                    yield (*location, number), node.place

    def is_secret(self, location: Location) -> bool:
        """Return whether the value at a location must not be shown."""
        here: Any = self.root
        for part in location:
            if isinstance(here, Node) and info_of(here.model, str(part)).secret:
                return True
            here = step(here, part)
        return False

    def cut(self, location: Location) -> bool:
        """
        Remove a wrong value, so that the rest can be validated.

        @return: whether there was a value to remove.
        """
        removed = self.locate(location)
        self._removed.update((removed, *removed.around))
        for end in range(len(location), 0, -1):
            parent, last = self.get(location[: end - 1]), location[end - 1]
            if isinstance(parent, Node) and last in parent:
                del parent[str(last)]
                parent.lost.add(str(last))
                return True
            if isinstance(parent, Items) and isinstance(last, int) and last < len(parent):
                del parent[last], parent.numbers[last]
                parent.lost = True
                return True
            if isinstance(parent, dict) and last in parent:
                del parent[last]
                return True
        return False

    def has_lost(self, location: Location, *names: str) -> bool:
        """Return whether a value, or a part of it, was removed, as it is wrong."""
        return self.locate((*location, *names)) in self._removed

    def complete(self, location: Location, name: str, *fields: str, named: bool = True) -> bool:
        """
        Return whether every item of a list has its name, and none was removed.

        Otherwise a reference to an unknown name may be right.

        @param location: the location of the list.
        @param name: the field with the name.
        @param fields: other fields that may have the name instead.
        @param named: whether each must have a name.
        """
        here: Any = self.root
        for part in location:
            if isinstance(here, Node) and part in here.lost:
                return False
            here = step(here, part)
        if not isinstance(here, Items):
            return True
        return not here.lost and not any(
            isinstance(item, Node)
            and (not item.lost.isdisjoint((name, *fields)) or (named and not item.get(name)))
            for item in here
        )

    def unsupported(self, location: Location, message: str) -> None:
        """
        Refuse an unsupported value that restricts access, or warn with C{ignore_unsupported}.

        @param location: its location; C{ignore_unsupported} is that of the object around it.
        """
        here: Any = self.root
        lenient = self.root.lenient
        for part in location:
            here = step(here, part)
            if isinstance(here, Node):
                lenient = here.lenient
        refuse_unsupported(self._findings, self.locate(location), message, lenient)
