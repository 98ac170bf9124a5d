"""Removal of secrets from a configuration; pure."""

from __future__ import annotations

__all__ = ["REDACTED", "is_secret", "redact"]

import re
from collections.abc import Mapping
from typing import Any, Final

REDACTED: Final = "[redacted]"

_SECRET: Final = re.compile(
    r"password|passwd|passphrase|secret|token|credential_config|authorization|cookie|private[_-]?key|api[_-]?key",
    re.IGNORECASE,
)
_HARMLESS: Final = re.compile(r"_?(?:file|path|policy|policies)$", re.IGNORECASE)
_NAMES: Final = ("key", "name")
"""The keys that name a header field, beside its C{value}."""

_USERINFO: Final = re.compile(r"(://)[^/@\s]+@")


def redact(value: Any) -> Any:
    """
    Replace secrets: private keys, tokens and passwords.

    Any value under a key that is named like a secret is replaced, and so is the
    C{value} of a header field with such a name; names of files and certificates
    are kept.
    """
    if isinstance(value, Mapping):
        found = {name: _of_key(str(name), item) for name, item in value.items()}
        if value.get("value") and any(is_secret(str(value.get(name, ""))) for name in _NAMES):
            found["value"] = REDACTED
        return found
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    if isinstance(value, str):
        if "PRIVATE KEY" in value:
            return REDACTED
        return _USERINFO.sub(rf"\1{REDACTED}@", value)
    return value


def is_secret(name: str) -> bool:
    """Whether a key is named like a secret, and not like a file or a policy with secrets."""
    return _SECRET.search(name) is not None and _HARMLESS.search(name) is None


def _of_key(name: str, value: Any) -> Any:
    if is_secret(name):
        is_path = name == "private_key" and isinstance(value, str) and "-----BEGIN" not in value
        return value if is_path or value in (None, "", (), [], {}) else REDACTED
    if name == "headers" and isinstance(value, Mapping):
        return dict.fromkeys(value, REDACTED)  # credentials for the receiver of traces
    return redact(value)
