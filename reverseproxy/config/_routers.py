"""Routers: from requests to clusters."""

from __future__ import annotations

__all__ = [
    "REDIRECT_CODES",
    "DirectResponseConfig",
    "HeaderMatcherConfig",
    "MatchConfig",
    "RedirectConfig",
    "RouteActionConfig",
    "RouterConfig",
    "RouterRuleConfig",
    "VirtualHostConfig",
]

from typing import Annotated, Final

from pydantic import AfterValidator

from reverseproxy.config._base import Bool, Duration, Free, Int, Model, Regex, Text, key

REDIRECT_CODES: Final = (301, 302, 303, 307, 308)

_NO_HEADER_RULES: Final = "MOSN knows this key; header rules are not acted on yet"
_UNUSED_THERE: Final = "MOSN does not act on it either"


def _redirect_code(code: int) -> int:
    if code not in (0, *REDIRECT_CODES):
        raise ValueError(f"{code} is not a redirect; the codes are {', '.join(map(str, REDIRECT_CODES))}")
    return code or REDIRECT_CODES[0]


def _status(code: int) -> int:
    if not 100 <= code <= 599:
        raise ValueError(f"{code} is not an HTTP status; write a number from 100 to 599")
    return code


class HeaderMatcherConfig(Model):
    """A demand on one request header."""

    name: Text = key(..., 'Name of the header, in any case. "method" means the request method.')
    value: Text = key("", "What the header must equal, or match if regex is true.")
    regex: Bool = key(False, "Whether value is a regular expression (RE2), found anywhere in the header.")


class MatchConfig(Model):
    """
    Which requests a rule takes.

    The first of C{prefix}, C{path}, C{regex}, C{variables} and
    C{dsl_expressions} that is not empty makes the kind of the rule; without any
    it is a header-only rule.
    """

    prefix: Text = key("", "Takes paths that begin with this, case-sensitively.")
    path: Text = key("", "Takes this path only, whatever its case.")
    regex: Regex = key("", "Takes paths in which this regular expression (RE2) is found.")
    headers: tuple[HeaderMatcherConfig, ...] = key(
        (), "Headers that must all match too; on their own they make a header-only rule."
    )
    variables: Free = key(None, "MOSN variables that must match.", acted=False)
    dsl_expressions: Free = key(None, "Expressions that must hold.", acted=False)


class RouteActionConfig(Model):
    """Forward to a cluster."""

    cluster_name: Text = key("", "The cluster that requests go to.")
    cluster_variable: Text = key("", "A MOSN variable that names the cluster.", acted=False)
    cluster_header: Text = key("", "A header that names the cluster.", acted=False, why=_UNUSED_THERE)
    weighted_clusters: Free = key(None, "Clusters to choose from at random by weight.", acted=False)
    upstream_protocol: Text = key(
        "",
        "The protocol to speak to hosts; empty means that of the client.",
        acted=False,
        harmless=("Http1",),
    )
    hash_policy: Free = key(None, "What consistent hashing looks at.", acted=False)
    metadata_match: Free = key(None, "Metadata that hosts must carry.", acted=False)
    timeout: Duration = key(
        0.0,
        "How long a request may take from its end to the end of the response. 0 means 60 s, a negative one no "
        "limit.",
        pointer=False,
    )
    retry_policy: Free = key(None, "When and how often to try again.", acted=False)
    prefix_rewrite: Text = key("", "What to put in place of the matched prefix.", acted=False)
    regex_rewrite: Free = key(None, "A substitution in the path.", acted=False)
    host_rewrite: Text = key("", "The Host header to send.", acted=False)
    auto_host_rewrite: Bool = key(False, "Send the host's name as the Host header.", acted=False)
    auto_host_rewrite_header: Text = key("", "Send this header's value as the Host header.", acted=False)
    request_headers_to_add: Free = key(None, "Headers to add to requests.", acted=False, why=_NO_HEADER_RULES)
    request_headers_to_remove: Free = key(
        None, "Headers to remove from requests.", acted=False, why=_NO_HEADER_RULES
    )
    response_headers_to_add: Free = key(
        None, "Headers to add to responses.", acted=False, why=_NO_HEADER_RULES
    )
    response_headers_to_remove: Free = key(
        None, "Headers to remove from responses.", acted=False, why=_NO_HEADER_RULES
    )


class RedirectConfig(Model):
    """Answer with a redirect; parts that are empty stay as in the request."""

    response_code: Annotated[Int, AfterValidator(_redirect_code)] = key(
        REDIRECT_CODES[0], f"The status: {', '.join(map(str, REDIRECT_CODES))}."
    )
    path_redirect: Text = key("", "The path to redirect to.")
    host_redirect: Text = key("", "The host to redirect to.")
    scheme_redirect: Text = key("", "The scheme to redirect to.")


class DirectResponseConfig(Model):
    """Answer without any host."""

    status: Annotated[Int, AfterValidator(_status)] = key(..., "The HTTP status.")
    body: Text = key("", "The body of the response.")


class RouterRuleConfig(Model):
    """One rule: what it takes, and what it does with it."""

    match: MatchConfig = key(MatchConfig(), "Which requests this rule takes.")
    route: RouteActionConfig | None = key(None, "Forward them to a cluster.")
    redirect: RedirectConfig | None = key(None, "Redirect them.")
    direct_response: DirectResponseConfig | None = key(None, "Answer them at once.")
    metadata: Free = key(None, "Metadata of the rule.", acted=False)
    per_filter_config: Free = key(None, "Options of stream filters for this rule.", acted=False)
    request_mirror_policies: Free = key(None, "A cluster to send a copy to.", acted=False)


class VirtualHostConfig(Model):
    """Rules for a set of domains."""

    name: Text = key("", "A name for humans.")
    domains: tuple[Text, ...] = key(
        (),
        'Domains, in any case: "host", "host:port", "host:*", "*.suffix" with the same endings, and "*" for all '
        "that no other virtual host takes. A domain without port matches only a Host header without port.",
    )
    routers: tuple[RouterRuleConfig, ...] = key((), "Rules; the first that takes a request decides.")
    request_headers_to_add: Free = key(None, "Headers to add to requests.", acted=False, why=_NO_HEADER_RULES)
    request_headers_to_remove: Free = key(
        None, "Headers to remove from requests.", acted=False, why=_NO_HEADER_RULES
    )
    response_headers_to_add: Free = key(
        None, "Headers to add to responses.", acted=False, why=_NO_HEADER_RULES
    )
    response_headers_to_remove: Free = key(
        None, "Headers to remove from responses.", acted=False, why=_NO_HEADER_RULES
    )
    require_tls: Text = key("", "Whether clients must use TLS.", acted=False, why=_UNUSED_THERE)
    per_filter_config: Free = key(None, "Options of stream filters.", acted=False)


class RouterConfig(Model):
    """
    A named set of virtual hosts.

    @ivar virtual_hosts: those of the document, or of the directory that
        C{router_configs} names.
    """

    router_config_name: Text = key("", "The name that proxy filters refer to.")
    virtual_hosts: tuple[VirtualHostConfig, ...] = key((), "The virtual hosts.")
    router_configs: Text = key(
        "", "Instead of virtual_hosts: a directory in which each *.json file holds one virtual host."
    )
    request_headers_to_add: Free = key(None, "Headers to add to requests.", acted=False, why=_NO_HEADER_RULES)
    request_headers_to_remove: Free = key(
        None, "Headers to remove from requests.", acted=False, why=_NO_HEADER_RULES
    )
    response_headers_to_add: Free = key(
        None, "Headers to add to responses.", acted=False, why=_NO_HEADER_RULES
    )
    response_headers_to_remove: Free = key(
        None, "Headers to remove from responses.", acted=False, why=_NO_HEADER_RULES
    )
