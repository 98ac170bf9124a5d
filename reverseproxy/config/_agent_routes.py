"""Routes that agents bring: what a tunnel server lets them have, and what an agent asks for."""

from __future__ import annotations

__all__ = ["AgentRoutesConfig", "RouteAllowanceConfig", "RouteRequestConfig"]

from typing import Annotated, Final

from pydantic import AfterValidator

from reverseproxy.config._base import Model, key
from reverseproxy.config._values import Int, Span, Text, between, quote
from reverseproxy.identity.allowance import Allowance, clean_domain, parse_ports

MAX_NAME: Final = 253


def _domain(text: str) -> str:
    return clean_domain(text)


def _pattern(text: str) -> str:
    return "*" if text == "*" else clean_domain(text)


def _ports(text: str) -> str:
    parse_ports(text)
    return text


def _url(text: str) -> str:
    if text and ("{domain}" not in text or len(text) > MAX_NAME or not text.isprintable()):
        raise ValueError(f'{quote(text)} must have "{{domain}}" in it, and at most {MAX_NAME} characters')
    return text


Domain = Annotated[Text, AfterValidator(_domain)]
Pattern = Annotated[Text, AfterValidator(_pattern)]
Ports = Annotated[Text, AfterValidator(_ports)]


class RouteRequestConfig(Model):
    """Routes that a server is asked for, when an agent joins it."""

    domains: tuple[Domain, ...] = key(
        (),
        'For HTTP: host names, such as "app.example.com", or "*.app.example.com" for all below.',
        ours=True,
    )
    subdomains: tuple[Text, ...] = key(
        (), 'For HTTP: names in the zone of the server, such as "app".', ours=True
    )
    port: Annotated[Int, between(0, 65535)] | None = key(
        None, "For TCP: the port of the server for clients. 0 means any that is free.", ours=True
    )

    @property
    def asks(self) -> bool:
        """Whether anything is asked for."""
        return bool(self.domains or self.subdomains) or self.port is not None


class RouteAllowanceConfig(Model):
    """Routes that agents with a certain certificate may bring."""

    strict_keys = True

    certificate: Text = key(
        "",
        'Its subject ("CN=agent1,O=Acme") or one of its alternative names ("DNS:agent1.example").',
        required=True,
        ours=True,
    )
    domains: tuple[Pattern, ...] = key(
        (), 'Host names; "*.example.com" for all below, "*" for all there are.', ours=True
    )
    ports: tuple[Ports, ...] = key((), 'Ports: "2222" or "2200-2299".', ours=True)

    @property
    def allowance(self) -> Allowance:
        """All of it."""
        return Allowance.of(self.domains, self.ports)


class AgentRoutesConfig(Model):
    """
    Routes that agents bring with them, and take away again.

    What an agent may have stands with its token (C{domains} and C{ports} in the file of
    tokens), or here with its certificate.  Who has proved nothing may have nothing.
    """

    strict_keys = True

    router: Text = key(
        "",
        "The router (router_config_name) that gets a virtual host for the domains of each agent; empty if "
        "they may bring none.",
        ours=True,
    )
    zone: Annotated[Text, AfterValidator(lambda text: text and clean_domain(text))] = key(
        "", "The domain of which agents may ask for subdomains by their names alone.", ours=True
    )
    url: Annotated[Text, AfterValidator(_url)] = key(
        "",
        'How clients get to a domain, such as "https://{domain}/", for agents to tell people.',
        ours=True,
    )
    tcp_address: Text = key("127.0.0.1", "The IP address at which the ports of agents are opened.", ours=True)
    tcp_ports: tuple[Ports, ...] = key(
        (), 'The ports that may be opened at all: "2222" or "2200-2299". None if absent.', ours=True
    )
    cluster_template: Text = key(
        "",
        "The cluster, without hosts, whose settings those of agents have. Its name is nothing to agents.",
        ours=True,
    )
    grace: Span = key(
        30.0,
        "How long the routes of an agent are kept for it, and requests wait for it, when its last connection "
        "has ended.",
        ours=True,
    )
    max_clusters: Annotated[Int, between(1, 1_000_000)] = key(
        1000, "How many clusters agents may bring, all together.", ours=True
    )
    max_routes_per_identity: Annotated[Int, between(1, 1_000_000)] = key(
        16, "How many domains and ports, all together, one identity may have.", ours=True
    )
    allow: tuple[RouteAllowanceConfig, ...] = key(
        (), "What agents may bring that show a certificate.", ours=True
    )
