"""The admin API as a service: it listens, authenticates callers, and routes their requests."""

from __future__ import annotations

__all__ = ["AdminChange", "AdminServer", "load_credentials"]

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from reverseproxy.admin import probes
from reverseproxy.admin.access import Access, Caller, Role
from reverseproxy.admin.answers import only
from reverseproxy.admin.api import PATHS as API_PATHS
from reverseproxy.admin.api import TunnelApi
from reverseproxy.admin.browser_checks import check_host, check_origin
from reverseproxy.admin.configuration_api import IReloadableConfiguration
from reverseproxy.admin.http import make_factory
from reverseproxy.admin.lists import describe_certificates
from reverseproxy.admin.messages import TEXT, ApiProblem, Call, Reply, StreamedReply
from reverseproxy.admin.metrics_paths import MetricsPaths
from reverseproxy.admin.mosn import LOG_CHANGES, MosnPaths
from reverseproxy.admin.mosn import PATHS as MOSN_PATHS
from reverseproxy.admin.pages import page, wants_page
from reverseproxy.admin.sources import ISource
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.models import AdminConfig, Config, ListenerConfig
from reverseproxy.errors import ConfigError
from reverseproxy.listener import BoundPort, Listener, ListenerFailed
from reverseproxy.listener.connection_limiter import ConnectionLimiter
from reverseproxy.logs import Throttle, shorten
from reverseproxy.problems import DOCUMENT, Problem
from reverseproxy.tls import ServerTls
from reverseproxy.tls.reload import CertificateReloader, IReloadable
from reverseproxy.tls.validity import Dated

log = Logger()

NAME: Final = "admin"
"""The name of the listener in the log."""

MOST_CONNECTIONS: Final = 256
"""The maximum number of concurrent connections."""

REFUSED_RATE: Final = 1.0
"""The maximum rate of lines about refused changes, per second."""

REFUSED_BURST: Final = 20
"""The maximum number of such lines at once."""

NOT_ALLOWED: Final = 405
"""The status of an answer to a request that is no change, as its path does not support the method."""

PARTING: Final = 1.0
"""Seconds after which connections are closed that were made with a previous C{tls_context}."""

_ADMIN: Final = DOCUMENT / "admin"
_PROBES: Final = frozenset({"healthz", "livez", "readyz"})
_SAFE: Final = frozenset({"GET", "HEAD"})


@implementer(IReloadable)
class AdminServer(Service):
    """
    The server of the admin API.

    @ivar listener: its listener, at the address of the configuration's C{admin}.
    @ivar tls: its TLS contexts, which are reloaded when their files change; L{None} for plaintext.
    """

    def __init__(self, config: Config, reactor: Any, source: ISource) -> None:
        """
        @raise ConfigError: if the files that the configuration names can't be used.
        """
        admin = config.admin
        assert admin is not None
        self._complaints = Throttle(reactor, 0.1, 10)
        self._refused = Throttle(reactor, REFUSED_RATE, REFUSED_BURST)
        self._refused_strangers = Throttle(reactor, REFUSED_RATE, REFUSED_BURST)
        self._source = source
        self._reactor = reactor
        self._admin = admin
        self._access, self.tls = load_credentials(admin)
        self._mosn = MosnPaths(config, source, reactor)
        self._metrics = MetricsPaths(source, reactor, self._certificates)
        self._api = TunnelApi(config, source, reactor, self._certificates)
        self._build: Callable[..., Any] = make_factory(self._handle, self._reactor)
        self.listener = Listener(
            _where(admin),
            self._build,
            self._reactor,
            self.tls,
            None,
            ConnectionLimiter(self._reactor),
            _mode(admin),
        )
        self._local = _is_local(admin)
        self._reloader = CertificateReloader(reactor, [self])

    # reloading

    def reload_if_changed(self) -> bool:
        """
        Load certificates again whose files have changed; see L{IReloadable}.

        Connections are closed after the answers under way if clients are authenticated by certificates, as
        one of these may have been revoked.
        """
        changed = self.tls is not None and self.tls.reload_if_changed()
        if changed and self._admin.tls is not None and self._admin.tls.verify_client:
            self.listener.part()
        return changed

    def expiring(self) -> list[tuple[Problem, bool]]:
        """See L{IReloadable}."""
        return [] if self.tls is None else self.tls.expiring()

    @property
    def dated(self) -> list[tuple[str, Dated]]:
        """See L{IReloadable}."""
        return [] if self.tls is None else self.tls.dated

    def reload_certificates(self) -> None:
        """Look for changed certificates now, and not only within the next seconds."""
        self._reloader.poll()

    def attach_configuration(self, reloadable: IReloadableConfiguration) -> None:
        """Enable the paths and metrics of the configuration, and its reload."""
        self._metrics.reloading = reloadable.reloading
        self._api.attach_configuration(reloadable)

    def prepare(self, config: Config) -> AdminChange:
        """
        Prepare to apply another configuration, which has an admin API too.

        If its address is different, it is bound now.  Bans, the audit and connections are kept.

        @raise ConfigError: if the configuration can't be used.
        """
        return AdminChange(self, config)

    def take(self, change: AdminChange) -> None:
        """Apply a configuration that L{prepare} has prepared."""
        admin, before = change.admin, self._admin
        self._admin, self._access, self.tls = admin, change.access, change.tls
        self._local = _is_local(admin)
        self._mosn = MosnPaths(change.config, self._source, self._reactor)
        self._api.describe(change.config)
        listener = self.listener
        if before.tls != admin.tls:
            # Existing connections were authenticated by the previous TLS context.  They are closed, but not
            # before the client that has requested this reload gets its answer.
            self._reactor.callLater(PARTING, listener.part)
        listener.change(_where(admin), self._build, change.tls)
        if change.port is not None:
            old = listener.give_port()
            listener.take_port(change.port)
            if old is not None:
                listener.close_port(old)
        elif _mode(before) != _mode(admin) and admin.bound.startswith("unix:"):
            os.chmod(admin.bound.removeprefix("unix:"), _mode(admin))

    # running

    def privilegedStartService(self) -> None:
        """
        Bind the address.

        @raise ConfigError: if it can't be bound.
        """
        Service.privilegedStartService(self)
        try:
            self.listener.privilegedStartService()
        except ListenerFailed as error:
            raise ConfigError(Problem.at(_ADMIN / "address", str(error))) from None

    def startService(self) -> None:
        """Accept connections; bind the address first, if L{privilegedStartService} has not been called."""
        self.privilegedStartService()
        Service.startService(self)
        self.listener.startService()
        self._reloader.start()

    def stopService(self) -> Deferred[None]:
        """Close all connections."""
        Service.stopService(self)
        self._reloader.stop()
        self._api.stop()
        return self.listener.stopService()

    # answering

    async def _handle(self, call: Call) -> Reply | StreamedReply:
        """
        Answer a request, and log a change that is refused.

        @raise ApiProblem: if it is refused.
        """
        try:
            return await self._answer(call)
        except ApiProblem as problem:
            if call.method not in _SAFE and problem.status != NOT_ALLOWED:
                self._note_refused(call, str(problem))
            raise

    async def _answer(self, call: Call) -> Reply | StreamedReply:
        if self._local:
            check_host(call)
        if call.parts[0] in _PROBES and len(call.parts) == 1:
            return await self._probe(call)
        if call.parts == ("dashboard", ""):
            return Reply(302, b"", TEXT, {"Location": "../dashboard"})  # the page has relative links
        if call.parts[0] == "dashboard" and len(call.parts) < 3:
            return page(call, "".join(call.parts[1:]) or "index.html")
        if call.parts == ("",) and wants_page(call):
            return Reply(302, b"", TEXT, {"Location": "dashboard"})
        caller = self._access.judge(call.info, call.headers("authorization"))
        needed = Role.READ if call.method in _SAFE else Role.OPERATE
        if needed is Role.OPERATE:
            check_origin(call)
        if caller.role < needed:
            raise self._refusal(call, caller, needed)
        reply = await self._route(call, caller)
        if isinstance(reply, StreamedReply):
            return replace(reply, allowed=partial(self._may_read, call))
        return reply

    def _may_read(self, call: Call) -> bool:
        """Whether the caller of an earlier request may still read: its token may have been revoked since."""
        return self._access.judge(call.info, call.headers("authorization")).role >= Role.READ

    def _note_refused(self, call: Call, why: str) -> None:
        """Log a refused change, at a limited rate, as anyone can cause that."""
        caller = self._access.judge(call.info, call.headers("authorization"))
        throttle = self._refused_strangers if caller.role is Role.NOBODY else self._refused
        if throttle.allow():
            told = f"{call.method} {shorten(call.path)}: {why}"
            self._api.note_refused(caller.name or call.info.remote, told, throttle.suppressed)

    def _refusal(self, call: Call, caller: Caller, needed: Role) -> ApiProblem:
        if caller.role is Role.NOBODY:
            if call.headers("authorization") and self._complaints.allow():
                log.warn(
                    "admin: {peer} sent an unknown token{suppressed}",
                    peer=call.info.remote,
                    suppressed=self._complaints.suppressed,
                )
            return ApiProblem(401, caller.hint, WWW_Authenticate='Bearer realm="reverseproxy"')
        return ApiProblem(403, f"requires the role {needed.name.lower()}: {caller.hint}")

    async def _probe(self, call: Call) -> Reply:
        if call.method not in _SAFE:
            raise ApiProblem(405, "use GET", Allow="GET, HEAD")
        if call.parts[0] != "readyz":
            return probes.healthy()
        may_know = self._access.judge(call.info, call.headers("authorization")).role >= Role.READ
        reasons = ["stopping: requests in progress are finished"] if self._source.draining else []
        return probes.ready(await self._source.ask("ready", {}), reasons, may_know)

    async def _route(self, call: Call, caller: Caller) -> Reply | StreamedReply:
        match call.parts:
            case ("metrics",):
                only(call, "GET")
                return await self._metrics.metrics(call)
            case ("api", "v1", name):
                only(call, "POST" if name in LOG_CHANGES else "GET")
                reply = await self._mosn.answer(call)
                if name in LOG_CHANGES and reply.status == 200:
                    self._api.note_log_level(caller, LOG_CHANGES[name], call.body)
                elif name in LOG_CHANGES:
                    self._note_refused(call, "there is no such log or level")
                return reply
            case ("api", "tunnel", "v1", _, *_):
                return await self._api.answer(call, caller)
            case ("metrics", "agents"):
                only(call, "GET")
                return await self._metrics.agent_metrics(call)
            case ("",):
                only(call, "GET")
                return Reply.text("".join(f"{path}\n" for path in PATHS))
        raise ApiProblem(404, "no such path")

    def _certificates(self) -> list[dict[str, Any]]:
        """Return the certificates of the admin API itself, in the form of L{describe_certificates}."""
        return describe_certificates(self.dated)


class AdminChange:
    """
    A prepared change of the admin API's configuration.

    @ivar config: the new configuration.
    @ivar admin: its part C{admin}.
    @ivar access: authenticates callers from then on.
    @ivar tls: the TLS contexts from then on; L{None} for plaintext.
    @ivar port: the newly bound address; L{None} if the address stays.
    """

    def __init__(self, server: AdminServer, config: Config) -> None:
        admin = config.admin
        assert admin is not None
        self.config = config
        self.admin = admin
        old = server._admin
        self.access, self.tls = load_credentials(admin, server.tls if old.tls == admin.tls else None)
        self.port: BoundPort | None = None
        self._server = server
        if old.bound != admin.bound:
            try:
                self.port = server.listener.bind(_where(admin), self.tls is not None, mode=_mode(admin))
            except ListenerFailed as error:
                raise ConfigError(Problem.at(_ADMIN / "address", str(error))) from None

    def commit(self) -> None:
        """Apply the change."""
        self._server.take(self)

    def discard(self) -> None:
        """Drop the change, and release the newly bound address."""
        if self.port is not None:
            self._server.listener.close_port(self.port)


def load_credentials(admin: AdminConfig, tls: ServerTls | None = None) -> tuple[Access, ServerTls | None]:
    """
    Load the tokens and the TLS contexts of an admin API.

    @param tls: the TLS contexts to keep in use, if any.
    @raise ConfigError: if files can't be used.
    """
    findings = Diagnostics()
    access = findings.attempt(_ADMIN / "tokens_file", partial(Access, admin))
    if tls is None and admin.tls is not None:
        place = _ADMIN / "tls_context"
        tls = findings.attempt(place, partial(ServerTls, [admin.tls], place))
    if access is None or findings.errors:
        raise ConfigError(*findings.errors)
    return access, tls


def _where(admin: AdminConfig) -> ListenerConfig:
    bound = admin.bound
    return ListenerConfig(
        name=NAME,
        address=bound.removeprefix("unix:"),
        network="unix" if bound.startswith("unix:") else "tcp",
        bind_port=True,
        max_connections=MOST_CONNECTIONS,
    )


def _mode(admin: AdminConfig) -> int:
    """Return the permissions of the Unix socket."""
    if admin.address is not None and admin.address.pipe is not None:
        return admin.address.pipe.mode
    return 0o600


def _is_local(admin: AdminConfig) -> bool:
    """Whether callers on this machine need no authentication."""
    return admin.address is not None and admin.address.pipe is None and not admin.authenticates


PATHS: Final = (
    "/dashboard",
    "/healthz",
    "/readyz",
    "/metrics",
    "/metrics/agents",
    *(f"/api/v1/{path}" for path in MOSN_PATHS),
    *(f"/api/tunnel/v1/{path}" for path in API_PATHS),
)
"""All paths."""
