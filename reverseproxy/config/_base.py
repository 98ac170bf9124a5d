"""
The base of all configuration models.

A model's field has everything that is known of its key: L{key} attaches the
description, whether the key is acted on, and which values are.  The loader's warnings and
the generated reference both read it there, so that they can't disagree.
"""

from __future__ import annotations

__all__ = [
    "IGNORE_UNSUPPORTED",
    "KeyInfo",
    "Model",
    "ModelShape",
    "Spelling",
    "TypedModel",
    "key",
    "key_info",
    "keys_of",
    "names_of",
    "shape_of",
    "spellings_of",
]

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from types import UnionType
from typing import Any, ClassVar, Final, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

IGNORE_UNSUPPORTED: Final = "ignore_unsupported"
"""
A key that every object may have: whether unsupported keys that protect something are a
warning rather than an error, in this object and in those within it.
"""


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """
    The properties of one key of the configuration, beside its type and default.

    @ivar name: the key in documents, if that is not the field's name.
    @ivar spellings: alternative names of the key.
    @ivar milliseconds: the same for a duration, as a whole number of milliseconds.
    @ivar acted: whether this release acts on it.
    @ivar why: the warning for a key that is not acted on, with the reason.
    @ivar quiet: whether it makes no difference that such a key is not acted on, as
        MOSN does not act on it either: then there is a single note instead of
        warnings.
    @ivar harmless: values of such a key that mean what happens anyway, and so need no
        warning.
    @ivar protects: whether the key restricts access, or may do so: if it is not acted on,
        it is an error unless the file has C{ignore_unsupported}; if it is, so is an
        unknown key with a similar name.
    @ivar ours: whether the key is this project's own, unknown to MOSN.
    @ivar secret: whether its value must never be shown.
    @ivar required: whether documents must have the key with a text that is not empty.
    @ivar nullable: whether C{null} is the same as an absent key.
    @ivar choices: the only values that are acted on, if they are enumerated.
    @ivar any_case: whether values may be written in any case.
    @ivar later: further values that MOSN knows, and why they are not acted on.
    @ivar skipped: further values that can be ignored, and why.
    @ivar strict: whether any other value is an error unless the file says
        C{ignore_unsupported}, as it may protect something.
    @ivar fallback: the value that is used instead, with a warning, for one that is not in
        C{choices}.
    @ivar directory_of: the list whose items may instead be the files of the directory that
        this key names.
    """

    name: str = ""
    spellings: tuple[str, ...] = ()
    milliseconds: tuple[str, ...] = ()
    acted: bool = True
    why: str = ""
    quiet: bool = False
    protects: bool = False
    harmless: tuple[Any, ...] = ()
    ours: bool = False
    secret: bool = False
    required: bool = False
    nullable: bool = True
    choices: tuple[str, ...] = ()
    any_case: bool = False
    later: Mapping[str, str] = dataclasses.field(default_factory=dict)
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)
    strict: bool = False
    fallback: str = ""
    directory_of: str = ""


_KEY_INFO: Final = frozenset(entry.name for entry in fields(KeyInfo))


def key(default: Any, description: str, **facts: Any) -> Any:
    """
    Declare a field for one key of the configuration.

    @param default: what an absent key means.
    @param description: sentences for the reference.
    @param facts: attributes of L{KeyInfo}; anything else is passed to L{pydantic.Field}.
    """
    info: Any = {name: facts.pop(name) for name in _KEY_INFO & set(facts)}
    return Field(default, description=description, json_schema_extra={"key": info}, **facts)


def key_info(name: str, field_info: FieldInfo) -> KeyInfo:
    """
    Return what L{key} has attached to a field.

    @param name: the field's name, which is the key's unless it has another one.
    """
    extra = field_info.json_schema_extra
    attached: Any = extra.get("key") if isinstance(extra, dict) else None
    return KeyInfo(**{"name": name, **(attached or {})})


class Model(BaseModel):
    """Base of the models: frozen, and refusing attributes that no key sets."""

    # built as a whole at its first use, rather than once for each model that is a part of another
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    config_by_type: ClassVar[Mapping[str, type[Model]]] = {}
    """See L{TypedModel}."""

    unknown_key: ClassVar[str] = "unknown key, ignored"
    """The warning about an unknown key."""

    strict_keys: ClassVar[bool] = False
    """
    Whether an unknown key is an error unless the file has C{ignore_unsupported}, because
    all keys of the model restrict access.
    """


class TypedModel(Model):
    """
    A model with a C{type} and a C{config} that depends on it.

    C{config_by_type} has the model of C{config} for each C{type}.
    """

    @field_validator("config", mode="plain", check_fields=False)
    @classmethod
    def _by_type(cls, value: Any, info: ValidationInfo) -> Any:
        model = cls.config_by_type.get(info.data.get("type", ""))
        if model is None or isinstance(value, model):
            return value if model else None
        return model.model_validate({} if value is None else value, context=info.context)


@cache
def keys_of(model: type[Model]) -> tuple[tuple[str, FieldInfo, KeyInfo], ...]:
    """Return the fields of a model: attribute name, pydantic's info and this project's."""
    return tuple((name, info, key_info(name, info)) for name, info in model.model_fields.items())


@cache
def names_of(model: type[Model]) -> Mapping[str, str]:
    """Return the field names of a model by their keys in documents."""
    return {info.name: name for name, _, info in keys_of(model)}


@dataclass(frozen=True, slots=True)
class Spelling:
    """
    One spelling of a key.

    @ivar field: the model's field.
    @ivar name: the key as the reference writes it.
    @ivar duration: whether the key is a duration that can be given in
        milliseconds as well.
    @ivar milliseconds: whether this is the name for that: its value is a whole
        number of milliseconds.
    """

    field: str
    name: str
    duration: bool = False
    milliseconds: bool = False


@cache
def spellings_of(model: type[Model]) -> Mapping[str, Spelling]:
    """Return all spellings of a model's keys, by the key in lower case, as keys match in any case."""
    found: dict[str, Spelling] = {}
    for field, _, info in keys_of(model):
        for name in (info.name, *info.spellings):
            found[name.lower()] = Spelling(field, name, bool(info.milliseconds))
        for name in info.milliseconds:
            found[name.lower()] = Spelling(field, name, True, True)
    return found


@dataclass(frozen=True, slots=True)
class ModelShape:
    """
    Where models are nested in a field.

    @ivar model: the nested model, or L{None}.
    @ivar many: whether the field is a list of it.
    """

    model: type[Model] | None = None
    many: bool = False


def shape_of(annotation: Any) -> ModelShape:
    """Find the model in a field's type: C{M}, C{M | None} or C{tuple[M, ...]}."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        found = [shape for part in get_args(annotation) if (shape := shape_of(part)).model is not None]
        return found[0] if len(found) == 1 else ModelShape()
    if origin is tuple:
        return ModelShape(shape_of(get_args(annotation)[0]).model, many=True)
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return ModelShape(annotation)
    return ModelShape()
