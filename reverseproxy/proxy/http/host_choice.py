"""Decide which hosts may serve a request: those that speak its protocol and have not failed it."""

from __future__ import annotations

__all__ = ["MOST_UNCOUNTED", "MOST_PASSED", "REMEMBERING", "HostChoice"]

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final

from reverseproxy.errors import NoHealthyHost, QueueTimeout
from reverseproxy.interfaces import PickContext
from reverseproxy.proxy.flags import ResponseFlag
from reverseproxy.proxy.http.setbacks import Setbacks
from reverseproxy.wire.http.unsent import Unsent

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host
    from reverseproxy.cluster.narrowed import ICluster
    from reverseproxy.routing import ClusterRoute, RouteInput

MOST_UNCOUNTED: Final = 16
"""Attempts of a request that don't count, at the most."""

MOST_PASSED: Final = 256
"""Hosts of a cluster that are passed over, as they speak something else, before a request gives up."""

_DEAF: Final = 2
"""Of these, a host that does not speak the protocol at all counts for as many, as others will not either."""

_HASHING: Final = frozenset({"LB_MAGLEV"})
"""Balancers that go by a request's hash key."""

REMEMBERING: Final = frozenset({"LB_MAGLEV", "LB_REQUEST_ROUNDROBIN"})
"""Balancers that go by what they have picked for the request before."""


class HostChoice:
    """
    The part of an exchange that knows which hosts its request may go to.

    @ivar protocol: what is spoken to hosts: the key of their pools in
        L{Host.pools}.
    @ivar cluster: the cluster of the route.
    @ivar host: the last host that was picked, for logs.
    """

    __slots__ = (
        "_attempts",
        "_context",
        "_setbacks",
        "cluster",
        "host",
        "protocol",
    )

    cluster: ICluster | None
    host: Host | None
    protocol: str
    _context: PickContext | None
    _attempts: int
    _setbacks: Setbacks | None  # once an attempt has failed

    # what a subclass does

    def _alternatives(self) -> Sequence[str]:
        """Return the other protocols that the request can be translated to, as keys of C{Host.pools}."""
        return ()

    @property
    def _client_chose(self) -> bool:
        """
        Whether the protocol towards hosts is the client's own choice, among several that the listener takes.
        """
        return False

    # what it has come to

    @property
    def attempts(self) -> int:
        """How many hosts were picked, or waited for, one after the other."""
        setbacks = self._setbacks
        return self._attempts if setbacks is None else self._attempts + setbacks.uncounted

    def _note_setback(self) -> Setbacks:
        """Return the record of failed attempts, and make it if there is none."""
        setbacks = self._setbacks
        if setbacks is None:
            setbacks = self._setbacks = Setbacks()
        return setbacks

    @property
    def _announced_protocol(self) -> str:
        """The protocol towards hosts, by the name that agents announce it by."""
        return self.protocol

    def _set_balancing(self, route: ClusterRoute, facts: RouteInput, client_ip: str, lb_type: str) -> None:
        """Give the load balancer what the route has for it: a hash key, and labels."""
        if route.metadata is not None or lb_type in REMEMBERING:
            key = route.hash_key(facts, client_ip) if lb_type in _HASHING else None
            self._context = PickContext(hash_key=key, metadata=route.metadata)

    def _require_labels(self, route: ClusterRoute, labels: Mapping[str, str]) -> None:
        """Demand hosts with the labels of a filter, which override the route's."""
        if self._context is None:
            self._context = PickContext()
        self._context.metadata = {**(route.metadata or {}), **labels}

    def _suits(self, host: Host) -> bool:
        """
        Return whether a host speaks our protocol, or one that the request can be translated to.

        A reverse connection speaks the protocol of its first request for as long
        as it lives: the listener that hosts it has decided on one by then.
        """
        support = host.protocol_support
        if self._is_free(host, self.protocol) and (
            support is None or support.may_try(self._announced_protocol)
        ):
            return True
        fitting = [each for each in self._alternatives() if self._is_free(host, each)]
        if support is not None:
            # What it is known to speak is no experiment.
            known = [each for each in fitting if support.speaks(each)]
            fitting = known or list(islice(filter(support.may_try, fitting), 1))
        if not fitting:
            return False
        self.protocol = fitting[0]
        return True

    def _is_free(self, host: Host, protocol: str) -> bool:
        """Return whether a host's only connection, if it has but one, can carry a protocol."""
        if host.exclusive and host.pools and protocol not in host.pools:
            return False
        return host.committed_protocol in ("", protocol)

    def _is_foreign(self) -> bool:
        """
        Return whether a host that did not answer does not speak the protocol that the client chose.

        Then that is no fault of the host's, and the cluster knows it from now on.
        """
        host, cluster = self.host, self.cluster
        if host is None or cluster is None or not self._client_chose:
            return False
        return cluster.members.protocol_support.note_silence(host, self._announced_protocol)

    def _is_at_fault(self) -> bool:
        """
        Return whether an error of the host, or its silence, is its own fault.

        It is not in what the client has chosen and the host has never served: an agent
        answers by itself for a service that does not speak that.
        """
        host, cluster = self.host, self.cluster
        return (
            host is None
            or cluster is None
            or not self._client_chose
            or cluster.members.protocol_support.serves(host, self._announced_protocol)
        )

    def _note_excusable_error(self, host: Host) -> None:
        """Note an error of a host that is not the host's fault."""
        assert self.cluster is not None
        self.cluster.members.protocol_support.erred(host, self._announced_protocol)

    def _pass_over(self, host: Host) -> None:
        """Give back a host that speaks another protocol, and exclude it from this request."""
        self._exclude(host)
        support = host.protocol_support
        deaf = support is not None and not support.speaks(self._announced_protocol)
        setbacks = self._note_setback()
        setbacks.passed_over += _DEAF if deaf else 1
        setbacks.trouble = f"host {host.address} does not speak {self._announced_protocol}", ResponseFlag.UPE
        assert self.cluster is not None
        self.cluster.release(host)

    def _exclude(self, host: Host) -> None:
        """Exclude a host from this request."""
        if self._context is None:
            self._context = PickContext()
        self._context.tried.add(host)

    def _exclude_agent(self, host: Host) -> None:
        """Exclude a host that failed, and the others of its agent, from this request."""
        if self._context is None:
            self._context = PickContext()
        assert self.cluster is not None
        self.cluster.exclude_agent(host, self._context)

    def _try_last(self, host: Host) -> None:
        """Pick a host that failed only if there is no other."""
        self._exclude_agent(host)
        if host.usable():
            context = self._context
            assert context is not None
            context.tried.discard(host)
            context.deprioritize((host,))

    def _discount_attempt(self) -> None:
        """
        Don't count an attempt in which nothing was sent: an agent may have many hosts like this one.

        An agent's connections come and go together, and what one of them could
        not do says nothing of others'.
        """
        setbacks = self._note_setback()
        if setbacks.uncounted < MOST_UNCOUNTED:
            setbacks.uncounted += 1
            self._attempts -= 1

    def _has_others(self, host: Host, why: Unsent) -> bool:
        """
        Note that an agent did not forward the request.

        @return: whether there are hosts of others that may do so.
        """
        cluster = self.cluster
        assert cluster is not None
        if self._context is None:
            self._context = PickContext()
        cluster.exclude_unsent(host, self._context)
        if why is Unsent.SERVICE:
            cluster.service_health.doubt(host)
        self._discount_attempt()
        return cluster.has_others(self._context)

    def _readmit(self, error: BaseException | None) -> bool:
        """
        Return whether a host can be picked after all, among those excluded because another of their agent
        failed.
        """
        if (
            not isinstance(error, NoHealthyHost | QueueTimeout)
            or self._context is None
            or not self._context.readmit()
        ):
            return False
        self._attempts -= 1
        return True
