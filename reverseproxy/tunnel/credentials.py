"""
The credential policies that are built in.

C{static}: tokens that an operator hands out, each of which belongs to an agent.
The server's C{validators} hold for it one of

 - C{file}: the path of a YAML or JSON file with a list of entries, or with a
   mapping whose key C{tokens} holds that list; it is read anew when it changes,
   so that taking an entry out of it revokes the token at once, also for connections
   that have joined with it;
 - C{tokens}: the list itself.

An entry has C{agent} (a name for logs and for ownership, of 256 characters at
the most), C{token} or C{tokens} (several that are good at the same time, to
change them without a gap), and may have C{clusters} (the only ones it may join),
C{max_weight} (1 to 128), and C{domains} and C{ports}: what the agent may bring
where the server takes routes of agents, such as C{*.tunnels.example.com} and C{2200-2299}.

The agent's C{credential_config} holds one of C{file} (a path), C{token} (the
token itself) and C{env} (the name of an environment variable).  Each dial looks
it up anew.

C{test}: what MOSN's sample code registers under that name, for interoperability
tests.  It keeps nobody out, and says of nobody who they are.
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
"""The largest file of tokens in bytes."""

MAX_AGENT_NAME = 256
"""Characters of an agent's name: other servers of a fleet have to know it, whole, by their records."""

# A misspelt key looks like this; a token that stands where a key should, hardly.
_PLAIN_KEY = re.compile(r"[a-z_]{1,24}", re.IGNORECASE)


def _check_keys(what: str, config: Mapping[str, Any], allowed: Collection[str]) -> None:
    """Refuse keys that would be ignored otherwise, such as misspelt ones."""
    for key in config:
        if key not in allowed:
            keys = f"the keys are {', '.join(allowed)}" if allowed else "it has no keys"
            shown = repr(key) if _PLAIN_KEY.fullmatch(str(key)) else "(not shown, it might be a secret)"
            raise ValueError(f"{what}: unknown key {shown}; {keys}")


def _only_key(what: str, config: Mapping[str, Any], allowed: Collection[str]) -> str:
    """The one key that a configuration has to have."""
    _check_keys(what, config, allowed)
    if len(config) != 1:
        given = " and ".join(config) or "none of them"
        raise ValueError(f"{what}: needs exactly one of {', '.join(allowed)}, got {given}")
    return next(iter(config))


def _nonempty(what: str, value: object) -> str:
    """Take a string that may be a secret: it is not quoted."""
    if isinstance(value, str) and value:
        return value
    hint = "an empty one" if value == "" else f"{type(value).__name__}; put quotes around it"
    raise ValueError(f"{what} must be a string that is not empty, got {hint}")


# static, on the server


def _digest(token: str) -> bytes:
    """Bring tokens to one length, so that comparing them does not tell theirs."""
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True, slots=True)
class _Tokens:
    """Digests of tokens, and at the same places whom they belong to."""

    digests: tuple[bytes, ...] = field(repr=False)
    identities: tuple[Identity, ...]
    by_digest: Mapping[bytes, Identity] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_digest", dict(zip(self.digests, self.identities, strict=True)))

    def find_known(self, credential: str) -> Identity | None:
        """The same, of one that was good once: nobody learns anything of how long this takes."""
        return self.by_digest.get(_digest(credential))

    def may_join(self, name: str, cluster: str) -> bool:
        """Whether anybody of this name may join a cluster."""
        return any(
            each.name == name and (each.clusters is None or cluster in each.clusters)
            for each in self.identities
        )

    def allowance_of(self, name: str) -> Allowance | None:
        """Which routes somebody of this name may bring; L{None} if there is nobody."""
        found: Allowance | None = None
        for each in self.identities:
            if each.name == name:
                found = each.routes if found is None else found | each.routes
        return found

    def find(self, credential: str) -> Identity | None:
        """
        Find out whose a token is.

        Every entry is compared, each in constant time, so that the time this
        takes tells neither how close a guess came nor which entry it met.
        """
        equal = map(hmac.compare_digest, self.digests, repeat(_digest(credential)))
        found = list(compress(self.identities, equal))
        return found[0] if found else None


def _parse_tokens(where: str, document: object) -> _Tokens:
    """
    Take a list of entries, or a mapping with it.

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
    """The domains and the ports that an agent may bring."""
    texts: dict[str, list[str]] = {}
    for key in ("domains", "ports"):
        value = entry.get(key)
        if value is not None and not isinstance(value, (list, tuple)):
            raise ValueError(f"{place}.{key} must be a list, or absent for none")
        # YAML has 2222 for a number.
        texts[key] = [
            str(each) if type(each) is int else _nonempty(f"{place}.{key}", each) for each in value or ()
        ]
    try:
        return Allowance.of(texts["domains"], texts["ports"])
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


@implementer(INaming)
class _TokenValidator:
    """Knows tokens, such as those that stand in the configuration."""

    def __init__(self, tokens: _Tokens) -> None:
        self._tokens = tokens

    def validate(self, credential: str, host_name: str, cluster_name: str) -> Identity | None:
        """Say whose token this is; see L{IConnectionValidator.validate}."""
        return self._tokens.find(credential)

    def look(self) -> bool:
        """See L{IRevoking}: nothing changes but the whole validator."""
        return False

    def judge_again(self, credential: str, host_name: str, cluster_name: str) -> Identity | None:
        """See L{IRevoking.judge_again}."""
        return self._tokens.find_known(credential)

    def may_join(self, name: str, cluster_name: str) -> bool:
        """See L{INaming}."""
        return self._tokens.may_join(name, cluster_name)

    def allowance_of(self, name: str) -> Allowance | None:
        """See L{INaming}."""
        return self._tokens.allowance_of(name)


class _FileTokens(_TokenValidator):
    """
    Tokens in a file.

    The file's metadata is looked at before each use.  A file that can't be
    used, perhaps because it is being written, changes nothing.
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
        # Taken before reading: a change during the read is seen the next time.
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
        """Say whose token this is; see L{IConnectionValidator.validate}."""
        self._refresh()
        return self._tokens.find(credential)

    def look(self) -> bool:
        """See L{IRevoking}."""
        self._refresh()
        seen, self._seen = self._seen, self._tokens
        return seen is not self._seen


@implementer(IValidatorPlugin)
class StaticValidatorPlugin:
    """Tokens that an operator hands out, on the server; see the module."""

    name: ClassVar[str] = "static"

    def build(self, config: Mapping[str, Any]) -> IConnectionValidator:
        """
        Make a validator.

        @param config: C{file} or C{tokens}.
        @raise ValueError: if it can't be used, or the file can't.
        """
        if _only_key("the policy static", config, ("file", "tokens")) == "file":
            return _FileTokens(_nonempty("file", config["file"]))
        return _TokenValidator(_parse_tokens("the policy static", config["tokens"]))


# static, on the agent


@implementer(ICredentialSource, ICredentialCheck)
class _LookedUp:
    """A credential that is looked up anew for each dial."""

    def __init__(self, look_up: Callable[[], str]) -> None:
        self._look_up = look_up

    def fetch(self, cluster: str) -> Deferred[str]:
        """The credential as it is now; see L{ICredentialSource.fetch}."""
        return maybeDeferred(self._look_up)

    def check(self) -> None:
        """See whether there is one now; see L{ICredentialCheck.check}."""
        self._look_up()


def _from_file(path: str) -> str:
    try:
        # What is larger does not fit into a frame.
        text = read_text(path, MAX_PAYLOAD)
    except OSError as error:
        raise CredentialMissing(f"can't read the credential from {path}: {error.strerror}") from None
    except ValueError as error:
        raise CredentialMissing(f"can't use the credential: {error}") from None
    # An editor or echo leaves one line end; further ones may belong to it.
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
    """Tokens that an operator hands out, on the agent; see the module."""

    name: ClassVar[str] = "static"

    def build(self, config: Mapping[str, Any]) -> ICredentialSource:
        """
        Make a source.

        @param config: C{file}, C{token} or C{env}.
        @raise ValueError: if it can't be used.  A file or a variable that is
            missing is no such case: it may come later, and each dial looks.
        """
        key = _only_key("the policy static", config, ("file", "token", "env"))
        value = _nonempty(key, config[key])
        if key == "file":
            return _LookedUp(lambda: _from_file(value))
        if key == "env":
            return _LookedUp(lambda: _from_environment(value))
        return _LookedUp(lambda: value)


# test

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
    """Takes whatever begins with C{prefix_}, as MOSN's sample does: for tests only."""

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
    """Gives C{prefix__} and the cluster's name, as MOSN's sample does: for tests only."""

    name: ClassVar[str] = "test"

    def build(self, config: Mapping[str, Any]) -> ICredentialSource:
        """
        Make a source.

        @raise ValueError: if C{config} is not empty.
        """
        _check_keys("the policy test", config, ())
        return _SampleSource()
