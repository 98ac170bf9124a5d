"""The flow control filter: limits of requests by the rules of Sentinel."""

from __future__ import annotations

__all__ = ["FlowActionConfig", "FlowControlConfig", "FlowRuleConfig"]

from typing import Annotated, Final

from pydantic import AfterValidator

from reverseproxy.config._base import Model, key
from reverseproxy.config._values import Bool, FinalStatus, Free, Int, Number, Text, UInt, between, or_default

_LIMITED: Final = 509
"""The status of what flow control refuses, as MOSN has it (C{LimitExceededCode})."""


class FlowActionConfig(Model):
    """The answer to requests that are too many."""

    status: Annotated[FinalStatus, or_default(_LIMITED)] = key(_LIMITED, f"The status; 0 means {_LIMITED}.")
    body: Text = key("current request is limited", "The body.")


def _not_negative(value: float) -> float:
    if value < 0:
        raise ValueError(f"{value} is negative; write 0 or a number above it")
    return value


_OLD: Final = "not acted on, as in MOSN: older versions of Sentinel had it"


_MEMORY: Final = "A bound of the strategy MemoryAdaptive."


_NO_MEMORY: Final = "not acted on, as tokenCalculateStrategy 2 is not supported"


class FlowRuleConfig(Model):
    """
    How many requests for one resource may pass in an interval.

    Each process counts its own; of several workers each has its part of the
    threshold.
    """

    strict_keys = True

    id: Text = key("", "A name for humans.")
    resource: Text = key("", "What is counted: requests with this path, query or target.", required=True)
    token_calculate_strategy: Annotated[Int, between(0, 2)] = key(
        0,
        "How the threshold changes: 0 not at all; 1 it begins lower and grows while the resource is in use "
        "(WarmUp). 2 is not supported (MemoryAdaptive).",
        name="tokenCalculateStrategy",
    )
    control_behavior: Annotated[Int, between(0, 1)] = key(
        0,
        "What becomes of requests beyond it: 0 they are refused; 1 all are spread evenly, and wait for their "
        "turn as long as that takes no longer than maxQueueingTimeMs.",
        name="controlBehavior",
    )
    threshold: Annotated[Number, AfterValidator(_not_negative)] = key(
        0.0, "How many requests may pass in an interval; 0 means none."
    )
    relation_strategy: Annotated[Int, between(0, 1)] = key(
        0,
        "Which requests count: 0 those for the resource, 1 those for refResource.",
        name="relationStrategy",
    )
    ref_resource: Text = key("", "The resource that counts instead.", name="refResource")
    max_queueing_time_ms: UInt = key(
        0, "How long a request may wait for its turn, in milliseconds.", name="maxQueueingTimeMs"
    )
    warm_up_period_sec: UInt = key(
        0, "WarmUp: how long it takes to reach the threshold, in seconds.", name="warmUpPeriodSec"
    )
    warm_up_cold_factor: UInt = key(
        0,
        "WarmUp: the threshold divided by this is what there is at first; 0 means 3.",
        name="warmUpColdFactor",
    )
    stat_interval_in_ms: UInt = key(0, "The interval in milliseconds; 0 means 1000.", name="statIntervalInMs")
    low_mem_usage_threshold: Int = key(
        0, _MEMORY, name="lowMemUsageThreshold", acted=False, quiet=True, why=_NO_MEMORY
    )
    high_mem_usage_threshold: Int = key(
        0, _MEMORY, name="highMemUsageThreshold", acted=False, quiet=True, why=_NO_MEMORY
    )
    mem_low_water_mark_bytes: Int = key(
        0, _MEMORY, name="memLowWaterMarkBytes", acted=False, quiet=True, why=_NO_MEMORY
    )
    mem_high_water_mark_bytes: Int = key(
        0, _MEMORY, name="memHighWaterMarkBytes", acted=False, quiet=True, why=_NO_MEMORY
    )
    limit_app: Free = key(None, "Whose requests count.", name="limitApp", acted=False, quiet=True, why=_OLD)
    grade: Free = key(None, "What is counted.", acted=False, quiet=True, why=_OLD)
    strategy: Free = key(None, "Which requests count.", acted=False, quiet=True, why=_OLD)


_NO_SENTINEL: Final = "not acted on: Sentinel's own logs are not written"


class FlowControlConfig(Model):
    """
    How many requests may pass, by rules of Sentinel's.

    All rules for a resource must let a request pass. Requests of RPC protocols
    have neither path nor query, so that no rule is for them.
    """

    strict_keys = True

    global_switch: Bool = key(False, "Whether the rules count at all.")
    limit_key_type: Text = key(
        "PATH",
        "What a request's resource is: its path, its query (ARG), or its target with both (URI).",
        choices=("PATH", "ARG", "URI"),
        strict=True,
    )
    rules: tuple[FlowRuleConfig, ...] = key((), "The rules.")
    action: FlowActionConfig = key(FlowActionConfig(), "The answer to requests that are too many.")
    callback_name: Text = key(
        "",
        "An extension that names resources and answers requests.",
        acted=False,
        protects=True,
        why="there are no extensions of flow control",
    )
    dynamic_data_resources: Free = key(
        None,
        "Where to get more rules from.",
        acted=False,
        protects=True,
        why="rules can't be had from elsewhere than the file",
    )
    app_name: Text = key("", "A name in Sentinel's logs.", acted=False, quiet=True, why=_NO_SENTINEL)
    log_path: Text = key("", "Where Sentinel's logs are.", acted=False, quiet=True, why=_NO_SENTINEL)
    monitor: Bool = key(
        False, "Nothing.", acted=False, quiet=True, why="not acted on, as in MOSN, where nothing looks at it"
    )
    direction: Text = key(
        "",
        "Which requests these are to Sentinel.",
        acted=False,
        quiet=True,
        why="not acted on, as in MOSN: they are always inbound",
    )
