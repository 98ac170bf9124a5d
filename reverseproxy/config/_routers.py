"""Routers: from requests to clusters."""

from __future__ import annotations

__all__ = ["RouterConfig", "RouterRuleConfig", "VirtualHostConfig"]


from reverseproxy.config._base import Model, key
from reverseproxy.config._filters import PerFilterConfig
from reverseproxy.config._headers import HeaderRules
from reverseproxy.config._matches import MatchConfig
from reverseproxy.config._route_actions import (
    DirectResponseConfig,
    MirrorPolicyConfig,
    RedirectConfig,
    RouteActionConfig,
)
from reverseproxy.config._values import (
    Bool,
    Free,
    Text,
)


class RouterRuleConfig(Model):
    """
    What a rule takes, and what it does with it.

    Of direct_response, redirect and route, the first one given counts.
    """

    name: Text = key(
        "",
        "A name for access logs and traces. Without one, it is that of the virtual host, with the rule's "
        "number there, from 0, such as shop[2].",
        ours=True,
    )
    match: MatchConfig = key(MatchConfig(), "Which requests this rule takes.")
    route: RouteActionConfig | None = key(None, "Forward them to a cluster.")
    redirect: RedirectConfig | None = key(None, "Redirect them.")
    direct_response: DirectResponseConfig | None = key(None, "Answer them at once.")
    metadata: Free = key(
        None,
        "Metadata of the rule.",
        acted=False,
        why="not acted on: no filter and no balancer that there is asks for it",
    )
    per_filter_config: PerFilterConfig = key(
        PerFilterConfig(), "Options of filters of requests for this rule.", protects=True
    )
    request_mirror_policies: MirrorPolicyConfig | None = key(None, "A cluster to send copies of requests to.")


class VirtualHostConfig(HeaderRules):
    """Rules for a set of domains."""

    name: Text = key("", "A name for humans.")
    domains: tuple[Text, ...] = key(
        (),
        'Domains, in any case: "host", "host:port" or "host:*"; "*suffix" with the same endings; and "*" for '
        "all that no other virtual host takes. A domain without a port takes only requests whose Host "
        "header has none, unless the router has ignore_host_port. Exact hosts come before suffixes, longer "
        "suffixes before shorter ones.",
    )
    routers: tuple[RouterRuleConfig, ...] = key((), "Rules; the first that takes a request decides.")
    require_tls: Text = key(
        "",
        "Whether clients must use TLS.",
        acted=False,
        protects=True,
        why="requests in plaintext would be served, as in MOSN; have a listener with TLS alone instead",
        harmless=("NONE", "none", "no"),
    )
    per_filter_config: PerFilterConfig = key(
        PerFilterConfig(),
        "Options of filters of requests, for rules that have none. MOSN does nothing with them.",
        protects=True,
    )


class RouterConfig(HeaderRules):
    """
    A named set of virtual hosts.

    @ivar virtual_hosts: those of the document, or of the directory that
        C{router_configs} names.
    """

    router_config_name: Text = key("", "The name that proxy filters refer to.")
    ignore_host_port: Bool = key(
        False,
        "Whether a domain without a port takes requests for any port, such as those of a browser that was "
        "given one. Domains with a port come first then, and a dot at the end of a name does not count.",
        ours=True,
    )
    virtual_hosts: tuple[VirtualHostConfig, ...] = key((), "The virtual hosts.")
    router_configs: Text = key(
        "",
        "Instead of virtual_hosts: a directory in which each *.json file holds one virtual host.",
        directory_of="virtual_hosts",
    )
