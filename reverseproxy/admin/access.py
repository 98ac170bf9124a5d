"""Who may do what with the admin API: pure, but for the file of tokens."""

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
"""The largest file of tokens in bytes."""

SHORTEST_TOKEN: Final = 16
"""Characters that a token needs, lest it be guessed."""


class Role(IntEnum):
    """What one may do; who may do more may do less."""

    NOBODY = 0
    READ = 1
    OPERATE = 2


_ROLES: Final = {"read": Role.READ, "operate": Role.OPERATE}


@dataclass(frozen=True, slots=True)
class Caller:
    """
    Who asks.

    @ivar name: for the audit.
    @ivar role: what they may do.
    @ivar hint: how they could do more; for the answer that refuses.
    """

    name: str
    role: Role
    hint: str = ""


def parse_tokens(where: str, document: object) -> dict[bytes, Caller]:
    """
    Read a list of tokens.

    @param where: what to call it in errors.
    @return: by their digests, so that no token is compared character by character.
    @raise ValueError: if it is none; no token is quoted.
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
        if role not in _ROLES:
            raise ValueError(f"{place}.role must be read or operate")
        digest = sha256(token.encode("ascii")).digest()
        if digest in callers:
            raise ValueError(f"{place} has the same token as {callers[digest].name}")
        callers[digest] = Caller(name, _ROLES[role])
    return callers


class _TokensFile:
    """Tokens of a file, which is looked at before each use."""

    def __init__(self, path: str) -> None:
        """
        @raise ValueError: if it can't be used.
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
        """Whose token it is."""
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
    Judges callers.

    Where the configuration names nobody who may, only this machine can reach
    the API.  Then everybody who can may look; and change something, if that is
    by a Unix socket, whose permissions say who can.
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
        Say who asks.

        @param info: the connection.
        @param authorization: the field of the request; empty if there is none.
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
                # Somebody who shows a wrong token is not to be taken for somebody who shows none.
                return Caller("", Role.NOBODY, "the token is not known")
            if found.role > best.role:
                best = Caller(found.name, found.role, f"{found.name} has the role {found.role.name.lower()}")
        return best
