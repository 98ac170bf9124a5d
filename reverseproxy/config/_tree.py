"""
A document, matched with the models: keys in their models' spelling, and for
every value the place where the document has it.
"""

from __future__ import annotations

__all__ = ["Tree"]

from typing import Any

from reverseproxy.config._base import (
    Model,
)
from reverseproxy.config._document import Object
from reverseproxy.config._matching import Matcher, ReadDirectory, refuse_unsupported
from reverseproxy.config._nodes import Items, Location, Node, info_of, step
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.problems import Place


class Tree:
    """
    Reads a document for its models.

    @ivar root: the whole of it, a L{Node}.
    """

    def __init__(
        self, model: type[Model], document: Object, file: str, findings: Diagnostics, directory: ReadDirectory
    ) -> None:
        """
        @param directory: called for each directory that the document names, to
            read it; raises L{OSError}.
        """
        self._findings = findings
        self.root = Matcher(findings, directory).match(model, document, Place(file))

    # places

    def locate(self, location: Location) -> Place:
        """
        Translate a location to the place as the document has it.

        What is not in the document is placed as far down as it can be.
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
        """What the document has there; L{None} if nothing."""
        here: Any = self.root
        for part in location:
            here = step(here, part)
        return here

    def is_secret(self, location: Location) -> bool:
        """Whether a value must not be shown."""
        here: Any = self.root
        for part in location:
            if isinstance(here, Node) and info_of(here.model, str(part)).secret:
                return True
            here = step(here, part)
        return False

    def cut(self, location: Location) -> bool:
        """
        Take a wrong value out, so that its absence can be lived with.

        @return: whether there was something to take out.
        """
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

    def complete(self, location: Location, name: str, *fields: str, named: bool = True) -> bool:
        """
        Whether every item of a list of objects is there with its name.

        Where not, what refers to a name that is not found may be right.

        @param location: where the list is.
        @param name: the field that holds the name.
        @param fields: others that may be its name instead.
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
        Refuse what protects, but is not supported, unless the file says that this may be ignored.

        @param location: where it is; what counts is the object around it.
        """
        here: Any = self.root
        lenient = self.root.lenient
        for part in location:
            here = step(here, part)
            if isinstance(here, Node):
                lenient = here.lenient
        refuse_unsupported(self._findings, self.locate(location), message, lenient)
