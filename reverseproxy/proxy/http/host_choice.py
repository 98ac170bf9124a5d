"""
Which hosts will do for a request: those that speak what it is in, and have not failed it.
"""

from __future__ import annotations

__all__ = ["MOST_FORGIVEN", "MOST_PASSED", "REMEMBERING", "HostChoice"]

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

MOST_FORGIVEN: Final = 16
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
    The part of an exchange that knows what it wants of a host.

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
        """Say which other protocols the request can be turned into, the keys of their pools."""
        return ()

    @property
    def _chosen(self) -> bool:
        """Whether what is spoken to hosts is what the client happens to speak, of several."""
        return False

    # what it has come to

    @property
    def attempts(self) -> int:
        """How many hosts were taken, one after the other, or waited for."""
        setbacks = self._setbacks
        return self._attempts if setbacks is None else self._attempts + setbacks.uncounted

    def _note_setback(self) -> Setbacks:
        """Find what is known of failed attempts, to add to it."""
        setbacks = self._setbacks
        if setbacks is None:
            setbacks = self._setbacks = Setbacks()
        return setbacks

    @property
    def _language(self) -> str:
        """What is spoken to hosts, as agents announce it."""
        return self.protocol

    def _demand(self, route: ClusterRoute, facts: RouteInput, client_ip: str, lb_type: str) -> None:
        """Keep what the balancer is to go by."""
        if route.metadata is not None or lb_type in REMEMBERING:
            key = route.hash_key(facts, client_ip) if lb_type in _HASHING else None
            self._context = PickContext(hash_key=key, metadata=route.metadata)

    def _demand_labels(self, route: ClusterRoute, labels: Mapping[str, str]) -> None:
        """Have hosts with what a filter demands, rather than the route."""
        if self._context is None:
            self._context = PickContext()
        self._context.metadata = {**(route.metadata or {}), **labels}

    def _suits(self, host: Host) -> bool:
        """
        Look whether a host speaks our protocol, or one that the request can be turned into.

        A reverse connection speaks the protocol of its first request for as long
        as it lives: the listener that hosts it has decided on one by then.
        """
        support = host.protocol_support
        if self._is_free(host, self.protocol) and (support is None or support.may_try(self._language)):
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
        """Whether a host's connection, if it has but one, can carry a protocol."""
        if host.exclusive and host.pools and protocol not in host.pools:
            return False
        return host.committed_protocol in ("", protocol)

    def _is_foreign(self) -> bool:
        """
        See whether a host that has not answered does not speak what the client has chosen.

        Then that is no fault of the host's, and the cluster knows it from now on.
        """
        host, cluster = self.host, self.cluster
        if host is None or cluster is None or not self._chosen:
            return False
        return cluster.members.protocol_support.note_silence(host, self._language)

    def _is_to_blame(self) -> bool:
        """
        Whether an error of the host, or its silence, is its fault.

        It is not in what the client has chosen and the host has never served: an agent
        answers by itself for a service that does not speak that.
        """
        host, cluster = self.host, self.cluster
        return (
            host is None
            or cluster is None
            or not self._chosen
            or cluster.members.protocol_support.serves(host, self._language)
        )

    def _excuse(self, host: Host) -> None:
        """Keep in mind that a host has answered with an error that is not its fault."""
        assert self.cluster is not None
        self.cluster.members.protocol_support.erred(host, self._language)

    def _pass(self, host: Host) -> None:
        """Give back a host that speaks another protocol, and ask for it no more."""
        self._avoid(host)
        support = host.protocol_support
        deaf = support is not None and not support.speaks(self._language)
        setbacks = self._note_setback()
        setbacks.passed_over += _DEAF if deaf else 1
        setbacks.trouble = f"host {host.address} does not speak {self._language}", ResponseFlag.UPE
        assert self.cluster is not None
        self.cluster.release(host)

    def _avoid(self, host: Host) -> None:
        """Don't take this host again for this request."""
        if self._context is None:
            self._context = PickContext()
        self._context.tried.add(host)

    def _shun(self, host: Host) -> None:
        """Don't take this host again, which has failed, and neither others that may fail like it."""
        if self._context is None:
            self._context = PickContext()
        assert self.cluster is not None
        self.cluster.exclude_agent(host, self._context)

    def _postpone(self, host: Host) -> None:
        """Take this host, which has failed, again only if there is no other."""
        self._shun(host)
        if host.usable():
            context = self._context
            assert context is not None
            context.tried.discard(host)
            context.deprioritize((host,))

    def _forgive(self) -> None:
        """
        Don't count an attempt in which nothing was sent, as others may be many.

        An agent's connections come and go together, and what one of them could
        not do says nothing of others'.
        """
        setbacks = self._note_setback()
        if setbacks.uncounted < MOST_FORGIVEN:
            setbacks.uncounted += 1
            self._attempts -= 1

    def _has_others(self, host: Host, why: Unsent) -> bool:
        """
        Take note that an agent has not sent the request on.

        @return: whether there are hosts of others that may do so.
        """
        cluster = self.cluster
        assert cluster is not None
        if self._context is None:
            self._context = PickContext()
        cluster.exclude_unsent(host, self._context)
        if why is Unsent.SERVICE:
            cluster.service_health.doubt(host)
        self._forgive()
        return cluster.has_others(self._context)

    def _lift(self, error: BaseException | None) -> bool:
        """Ask whether there is another host after all, although it may fail like one that has."""
        if (
            not isinstance(error, NoHealthyHost | QueueTimeout)
            or self._context is None
            or not self._context.readmit()
        ):
            return False
        self._attempts -= 1
        return True
