"""
Load balancers: which of the hosts that could take a request gets it.

They work on sets of thousands of hosts that change all the time, so nothing is
rebuilt when one comes or goes, and hosts that are busy cost nothing to skip.
Randomness and time are handed in.

Here is which of them a configuration means:

    LB_RANDOM: L{RandomBalancer}
    LB_ROUNDROBIN: L{RoundRobinBalancer}
    LB_WEIGHTED_ROUNDROBIN: L{WeightedRoundRobinBalancer}
    LB_LEAST_REQUEST: L{LeastRequestBalancer}
    LB_LEAST_CONNECTION: L{LeastConnectionBalancer}
    LB_PEAK_EWMA: L{PeakEwmaBalancer}
    LB_MAGLEV: L{MaglevBalancer}
    LB_REQUEST_ROUNDROBIN: L{RequestRoundRobinBalancer}

With slow start, those that know weights always take turns by weight
(L{ScaledWeightedRoundRobinBalancer}), as in MOSN.  With subsets, each has its own one.  With
several workers, each balancer is a L{NearestBalancer} of two, but for
LB_MAGLEV and LB_REQUEST_ROUNDROBIN, which leave no choice.  In a fleet, it is the near one
of two again (L{FleetBalancer}), LB_MAGLEV is an L{AgentRing}, and LB_REQUEST_ROUNDROBIN an
L{AgentOrder}.
"""

from __future__ import annotations

__all__ = [
    "LeastConnectionBalancer",
    "LeastRequestBalancer",
    "MaglevBalancer",
    "NearestBalancer",
    "PeakEwmaBalancer",
    "RandomBalancer",
    "RequestRoundRobinBalancer",
    "RoundRobinBalancer",
    "ScaledWeightedRoundRobinBalancer",
    "SubsetBalancer",
    "WeightedRoundRobinBalancer",
    "goes_by_weight",
    "is_settled",
    "make_balancer",
    "make_tracker",
]

import random
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from reverseproxy.cluster.balancers.consistent import MaglevBalancer
from reverseproxy.cluster.balancers.fleet import AgentOrder, AgentRing, FleetBalancer, FleetView
from reverseproxy.cluster.balancers.load import (
    LeastConnectionBalancer,
    LeastRequestBalancer,
    PeakEwmaBalancer,
    connection_load,
    request_load,
)
from reverseproxy.cluster.balancers.locality import NearestBalancer
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
    """Make what keeps the scores of a cluster's hosts, if its C{lb_type} goes by them."""
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

    @param clock: tells the age of hosts, and how long subsets have been empty.
    @param tracker: as L{make_tracker} makes it.
    @param workers: how many workers share the cluster's agents.
    @param fleet: the fleet that this server belongs to; L{None} for none.
    @raise ValueError: if the configuration needs a clock or a tracker, and there
        is none.
    """
    make: Callable[[], ILoadBalancer] = partial(_make_one, config, random, clock, tracker)
    if workers > 1 and not is_settled(config):
        make = partial(NearestBalancer, make, random.random, workers)
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
    Make a balancer that knows hosts of other servers, too.

    @param make: makes what chooses among this server's.
    """
    weigh = _weight if goes_by_weight(config) else _turns_of
    if is_settled(config):
        near: ILoadBalancer = RoundRobinBalancer()
    else:
        near = make()
    # A host of another server stands for all connections that its agent has there.
    far = make if config.lb_type in _BY_LOAD else WeightedRoundRobinBalancer
    both = FleetBalancer(near, far, random.random, fleet.servers, weigh, fleet.reaches)
    if not is_settled(config):
        return both
    settled = AgentRing if config.lb_type == "LB_MAGLEV" else AgentOrder
    return settled(both, fleet.name_of, fleet.reaches)


def _weight(host: IHost) -> int:
    return host.weight


def _turns_of(host: IHost) -> int:
    return host.weight if host.server else 1


def goes_by_weight(config: ClusterConfig) -> bool:
    """Whether hosts of different weights get differently many requests."""
    return (
        config.slow_start.enabled or config.lb_type == "LB_WEIGHTED_ROUNDROBIN" or config.lb_type in _BY_LOAD
    )


def is_settled(config: ClusterConfig) -> bool:
    """Whether it is settled which host a request begins with, so that all workers must agree on it."""
    return config.lb_type in ("LB_MAGLEV", "LB_REQUEST_ROUNDROBIN")


def _make_one(
    config: ClusterConfig, random: random.Random, clock: IReactorTime | None, tracker: EwmaTracker | None
) -> ILoadBalancer:
    kind, options = config.lb_type, config.lbconfig
    choices, bias = options.choice_count, options.active_request_bias
    warm_up = _warm_up(config, clock)
    if warm_up is not None:
        scaled = _make_scaled(config, warm_up, tracker)
        if scaled is not None:
            return scaled
    match kind:
        case "LB_RANDOM":
            return RandomBalancer(random)
        case "LB_WEIGHTED_ROUNDROBIN":
            return WeightedRoundRobinBalancer()
        case "LB_LEAST_REQUEST":
            return LeastRequestBalancer(random, choices, bias)
        case "LB_LEAST_CONNECTION":
            return LeastConnectionBalancer(random, choices, bias)
        case "LB_PEAK_EWMA":
            return PeakEwmaBalancer(random, _needed(tracker, config), choices)
        case "LB_MAGLEV":
            return MaglevBalancer()
        case "LB_REQUEST_ROUNDROBIN":
            return RequestRoundRobinBalancer()
        case "" | "LB_ROUNDROBIN":
            return RoundRobinBalancer()
    log.warn(
        "cluster {cluster}: lb_type {kind} is not supported, hosts take turns",
        cluster=config.name,
        kind=kind,
    )
    return RoundRobinBalancer()


def _make_scaled(
    config: ClusterConfig, warm_up: Callable[[IHost], float], tracker: EwmaTracker | None
) -> ILoadBalancer | None:
    """Make the balancer for slow start; L{None} for a type that knows no such thing."""
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
    """How slow start stretches the time to a host's next turn; L{None} where there is no slow start."""
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
