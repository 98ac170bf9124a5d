"""
The credential policy C{test}, which MOSN's sample code registers under that name: for interoperability tests.

It accepts every credential with a certain prefix, and proves no identity.
"""

from __future__ import annotations

__all__ = ["SampleCredentialPlugin", "SampleValidatorPlugin"]

from collections.abc import Mapping
from typing import Any, ClassVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from zope.interface import implementer

from reverseproxy.interfaces import (
    IConnectionValidator,
    ICredentialPlugin,
    ICredentialSource,
    Identity,
    IValidatorPlugin,
)
from reverseproxy.tunnel.plugin_options import Options

log = Logger()

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

        @raise OptionsError: if C{config} is not empty.
        """
        Options(config, ()).raise_errors()
        log.warn("the credential policy test accepts every agent: it is for interoperability tests only")
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

        @raise OptionsError: if C{config} is not empty.
        """
        Options(config, ()).raise_errors()
        return _SampleSource()
