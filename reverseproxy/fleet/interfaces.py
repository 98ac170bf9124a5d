"""Interfaces between the parts of a fleet."""

from __future__ import annotations

__all__ = ["IDirectory", "IDirectoryListener", "IRouteDirectory"]

from collections.abc import Callable, Mapping
from typing import Protocol

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from reverseproxy.fleet.records import HostKey, HostRecord, RouteKey, RouteRecord, ServerRecord


class IDirectoryListener(Interface):
    """
    Gets events about the other servers and their hosts; never about this server's own.

    A server comes before its hosts, and leaves after them: no event concerns a host whose server has not
    come, or has left. The events of one key come in their order, none twice. Exceptions are logged, and
    other listeners get the event nevertheless.
    """

    def server_came(server: ServerRecord) -> None:  # noqa: N805
        """Handle another server."""

    def server_changed(server: ServerRecord, old: ServerRecord) -> None:  # noqa: N805
        """Handle a server that is another process, is draining, or has another address; its hosts stay."""

    def server_left(server: ServerRecord, reason: str) -> None:  # noqa: N805
        """Handle a server that is gone; C{host_left} has been called for all of its hosts."""

    def host_came(host: HostRecord) -> None:  # noqa: N805
        """Handle another agent of a server."""

    def host_changed(host: HostRecord, old: HostRecord) -> None:  # noqa: N805
        """
        Handle an agent with another record: another number of connections, or other health, for example.
        """

    def host_left(host: HostRecord, reason: str) -> None:  # noqa: N805
        """Handle an agent that its server does not have any more."""


class IDirectory(Interface):
    """
    Which servers there are in the fleet, and which agents each of them has.

    While the store can't be reached, the last known state is kept: whether servers are alive is for
    links to find out.
    """

    server_id = Attribute("What this server is called.")

    servers: Mapping[str, ServerRecord] = Attribute("The other servers, by id; for reading only.")

    hosts: Mapping[HostKey, HostRecord] = Attribute("Their hosts; for reading only.")

    up = Attribute("Whether the store is reached, and what is known is known to be true.")

    def listen(listener: IDirectoryListener) -> None:  # noqa: N805
        """Add a listener: it gets events for all that is known, at once, and for every change from now on."""

    def unlisten(listener: IDirectoryListener) -> None:  # noqa: N805
        """Remove a listener, without further events."""

    def publish(host: HostRecord) -> None:  # noqa: N805
        """Publish an agent of this server, or its changed record; other servers have it within a second."""

    def withdraw(key: HostKey) -> None:  # noqa: N805
        """Withdraw an agent of this server; does nothing if it has not been published."""

    def drain() -> None:
        """Publish that this server is about to leave."""

    def judge(reached: Callable[[str], bool]) -> None:  # noqa: N805
        """
        Set the function that says which servers can be reached.

        A server whose record disappears without an announcement (its lease has expired, the store has
        been emptied) stays known as long as it is reached.

        @param reached: called with the id of a server; returns whether the link to it is up.
        """

    def lost(server: str) -> None:  # noqa: N805
        """Note that the link to a server is down: forget the server, if only the link kept it known."""

    def start() -> None:
        """Read the store, and publish what has been set so far."""

    def stop(stays: bool = False) -> Deferred[None]:  # noqa: N805
        """
        Withdraw all that this server has published, and stop.

        @param stays: whether another process goes on as this server, so that nothing is withdrawn.
        @return: fires when that has been done, or was not possible for some seconds; never fails.
        """


class IRouteDirectory(Protocol):
    """The part of a directory that the arbiter of routes uses."""

    @property
    def server_id(self) -> str:
        """This server's id."""

    @property
    def servers(self) -> Mapping[str, ServerRecord]:
        """The other servers, by id."""

    @property
    def routes(self) -> Mapping[RouteKey, RouteRecord]:
        """The routes of agents of other servers."""

    def publish_routes(self, record: RouteRecord) -> None:
        """Publish routes of an agent of this server."""

    def withdraw_routes(self, cluster: str) -> None:
        """Withdraw the routes of a cluster."""

    def follow_routes(
        self,
        told: Callable[[str, RouteRecord], object],
        own: Callable[[RouteRecord, RouteRecord | None], object],
        lost: Callable[[], object],
    ) -> None:
        """
        Set the callbacks for records of routes.

        @param told: called with C{"came"} or C{"left"}, and a record of another server; a record that
            changes has left, and has come.
        @param own: called with a record of this server that is in the store now, and with a conflicting
            one of another server that was there before, if there is one.
        @param lost: called when this server's lease has ended, so that others may have been granted what
            it had.
        """
