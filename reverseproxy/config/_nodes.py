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
"""Where a value is, by the models' field names: C{("servers", 0, "listeners", 1)}."""


class Node(dict[str, Any]):
    """
    An object of the document, with the field names of its model as keys.

    @ivar place: where it is.
    @ivar model: the model that it is for.
    @ivar lenient: whether what protects, but is not supported, is no error here.
    @ivar lost: fields whose values had to be left out because they are wrong.
    @ivar unknown: keys that are in the document, and in no model.
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
        """Set a field, and remember how the document writes its key."""
        self[field] = value
        self._spelling[field] = written

    def place_of(self, field: str) -> Place:
        """The place of a field, whether it is there or not."""
        if field in self._spelling:
            return self.place / self._spelling[field]
        names = {name: written for written, name in names_of(self.model).items()}
        return self.place / names.get(field, field)


class Items(list[Any]):
    """
    A list of the document.

    @ivar place: where it is.
    @ivar numbers: the index of each item in the document.
    @ivar lost: whether items had to be left out because they are wrong.
    """

    def __init__(self, place: Place, values: list[Any]) -> None:
        super().__init__(values)
        self.place = place
        self.numbers = list(range(len(values)))
        self.lost = False

    def place_of(self, index: int) -> Place:
        """The place of an item."""
        return self.place / self.numbers[index]


def step(here: Any, part: str | int) -> Any:
    """Go one step down a document; L{None} where there is nothing."""
    if isinstance(here, dict):
        return here.get(part)
    if isinstance(here, list) and isinstance(part, int) and part < len(here):
        return here[part]
    return None


def purpose(model: type[Model], field: str) -> str:
    """What a key is for: the first sentence of its description."""
    sentence = (model.model_fields[field].description or "").partition(". ")[0].removesuffix(".")
    return sentence[:1].lower() + sentence[1:]


def unsupported(model: type[Model], field: str) -> str:
    """Why a key is not acted on."""
    return info_of(model, field).why


def info_of(model: type[Model], field: str) -> KeyInfo:
    """What is known of a model's key."""
    field_info = model.model_fields.get(field)
    return KeyInfo() if field_info is None else key_info(field, field_info)
