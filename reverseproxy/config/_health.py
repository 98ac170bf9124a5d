"""How the health of hosts is found out: checks that ask them, and what they answer."""

from __future__ import annotations

__all__ = [
    "CheckConfig",
    "HealthCheckConfig",
    "HttpCheckConfig",
    "OutlierDetectionConfig",
    "StatusRangeConfig",
]

import re
from typing import Annotated

from pydantic import AfterValidator

from reverseproxy.config._base import Model, key
from reverseproxy.config._values import Free, Int, Interval, Span, Text, UInt, between, or_default, quote


def _method(text: str) -> str:
    if text and not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}", text):
        raise ValueError(f'{quote(text)} is not a method; write "GET"')
    return text


def _domain(text: str) -> str:
    if not (text.isascii() and text.isprintable() and " " not in text):
        raise ValueError(f'{quote(text)} is not a host name; write "host" or "host:port"')
    return text


Port = Annotated[Int, between(0, 65535)]


class StatusRangeConfig(Model):
    """HTTP statuses from one to another."""

    start: Annotated[Int, between(0, 999)] = key(0, "The first status.", name="Start")
    end: Annotated[Int, between(0, 999)] = key(0, "The last status.", name="End")


class HttpCheckConfig(Model):
    """The request of a health check by HTTP."""

    port: Port = key(
        0,
        "The port of hosts that are dialled; 0 means the one that requests go to, with the cluster's TLS. "
        "Hosts of tunnel agents have one connection only, and are not checked if there is a port here.",
    )
    timeout: Annotated[Span, or_default(30.0)] = key(
        30.0, "How long the answer may take, if that is shorter than the check's own timeout; 0 means 30 s."
    )
    path: Text = key("", "The path, perhaps with a query; empty means /.")
    method: Annotated[Text, AfterValidator(_method)] = key("", "The method; empty means GET.")
    scheme: Text = key(
        "http", "Where port is given: whether to use TLS there.", choices=("http", "https"), fallback="http"
    )
    domain: Annotated[Text, AfterValidator(_domain)] = key(
        "", "The Host header; empty means the host's address."
    )
    codes: tuple[StatusRangeConfig, ...] = key((), "Statuses of a healthy host; none means 200 only.")


class CheckConfig(Model):
    """What a health check does, by protocol."""

    http_check_config: HttpCheckConfig | None = key(
        None, "For Http1. Without it, / is asked for, and every answer below 500 is a good one."
    )


class HealthCheckConfig(Model):
    """
    Active health checks.

    Hosts are dialled. The connection of a tunnel agent is used for its check by
    HTTP/1 while no request is under way on it, and for heartbeats of RPC
    protocols beside the requests, unless requests speak another protocol there;
    a check by TCP has nothing to do there, as the loss of the connection is
    noticed anyway.
    """

    protocol: Text = key(
        "TCP",
        "How to check: by a connection, by a request, or by a heartbeat.",
        choices=("TCP", "Http1", "bolt", "boltv2", "dubbo"),
        later={
            "Http2": "hosts are checked by HTTP/1 only",
            "tars": "there is no such protocol here",
        },
        fallback="TCP",
    )
    timeout: Annotated[Span, or_default(1.0)] = key(1.0, "How long a check may take; 0 means 1 s.")
    interval: Annotated[Span, or_default(15.0)] = key(
        15.0, "The time from the end of one check to the next; 0 means 15 s."
    )
    interval_jitter: Annotated[Span, or_default(0.005)] = key(
        0.005, "What is added to the interval at random, at the most; 0 means 5 ms."
    )
    initial_delay_seconds: Annotated[Span, or_default(1.0)] = key(
        1.0, "A duration: the time until the first check of a host; 0 means 1 s."
    )
    healthy_threshold: Annotated[UInt, or_default(1)] = key(
        1, "After how many checks passed in a row a host is healthy again; 0 means 1."
    )
    unhealthy_threshold: Annotated[UInt, or_default(1)] = key(
        1, "After how many checks failed in a row a host is unhealthy; 0 means 1."
    )
    service_name: Text = key("", "Any name; without it there are no checks, as in MOSN.")
    check_config: CheckConfig = key(CheckConfig(), "What the check does.")
    event_log_path: Text = key(
        "", "A log of all checks.", acted=False, why="not acted on: the log has each change of health"
    )
    common_callbacks: Free = key(
        None,
        "MOSN's functions to be called after each check.",
        acted=False,
        why="not acted on: they are functions in MOSN's binary, which are not here",
    )

    @property
    def enabled(self) -> bool:
        """Whether hosts are checked."""
        return bool(self.service_name)

    @property
    def longest(self) -> float:
        """Seconds that a check may take, by whichever timeout is the shorter one."""
        http = self.check_config.http_check_config
        if self.protocol != "Http1" or http is None:
            return self.timeout
        return min(self.timeout, http.timeout)


class OutlierDetectionConfig(Model):
    """
    When hosts that fail requests are left out for a while.

    By default it is those that can't be connected to, and those of tunnel agents
    that answer for a service that is gone. The time doubles with each time that
    a host is left out again.
    """

    consecutive_connect_failures: UInt = key(
        5, "After how many connects failed in a row; 0 means never.", ours=True
    )
    consecutive_5xx: UInt = key(
        0, "After how many answers with a status of 500 or above in a row; 0 means never.", ours=True
    )
    consecutive_resets: UInt = key(
        0, "After how many answers in a row that were cut off or did not come; 0 means never.", ours=True
    )
    consecutive_gateway_errors: UInt = key(
        5,
        "After how many answers of 502, 503 or 504 in a row from a tunnel agent, on all of its connections, "
        "in HTTP; 0 means never. The first time is 1 s, and base_ejection_time the longest.",
        ours=True,
    )
    base_ejection_time: Interval = key(30.0, "For how long, the first time.", ours=True)
    max_ejection_time: Interval = key(300.0, "For how long at the most.", ours=True)
    max_ejection_percent: Annotated[Int, between(0, 100)] = key(
        50, "How many of the hosts may be left out at once. One that is healthy always stays.", ours=True
    )
