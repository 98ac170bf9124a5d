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

__all__ = ["StaticValidatorPlugin"]

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import compress, repeat
from typing import Any, ClassVar

from twisted.logger import Logger
from zope.interface import implementer

from reverseproxy.identity.allowance import Allowance
from reverseproxy.interfaces import (
    IConnectionValidator,
    Identity,
    INaming,
    IValidatorPlugin,
)
from reverseproxy.tunnel.policy_config import check_keys, nonempty, only_key
from reverseproxy.tunnel.watched_files import Signature, parse_document, read_text, signature

log = Logger()

MAX_TOKENS_FILE = 16 * 1024 * 1024
"""Bytes of a file of tokens, at most."""

MAX_AGENT_NAME = 256
"""Characters of an agent's name, at most: records of a fleet have room for it in full."""


def _digest(token: str) -> bytes:
    """Hash a token, so that comparisons take the same time for tokens of any length."""
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True, slots=True)
class _Tokens:
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


def _parse_tokens(where: str, document: object) -> _Tokens:
    """
    Parse a list of entries, or a mapping with it.

    @raise ValueError: with the place of the entry that is wrong; tokens are not quoted.
    """
    if isinstance(document, Mapping):
        check_keys(where, document, ("tokens",))
        document = document.get("tokens")
    if not isinstance(document, (list, tuple)):
        raise ValueError(f"{where}: expected a list of entries with the keys {', '.join(_ENTRY_KEYS)}")
    owners: dict[bytes, tuple[str, Identity]] = {}
    for number, entry in enumerate(document):
        place = f"{where}: tokens[{number}]"
        identity, tokens = _parse_entry(place, entry)
        for token in tokens:
            digest = _digest(token)
            if digest in owners:
                raise ValueError(f"{place} has a token that {owners[digest][0]} has already")
            owners[digest] = (f"tokens[{number}]", identity)
    return _Tokens(tuple(owners), tuple(identity for _, identity in owners.values()))


_ENTRY_KEYS = ("agent", "token", "tokens", "clusters", "max_weight", "domains", "ports")


def _parse_entry(place: str, entry: object) -> tuple[Identity, list[str]]:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{place} must be a mapping with the keys {', '.join(_ENTRY_KEYS)}")
    check_keys(place, entry, _ENTRY_KEYS)
    agent = nonempty(f"{place}.agent", entry.get("agent"))
    if len(agent) > MAX_AGENT_NAME:
        raise ValueError(f"{place}.agent has {len(agent)} characters, {MAX_AGENT_NAME} are the most")
    if ("token" in entry) == ("tokens" in entry):
        raise ValueError(f"{place} of agent {agent!r} needs either token or tokens")
    if "token" in entry:
        tokens = [nonempty(f"{place}.token", entry["token"])]
    elif isinstance(entry["tokens"], (list, tuple)) and entry["tokens"]:
        tokens = [nonempty(f"{place}.tokens[{i}]", token) for i, token in enumerate(entry["tokens"])]
    else:
        raise ValueError(f"{place}.tokens must be a list with at least one token")
    clusters = None
    if entry.get("clusters") is not None:
        if not isinstance(entry["clusters"], (list, tuple)):
            raise ValueError(f"{place}.clusters must be a list of cluster names, or absent for all clusters")
        clusters = frozenset(
            nonempty(f"{place}.clusters[{i}]", name) for i, name in enumerate(entry["clusters"])
        )
    max_weight = entry.get("max_weight")
    if max_weight is not None and (type(max_weight) is not int or not 1 <= max_weight <= 128):
        raise ValueError(f"{place}.max_weight must be an integer from 1 to 128, not {max_weight!r}")
    return Identity(agent, clusters, max_weight, _parse_routes(place, entry)), tokens


def _parse_routes(place: str, entry: Mapping[str, Any]) -> Allowance:
    """Return the domains and ports that an agent may bring."""
    texts: dict[str, list[str]] = {}
    for key in ("domains", "ports"):
        value = entry.get(key)
        if value is not None and not isinstance(value, (list, tuple)):
            raise ValueError(f"{place}.{key} must be a list, or absent for none")
        # YAML parses 2222 as a number.
        texts[key] = [
            str(each) if type(each) is int else nonempty(f"{place}.{key}", each) for each in value or ()
        ]
    try:
        return Allowance.of(texts["domains"], texts["ports"])
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


@implementer(INaming)
class _TokenValidator:
    """Validates tokens that are listed in the configuration."""

    def __init__(self, tokens: _Tokens) -> None:
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
            raise ValueError(f"file: can't read {path}: {error.strerror}") from None
        self._seen = self._tokens

    def _read(self) -> _Tokens:
        text = read_text(self._path, MAX_TOKENS_FILE)
        return _parse_tokens(self._path, parse_document(self._path, text))

    def _refresh(self) -> None:
        now: Signature = signature(self._path)
        if now == self._signature:
            return
        # Taken before reading, so that a change during the read is detected the next time.
        self._signature = now
        try:
            self._tokens = self._read()
        except (OSError, ValueError) as error:
            log.error(
                "the file of tokens {path} changed but can't be used, {count} known tokens stay good: "
                "{reason}",
                path=self._path,
                count=len(self._tokens.digests),
                reason=str(error),
            )
        else:
            log.info(
                "the file of tokens {path} changed, {count} tokens are good now",
                path=self._path,
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


@implementer(IValidatorPlugin)
class StaticValidatorPlugin:
    """The policy C{static} on the server; see the module."""

    name: ClassVar[str] = "static"

    def build(self, config: Mapping[str, Any]) -> IConnectionValidator:
        """
        Make a validator.

        @param config: C{file} or C{tokens}.
        @raise ValueError: if it is invalid, or the file is.
        """
        if only_key("the policy static", config, ("file", "tokens")) == "file":
            return _FileTokens(nonempty("file", config["file"]))
        return _TokenValidator(_parse_tokens("the policy static", config["tokens"]))
