"""Parse TOML."""

from __future__ import annotations

__all__ = ["parse_toml"]

import re
import tomllib
from datetime import date, datetime, time
from typing import Any, Final

from reverseproxy.config._document import MOST_BITS, Object, SyntaxProblem, long_integer

_AT: Final = re.compile(r"(.*) \(at line (\d+), column (\d+)\)", re.DOTALL)


def parse_toml(text: str) -> Object:
    """
    Parse TOML, which has no null: a key is left out instead.

    @raise SyntaxProblem: if it is not TOML, or has values that JSON can't have.
    """
    if not text.strip():
        raise SyntaxProblem("is empty")
    try:
        return _object(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        reason = str(error)[:1].lower() + str(error)[1:]
        found = _AT.fullmatch(reason)
        if found is None:
            raise SyntaxProblem(f"not TOML: {reason}") from None
        raise SyntaxProblem(f"not TOML: {found[1]}", int(found[2]), int(found[3])) from None
    except ValueError:
        raise long_integer(text, "TOML") from None
    except RecursionError:
        raise SyntaxProblem("is nested too deeply") from None


def _object(table: dict[str, Any]) -> Object:
    return Object((name, _value(value)) for name, value in table.items())


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return _object(value)
    if isinstance(value, list):
        return [_value(each) for each in value]
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()  # no key takes a time; the message about it shows what is there
    if type(value) is int and value.bit_length() > MOST_BITS:
        raise ValueError("an integer has too many digits")
    return value
