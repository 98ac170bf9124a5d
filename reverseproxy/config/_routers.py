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

from reverseproxy.config._base import Model, key
from reverseproxy.config._values import Bool, Duration, Free, Int, Regex, Text

REDIRECT_CODES: Final = (301, 302, 303, 307, 308)

_UNUSED: Final = "not acted on, as in MOSN"


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


class _HeaderRules(Model):
    """What a router, a virtual host or a route may do to headers."""

    request_headers_to_add: Free = key(
        None, "Headers to add to requests: [{header: {key, value}, append}].", acted=False
    )
    request_headers_to_remove: Free = key(None, "Names of headers to remove from requests.", acted=False)
    response_headers_to_add: Free = key(
        None, "Headers to add to responses: [{header: {key, value}, append}].", acted=False
    )
    response_headers_to_remove: Free = key(None, "Names of headers to remove from responses.", acted=False)


class HeaderMatcherConfig(Model):
    """A demand on one request header."""

    name: Text = key(
        "",
        'The header\'s name, in any case. In a rule with prefix, path or regex, "method" means the request '
        "method.",
        required=True,
    )
    value: Text = key("", "What the header must equal, or match if regex is true.")
    regex: Bool = key(False, "Whether value is a regular expression (RE2), found anywhere in the header.")


class MatchConfig(Model):
    """
    Which requests a rule takes.

    The first of prefix, path and regex that is not empty counts; without any,
    the headers alone decide.
    """

    prefix: Text = key("", "Take paths that begin with this text, in exactly this case.")
    path: Text = key("", "Take this path only, in any case.")
    regex: Regex = key("", "Take paths in which this regular expression (RE2) is found.")
    headers: tuple[HeaderMatcherConfig, ...] = key(
        (),
        'Headers that must all match too. A single header "service" on its own with the value ".*" takes '
        "every request that has this header.",
    )
    variables: Free = key(
        None, "MOSN variables that must match.", acted=False, why="not acted on yet; the rule never matches"
    )
    dsl_expressions: Free = key(
        None, "Expressions that must hold.", acted=False, why="not acted on yet; the rule never matches"
    )


class RouteActionConfig(_HeaderRules):
    """Forward to a cluster."""

    cluster_name: Text = key("", "The cluster that requests go to.")
    cluster_variable: Text = key("", "A MOSN variable that names the cluster.", acted=False)
    cluster_header: Text = key("", "A header that names the cluster.", acted=False, why=_UNUSED)
    weighted_clusters: Free = key(
        None, "Clusters to choose from by weight: [{cluster: {name, weight}}].", acted=False
    )
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
        "How long a request may take, up to the end of its response. 0 means 60 s, a negative one no limit.",
        nullable=False,
    )
    retry_policy: Free = key(None, "When and how often to try again.", acted=False)
    prefix_rewrite: Text = key("", "What to put in place of the matched prefix.", acted=False)
    regex_rewrite: Free = key(
        None, "A substitution in the path: {pattern: {regex}, substitution}.", acted=False
    )
    host_rewrite: Text = key("", "The Host header to send.", acted=False)
    auto_host_rewrite: Bool = key(False, "Send the host's name as the Host header.", acted=False)
    auto_host_rewrite_header: Text = key("", "Send this header's value as the Host header.", acted=False)


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


class RouterRuleConfig(Model):
    """
    What a rule takes, and what it does with it.

    Of direct_response, redirect and route, the first one given counts.
    """

    match: MatchConfig = key(MatchConfig(), "Which requests this rule takes.")
    route: RouteActionConfig | None = key(None, "Forward them to a cluster.")
    redirect: RedirectConfig | None = key(None, "Redirect them.")
    direct_response: DirectResponseConfig | None = key(None, "Answer them at once.")
    metadata: Free = key(None, "Metadata of the rule.", acted=False)
    per_filter_config: Free = key(None, "Options of stream filters for this rule.", acted=False)
    request_mirror_policies: Free = key(
        None, "A cluster to send copies of requests to: {cluster, percent}.", acted=False
    )


class VirtualHostConfig(_HeaderRules):
    """Rules for a set of domains."""

    name: Text = key("", "A name for humans.")
    domains: tuple[Text, ...] = key(
        (),
        'Domains, in any case: "host", "host:port" or "host:*"; "*suffix" with the same endings; and "*" for '
        "all that no other virtual host takes. A domain without a port takes only requests whose Host "
        "header has none. Exact hosts come before suffixes, longer suffixes before shorter ones.",
    )
    routers: tuple[RouterRuleConfig, ...] = key((), "Rules; the first that takes a request decides.")
    require_tls: Text = key("", "Whether clients must use TLS.", acted=False, why=_UNUSED)
    per_filter_config: Free = key(None, "Options of stream filters.", acted=False)


class RouterConfig(_HeaderRules):
    """
    A named set of virtual hosts.

    @ivar virtual_hosts: those of the document, or of the directory that
        C{router_configs} names.
    """

    router_config_name: Text = key("", "The name that proxy filters refer to.")
    virtual_hosts: tuple[VirtualHostConfig, ...] = key((), "The virtual hosts.")
    router_configs: Text = key(
        "",
        "Instead of virtual_hosts: a directory in which each *.json file holds one virtual host.",
        directory_of="virtual_hosts",
    )
