"""
The built-in credential policies.

C{static}: tokens that an operator issues, each of which belongs to an agent. Its configuration among the
server's C{validators} has one of

 - C{file}: the path of a YAML or JSON file with a list of entries, or with a mapping whose key C{tokens}
   has that list. It is read again when it changes, so that removing an entry revokes its token at once,
   also for connections that have joined with it;
 - C{tokens}: the list itself.

An entry has C{agent} (a name for logs and for ownership, of at most 256 characters) and C{token} or
C{tokens} (several that are valid at the same time, to change them without a gap). It may have
C{clusters} (the only ones that the agent may join), C{max_weight} (1 to 128), and C{domains} and
C{ports}: the routes that the agent may bring where the server accepts routes of agents, such as
C{*.tunnels.example.com} and C{2200-2299}.

The agent's C{credential_config} has one of C{file} (a path), C{token} (the token itself) and C{env} (the
name of an environment variable). It is looked up again for each dial.

C{test}: the policy that MOSN's sample code registers under that name, for interoperability tests. It
accepts every credential with a certain prefix, and identifies nobody.
"""

from __future__ import annotations

__all__ = [
    "SampleCredentialPlugin",
    "SampleValidatorPlugin",
    "StaticCredentialPlugin",
    "StaticValidatorPlugin",
]

import hmac
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import compress, repeat
from typing import Any, ClassVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from zope.interface import implementer

from reverseproxy.errors import CredentialMissing
from reverseproxy.identity.allowance import Allowance
from reverseproxy.interfaces import (
    IConnectionValidator,
    ICredentialCheck,
    ICredentialPlugin,
    ICredentialSource,
    Identity,
    INaming,
    IValidatorPlugin,
)
from reverseproxy.tunnel.watched_files import Signature, parse_document, read_text, signature
from reverseproxy.wire.mosn.frames import MAX_PAYLOAD

log = Logger()

MAX_TOKENS_FILE = 16 * 1024 * 1024
"""Bytes of a file of tokens, at most."""

MAX_AGENT_NAME = 256
"""Characters of an agent's name, at most: records of a fleet have room for it in full."""

# A misspelt key looks like this; a token in the place of a key hardly does.
_PLAIN_KEY = re.compile(r"[a-z_]{1,24}", re.IGNORECASE)


def _check_keys(what: str, config: Mapping[str, Any], allowed: Collection[str]) -> None:
    """Raise L{ValueError} for unknown keys, such as misspelt ones."""
    for key in config:
        if key not in allowed:
            keys = f"the keys are {', '.join(allowed)}" if allowed else "it has no keys"
            shown = repr(key) if _PLAIN_KEY.fullmatch(str(key)) else "(not shown, it might be a secret)"
            raise ValueError(f"{what}: unknown key {shown}; {keys}")


def _only_key(what: str, config: Mapping[str, Any], allowed: Collection[str]) -> str:
    """Return the single key that a configuration must have; raise L{ValueError} otherwise."""
    _check_keys(what, config, allowed)
    if len(config) != 1:
        given = " and ".join(config) or "none of them"
        raise ValueError(f"{what}: needs exactly one of {', '.join(allowed)}, got {given}")
    return next(iter(config))


def _nonempty(what: str, value: object) -> str:
    """Return a string that is not empty; it may be a secret, and is not quoted in errors."""
    if isinstance(value, str) and value:
        return value
    hint = "an empty one" if value == "" else f"{type(value).__name__}; put quotes around it"
    raise ValueError(f"{what} must be a string that is not empty, got {hint}")


# the policy static, on the server


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
        _check_keys(where, document, ("tokens",))
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
    _check_keys(place, entry, _ENTRY_KEYS)
    agent = _nonempty(f"{place}.agent", entry.get("agent"))
    if len(agent) > MAX_AGENT_NAME:
        raise ValueError(f"{place}.agent has {len(agent)} characters, {MAX_AGENT_NAME} are the most")
    if ("token" in entry) == ("tokens" in entry):
        raise ValueError(f"{place} of agent {agent!r} needs either token or tokens")
    if "token" in entry:
        tokens = [_nonempty(f"{place}.token", entry["token"])]
    elif isinstance(entry["tokens"], (list, tuple)) and entry["tokens"]:
        tokens = [_nonempty(f"{place}.tokens[{i}]", token) for i, token in enumerate(entry["tokens"])]
    else:
        raise ValueError(f"{place}.tokens must be a list with at least one token")
    clusters = None
    if entry.get("clusters") is not None:
        if not isinstance(entry["clusters"], (list, tuple)):
            raise ValueError(f"{place}.clusters must be a list of cluster names, or absent for all clusters")
        clusters = frozenset(
            _nonempty(f"{place}.clusters[{i}]", name) for i, name in enumerate(entry["clusters"])
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
            str(each) if type(each) is int else _nonempty(f"{place}.{key}", each) for each in value or ()
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
        if _only_key("the policy static", config, ("file", "tokens")) == "file":
            return _FileTokens(_nonempty("file", config["file"]))
        return _TokenValidator(_parse_tokens("the policy static", config["tokens"]))


# the policy static, on the agent


@implementer(ICredentialSource, ICredentialCheck)
class _LookedUp:
    """A credential that is looked up for each dial."""

    def __init__(self, look_up: Callable[[], str]) -> None:
        self._look_up = look_up

    def fetch(self, cluster: str) -> Deferred[str]:
        """Look the credential up; see L{ICredentialSource.fetch}."""
        return maybeDeferred(self._look_up)

    def check(self) -> None:
        """Raise if there is no credential now; see L{ICredentialCheck.check}."""
        self._look_up()


def _from_file(path: str) -> str:
    try:
        # A larger one does not fit into a frame.
        text = read_text(path, MAX_PAYLOAD)
    except OSError as error:
        raise CredentialMissing(f"can't read the credential from {path}: {error.strerror}") from None
    except ValueError as error:
        raise CredentialMissing(f"can't use the credential: {error}") from None
    # Editors and echo append one line end; further ones may belong to the credential.
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise CredentialMissing(f"the file {path} holds no credential, it is empty")
    return text


def _from_environment(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        state = "not set" if value is None else "empty"
        raise CredentialMissing(f"the environment variable {name} holds no credential, it is {state}")
    return value


@implementer(ICredentialPlugin)
class StaticCredentialPlugin:
    """The policy C{static} on the agent; see the module."""

    name: ClassVar[str] = "static"

    def build(self, config: Mapping[str, Any]) -> ICredentialSource:
        """
        Make a source.

        @param config: C{file}, C{token} or C{env}.
        @raise ValueError: if it is invalid. A missing file or variable is not an error: it may come
            later, and is looked up for each dial.
        """
        key = _only_key("the policy static", config, ("file", "token", "env"))
        value = _nonempty(key, config[key])
        if key == "file":
            return _LookedUp(lambda: _from_file(value))
        if key == "env":
            return _LookedUp(lambda: _from_environment(value))
        return _LookedUp(lambda: value)


# the policy test

_SAMPLE_PREFIX = "prefix_"


@implementer(IConnectionValidator)
class _SampleValidator:
    def validate(self, credential: str, host_name: str, cluster_name: str) -> Identity | None:
        return Identity("") if credential.startswith(_SAMPLE_PREFIX) else None


@implementer(ICredentialSource)
class _SampleSource:
    def fetch(self, cluster: str) -> Deferred[str]:
        return maybeDeferred("{}_{}".format, _SAMPLE_PREFIX, cluster)


@implementer(IValidatorPlugin)
class SampleValidatorPlugin:
    """
    The policy C{test} on the server: accepts whatever begins with C{prefix_}, as MOSN's sample does. For
    tests only.
    """

    name: ClassVar[str] = "test"

    def build(self, config: Mapping[str, Any]) -> IConnectionValidator:
        """
        Make a validator.

        @raise ValueError: if C{config} is not empty.
        """
        _check_keys("the policy test", config, ())
        log.warn("the credential policy test keeps nobody out: it is for interoperability tests only")
        return _SampleValidator()


@implementer(ICredentialPlugin)
class SampleCredentialPlugin:
    """
    The policy C{test} on the agent: sends C{prefix__} and the cluster's name, as MOSN's sample does. For
    tests only.
    """

    name: ClassVar[str] = "test"

    def build(self, config: Mapping[str, Any]) -> ICredentialSource:
        """
        Make a source.

        @raise ValueError: if C{config} is not empty.
        """
        _check_keys("the policy test", config, ())
        return _SampleSource()
