"""
Fields of the JSON objects that records are encoded in; pure.

Each field has a type and a bound, which readers check: anybody who can write to the store can write
anything there.
"""

from __future__ import annotations

__all__ = [
    "MAX_RECORD",
    "RECORD_VERSION",
    "BadRecord",
    "FieldReader",
    "dump",
    "fit",
    "identity_json",
    "quote",
]

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from reverseproxy.identity import AgentIdentity, CertificateSubject
from reverseproxy.identity.allowance import clean_domain

RECORD_VERSION: Final = 1
"""The version of records; one of a later version may have further fields, which are ignored."""

MAX_RECORD: Final = 128 * 1024
"""Bytes of a record, at most."""

MAX_SERVER_ID: Final = 64
MAX_ADDRESS: Final = 270
MAX_TEXT: Final = 256
MAX_CLUSTER: Final = 256
MAX_ENTRIES: Final = 32
MAX_NAMES: Final = 16
MAX_WEIGHT: Final = 128
MAX_HANDLE: Final = 32
MAX_DOMAINS: Final = 1000
MAX_COUNT: Final = 1_000_000

NO_TEXTS: Final[Mapping[str, str]] = MappingProxyType({})


class BadRecord(ValueError):
    """A record, or its key, is malformed; the message says which field."""


def fit(text: str) -> str:
    """Make text of unknown origin fit for a record: printable, and not too long."""
    return "".join(each if each.isprintable() else "?" for each in text[:MAX_TEXT])


def quote(text: str) -> str:
    """Quote text for an error message: shortened, and printable."""
    shown = text if len(text) <= 64 else f"{text[:61]}..."
    return f'"{"".join(each if each.isprintable() else "?" for each in shown)}"'


def dump(value: Mapping[str, Any]) -> bytes:
    """Encode a record."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def identity_json(identity: AgentIdentity) -> dict[str, Any]:
    """Return an identity as JSON that L{FieldReader.identity} accepts; texts are cut to its bounds."""
    certificate = identity.certificate
    found: dict[str, Any] = {
        "name": fit(identity.name),
        "policy": fit(identity.policy),
        "claim": fit(identity.claim),
        "agent_id": fit(identity.agent_id),
        "version": identity.version,
    }
    if certificate is not None:
        found["certificate"] = {
            "key": fit(certificate.key),
            "subject": fit(certificate.subject),
            "names": [fit(name) for name in certificate.names[:MAX_NAMES]],
        }
    return {name: value for name, value in found.items() if value}


class FieldReader:
    """Reads the fields of a JSON object, each of a type and within bounds; raises L{BadRecord} otherwise."""

    def __init__(self, data: bytes | Mapping[str, Any], within: str = "") -> None:
        """
        @param data: an encoded record, or an object within one.
        @param within: the path of the object, for messages; empty for the record itself.
        """
        self._within = within
        if not isinstance(data, bytes):
            self._found = data
            return
        if len(data) > MAX_RECORD:
            raise BadRecord(f"a record of {len(data)} bytes; {MAX_RECORD} are the most")
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise BadRecord(f"not a JSON object: {data[:32]!r}")
        self._found = found
        version = self.number("v", 1, 2**31)
        if version < RECORD_VERSION:
            raise self._bad("v", "is no version of records")

    def _bad(self, name: str, problem: str) -> BadRecord:
        return BadRecord(f"{self._within}{name}: {problem}")

    def text(self, name: str, limit: int) -> str:
        """Return a printable text; empty if it is missing."""
        value = self._found.get(name, "")
        if not isinstance(value, str):
            raise self._bad(name, f"is {type(value).__name__}, not text")
        return self._bounded(name, value, limit)

    def _bounded(self, name: str, value: str, limit: int) -> str:
        if len(value) > limit:
            raise self._bad(name, f"has {len(value)} characters; {limit} are the most")
        if not value.isprintable():
            raise self._bad(name, f"{quote(value)} is not printable")
        return value

    def boolean(self, name: str, default: bool = False) -> bool:
        """Return a boolean."""
        value = self._found.get(name, default)
        if not isinstance(value, bool):
            raise self._bad(name, f"is {type(value).__name__}, not true or false")
        return value

    def number(self, name: str, least: int, most: int, default: int | None = None) -> int:
        """Return an integer within bounds; C{default}, or else C{least}, if it is missing."""
        value = self._found.get(name, least if default is None else default)
        if type(value) is not int or not least <= value <= most:
            raise self._bad(name, f"is not a number from {least} to {most}")
        return value

    def numbers(self, name: str, limit: int) -> tuple[int, ...]:
        """Return a list of integers; C{(1,)} if it is missing."""
        value = self._found.get(name, [1])
        if not isinstance(value, list) or len(value) > limit:
            raise self._bad(name, f"is no list of at most {limit} numbers")
        if any(type(each) is not int or not 0 <= each <= MAX_COUNT for each in value):
            raise self._bad(name, f"has what is not a number from 0 to {MAX_COUNT}")
        return tuple(value)

    def domains(self, name: str, limit: int) -> tuple[str, ...]:
        """Return a list of domains in their normal form; empty if it is missing."""
        value = self._found.get(name, [])
        if not isinstance(value, list) or len(value) > limit:
            raise self._bad(name, f"is no list of at most {limit} domains")
        for each in value:
            try:
                good = isinstance(each, str) and clean_domain(each) == each
            except ValueError:
                good = False
            if not good:
                raise self._bad(name, "has what is no domain")
        return tuple(value)

    def addresses(self, name: str, limit: int) -> tuple[str, ...]:
        """Return a list of texts that may be addresses; empty if it is missing."""
        value = self._found.get(name, [])
        if not isinstance(value, list) or len(value) > limit:
            raise self._bad(name, f"is no list of at most {limit} addresses")
        if any(not isinstance(each, str) for each in value):
            raise self._bad(name, "has what is not text")
        return tuple(self._bounded(name, each, MAX_ADDRESS) for each in value)

    def texts(self, name: str, limit: int) -> Mapping[str, str]:
        """Return an object whose values are texts; empty if it is missing."""
        value = self._found.get(name, {})
        if not isinstance(value, dict) or len(value) > limit:
            raise self._bad(name, f"is no object of at most {limit} texts")
        if not value:
            return NO_TEXTS
        for key, each in value.items():
            if not isinstance(each, str):
                raise self._bad(name, f"{quote(key)} is {type(each).__name__}, not text")
            if len(key) > MAX_TEXT or len(each) > MAX_TEXT:
                raise self._bad(name, f"{quote(key)} has more than {MAX_TEXT} characters")
        return MappingProxyType(value)

    def part(self, name: str) -> FieldReader | None:
        """Return a reader for an object within this one; L{None} if it is missing."""
        value = self._found.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self._bad(name, f"is {type(value).__name__}, not an object")
        return FieldReader(value, f"{self._within}{name}.")

    def identity(self, name: str) -> AgentIdentity | None:
        """Return an agent's identity; L{None} if it is missing."""
        part = self.part(name)
        if part is None:
            return None
        return AgentIdentity(
            part.text("name", MAX_TEXT),
            part.text("policy", MAX_TEXT),
            part.certificate("certificate"),
            part.text("claim", MAX_TEXT),
            part.text("agent_id", MAX_TEXT),
            part.number("version", 0, MAX_COUNT),
        )

    def certificate(self, name: str) -> CertificateSubject | None:
        """Return the subject of a certificate; L{None} if it is missing."""
        part = self.part(name)
        if part is None:
            return None
        names = part._found.get("names", [])
        if (
            not isinstance(names, list)
            or len(names) > MAX_NAMES
            or not all(isinstance(n, str) for n in names)
        ):
            raise part._bad("names", f"is no list of at most {MAX_NAMES} texts")
        return CertificateSubject(
            part.text("key", MAX_TEXT),
            part.text("subject", MAX_TEXT),
            tuple(part._bounded("names", each, MAX_TEXT) for each in names),
        )
