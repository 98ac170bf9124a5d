"""Objects and lists of a document, matched with the models."""

from __future__ import annotations

__all__ = ["Items", "Location", "Node", "info_of", "purpose", "step", "unsupported"]

from typing import Any

from reverseproxy.config._base import (
    KeyInfo,
    Model,
    key_info,
    names_of,
)
from reverseproxy.problems import Place

Location = tuple[str | int, ...]
"""The path of a value by the models' field names: C{("servers", 0, "listeners", 1)}."""


class Node(dict[str, Any]):
    """
    An object of the document, with the field names of its model as keys.

    @ivar place: its place in the document.
    @ivar model: its model.
    @ivar lenient: whether C{ignore_unsupported} is set here.
    @ivar lost: fields whose values were removed because they are wrong.
    @ivar unknown: keys of the document that the model does not have.
    """

    def __init__(self, place: Place, model: type[Model], lenient: bool = False) -> None:
        super().__init__()
        self.place = place
        self.model = model
        self.lenient = lenient
        self.lost: set[str] = set()
        self.unknown: list[str] = []
        self._spelling: dict[str, str] = {}

    def put(self, field: str, written: str, value: Any) -> None:
        """Set a field, and remember the key as the document has it."""
        self[field] = value
        self._spelling[field] = written

    def place_of(self, field: str) -> Place:
        """Return the place of a field, whether it is set or not."""
        if field in self._spelling:
            return self.place / self._spelling[field]
        names = {name: written for written, name in names_of(self.model).items()}
        return self.place / names.get(field, field)


class Items(list[Any]):
    """
    A list of the document.

    @ivar place: its place in the document.
    @ivar numbers: the index of each item in the document.
    @ivar lost: whether items were removed because they are wrong.
    """

    def __init__(self, place: Place, values: list[Any]) -> None:
        super().__init__(values)
        self.place = place
        self.numbers = list(range(len(values)))
        self.lost = False

    def place_of(self, index: int) -> Place:
        """Return the place of an item."""
        return self.place / self.numbers[index]


def step(here: Any, part: str | int) -> Any:
    """Return a value within another one; L{None} if there is none."""
    if isinstance(here, dict):
        return here.get(part)
    if isinstance(here, list) and isinstance(part, int) and part < len(here):
        return here[part]
    return None


def purpose(model: type[Model], field: str) -> str:
    """Return the first sentence of a key's description."""
    sentence = (model.model_fields[field].description or "").partition(". ")[0].removesuffix(".")
    return sentence[:1].lower() + sentence[1:]


def unsupported(model: type[Model], field: str) -> str:
    """Return why a key is not acted on."""
    return info_of(model, field).why


def info_of(model: type[Model], field: str) -> KeyInfo:
    """Return the properties of a model's key."""
    field_info = model.model_fields.get(field)
    return KeyInfo() if field_info is None else key_info(field, field_info)
