"""Roles and authentication of the admin API's callers; pure, except for the file of tokens."""

from __future__ import annotations

__all__ = ["Access", "Caller", "Role", "parse_tokens"]

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import Any, Final

from twisted.logger import Logger

from reverseproxy.config._values import describe
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.models import AdminCertificateConfig, AdminConfig
from reverseproxy.errors import OptionsError
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.problems import PART, Place, Problem
from reverseproxy.tunnel.plugin_options import Options
from reverseproxy.tunnel.watched_documents import parse_document
from reverseproxy.tunnel.watched_files import read_text, reason_of, signature

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


_ENTRY_KEYS: Final = ("name", "token", "role")


def parse_tokens(document: object, place: Place) -> dict[bytes, Caller]:
    """
    Parse a list of tokens.

    @param place: the place of the document.
    @return: the callers by the SHA-256 digests of their tokens, as comparing digests leaks no timing
        information about a token.
    @raise OptionsError: with everything that is wrong; no token is quoted.
    """
    findings = Diagnostics()
    if isinstance(document, Mapping) and "tokens" in document:
        Options(document, ("tokens",), findings, place)
        document, place = document["tokens"], place / "tokens"
    if not isinstance(document, list):
        findings.error(place, "expected a list of {name, token, role}")
        document = []
    callers: dict[bytes, Caller] = {}
    places: dict[bytes, Place] = {}
    for index, entry in enumerate(document):
        where = place / index
        if not isinstance(entry, Mapping):
            findings.error(where, "must be a mapping with the keys name, token and role")
            continue
        options = Options(entry, _ENTRY_KEYS, findings, where)
        name, token, role = entry.get("name"), entry.get("token"), entry.get("role", "read")
        if not isinstance(name, str) or not name.isprintable() or not name:
            options.error("name", "must be a text without control characters")
        if not isinstance(role, str) or role not in _ROLES:
            options.error("role", f"must be read or operate, not {describe(role)}")
            role = "read"
        if not isinstance(token, str) or not token.isascii() or len(token) < SHORTEST_TOKEN:
            options.error("token", f"must have at least {SHORTEST_TOKEN} ASCII characters")
            continue
        digest = sha256(token.encode("ascii")).digest()
        if digest in callers:
            options.error("token", f"is the same as at {places[digest].path}")
        callers[digest], places[digest] = Caller(str(name), _ROLES[role]), where / "token"
    if findings.errors:
        raise OptionsError(*findings.errors)
    return callers


class _TokensFile:
    """The tokens of a file, which is read again before a use if it has changed."""

    def __init__(self, path: str) -> None:
        """
        @raise OptionsError: if the file can't be used.
        """
        self._path = path
        self._signature = signature(path)
        try:
            self._tokens = self._read()
        except OSError as error:
            raise OptionsError(Problem.at(PART, f"can't read {path}: {error.strerror}")) from None

    def _read(self) -> dict[bytes, Caller]:
        document = parse_document(self._path, read_text(self._path, MAX_FILE))
        return parse_tokens(document, Place(self._path))

    def find(self, token: str) -> Caller | None:
        """Return the caller with a token; L{None} if the token is unknown."""
        now = signature(self._path)
        if now != self._signature:
            self._signature = now
            try:
                self._tokens = self._read()
            except (OSError, OptionsError) as error:
                log.error(
                    "{path} has changed but can't be used: {reason}",
                    path=self._path,
                    reason=reason_of(error, self._path),
                )
            else:
                log.info("{path} has changed and is in use", path=self._path)
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
        @raise OptionsError: if the file of tokens can't be used.
        """
        self._tokens = _TokensFile(config.tokens_file) if config.tokens_file else None
        self._certificates: tuple[AdminCertificateConfig, ...] = config.certificates
        self._anonymous = Caller("", Role.NOBODY, "a token is required: Authorization: Bearer TOKEN")
        if not config.authenticates:
            if config.bound.startswith("unix:"):
                self._anonymous = Caller("(Unix socket)", Role.OPERATE)
            else:
                hint = (
                    "configure admin with a tokens_file or certificates, or with a Unix socket as its address"
                )
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
                return Caller("", Role.NOBODY, "unknown token")
            if found.role > best.role:
                best = Caller(found.name, found.role, f"{found.name} has the role {found.role.name.lower()}")
        return best
