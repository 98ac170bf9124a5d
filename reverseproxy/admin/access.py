"""Roles and authentication of the admin API's callers; pure, except for the file of tokens."""

from __future__ import annotations

__all__ = ["Access", "Caller", "Role", "parse_tokens"]

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import Any, Final

from twisted.logger import Logger

from reverseproxy.config.models import AdminCertificateConfig, AdminConfig
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.tunnel.watched_files import parse_document, read_text, signature

log = Logger()

MAX_FILE: Final = 1 << 20
"""The maximum size of the file of tokens in bytes."""

SHORTEST_TOKEN: Final = 16
"""The minimum length of a token in characters, so that it can't be guessed."""


class Role(IntEnum):
    """A caller's role; each includes the ones before it."""

    NOBODY = 0
    READ = 1
    OPERATE = 2


_ROLES: Final = {"read": Role.READ, "operate": Role.OPERATE}


@dataclass(frozen=True, slots=True)
class Caller:
    """
    A caller of the admin API.

    @ivar name: the name, for the audit.
    @ivar role: the role.
    @ivar hint: how to get a higher role, or where the role comes from; for answers with the status 401 or
        403.
    """

    name: str
    role: Role
    hint: str = ""


def parse_tokens(where: str, document: object) -> dict[bytes, Caller]:
    """
    Parse a list of tokens.

    @param where: the name of the document, for errors.
    @return: the callers by the SHA-256 digests of their tokens, as comparing digests leaks no timing
        information about a token.
    @raise ValueError: if the document is invalid; the message quotes no token.
    """
    if isinstance(document, Mapping) and set(document) == {"tokens"}:
        document = document["tokens"]
    if not isinstance(document, list):
        raise ValueError(f"{where}: expected a list of {{name, token, role}}")
    callers: dict[bytes, Caller] = {}
    for index, entry in enumerate(document):
        place = f"{where}: [{index}]"
        if not isinstance(entry, Mapping) or not set(entry) <= {"name", "token", "role"}:
            raise ValueError(f"{place} must be a mapping with the keys name, token and role")
        name, token, role = entry.get("name"), entry.get("token"), entry.get("role", "read")
        if not isinstance(name, str) or not name.isprintable() or not name:
            raise ValueError(f"{place}.name must be a text")
        if not isinstance(token, str) or not token.isascii() or len(token) < SHORTEST_TOKEN:
            raise ValueError(f"{place}.token must have {SHORTEST_TOKEN} characters of ASCII at least")
        if not isinstance(role, str) or role not in _ROLES:
            raise ValueError(f"{place}.role must be read or operate")
        digest = sha256(token.encode("ascii")).digest()
        if digest in callers:
            raise ValueError(f"{place} has the same token as {callers[digest].name}")
        callers[digest] = Caller(name, _ROLES[role])
    return callers


class _TokensFile:
    """The tokens of a file, which is read again before a use if it has changed."""

    def __init__(self, path: str) -> None:
        """
        @raise ValueError: if the file can't be used.
        """
        self._path = path
        self._signature = signature(path)
        try:
            self._tokens = self._read()
        except OSError as error:
            raise ValueError(f"can't read {path}: {error.strerror}") from None

    def _read(self) -> dict[bytes, Caller]:
        return parse_tokens(self._path, parse_document(self._path, read_text(self._path, MAX_FILE)))

    def find(self, token: str) -> Caller | None:
        """Return the caller with a token; L{None} if the token is unknown."""
        now = signature(self._path)
        if now != self._signature:
            self._signature = now
            try:
                self._tokens = self._read()
            except (OSError, ValueError) as error:
                log.error(
                    "{path} has changed but can't be used: {reason}", path=self._path, reason=str(error)
                )
            else:
                log.info("{path} has changed and counts now", path=self._path)
        return self._tokens.get(sha256(token.encode("utf-8", "surrogateescape")).digest())


class Access:
    """
    Authenticates callers.

    Without tokens and certificates in the configuration, only this machine can
    reach the API.  Then all callers over TCP have the role C{read}, and all
    callers over a Unix socket, whose permissions restrict access, have the role
    C{operate}.
    """

    def __init__(self, config: AdminConfig) -> None:
        """
        @raise ValueError: if the file of tokens can't be used.
        """
        self._tokens = _TokensFile(config.tokens_file) if config.tokens_file else None
        self._certificates: tuple[AdminCertificateConfig, ...] = config.certificates
        self._anonymous = Caller("", Role.NOBODY, "show a token: Authorization: Bearer ...")
        if not config.authenticates:
            if config.bound.startswith("unix:"):
                self._anonymous = Caller("(Unix socket)", Role.OPERATE)
            else:
                hint = "admin has no tokens_file: write one, or let it listen at a Unix socket"
                self._anonymous = Caller("(this machine)", Role.READ, hint)

    def judge(self, info: ConnectionInfo, authorization: str) -> Caller:
        """
        Return the caller of a request, with the highest role of its token and its certificate.

        @param info: the connection.
        @param authorization: the header field C{Authorization}; empty if absent.
        """
        best = self._anonymous
        if info.subject is not None:
            names = {info.subject.subject, *info.subject.names}
            for certificate in self._certificates:
                role: Any = _ROLES[certificate.role]
                if certificate.name in names and role > best.role:
                    best = Caller(
                        str(info.subject), role, f"{certificate.name} has the role {certificate.role}"
                    )
        if authorization and self._tokens is not None:  # without tokens, none can be wrong
            scheme, _, token = authorization.partition(" ")
            found = None
            if scheme.lower() == "bearer":
                found = self._tokens.find(token.strip())
            if found is None:
                # A wrong token is an error, even if the caller has a role without any token.
                return Caller("", Role.NOBODY, "the token is not known")
            if found.role > best.role:
                best = Caller(found.name, found.role, f"{found.name} has the role {found.role.name.lower()}")
        return best
