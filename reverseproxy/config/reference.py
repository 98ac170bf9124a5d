"""
Generate the reference of the configuration from the models.

It can't disagree with what the loader does, because both read the same fields.
"""

from __future__ import annotations

__all__ = ["KeyEntry", "Section", "generate", "sections"]

import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from reverseproxy.config._base import KeyInfo, Model, keys_of, shape_of
from reverseproxy.config._values import ValueKind
from reverseproxy.config.durations import format_duration
from reverseproxy.config.models import Config

_FIELD: Final = re.compile(r"^@[a-z]+ ", re.MULTILINE)
"""Where the fields of a docstring begin."""

_TOP: Final = "The top level"

_NAMES: Final[Mapping[Any, str]] = {
    str: "text",
    bool: "boolean",
    int: "whole number",
    float: "number",
    Any: "any value",
}

_INTRODUCTION: Final = """\
.. _reference:

Every key
---------

Generated from the models that the loader uses.  A key is marked

- **ours** if MOSN does not know it and ignores it;
- **not acted on** if MOSN knows it and this release does nothing with it.  Such a key gives a
  warning, unless its value asks for nothing: ``null``, ``false``, 0, or an empty text, list or object.
  Where it makes no difference, as MOSN does nothing with the key either, there is one note for all
  places that have it.

  Where it may restrict access, as most filters do, it is an error: a process that leaves it out
  would serve what was meant to be refused.  In an object with ``"ignore_unsupported": true`` (a key of
  ours that every object may have), and in all within it, such errors are warnings.  The same goes for
  keys that are probably misspelt ones of this kind, such as ``require_client_certs``.

A *duration* is Go's syntax, such as ``"1m30s"``.  An absent key, one that is ``null``, and mostly one
that is 0 or empty all mean the default.

Some keys have other names beside MOSN's present one, which mean the same.  Giving two names of one key is
fine as long as they say the same; else it is an error.
"""


@dataclass(frozen=True, slots=True)
class _Place:
    """
    One place where documents have a model.

    @ivar name: the name of the model there: the key, or its type.
    @ivar parent: the model that has the key.
    @ivar key: the key.
    """

    name: str
    parent: type[Model]
    key: str


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """
    The entry of one key in the reference.

    @ivar names: the key, and its other spellings.
    @ivar text: in reStructuredText.
    """

    names: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Section:
    """
    The section of one model in the reference.

    @ivar title: the heading.
    @ivar names: the keys, in lower case, whose value the model is.
    @ivar text: in reStructuredText.
    @ivar entries: its keys, in the order of the model.
    """

    title: str
    names: tuple[str, ...]
    text: str
    entries: tuple[KeyEntry, ...]


def sections() -> Iterator[Section]:
    """Yield the sections in the order of the document."""
    places: dict[type[Model], list[_Place]] = {Config: []}
    _visit(Config, places)
    titles = _titles(places)
    for model, found in places.items():
        entries = tuple(
            KeyEntry(
                (info.name, *info.spellings, *info.milliseconds), "\n".join(_key(model, field, info, titles))
            )
            for _, field, info in keys_of(model)
        )
        names = tuple({place.name.lower() for place in found} | {place.key.lower() for place in found})
        yield Section(titles[model], names, _section(model, titles, found), entries)


def generate() -> str:
    """Return the reference as reStructuredText."""
    places: dict[type[Model], list[_Place]] = {Config: []}
    _visit(Config, places)
    titles = _titles(places)
    return "\n".join([_INTRODUCTION, *(_section(model, titles, found) for model, found in places.items())])


def _visit(model: type[Model], places: dict[type[Model], list[_Place]]) -> None:
    """Find every model, in the order of the document."""
    for place, nested in _nested(model):
        known = nested in places
        places.setdefault(nested, []).append(place)
        if not known:
            _visit(nested, places)


def _titles(places: Mapping[type[Model], list[_Place]]) -> dict[type[Model], str]:
    """Return a heading for each model: a key that it is the value of, or its type."""
    titles: dict[type[Model], str] = {}
    for model, found in places.items():
        if not found:
            titles[model] = _TOP
            continue
        place = next((place for place in found if not place.parent.config_by_type), found[0])
        taken = place.name in titles.values()
        titles[model] = f"{place.name} of {titles[place.parent]}" if taken else place.name
    return titles


def _nested(model: type[Model]) -> Iterator[tuple[_Place, type[Model]]]:
    """Yield the models that are values of a model's keys."""
    for _, field, info in keys_of(model):
        if info.name == "config" and model.config_by_type:
            for kind, nested in model.config_by_type.items():
                yield _Place(kind, model, info.name), nested
            continue
        nested_model = shape_of(field.annotation).model
        if nested_model is not None:
            yield _Place(info.name, model, info.name), nested_model


def _section(model: type[Model], titles: Mapping[type[Model], str], found: list[_Place]) -> str:
    """Describe one model."""
    title = titles[model] if model is Config else f"``{titles[model]}``"
    lines = [title, "~" * len(title), "", _escape(_prose(model)), ""]
    places = []
    for place in found:
        parent = _TOP.lower() if place.parent is Config else f"``{titles[place.parent]}``"
        kind = f" of type ``{place.name}``" if place.name != place.key else ""
        places.append(f"``{place.key}`` in {parent}{kind}")
    if places:
        lines += [f"It is the value of {', '.join(places)}.", ""]
    # Keys that are acted on come first.
    for _, field, info in sorted(keys_of(model), key=lambda entry: not entry[2].acted):
        lines += _key(model, field, info, titles)
    return "\n".join(lines)


def _key(model: type[Model], field: FieldInfo, info: KeyInfo, titles: Mapping[type[Model], str]) -> list[str]:
    """Describe one key."""
    facts = [_type(field)]
    if info.required:
        facts.append("**required**")
    elif default := _default(field):
        facts.append(f"default ``{default}``")
    if info.ours:
        facts.append("**ours**")
    if not info.acted:
        facts.append("**not acted on**")
    lines = [f"``{info.name}`` ({', '.join(facts)})", f"   {_escape(field.description or '')}"]
    if info.name == "config" and model.config_by_type:
        lines.append(f"   See {_literals(model.config_by_type)}.")
    else:
        nested = shape_of(field.annotation).model
        if nested is not None:
            lines.append(f"   See ``{titles[nested]}``.")
    lines += _spellings(info)
    lines += _choices(info)
    if not info.acted:
        kind = "The error" if info.protects else "The note" if info.quiet else "The warning"
        lines.append(f"   *{kind}:* {info.why}.")
        if info.harmless:
            values = _literals(json.dumps(value) for value in info.harmless)
            lines.append(f"   There is none for {values}.")
    return [*lines, ""]


def _choices(info: KeyInfo) -> list[str]:
    """Describe the allowed values, and what happens to others."""
    lines = []
    if info.choices:
        lines.append(f"   Choices: {_literals(info.choices)}.")
    if info.choices and info.fallback:
        lines.append(f"   ``{info.fallback}`` stands in for any other, with a warning.")
    if info.skipped:
        reasons = "; ".join(f"``{name}`` ({reason})" for name, reason in info.skipped.items())
        lines.append(f"   Skipped with a warning: {reasons}.")
    if info.strict:
        lines.append("   Any other is an error without ``ignore_unsupported``.")
    if info.later:
        reasons = "; ".join(f"``{name}`` ({reason})" for name, reason in info.later.items())
        lines.append(f"   Known to MOSN and not acted on: {reasons}.")
    return lines


def _spellings(info: KeyInfo) -> list[str]:
    """Describe the other spellings of a key."""
    names = [_literals(map(_shown, info.spellings))] if info.spellings else []
    if info.milliseconds:
        names.append(f"as a whole number of milliseconds {_literals(info.milliseconds)}")
    return [f"   Other names: {'; '.join(names)}."] if names else []


def _shown(name: str) -> str:
    """Return a key; in quotation marks if it has blanks."""
    return name if name == name.strip() else json.dumps(name)


def _escape(text: str) -> str:
    """Escape the markup characters of a description."""
    return text if "``" in text else re.sub(r"([*`|\\])", r"\\\1", text)


def _literals(values: Iterable[str]) -> str:
    return ", ".join(f"``{value}``" for value in values)


def _type(field: FieldInfo) -> str:
    """Return the type of a field."""
    for entry in field.metadata:
        if isinstance(entry, ValueKind):
            return entry.name
    return _type_name(field.annotation)


def _type_name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        kinds = [entry.name for entry in arguments[1:] if isinstance(entry, ValueKind)]
        return kinds[0] if kinds else _type_name(arguments[0])
    if origin in (Union, UnionType):
        names = [_type_name(part) for part in arguments if part is not type(None)]
        return " or ".join(dict.fromkeys(names))
    if origin is Literal:
        return "text"
    if origin is tuple:
        return f"list of {_type_name(arguments[0])}s"
    return _NAMES.get(annotation, "object")


def _default(field: FieldInfo) -> str:
    """Return a default as a document would have it; empty for an empty one."""
    value = field.default
    if value is None or value == () or value == {} or isinstance(value, Model):
        return ""
    if isinstance(value, float) and _type(field).endswith("duration"):
        return json.dumps(format_duration(value))
    return json.dumps(value)


def _prose(model: type[Model]) -> str:
    """Return a model's docstring up to its first field, without the markup of API documentation."""
    text = _FIELD.split(inspect.cleandoc(model.__doc__ or ""), maxsplit=1)[0].strip()
    return re.sub(r"[CL]\{([^}]*)\}", r"``\1``", text)
