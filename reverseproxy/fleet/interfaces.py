"""What the parts of a fleet expect of each other."""

from __future__ import annotations

__all__ = ["IDirectory", "IDirectoryListener", "IRouteDirectory"]

from collections.abc import Callable, Mapping
from typing import Protocol

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from reverseproxy.fleet.records import HostKey, HostRecord, RouteKey, RouteRecord, ServerRecord


class IDirectoryListener(Interface):
    """
    Is told of the other servers and their hosts, as they are known here; never of this server's own.

    A server comes before its hosts, and leaves after them: no host is ever told whose
    server has not been, or is gone.  Records of one key come in their order, none twice.
    What raises is logged, and keeps nobody else from being told.
    """

    def server_came(server: ServerRecord) -> None:  # noqa: N805
        """There is another server."""

    def server_changed(server: ServerRecord, old: ServerRecord) -> None:  # noqa: N805
        """It is another process, drains, or has another address; its hosts stay what they are."""

    def server_left(server: ServerRecord, reason: str) -> None:  # noqa: N805
        """It is gone; its hosts have been told before."""

    def host_came(host: HostRecord) -> None:  # noqa: N805
        """A server has an agent."""

    def host_changed(host: HostRecord, old: HostRecord) -> None:  # noqa: N805
        """Something of it is different, such as how many connections it has, or whether it is well."""

    def host_left(host: HostRecord, reason: str) -> None:  # noqa: N805
        """The server has that agent no more."""


class IDirectory(Interface):
    """
    Who has which agents, in the whole fleet.

    What is known stays known while the store can't be reached: who can't be reached then is
    for links to find out.
    """

    server_id = Attribute("What this server is called.")

    servers: Mapping[str, ServerRecord] = Attribute("The other servers, by id; for reading only.")

    hosts: Mapping[HostKey, HostRecord] = Attribute("Their hosts; for reading only.")

    up = Attribute("Whether the store is reached, and what is known is known to be true.")

    def listen(listener: IDirectoryListener) -> None:  # noqa: N805
        """Tell somebody of all that is known, at once, and of every change from now on."""

    def unlisten(listener: IDirectoryListener) -> None:  # noqa: N805
        """Tell it nothing any more; it is not told that servers leave."""

    def publish(host: HostRecord) -> None:  # noqa: N805
        """Say that this server has an agent, or what is different with it; others know within a second."""

    def withdraw(key: HostKey) -> None:  # noqa: N805
        """Say that this server has an agent no more; nothing happens if nobody has heard of it."""

    def drain() -> None:
        """Say that this server is about to leave."""

    def judge(reached) -> None:  # type: ignore[no-untyped-def]  # noqa: N805
        """
        Say who knows which servers can be reached.

        A server whose record is gone without a word (its lease has lapsed, the store has been
        emptied) stays known as long as it is reached.

        @param reached: called with the id of a server: whether there is a link to it that works.
        """

    def lost(server: str) -> None:  # noqa: N805
        """The link to a server is down: forget it now, if it is known by that alone."""

    def start() -> None:
        """Begin: read what there is, and publish what has been given."""

    def stop(stays: bool = False) -> Deferred[None]:  # noqa: N805
        """
        Take away all that this server has published, and end.

        @param stays: whether another process goes on as this server, to which that is left.
        @return: fires when that has been done, or could not be for some seconds; never fails.
        """


class IRouteDirectory(Protocol):
    """What is needed of the directory."""

    @property
    def server_id(self) -> str:
        """What this server is called."""

    @property
    def servers(self) -> Mapping[str, ServerRecord]:
        """The other servers."""

    @property
    def routes(self) -> Mapping[RouteKey, RouteRecord]:
        """The routes that agents have brought to other servers."""

    def publish_routes(self, record: RouteRecord) -> None:
        """Say that this server has some."""

    def withdraw_routes(self, cluster: str) -> None:
        """Say that it has them no more."""

    def follow_routes(
        self,
        told: Callable[[str, RouteRecord], object],
        own: Callable[[RouteRecord, RouteRecord | None], object],
        lost: Callable[[], object],
    ) -> None:
        """Be told of them."""
