"""How to choose among the hosts of a cluster."""

from __future__ import annotations

__all__ = ["LbConfig", "SlowStartConfig", "SubsetConfig"]

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator

from reverseproxy.config._base import Model, key
from reverseproxy.config._values import Int, Number, Span, Text, UInt, ValueKind, between, or_default


def _bias(value: float) -> float:
    if value < 0:
        raise ValueError(f"{value} is negative; write 0 or a number above it")
    return value


def _part(value: float) -> float:
    if value > 1:
        raise ValueError(f"{value} is above 1; write a part of the weight, such as 0.1")
    return value


def _above_zero_or(default: float) -> AfterValidator:
    """Make numbers that are not above 0 mean the default, as MOSN does."""
    return AfterValidator(lambda value: value if value > 0 else default)


Bias = Annotated[Number, AfterValidator(_bias)]


class LbConfig(Model):
    """Options of the load balancer."""

    choice_count: Annotated[UInt, or_default(2)] = key(
        2,
        "LB_LEAST_REQUEST, LB_LEAST_CONNECTION and LB_PEAK_EWMA: how many hosts are compared where all have "
        "the same weight; 0 means 2.",
    )
    active_request_bias: Bias = key(
        1.0,
        "The same: how much requests (or connections) under way count against a host; 0 means not at all.",
    )
    client_error_bias: Bias = key(1.0, "LB_PEAK_EWMA: how much answers from 400 to 499 count against a host.")
    server_error_bias: Bias = key(
        1.0, "LB_PEAK_EWMA: how much answers from 500 on, and lost connections, count against a host."
    )


class SlowStartConfig(Model):
    """
    How new hosts warm up, also those of tunnel agents.

    It is for the balancers that know weights: LB_WEIGHTED_ROUNDROBIN,
    LB_LEAST_REQUEST, LB_LEAST_CONNECTION and LB_PEAK_EWMA.
    """

    mode: Text = key(
        "", "How to measure the age of a host; empty means no slow start.", choices=("duration",)
    )
    slow_start_duration: Span = key(0.0, "How long a host warms up; 0 means not at all.")
    aggression: Annotated[Number, _above_zero_or(1.0)] = key(
        1.0, "Above 1 the weight grows faster at first, below 1 more slowly; 0 and less mean 1."
    )
    min_weight_percent: Annotated[Number, AfterValidator(_part), _above_zero_or(0.1)] = key(
        0.1, "The part of its weight that a host has at once, such as 0.1; 0 and less mean 0.1."
    )

    @property
    def enabled(self) -> bool:
        """Whether hosts warm up."""
        return self.mode == "duration" and self.slow_start_duration > 0


class SubsetConfig(Model):
    """Subsets of the hosts, by their metadata."""

    fall_back_policy: Annotated[Int, between(0, 2)] = key(
        0,
        "Where requests go whose subset has no host: 0 nowhere, 1 to any host, 2 to the default subset.",
    )
    default_subset: Mapping[str, Text] = key({}, "The labels of the hosts in the default subset.")
    subset_selectors: Annotated[tuple[tuple[Text, ...], ...], ValueKind("list of lists of texts")] = key(
        (),
        "Names of labels. Hosts with all labels of a list make up one subset for each combination of their "
        "values. Without any there are no subsets.",
    )
