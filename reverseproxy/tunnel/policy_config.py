"""Checks of the configuration of credential policies; values may be secrets, and are not quoted."""

from __future__ import annotations

__all__ = ["check_keys", "nonempty", "only_key"]

import re
from collections.abc import Collection, Mapping
from typing import Any

# A misspelt key looks like this; a token in the place of a key hardly does.
_PLAIN_KEY = re.compile(r"[a-z_]{1,24}", re.IGNORECASE)


def check_keys(what: str, config: Mapping[str, Any], allowed: Collection[str]) -> None:
    """Raise L{ValueError} for unknown keys, such as misspelt ones."""
    for key in config:
        if key not in allowed:
            keys = f"the keys are {', '.join(allowed)}" if allowed else "it has no keys"
            shown = repr(key) if _PLAIN_KEY.fullmatch(str(key)) else "(not shown, it might be a secret)"
            raise ValueError(f"{what}: unknown key {shown}; {keys}")


def only_key(what: str, config: Mapping[str, Any], allowed: Collection[str]) -> str:
    """Return the single key that a configuration must have; raise L{ValueError} otherwise."""
    check_keys(what, config, allowed)
    if len(config) != 1:
        given = " and ".join(config) or "none of them"
        raise ValueError(f"{what}: needs exactly one of {', '.join(allowed)}, got {given}")
    return next(iter(config))


def nonempty(what: str, value: object) -> str:
    """Return a string that is not empty; it may be a secret, and is not quoted in errors."""
    if isinstance(value, str) and value:
        return value
    hint = "an empty one" if value == "" else f"{type(value).__name__}; put quotes around it"
    raise ValueError(f"{what} must be a string that is not empty, got {hint}")
