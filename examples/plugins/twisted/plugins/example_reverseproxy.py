"""
Plug-ins as examples: short-lived signed credentials, and servers from the environment.

Both ends share a secret; a credential is C{name:time:signature} and is good
for a minute.
"""

from __future__ import annotations

import hmac
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.plugin import IPlugin
from zope.interface import implementer

from reverseproxy.interfaces import (
    IConnectionValidator,
    ICredentialPlugin,
    ICredentialSource,
    Identity,
    IServerLister,
    IServerListerPlugin,
    IValidatorPlugin,
)

LIFETIME = 60.0


def sign(secret: str, name: str, moment: int, cluster: str) -> str:
    """Sign what a credential says."""
    return hmac.new(secret.encode(), f"{name}:{moment}:{cluster}".encode(), "sha256").hexdigest()


def take(config: Mapping[str, Any], key: str) -> str:
    """Take an option; L{ValueError} is what the user is told."""
    value = config.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} must be a string that is not empty")
    return value


@implementer(ICredentialSource)
class SignedCredential:
    """Makes a new credential for each dial."""

    def __init__(self, name: str, secret: str) -> None:
        self._name = name
        self._secret = secret

    def fetch(self, cluster: str) -> Deferred[str]:
        """See L{ICredentialSource}."""
        moment = int(time.time())
        return succeed(f"{self._name}:{moment}:{sign(self._secret, self._name, moment, cluster)}")


@implementer(IPlugin, ICredentialPlugin)
class SignedCredentialPlugin:
    """C{"credential_policy": "signed"}; C{credential_config} has C{name} and C{secret}."""

    name = "signed"

    def build(self, config: Mapping[str, Any]) -> ICredentialSource:
        """See L{ICredentialPlugin}."""
        return SignedCredential(take(config, "name"), take(config, "secret"))


@implementer(IConnectionValidator)
class SignedValidator:
    """Takes credentials that were signed within the last minute."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def validate(self, credential: str, host_name: str, cluster_name: str) -> Identity | None:
        """See L{IConnectionValidator}."""
        name, _, rest = credential.partition(":")
        moment, _, signature = rest.partition(":")
        if not moment.isdecimal() or abs(time.time() - int(moment)) > LIFETIME:
            return None
        expected = sign(self._secret, name, int(moment), cluster_name)
        if not hmac.compare_digest(signature.encode(), expected.encode()):
            return None
        return Identity(name, clusters=frozenset([cluster_name]))


@implementer(IPlugin, IValidatorPlugin)
class SignedValidatorPlugin:
    """The server's end of the policy C{signed}; its entry in C{validators} has C{secret}."""

    name = "signed"

    def build(self, config: Mapping[str, Any]) -> IConnectionValidator:
        """See L{IValidatorPlugin}."""
        return SignedValidator(take(config, "secret"))


@implementer(IServerLister)
class EnvironmentLister:
    """Reads a list of servers, separated by commas, once."""

    def __init__(self, variable: str) -> None:
        self._variable = variable

    def start(self, update: Callable[[Sequence[str]], None]) -> None:
        """See L{IServerLister}."""
        servers = os.environ.get(self._variable, "").split(",")
        update([server.strip() for server in servers if server.strip()])

    def stop(self) -> None:
        """Nothing goes on."""


@implementer(IPlugin, IServerListerPlugin)
class EnvironmentListerPlugin:
    """C{"dynamic_server_lister": "environment"}; its C{config} has C{variable}."""

    name = "environment"

    def build(self, cluster: str, config: Mapping[str, Any], reactor: IReactorTime) -> IServerLister:
        """See L{IServerListerPlugin}."""
        return EnvironmentLister(take(config, "variable"))


signed_credential = SignedCredentialPlugin()
signed_validator = SignedValidatorPlugin()
environment_lister = EnvironmentListerPlugin()
