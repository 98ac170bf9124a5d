"""Build this server's part of a fleet, from C{fleet}."""

from __future__ import annotations

__all__ = ["build_fleet"]

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Final

from reverseproxy import __version__
from reverseproxy.addresses import host_of, is_loopback
from reverseproxy.assembly.directory import make_directory as etcd_directory
from reverseproxy.assembly.world import World, tell_of_expiry
from reverseproxy.cluster.endpoints import make_endpoint
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.models import FleetConfig, PeersConfig, TlsContextConfig
from reverseproxy.fleet.directory import FleetDirectory
from reverseproxy.fleet.fleet import Fleet, FleetParts
from reverseproxy.fleet.interfaces import IDirectory
from reverseproxy.fleet.observers import RequestObservers
from reverseproxy.fleet.outgoing_link import DIAL_TIMEOUT
from reverseproxy.fleet.peer_identity import PeerTls, check_peer, peer_context
from reverseproxy.fleet.records import HostRecord, RouteRecord, ServerRecord
from reverseproxy.fleet.route_arbiter import FleetRouteArbiter
from reverseproxy.fleet.supervisor_routes import SupervisorRoutes
from reverseproxy.identity import AgentIdentity
from reverseproxy.listener import Listener
from reverseproxy.problems import DOCUMENT
from reverseproxy.proxy.access import AccessLog
from reverseproxy.tls import ServerTls
from reverseproxy.tunnel.server.agent_routes import AgentRoutes
from reverseproxy.tunnel.server.filter import TunnelServer
from reverseproxy.tunnel.server.route_interfaces import owner_of

_PLACE: Final = DOCUMENT / "fleet" / "peers"

MakeDirectory = Callable[[FleetConfig, Callable[[], ServerRecord], World, bool], IDirectory]
"""
Makes the directory of a fleet: given the configuration, a function that returns this server's
record once it is bound, the world, and whether this process publishes that record.
"""


def build_fleet(
    world: World, findings: Diagnostics, config: FleetConfig, make_directory: MakeDirectory | None
) -> Fleet:
    """
    Build this server's part of a fleet; nothing is bound, dialled or published yet.

    @param findings: gets the problems of TLS and access logs.
    @param make_directory: L{None} for the configured etcd.
    @raise ConfigError: if the directory can't be made.
    """
    peers = config.peers
    if peers is None:
        raise ValueError("peers is missing")
    tls = None if peers.tls is None else findings.attempt(_PLACE, partial(_tls, peer_context(peers.tls)))
    server_tls, client_tls = tls or (None, None)
    if server_tls is not None:
        tell_of_expiry(findings, server_tls)
    world.fleet_resources.tls = tls
    prove = partial(_prove, peers.pins, peers.tls is None)
    logs = _access_logs(world, findings, peers)
    world.fleet_resources.logs = logs

    def write(record: Any) -> None:
        for each in logs:
            each.write(record)

    def endpoint(address: str) -> Any:
        if client_tls is None and not is_loopback(host_of(address)):
            raise ValueError(f"{address} is not on this machine, and there is no TLS to it")
        tls = None if client_tls is None else client_tls.named(address)
        return make_endpoint(world.reactor, address, DIAL_TIMEOUT, tls)

    publishes = world.worker is None or world.worker.number == 0
    fleet = Fleet(
        FleetParts(
            server_id=config.server_id,
            clusters=world.clusters,
            reactor=world.reactor,
            random=world.random,
            endpoint=endpoint,
            prove=prove,
            objection=partial(_objection, world),
            standing=partial(_standing, world),
            tls=server_tls,
            dial_tls=client_tls,
            accounts=RequestObservers(write if logs else None, world.tracing),
            exclusions=world.exclusions,
            publishes=publishes,
        )
    )
    listen = None if world.worker is None else world.worker.listen_for(PeersConfig.listener_name)
    listener = Listener(peers.listener, fleet.incoming, world.reactor, server_tls, listen, world.limiter)
    world.listeners[PeersConfig.listener_name] = listener

    def who() -> ServerRecord:
        return ServerRecord(
            config.server_id, _address(peers, listener), __version__, agents=config.agents_addresses
        )

    directory = (make_directory or etcd_directory)(config, who, world, publishes)
    fleet.use(directory)
    if isinstance(directory, FleetDirectory) and publishes:
        parts = (
            directory,
            partial(_routes_of, world),
            world.reactor,
            partial(_objection_to_routes, world),
            fleet.links.reaches,
        )
        arbiter = (
            FleetRouteArbiter(*parts)
            if world.worker is None
            else SupervisorRoutes(*parts, worker=world.worker).arbiter
        )
        fleet.on_standing = arbiter.judge_again
        fleet.on_linked = arbiter.review
        world.fleet_resources.arbiter = arbiter
    if world.fleet_resources.store_tls is not None:
        tell_of_expiry(findings, world.fleet_resources.store_tls)
    return fleet


def _tls(context: TlsContextConfig) -> tuple[ServerTls, PeerTls]:
    """
    Make the TLS of links from other servers, and of links to them.

    @raise ConfigError: if files can't be used.
    """
    place = _PLACE / "tls_context"
    return ServerTls([context], place), PeerTls(context, "", place)


def _access_logs(world: World, findings: Diagnostics, peers: PeersConfig) -> list[AccessLog]:
    """Open the access logs of requests that other servers forward."""
    number = 0 if world.worker is None else world.worker.number + 1
    logs = []
    for index, each in enumerate(peers.access_logs):
        place = _PLACE / "access_logs" / index
        make = partial(AccessLog, each.log_path, each.log_format, world.reactor, PeersConfig.listener_name)
        access_log = findings.attempt(place, partial(make, world.dry, number))
        if access_log is not None:
            logs.append(access_log)
            for warning in access_log.warnings:
                findings.add_warning(warning.within(place))
    return logs


def _address(peers: PeersConfig, listener: Listener) -> str:
    """Return the address for other servers, with the bound port if the configured one is 0."""
    host, _, port = peers.advertised.rpartition(":")
    if port == "0" and listener.bound is not None:
        port = listener.bound.rpartition(":")[2]
    return f"{host}:{port}"


def _routes_of(world: World, listener: str) -> AgentRoutes | None:
    server = world.tunnels.get(listener)
    return None if server is None else server.routes


def _prove(pins: dict[str, str], plaintext: bool, transport: Any, claimed: str) -> str:
    return check_peer(transport, claimed, pins, plaintext)


def _objection(world: World, record: HostRecord) -> str:
    """
    Return why this server sends no requests to an agent of another one; empty if it does.

    The reason is that all tunnel listeners of this server would refuse the agent by their
    configuration.  Exclusions by operators are not considered: the other server gets these, too,
    and closes the agent's connections.
    """
    identity = record.identity or AgentIdentity()
    objections = [
        server.admission.objection(
            identity.policy, identity.name, record.cluster, _has_brought(server, identity, record.cluster)
        )
        for server in world.tunnels.values()
    ]
    return objections[0] if objections and all(objections) else ""


def _has_brought(server: TunnelServer, identity: AgentIdentity, cluster: str) -> bool:
    claim = None if server.routes is None else server.routes.claims.find(cluster)
    return claim is not None and bool(claim.owner) and claim.owner == owner_of(identity)


def _objection_to_routes(world: World, record: RouteRecord) -> str:
    """
    Return why this server does not serve routes that an agent has brought to another one; empty if it does.

    What the agent's token or certificate allows is checked by the server that it has joined, and by
    each server that would forward requests.
    """
    server = world.tunnels.get(record.listener)
    if server is None or server.routes is None:
        return ""  # the caller finds and logs that
    identity = record.identity or AgentIdentity()
    if identity.name and not server.admission.judges(identity.policy, record.cluster):
        # Otherwise anyone who can write to etcd could make up a policy, and be granted any route.
        return f"{identity.principal} has been let in by a policy that nothing judges here"
    allowance = server.admission.allowance_of(identity.policy, identity.name)
    return server.routes.objection(identity, allowance, record.domains, record.port)


def _standing(world: World) -> Hashable:
    """Return a value that changes whenever the result of L{_objection} may."""
    return sum(server.revocations.reviews for server in world.tunnels.values())
