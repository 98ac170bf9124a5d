"""
Filters of requests, MOSN's C{stream_filters}.

Their behaviour is MOSN's: C{pkg/filter/stream} in its source.  Unlike in MOSN, a wrong or
unsupported filter is not ignored with a log line, but an error, as it may restrict access.
"""

from __future__ import annotations

__all__ = [
    "FaultAbortConfig",
    "FaultConfig",
    "FaultDelayConfig",
    "HeaderRuleConfig",
    "HeaderToMetadataConfig",
    "IpAccessConfig",
    "IpListConfig",
    "LabelConfig",
    "MirrorFilterConfig",
    "PayloadLimitConfig",
    "PerFilterConfig",
    "StreamFilterConfig",
]

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator

from reverseproxy.config._base import Model, TypedModel, key
from reverseproxy.config._flow_control import FlowControlConfig
from reverseproxy.config._headers import HeaderMatcherConfig, HeaderName
from reverseproxy.config._values import (
    Bool,
    FinalStatus,
    Free,
    Int,
    Span,
    Text,
    UInt,
    between,
    or_default,
    quote,
)
from reverseproxy.config.networks import IpRange, networks_of

_TOO_LARGE: Final = 413
_FAULT: Final = 500


def _action(text: str) -> str:
    if text not in ("", "allow", "deny"):
        raise ValueError(f'{quote(text)} is not allowed; write "allow" or "deny"')
    return text or "allow"


Action = Annotated[Text, AfterValidator(_action)]


class IpListConfig(Model):
    """Addresses, and what to do with who comes from them."""

    strict_keys = True

    action: Action = key("allow", 'Whether they may: "allow" or "deny"; empty means "allow".')
    addrs: tuple[IpRange, ...] = key(
        (), 'IP addresses, and ranges of them such as "10.0.0.0/8".', required=True
    )

    @property
    def networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The addresses; see L{networks_of}."""
        return networks_of(self.addrs)


class IpAccessConfig(Model):
    """
    Who may send requests, by IP address.

    The lists are gone through in order, and the first one that has the address
    decides. Who may not is answered with 403.
    """

    strict_keys = True

    default_action: Action = key(
        "allow", 'What to do with addresses that no list has: "allow" or "deny"; empty means "allow".'
    )
    header: Annotated[Text, AfterValidator(str.lower)] = key(
        "",
        "A header that holds the client's address, where a request has it, rather than the connection. Any "
        "client can write what it likes there, unless a proxy in front replaces it. A request in which it "
        "holds anything but one address, with or without a port, is refused; in MOSN the lists let it pass.",
    )
    ips: tuple[IpListConfig, ...] = key((), "The lists.")


class PayloadLimitConfig(Model):
    """
    How large requests may be.

    A body whose length is not announced is counted as it comes: the host may
    have seen the beginning of one that is too large, but never its end.
    """

    strict_keys = True

    max_entity_size: Annotated[Int, between(0, 2**31 - 1)] = key(
        0,
        "The most bytes that the body of a request may have; 0 means any number. MOSN knows this key with a "
        "blank at its end only.",
        spellings=("max_entity_size ",),
    )
    http_status: Annotated[FinalStatus, or_default(_TOO_LARGE)] = key(
        _TOO_LARGE, f"The status of the answer to larger ones; 0 means {_TOO_LARGE}."
    )


class FaultDelayConfig(Model):
    """Waits before requests are sent on."""

    fixed_delay: Span = key(0.0, "How long to wait.")
    percentage: UInt = key(0, "How many of a hundred requests wait; 100 and more mean all.")


class FaultAbortConfig(Model):
    """Answers in place of a host's."""

    status: Annotated[FinalStatus, or_default(_FAULT)] = key(
        _FAULT, f"The status of the answer; 0 means {_FAULT}."
    )
    percentage: UInt = key(0, "How many of a hundred requests are answered like that; 100 and more mean all.")


class FaultConfig(Model):
    """Faults to inject, to see how others bear them; first the wait, then the answer."""

    delay: FaultDelayConfig = key(FaultDelayConfig(), "Waits.")
    abort: FaultAbortConfig = key(FaultAbortConfig(), "Answers with an error.")
    upstream_cluster: Text = key("", "The cluster whose requests this is for; empty means all of them.")
    headers: tuple[HeaderMatcherConfig, ...] = key(
        (), 'What the headers of these requests must all match; "method" means the request method.'
    )


class LabelConfig(Model):
    """A label."""

    name: Text = key("", "The label's name.", name="key", required=True)
    value: Text = key("", "Its value; if it is empty, the header's, where there is one.")


class HeaderRuleConfig(Model):
    """A label by a header; either on_header_present or on_header_missing must be given."""

    header: HeaderName = key("", "The header's name, in any case.", required=True)
    on_header_present: LabelConfig | None = key(None, "The label if there is such a header.")
    on_header_missing: LabelConfig | None = key(None, "The label if there is none.")
    remove: Bool = key(False, "Whether the header is not sent to the host.")


class HeaderToMetadataConfig(Model):
    """
    Labels that hosts must have, by the headers of a request.

    They are demanded together with the route's metadata_match, and rather than
    labels of the same name there.
    """

    request_rules: tuple[HeaderRuleConfig, ...] = key((), "The rules.")


class MirrorFilterConfig(Model):
    """
    Copies of requests, for routes with request_mirror_policies.

    Without this filter there is one copy of each request, where MOSN sends none.
    """

    amplification: Annotated[Int, between(-(2**31), 100)] = key(
        1, "How many copies of each request are sent; less than 1 means 1."
    )
    broadcast: Bool = key(
        False,
        "Whether a copy is sent to each host of the mirror's cluster, and nothing to the route's.",
        acted=False,
        protects=True,
        why="requests would be sent to the route's cluster too",
    )


_METRICS: Final = "it counts requests for metrics"


class StreamFilterConfig(TypedModel):
    """
    A filter of requests.

    @ivar config: a model as C{config_by_type} has it for C{type}; L{None} for
        other types, which are left out.
    """

    config_by_type: ClassVar = {
        "ip_access": IpAccessConfig,
        "payload_limit": PayloadLimitConfig,
        "flowControlFilter": FlowControlConfig,
        "fault": FaultConfig,
        "header_to_metadata": HeaderToMetadataConfig,
        "mirror": MirrorFilterConfig,
    }

    type: Text = key(
        "",
        "The kind of filter. They are gone through in order: ip_access before there is a route, the others "
        "behind it.",
        choices=tuple(config_by_type),
        skipped={
            "gzip": "bodies are passed on as hosts send them",
            "dubbo_stream": _METRICS,
            "grpc_metric": _METRICS,
            "istio.stats": _METRICS,
            "fault_tolerance": "hosts that fail are left out by outlier_detection instead",
            "healthcheck": "MOSN does not have it any more either",
        },
        strict=True,
    )
    config: (
        IpAccessConfig
        | PayloadLimitConfig
        | FlowControlConfig
        | FaultConfig
        | HeaderToMetadataConfig
        | MirrorFilterConfig
        | None
    ) = key(None, "Options of the filter, by its type.", validate_default=True)
    go_plugin_config: Free = key(
        None,
        "A filter of a Go plug-in.",
        acted=False,
        protects=True,
        why="there are no plug-ins of Go's in this process",
    )


def _of_listener(name: str) -> Free:
    return key(
        None,
        f"Options of {name}.",
        name=name,
        acted=False,
        protects=True,
        why=f"{name} has no options for single routes, in MOSN neither; write them at the listener",
    )


class PerFilterConfig(Model):
    """
    Options of filters of requests for a route, or for all routes of a virtual host.

    They take the place of all of the listener's options for that filter, if it
    has it. Those of a route take the place of its virtual host's, which MOSN does
    nothing with.
    """

    unknown_key = "no filter of this name is supported, so that its options do not count"

    fault: FaultConfig | None = key(None, "Options of fault.")
    payload_limit: PayloadLimitConfig | None = key(None, "Options of payload_limit.", protects=True)
    ip_access: Free = _of_listener("ip_access")
    flow_control: Free = _of_listener("flowControlFilter")
