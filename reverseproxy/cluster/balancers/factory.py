"""
Make the load balancer that a cluster's configuration names.

Load balancers work on thousands of hosts that change all the time, so nothing is
rebuilt when a host is added or removed, and busy hosts cost nothing to skip.
Randomness and time are injected.

The types are:

    LB_RANDOM: L{RandomBalancer}
    LB_ROUNDROBIN: L{RoundRobinBalancer}
    LB_WEIGHTED_ROUNDROBIN: L{WeightedRoundRobinBalancer}
    LB_LEAST_REQUEST: L{LeastRequestBalancer}
    LB_LEAST_CONNECTION: L{LeastConnectionBalancer}
    LB_PEAK_EWMA: L{PeakEwmaBalancer}
    LB_MAGLEV: L{MaglevBalancer}
    LB_REQUEST_ROUNDROBIN: L{RequestRoundRobinBalancer}

With slow start, the types that use weights become weighted round robin
(L{ScaledWeightedRoundRobinBalancer}), as in MOSN.  With subsets, each subset has a load
balancer of its own.  With several workers, each is a L{LocalityBalancer} of two, except
for LB_MAGLEV and LB_REQUEST_ROUNDROBIN, for which all workers must agree on the host.  In
a fleet, a L{FleetBalancer} has one of these for each server; LB_MAGLEV is an
L{AgentRing} then, and LB_REQUEST_ROUNDROBIN an L{AgentOrder}.
"""

from __future__ import annotations

__all__ = [
    "LeastConnectionBalancer",
    "LeastRequestBalancer",
    "MaglevBalancer",
    "LocalityBalancer",
    "PeakEwmaBalancer",
    "RandomBalancer",
    "RequestRoundRobinBalancer",
    "RoundRobinBalancer",
    "ScaledWeightedRoundRobinBalancer",
    "SubsetBalancer",
    "WeightedRoundRobinBalancer",
    "uses_weights",
    "is_deterministic",
    "make_balancer",
    "make_tracker",
]

import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from reverseproxy.cluster.balancers.agent_ring import AgentOrder, AgentRing
from reverseproxy.cluster.balancers.consistent import MaglevBalancer
from reverseproxy.cluster.balancers.fleet import FleetBalancer, FleetView
from reverseproxy.cluster.balancers.load import (
    LeastConnectionBalancer,
    LeastRequestBalancer,
    PeakEwmaBalancer,
    connection_load,
    request_load,
)
from reverseproxy.cluster.balancers.locality import LocalityBalancer
from reverseproxy.cluster.balancers.peak_ewma import EwmaTracker
from reverseproxy.cluster.balancers.random_choice import RandomBalancer
from reverseproxy.cluster.balancers.round_robin import (
    RequestRoundRobinBalancer,
    RoundRobinBalancer,
    ScaledWeightedRoundRobinBalancer,
    WeightedRoundRobinBalancer,
)
from reverseproxy.cluster.balancers.slow_start import SlowStart
from reverseproxy.cluster.balancers.subsets import SubsetBalancer
from reverseproxy.interfaces import IHost, ILoadBalancer

if TYPE_CHECKING:
    from reverseproxy.config.models import ClusterConfig

log = Logger()

_T = TypeVar("_T")

_BY_LOAD: Final = frozenset({"LB_LEAST_REQUEST", "LB_LEAST_CONNECTION", "LB_PEAK_EWMA"})


def make_tracker(config: ClusterConfig, clock: IReactorTime) -> EwmaTracker | None:
    """Make the tracker of response times, if the cluster's C{lb_type} uses them."""
    if config.lb_type != "LB_PEAK_EWMA":
        return None
    options = config.lbconfig
    return EwmaTracker(
        clock,
        config.connect_timeout + (config.idle_timeout or 0.0),
        options.active_request_bias,
        options.client_error_bias,
        options.server_error_bias,
    )


def make_balancer(
    config: ClusterConfig,
    random: random.Random,
    clock: IReactorTime | None = None,
    tracker: EwmaTracker | None = None,
    workers: int = 1,
    fleet: FleetView | None = None,
) -> ILoadBalancer:
    """
    Make the balancer that a cluster's C{lb_type} names, with its slow start and subsets.

    An empty or unknown type is round robin, as in MOSN.

    @param clock: for the age of hosts, and for how long subsets have been empty.
    @param tracker: as L{make_tracker} returns it.
    @param workers: the number of workers that share the cluster's agents.
    @param fleet: the fleet that this server belongs to; L{None} for none.
    @raise ValueError: if the configuration needs a clock or a tracker, and there
        is none.
    """
    make: Callable[[], ILoadBalancer] = partial(_make_one, config, random, clock, tracker)
    if workers > 1 and not is_deterministic(config):
        make = partial(LocalityBalancer, make, random.random, workers)
    if fleet is not None:
        make = partial(_for_fleet, config, make, random, fleet)
    subsets = config.lb_subset_config
    if not subsets.subset_selectors:
        return make()
    return SubsetBalancer(
        make,
        _needed(clock, config).seconds,
        subsets.subset_selectors,
        subsets.fall_back_policy,
        subsets.default_subset,
    )


def _for_fleet(
    config: ClusterConfig, make: Callable[[], ILoadBalancer], random: random.Random, fleet: FleetView
) -> ILoadBalancer:
    """
    Make a load balancer for the hosts of all servers.

    @param make: makes one for the hosts of a single server.
    """
    weigh = _weight if uses_weights(config) else _turns_of
    if is_deterministic(config):
        near: ILoadBalancer = RoundRobinBalancer()
    else:
        near = make()
    # A host of another server represents all connections of its agent there.
    far = make if config.lb_type in _BY_LOAD else WeightedRoundRobinBalancer
    both = FleetBalancer(near, far, random.random, fleet.servers, weigh, fleet.reaches)
    if not is_deterministic(config):
        return both
    settled = AgentRing if config.lb_type == "LB_MAGLEV" else AgentOrder
    return settled(both, fleet.name_of, fleet.reaches)


def _weight(host: IHost) -> int:
    return host.weight


def _turns_of(host: IHost) -> int:
    return host.weight if host.server else 1


def uses_weights(config: ClusterConfig) -> bool:
    """Return whether a host's weight determines how many requests it gets."""
    return (
        config.slow_start.enabled or config.lb_type == "LB_WEIGHTED_ROUNDROBIN" or config.lb_type in _BY_LOAD
    )


def is_deterministic(config: ClusterConfig) -> bool:
    """Return whether all workers must agree on the host that a request begins with."""
    return config.lb_type in ("LB_MAGLEV", "LB_REQUEST_ROUNDROBIN")


def _make_one(
    config: ClusterConfig, random: random.Random, clock: IReactorTime | None, tracker: EwmaTracker | None
) -> ILoadBalancer:
    """
    Make one balancer, as C{lb_type} and slow start name it.

    @raise ValueError: if it needs a clock or a tracker, and there is none.
    """
    warm_up = _warm_up(config, clock)
    if warm_up is not None:
        scaled = _make_scaled(config, warm_up, tracker)
        if scaled is not None:
            return scaled
    make = _MAKERS.get(config.lb_type or "LB_ROUNDROBIN")
    if make is not None:
        return make(config, random, tracker)
    log.warn(
        "cluster {cluster}: lb_type {kind} is not supported, hosts take turns",
        cluster=config.name,
        kind=config.lb_type,
    )
    return RoundRobinBalancer()


def _least_request(
    config: ClusterConfig, random: random.Random, tracker: EwmaTracker | None
) -> ILoadBalancer:
    return LeastRequestBalancer(random, config.lbconfig.choice_count, config.lbconfig.active_request_bias)


def _least_connection(
    config: ClusterConfig, random: random.Random, tracker: EwmaTracker | None
) -> ILoadBalancer:
    return LeastConnectionBalancer(random, config.lbconfig.choice_count, config.lbconfig.active_request_bias)


def _peak_ewma(config: ClusterConfig, random: random.Random, tracker: EwmaTracker | None) -> ILoadBalancer:
    return PeakEwmaBalancer(random, _needed(tracker, config), config.lbconfig.choice_count)


_MAKERS: Final[Mapping[str, Callable[..., ILoadBalancer]]] = {
    "LB_RANDOM": lambda config, random, tracker: RandomBalancer(random),
    "LB_ROUNDROBIN": lambda config, random, tracker: RoundRobinBalancer(),
    "LB_WEIGHTED_ROUNDROBIN": lambda config, random, tracker: WeightedRoundRobinBalancer(),
    "LB_LEAST_REQUEST": _least_request,
    "LB_LEAST_CONNECTION": _least_connection,
    "LB_PEAK_EWMA": _peak_ewma,
    "LB_MAGLEV": lambda config, random, tracker: MaglevBalancer(),
    "LB_REQUEST_ROUNDROBIN": lambda config, random, tracker: RequestRoundRobinBalancer(),
}
"""Make the balancer of each C{lb_type} without slow start."""


def _make_scaled(
    config: ClusterConfig, warm_up: Callable[[IHost], float], tracker: EwmaTracker | None
) -> ILoadBalancer | None:
    """Make the balancer for slow start; L{None} for a type that does not support it."""
    bias = config.lbconfig.active_request_bias
    match config.lb_type:
        case "LB_WEIGHTED_ROUNDROBIN":
            return ScaledWeightedRoundRobinBalancer(warm_up)
        case "LB_LEAST_REQUEST":
            return ScaledWeightedRoundRobinBalancer(warm_up, request_load(bias))
        case "LB_LEAST_CONNECTION":
            return ScaledWeightedRoundRobinBalancer(warm_up, connection_load(bias))
        case "LB_PEAK_EWMA":
            return ScaledWeightedRoundRobinBalancer(warm_up, _needed(tracker, config).scale)
    return None


def _warm_up(config: ClusterConfig, clock: IReactorTime | None) -> Callable[[IHost], float] | None:
    """Return the factor of slow start on the time to a host's next turn; L{None} without slow start."""
    options = config.slow_start
    if not options.enabled:
        return None
    seconds = _needed(clock, config).seconds
    factor = SlowStart(options.slow_start_duration, options.aggression, options.min_weight_percent).factor

    def warm_up(host: IHost) -> float:
        return 1.0 / factor(seconds() - host.healthy_since)

    return warm_up


def _needed(thing: _T | None, config: ClusterConfig) -> _T:
    if thing is None:
        raise ValueError(f"cluster {config.name}: this load balancer needs a clock or a tracker")
    return thing
