"""What a route does with a request: forward it, redirect it, or respond."""

from __future__ import annotations

__all__ = [
    "REDIRECT_CODES",
    "ClusterWeightConfig",
    "WeightedClusterConfig",
    "HeaderHashConfig",
    "CookieHashConfig",
    "SourceIpHashConfig",
    "HashPolicyConfig",
    "RetryPolicyConfig",
    "PatternConfig",
    "RegexRewriteConfig",
    "RouteActionConfig",
    "RedirectConfig",
    "DirectResponseConfig",
    "MirrorPolicyConfig",
]

import re
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import AfterValidator

from reverseproxy.config._base import Model, key
from reverseproxy.config._headers import HeaderName, HeaderRules
from reverseproxy.config._values import (
    Bool,
    Duration,
    Free,
    Int,
    Limit,
    Regex,
    Span,
    Text,
    UInt,
    between,
    quote,
)

REDIRECT_CODES: Final = (301, 302, 303, 307, 308)


# RFC 3986 3.2
_AUTHORITY: Final = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:%\[\]-]*")


def _redirect_code(code: int) -> int:
    if code not in (0, *REDIRECT_CODES):
        raise ValueError(f"{code} is not a redirect; the codes are {', '.join(map(str, REDIRECT_CODES))}")
    return code or REDIRECT_CODES[0]


def _status(code: int) -> int:
    if code and not 200 <= code <= 599:
        raise ValueError(f"{code} is not a final HTTP status; write a number from 200 to 599")
    return code or 200


def _scheme(text: str) -> str:
    if text and not (text[0].isalpha() and text.isascii() and text.replace("+", "a").isalnum()):
        raise ValueError(f'"{text}" is not a URL scheme; write "https" or "http"')
    return text


def _authority(text: str) -> str:
    if not _AUTHORITY.fullmatch(text):
        raise ValueError(f'{quote(text)} is not a host; write "host" or "host:port"')
    return text


class ClusterWeightConfig(Model):
    """A cluster to choose."""

    name: Text = key("", "The cluster.", required=True)
    weight: UInt = key(0, "How many requests it gets, in proportion to the others' weights.")
    metadata_match: Mapping[str, Text] = key(
        {}, 'Labels that hosts must have, as {"filter_metadata": {"mosn.lb": {"name": "value"}}}.'
    )


class WeightedClusterConfig(Model):
    """A cluster to choose from others."""

    cluster: ClusterWeightConfig = key(ClusterWeightConfig(), "The cluster.", required=True)


class HeaderHashConfig(Model):
    """Hashing by a header."""

    name: HeaderName = key("", "The header's name, in any case.", name="key", required=True)


class CookieHashConfig(Model):
    """Hashing by a cookie."""

    name: Text = key("", "The cookie's name.", required=True)
    path: Text = key(
        "",
        "The path of a cookie to be made.",
        acted=False,
        quiet=True,
        why="not acted on, as in MOSN: cookies are read, and none is made",
    )
    ttl: Duration = key(
        0.0,
        "The life of a cookie to be made.",
        acted=False,
        quiet=True,
        why="not acted on, as in MOSN: cookies are read, and none is made",
        harmless=("0s",),
        nullable=False,
    )


class SourceIpHashConfig(Model):
    """Hashing by the client's address."""


class HashPolicyConfig(Model):
    """What consistent hashing goes by; of cookie and header, the first one given counts."""

    header: HeaderHashConfig | None = key(None, "A header.")
    cookie: CookieHashConfig | None = key(None, "A cookie.")
    source_ip: SourceIpHashConfig | None = key(None, "The client's address; as without any policy.")


class RetryPolicyConfig(Model):
    """
    When to send a request again.

    A request that can't have reached a host is always sent again, up to 3 times
    or num_retries, if that is more. Others are sent again only if they may
    safely be repeated.
    """

    retry_on: Bool = key(
        False,
        "Whether to send a request again also after an attempt that took too long, a lost connection, or an "
        "answer with a status of 500 or above.",
    )
    retry_timeout: Limit = key(
        0.0,
        "How long the response to one attempt may take to begin, if that is shorter than the route's "
        "timeout. 0 and -1s mean no limit.",
        nullable=False,
    )
    num_retries: UInt = key(0, "How often a request may be sent again; less than 3 means 3, as in MOSN.")
    status_codes: tuple[Annotated[Int, between(100, 599)], ...] = key(
        (), "With retry_on: the statuses that count, instead of those from 500 on."
    )


class PatternConfig(Model):
    """A regular expression."""

    google_re2: Free = key(
        None,
        "Options of RE2.",
        acted=False,
        quiet=True,
        why="not acted on, as in MOSN: RE2 has bounds of its own",
    )
    regex: Regex = key("", "The regular expression (RE2).")


class RegexRewriteConfig(Model):
    """A substitution in the path."""

    pattern: PatternConfig = key(PatternConfig(), "What to replace, wherever it is found in the path.")
    substitution: Text = key(
        "",
        'What to put in its place. "$1" or "${1}" stands for a group, "${name}" for a named one, "$$" for $.',
    )


class RouteActionConfig(HeaderRules):
    """Forward to a cluster."""

    cluster_name: Text = key("", "The cluster that requests go to.")
    cluster_variable: Text = key(
        "", 'Without cluster_name: a MOSN variable that names the cluster, such as "request_header_NAME".'
    )
    cluster_header: Text = key(
        "",
        "Without cluster_name and cluster_variable: a header of requests that names the cluster. MOSN does "
        "nothing with it.",
    )
    weighted_clusters: tuple[WeightedClusterConfig, ...] = key(
        (), "Instead of cluster_name: clusters to choose from at random, by weight."
    )
    upstream_protocol: Text = key("", "The protocol to speak to hosts; empty means that of the client.")
    hash_policy: tuple[HashPolicyConfig, ...] = key(
        (), "What consistent hashing goes by; only the first one counts. Without any, the client's address."
    )
    metadata_match: Mapping[str, Text] = key(
        {}, 'Labels that hosts must have, as {"filter_metadata": {"mosn.lb": {"name": "value"}}}.'
    )
    timeout: Limit = key(
        0.0,
        "How long the response may take to begin, once the whole request has been sent. 0 means 60 s, "
        "-1s no limit. Requests may say otherwise, in milliseconds, with the header "
        "x-mosn-global-timeout, as in MOSN.",
        nullable=False,
    )
    timeout_includes_response: Bool | None = key(
        None,
        "Whether timeout bounds the whole response, up to its end, as in MOSN. Absent: as the proxy filter "
        "says.",
        ours=True,
    )
    idle_timeout: Span | None = key(
        None,
        "After how long without a byte in either direction a request, or what an upgraded one carries, is "
        "broken off; 0 means never. Absent: as the proxy filter says.",
        ours=True,
    )
    retry_policy: RetryPolicyConfig | None = key(None, "When and how often to send a request again.")
    prefix_rewrite: Text = key(
        "",
        "What to put in place of the matched prefix, or of the whole matched path. The old path is sent in "
        "x-mosn-original-path.",
    )
    regex_rewrite: RegexRewriteConfig | None = key(
        None, "Without prefix_rewrite: a substitution in the path, sent in x-mosn-original-path as well."
    )
    host_rewrite: Annotated[Text, AfterValidator(_authority)] = key("", "The Host header to send.")
    auto_host_rewrite: Bool = key(
        False,
        "Without the other two: whether to send the host's name as the Host header, in clusters of type "
        "STRICT_DNS.",
    )
    auto_host_rewrite_header: Text = key(
        "", "Without host_rewrite: a header whose value is sent as the Host header, if there is one."
    )


class RedirectConfig(Model):
    """Answer with a redirect; what is empty stays as in the request."""

    response_code: Annotated[Int, AfterValidator(_redirect_code)] = key(
        REDIRECT_CODES[0], f"The status: {', '.join(map(str, REDIRECT_CODES))}; 0 means {REDIRECT_CODES[0]}."
    )
    path_redirect: Text = key("", "The path to redirect to.")
    host_redirect: Text = key("", "The host to redirect to, with its port if any.")
    scheme_redirect: Annotated[Text, AfterValidator(_scheme)] = key("", "The scheme to redirect to.")


class DirectResponseConfig(Model):
    """Answer without any host."""

    status: Annotated[Int, AfterValidator(_status)] = key(
        200, "The HTTP status, from 200 to 599; 0 means 200."
    )
    body: Text = key("", "The body of the response.")


class MirrorPolicyConfig(Model):
    """A cluster that gets copies of requests, whose answers are thrown away."""

    cluster: Text = key("", "The cluster.")
    percent: UInt = key(0, "How many of a hundred requests are copied; 100 and more mean all.")
    trace_sampled: Bool = key(
        False,
        "Whether copies are traced.",
        acted=False,
        quiet=True,
        why="not acted on, as in MOSN: there is no tracing of copies",
    )
