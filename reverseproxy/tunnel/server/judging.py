"""Validation of credentials: which validator is asked, and how long guessers wait."""

from __future__ import annotations

__all__ = ["CredentialJudge", "make_validators"]

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.models import TunnelConfig
from reverseproxy.interfaces import IConnectionValidator, Identity
from reverseproxy.problems import PART
from reverseproxy.tunnel.server.guesses import GuessGate

log = Logger(__package__)

FindValidator = Callable[[str, Mapping[str, Any]], IConnectionValidator]
"""Makes the validator of a credential policy, given its configuration."""


def make_validators(config: TunnelConfig, find_validator: FindValidator) -> dict[str, IConnectionValidator]:
    """
    Make the validators of all policies that a tunnel filter names, by the name of the policy.

    @raise ConfigError: for each policy that is unknown or whose options are wrong, placed in the filter.
    """
    part = PART / "config"
    named = {policy: part / "validators" / policy for policy in config.validators}
    for cluster, policy in config.cluster_credential_policies.items():
        named[policy] = part / "cluster_credential_policies" / cluster
    named[config.credential_policy] = part / "credential_policy"
    findings = Diagnostics()
    validators: dict[str, IConnectionValidator] = {}
    for policy in sorted(named.keys() - {""}):
        build = partial(find_validator, policy, config.validators.get(policy, {}))
        # Options that are missing are missing where the policy is demanded.
        options = part / "validators" / policy if policy in config.validators else named[policy]
        validator = findings.attempt(options, build, named[policy])
        if validator is not None:
            validators[policy] = validator
    findings.raise_errors()
    return validators


class CredentialJudge:
    """Asks validators about the credentials of one listener's agents."""

    def __init__(
        self,
        listener: str,
        clock: IReactorTime,
        find_validator: FindValidator,
        policies: Collection[str] = (),
    ) -> None:
        """
        @param policies: those that agents may use where none is demanded, if their validators need no
            configuration.
        """
        self._listener = listener
        self._clock = clock
        self._find_validator = find_validator
        self._policies = frozenset(policies)
        self._unconfigured: dict[str, IConnectionValidator | None] = {}
        self._guesses = GuessGate()

    @property
    def unconfigured(self) -> Iterable[IConnectionValidator]:
        """The validators in use that the configuration does not name."""
        return filter(None, self._unconfigured.values())

    def take_over(self, newer: CredentialJudge) -> None:
        """Use the validators of another one; delays of guessers stay."""
        self._policies = newer._policies
        self._find_validator = newer._find_validator
        self._unconfigured = newer._unconfigured

    def find_unconfigured(self, policy: str) -> IConnectionValidator | None:
        """Return the validator of a policy that is not configured, which is made at its first use."""
        if policy not in self._policies:
            return None
        if policy not in self._unconfigured:
            try:
                self._unconfigured[policy] = self._find_validator(policy, {})
            except ValueError as error:
                self._unconfigured[policy] = None
                log.warn(
                    "{listener}: agents use the credential policy {policy}, which is not configured here: "
                    "{reason}",
                    listener=self._listener,
                    policy=policy,
                    reason=str(error),
                )
            else:
                log.warn(
                    "{listener}: agents use the credential policy {policy}, which is not required: agents "
                    "without any credential are accepted too",
                    listener=self._listener,
                    policy=policy,
                )
        return self._unconfigured[policy]

    async def wait_for_turn(self, address: str) -> None:
        """Wait for as long as an address has to that was refused often."""
        wait = self._guesses.wait(address, self._clock.seconds())
        if wait > 0:
            await deferLater(self._clock, wait)

    def count_refusal(self, address: str) -> None:
        """Count a refusal of an address."""
        self._guesses.refuse(address, self._clock.seconds())

    async def validate(
        self, validator: IConnectionValidator | None, credential: str, host_name: str, cluster: str
    ) -> Identity | None:
        """
        Ask a validator.

        @return: its result; L{None} if it rejects the credential or fails, or if there is no validator.
        """
        if validator is None:
            return None
        try:
            verdict = validator.validate(credential, host_name, cluster)
            return await verdict if isinstance(verdict, Deferred) else verdict
        except CancelledError:
            return None  # the agent has closed the connection
        except Exception:
            log.failure("{listener}: a credential validator failed", listener=self._listener)
            return None
