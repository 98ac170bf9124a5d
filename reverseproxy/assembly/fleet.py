"""From the C{fleet} of a configuration to this server's part in it."""

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
from reverseproxy.tunnel.server.agent_routes import AgentRoutes, owner_of
from reverseproxy.tunnel.server.filter import TunnelServer

_PLACE: Final = DOCUMENT / "fleet" / "peers"

MakeDirectory = Callable[[FleetConfig, Callable[[], ServerRecord], World, bool], IDirectory]
"""
Makes what keeps the directory: given the configuration, what says who this server is once it
is bound, the world, and whether this process publishes.
"""


def build_fleet(
    world: World, findings: Diagnostics, config: FleetConfig, make_directory: MakeDirectory | None
) -> Fleet:
    """
    Make this server's part in a fleet; nothing is bound, dialled or published yet.

    @param make_directory: L{None} for what the configuration says.
    @raise ConfigError: if that can't be.
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
        desk = (
            FleetRouteArbiter(*parts)
            if world.worker is None
            else SupervisorRoutes(*parts, worker=world.worker).desk
        )
        fleet.on_standing = desk.judge_again
        fleet.on_linked = desk.review
        world.fleet_resources.desk = desk
    if world.fleet_resources.store_tls is not None:
        tell_of_expiry(findings, world.fleet_resources.store_tls)
    return fleet


def _tls(context: TlsContextConfig) -> tuple[ServerTls, PeerTls]:
    """
    Make what links from other servers, and those to them, are secured by.

    @raise ConfigError: if files can't be used.
    """
    place = _PLACE / "tls_context"
    return ServerTls([context], place), PeerTls(context, "", place)


def _access_logs(world: World, findings: Diagnostics, peers: PeersConfig) -> list[AccessLog]:
    """Open the access logs of what other servers forward."""
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
    """Where others dial: with the port that was found, where the configuration leaves it open."""
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
    Say what the configuration of this server has against an agent of another one.

    Whom all tunnel listeners of this server would refuse by it is sent nothing, whoever has let it in.
    Whom operators keep out may not join; who has joined before is for its own server to let go of, which
    hears the same as this one.
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
    Say what the configuration of this server has against routes that an agent has brought to another one.

    What its token or certificate allows is decided by the server that it has joined, and by each that
    would send requests there.
    """
    server = world.tunnels.get(record.listener)
    if server is None or server.routes is None:
        return ""  # which is found out, and said, by who would make them
    identity = record.identity or AgentIdentity()
    if identity.name and not server.admission.judges(identity.policy, record.cluster):
        # Or whoever can write to the store could have anything, by a policy that he makes up.
        return f"{identity.principal} has been let in by a policy that nothing judges here"
    allowance = server.admission.allowance_of(identity.policy, identity.name)
    return server.routes.objection(identity, allowance, record.domains, record.port)


def _standing(world: World) -> Hashable:
    """What is another thing whenever L{_objection} may be."""
    return sum(server.revocations.reviews for server in world.tunnels.values())
