"""
The credential policy C{static} on the server: tokens of agents, which an operator issues.

Its configuration among the server's C{validators} has one of

 - C{file}: the path of a YAML or JSON file with a list of entries, or with a mapping whose key C{tokens}
   has that list. It is read again when it changes, so that removing an entry revokes its token at once,
   also for connections that have joined with it;
 - C{tokens}: the list itself.

An entry has C{agent} (a name for logs and for ownership, of at most 256 characters) and C{token} or
C{tokens} (several that are valid at the same time, to change them without a gap). It may have
C{clusters} (the only ones that the agent may join), C{max_weight} (1 to 128), and C{domains} and
C{ports}: the routes that the agent may bring where the server accepts routes of agents, such as
C{*.tunnels.example.com} and C{2200-2299}.
"""

from __future__ import annotations

__all__ = ["StaticValidatorPlugin", "Tokens", "parse_tokens"]

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import compress, repeat
from typing import Any, ClassVar, Final

from twisted.logger import Logger
from zope.interface import implementer

from reverseproxy.config._values import describe
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.errors import OptionsError
from reverseproxy.identity.allowance import NOTHING, Allowance
from reverseproxy.interfaces import (
    IConnectionValidator,
    Identity,
    INaming,
    IValidatorPlugin,
)
from reverseproxy.logs import counted
from reverseproxy.problems import PART, Place, Problem
from reverseproxy.tunnel.plugin_options import Options
from reverseproxy.tunnel.watched_files import Signature, read_text, reason_of, signature

log = Logger()

MAX_TOKENS_FILE = 16 * 1024 * 1024
"""Bytes of a file of tokens, at most."""

MAX_AGENT_NAME = 256
"""Characters of an agent's name, at most: records of a fleet have room for it in full."""


def _digest(token: str) -> bytes:
    """Hash a token, so that comparisons take the same time for tokens of any length."""
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True, slots=True)
class Tokens:
    """Digests of tokens, and the identity that each belongs to, at the same index."""

    digests: tuple[bytes, ...] = field(repr=False)
    identities: tuple[Identity, ...]
    by_digest: Mapping[bytes, Identity] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_digest", dict(zip(self.digests, self.identities, strict=True)))

    def find_known(self, credential: str) -> Identity | None:
        """
        Return the identity of a token that was valid before; not in constant time, which reveals nothing
        then.
        """
        return self.by_digest.get(_digest(credential))

    def may_join(self, name: str, cluster: str) -> bool:
        """Return whether any token of a name is valid for a cluster."""
        return any(
            each.name == name and (each.clusters is None or cluster in each.clusters)
            for each in self.identities
        )

    def allowance_of(self, name: str) -> Allowance | None:
        """Return which routes an agent of a name may bring; L{None} if there is no such agent."""
        found: Allowance | None = None
        for each in self.identities:
            if each.name == name:
                found = each.routes if found is None else found | each.routes
        return found

    def find(self, credential: str) -> Identity | None:
        """
        Return the identity of a token.

        Every entry is compared, each in constant time, so that the duration reveals neither how close a
        guess is nor which entry it matches.
        """
        equal = map(hmac.compare_digest, self.digests, repeat(_digest(credential)))
        found = list(compress(self.identities, equal))
        return found[0] if found else None


_ENTRY_KEYS: Final = ("agent", "token", "tokens", "clusters", "max_weight", "domains", "ports")
_ENTRIES: Final = f"expected a list of entries with the keys {', '.join(_ENTRY_KEYS)}"


def parse_tokens(document: object, place: Place) -> Tokens:
    """
    Parse a list of entries, or a mapping with it.

    @param place: the place of the document.
    @raise OptionsError: with everything that is wrong; tokens are not quoted.
    """
    findings = Diagnostics()
    if isinstance(document, Mapping):
        Options(document, ("tokens",), findings, place)
        if "tokens" in document or not findings.errors:
            place /= "tokens"
        document = document.get("tokens", () if findings.errors else None)
    if not isinstance(document, (list, tuple)):
        findings.error(place, _ENTRIES)
        document = ()
    owners: dict[bytes, tuple[Place, Identity]] = {}
    for number, entry in enumerate(document):
        identity, tokens = _parse_entry(entry, place / number, findings)
        for where, token in tokens:
            digest = _digest(token)
            if digest in owners:
                findings.error(where, f"is the same as at {owners[digest][0].path}")
            else:
                owners[digest] = where, identity
    if findings.errors:
        raise OptionsError(*findings.errors)
    return Tokens(tuple(owners), tuple(identity for _, identity in owners.values()))


def _parse_entry(
    entry: object, place: Place, findings: Diagnostics
) -> tuple[Identity, list[tuple[Place, str]]]:
    """Return an entry's identity, and its tokens with their places; without those that are wrong."""
    if not isinstance(entry, Mapping):
        findings.error(place, f"must be a mapping with the keys {', '.join(_ENTRY_KEYS)}")
        return Identity(""), []
    options = Options(entry, _ENTRY_KEYS, findings, place)
    agent = options.text("agent")
    if len(agent) > MAX_AGENT_NAME:
        options.error("agent", f"has {len(agent)} characters, {MAX_AGENT_NAME} are the most")
    tokens: list[tuple[Place, str]] = []
    if "token" in entry and "tokens" in entry:
        options.whole("needs either token or tokens, got both")
    elif "token" in entry:
        tokens = [(place / "token", options.text("token"))]
    elif "tokens" not in entry:
        options.whole("needs either token or tokens, got neither")
    elif isinstance(entry["tokens"], (list, tuple)) and entry["tokens"]:
        several = options.texts("tokens", "one token") or ()
        tokens = [(place / "tokens" / number, each) for number, each in enumerate(several)]
    else:
        options.error("tokens", "must be a list with at least one token")
    clusters = options.texts("clusters", "all clusters")
    max_weight = entry.get("max_weight")
    if max_weight is not None and (type(max_weight) is not int or not 1 <= max_weight <= 128):
        options.error("max_weight", f"must be an integer from 1 to 128, not {describe(max_weight)}")
    allowed = None if clusters is None else frozenset(clusters)
    identity = Identity(agent, allowed, max_weight, _parse_routes(options))
    return identity, [(where, token) for where, token in tokens if token]


def _parse_routes(options: Options) -> Allowance:
    """Return the domains and ports that an agent may bring."""
    routes = NOTHING
    for key in ("domains", "ports"):
        for number, text in enumerate(options.texts(key, "none", numbers=True) or ()):
            try:
                routes |= Allowance.of([text], ()) if key == "domains" else Allowance.of((), [text])
            except ValueError as error:
                options.findings.error(options.place / key / number, str(error))
    return routes


@implementer(INaming)
class _TokenValidator:
    """Validates tokens that are listed in the configuration."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def validate(self, credential: str, host_name: str, cluster_name: str) -> Identity | None:
        """Return the identity of a token; see L{IConnectionValidator.validate}."""
        return self._tokens.find(credential)

    def look(self) -> bool:
        """Return False, as a change of the configuration makes another validator; see L{IRevoking}."""
        return False

    def judge_again(self, credential: str, host_name: str, cluster_name: str) -> Identity | None:
        """Return the identity of a token; see L{IRevoking.judge_again}."""
        return self._tokens.find_known(credential)

    def may_join(self, name: str, cluster_name: str) -> bool:
        """See L{INaming}."""
        return self._tokens.may_join(name, cluster_name)

    def allowance_of(self, name: str) -> Allowance | None:
        """See L{INaming}."""
        return self._tokens.allowance_of(name)


class _FileTokens(_TokenValidator):
    """
    Validates tokens that are listed in a file.

    The file's metadata is checked before each use. A file that can't be parsed, perhaps because it is
    just being written, changes nothing.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._signature = signature(path)
        try:
            self._tokens = self._read()
        except OSError as error:
            problem = f"can't read {path}: {error.strerror}"
            raise OptionsError(Problem.at(PART / "file", problem)) from None
        self._seen = self._tokens

    def _read(self) -> Tokens:
        # First when it is made: only servers with such a file need PyYAML.
        from reverseproxy.tunnel.watched_documents import parse_document

        text = read_text(self._path, MAX_TOKENS_FILE)
        return parse_tokens(parse_document(self._path, text), Place(self._path))

    def _refresh(self) -> None:
        now: Signature = signature(self._path)
        if now == self._signature:
            return
        # Taken before reading, so that a change during the read is detected the next time.
        self._signature = now
        try:
            self._tokens = self._read()
        except (OSError, OptionsError) as error:
            log.error(
                "the token file {path} has changed but can't be used, keeping {tokens}: {reason}",
                path=self._path,
                tokens=counted(len(self._tokens.digests), "token"),
                count=len(self._tokens.digests),
                reason=reason_of(error, self._path),
            )
        else:
            log.info(
                "the token file {path} has changed, {tokens} now",
                path=self._path,
                tokens=counted(len(self._tokens.digests), "valid token"),
                count=len(self._tokens.digests),
            )

    def validate(self, credential: str, host_name: str, cluster_name: str) -> Identity | None:
        """Return the identity of a token; see L{IConnectionValidator.validate}."""
        self._refresh()
        return self._tokens.find(credential)

    def look(self) -> bool:
        """Return whether the tokens have changed; see L{IRevoking}."""
        self._refresh()
        seen, self._seen = self._seen, self._tokens
        return seen is not self._seen


_KEYS: Final = ("file", "tokens")


@implementer(IValidatorPlugin)
class StaticValidatorPlugin:
    """The policy C{static} on the server; see the module."""

    name: ClassVar[str] = "static"

    def build(self, config: Mapping[str, Any]) -> IConnectionValidator:
        """
        Make a validator.

        @param config: C{file} or C{tokens}.
        @raise OptionsError: with everything that is wrong with it, or with the file.
        """
        options = Options(config, _KEYS)
        key = options.only_key(_KEYS)
        path = options.text("file") if key == "file" else ""
        options.raise_errors()
        if key == "file":
            return _FileTokens(path)
        return _TokenValidator(parse_tokens(config["tokens"], PART / "tokens"))
