"""
What all configuration models are built from.

A model's field says everything that is known of its key: L{key} attaches the
description and whether the key is acted on.  The warnings of the loader and the
generated reference both read it there, so that they can't disagree.
"""

from __future__ import annotations

__all__ = [
    "NOT_YET",
    "Address",
    "Bool",
    "Duration",
    "Free",
    "Int",
    "KeyInfo",
    "Model",
    "Nanoseconds",
    "Number",
    "Regex",
    "Text",
    "UInt",
    "key",
    "key_info",
    "keys_of",
    "split_address",
]

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final

import re2
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StrictBool,
    StrictStr,
    ValidationInfo,
)
from pydantic.fields import FieldInfo

from reverseproxy.config.durations import parse_duration

NOT_YET: Final = "MOSN knows this key; it is not acted on yet"


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """
    What is known of one configuration key beside its type and default.

    @ivar name: how documents spell it.
    @ivar acted: whether this release acts on it.
    @ivar why: the warning for a key that is not acted on.
    @ivar ours: whether it is a key of this project that MOSN does not know.
    @ivar secret: whether its value must never be shown.
    @ivar harmless: values of a key that is not acted on which ask for nothing
        else than what happens anyway, and so are no reason to warn.
    @ivar pointer: whether C{null} means that a duration is absent.
    """

    name: str
    acted: bool = True
    why: str = NOT_YET
    ours: bool = False
    secret: bool = False
    harmless: tuple[Any, ...] = ()
    pointer: bool = True


def key(
    default: Any,
    description: str,
    *,
    name: str = "",
    acted: bool = True,
    why: str = NOT_YET,
    ours: bool = False,
    secret: bool = False,
    harmless: tuple[Any, ...] = (),
    pointer: bool = True,
    **constraints: Any,
) -> Any:
    """
    Declare a field for one key of the configuration.

    @param default: what an absent key means; C{...} for a key that must be there.
    @param description: a sentence or two for the reference.
    @param name: how documents spell the key, where that is not the field's name.
    @param acted: see L{KeyInfo}, as for C{why}, C{ours}, C{secret},
        C{harmless} and C{pointer}.
    @param constraints: handed to L{pydantic.Field}.
    """
    extra: Any = {
        "name": name,
        "acted": acted,
        "why": why,
        "ours": ours,
        "secret": secret,
        "harmless": harmless,
        "pointer": pointer,
    }
    return Field(default, description=description, json_schema_extra={"key": extra}, **constraints)


def key_info(name: str, field: FieldInfo) -> KeyInfo:
    """Read back what L{key} attached to a model's field."""
    extra = field.json_schema_extra
    attached: Any = extra.get("key") if isinstance(extra, dict) else None
    info = dict(attached or {})
    return KeyInfo(**{**info, "name": info.get("name") or name})


class Model(BaseModel):
    """Base of the models: frozen, without attributes that no key sets."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=False)


def keys_of(model: type[Model]) -> Iterator[tuple[str, FieldInfo, KeyInfo]]:
    """Each field of a model: its attribute name, pydantic's facts and ours."""
    for name, field in model.model_fields.items():
        yield name, field, key_info(name, field)


# -- values -------------------------------------------------------------------
# Go's decoder does not convert: a string is no number, 1 is no boolean.

Text = StrictStr
Bool = StrictBool
Int = Annotated[int, Strict(), Field(ge=-(2**63), le=2**63 - 1)]
UInt = Annotated[int, Strict(), Field(ge=0, le=2**32 - 1)]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Free = Any
"""A value that is kept as it is in the document."""


def from_document(info: ValidationInfo) -> bool:
    """Whether a value comes from a document rather than from Python code."""
    return bool(info.context and info.context.get("document"))


def _duration(value: Any, info: ValidationInfo) -> Any:
    """
    Make seconds of a duration.

    In a document it is Go's text or a bare 0; in Python code float seconds.
    """
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f'{_show(value)} is not a duration; write a Go duration such as "8s" or "300ms"')
    if from_document(info) and (value != 0 or isinstance(value, float)):
        raise ValueError(f'{value!r} has no unit; write a Go duration such as "{value!r}s" or "300ms"')
    return float(value)


def _nanoseconds(value: Any, info: ValidationInfo) -> Any:
    """As a duration, but a number of a document is a count of nanoseconds."""
    if from_document(info) and isinstance(value, int) and not isinstance(value, bool):
        return value / 1e9
    return _duration(value, info)


def _show(value: Any) -> str:
    """Name a value of a document as the document would."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, (list, tuple)):
        return "a list"
    return repr(value)


Duration = Annotated[float, BeforeValidator(_duration)]
"""Float seconds, from Go's duration syntax."""

Nanoseconds = Annotated[float, BeforeValidator(_nanoseconds)]
"""Float seconds, from an integer count of nanoseconds or Go's duration syntax."""


def split_address(address: str) -> tuple[str, int]:
    """
    Take an address apart.

    @param address: C{"host:port"} or C{"[v6]:port"}.
    @return: the host, without brackets, and the port.
    @raise ValueError: if it is neither; the message says why.
    """
    if address.startswith("["):
        host, closing, port = address[1:].partition("]:")
        if not closing:
            raise ValueError(f'"{address}" is not an address; write an IPv6 address as "[::1]:8080"')
    else:
        host, colon, port = address.rpartition(":")
        if not colon:
            raise ValueError(f'"{address}" has no port; write "host:port"')
        if ":" in host:
            raise ValueError(f'"{address}" is not an address; write an IPv6 address as "[::1]:8080"')
    if not (port.isascii() and port.isdecimal() and int(port) <= 65535):
        raise ValueError(f'"{address}" has the port "{port}"; a port is a number from 0 to 65535')
    return host, int(port)


def _regex(text: str) -> str:
    """Compile a regular expression to see whether it is one."""
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(text, options)
    except re2.error as error:
        reason = error.args[0]
        reason = reason.decode() if isinstance(reason, bytes) else reason
        raise ValueError(f'"{text}" is not a regular expression that RE2 takes: {reason}') from None
    return text


def _address(text: str) -> str:
    """Demand an address that can be dialled."""
    if text.startswith("unix:"):
        if text == "unix:":
            raise ValueError('"unix:" has no path; write "unix:/path/to/socket"')
        return text
    host, port = split_address(text)
    if not host:
        raise ValueError(f'"{text}" has no host; write "host:port"')
    if not port:
        raise ValueError(f'"{text}" has the port 0, which can\'t be dialled')
    return text


Regex = Annotated[str, Strict(), AfterValidator(_regex)]
"""RE2 syntax, tried at load time."""

Address = Annotated[str, Strict(), AfterValidator(_address)]
"""C{host:port}, C{[v6]:port} or C{unix:/path}: something to dial."""
