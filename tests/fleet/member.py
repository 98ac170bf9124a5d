"""A server that has but its directory, as a process: C{python -m tests.fleet.member NAME ENDPOINT}."""

from __future__ import annotations

import sys
from random import Random
from typing import Any

from twisted.internet import reactor as global_reactor

from reverseproxy.fleet.directory import FleetDirectory, Settings
from reverseproxy.fleet.etcd import Etcd
from reverseproxy.fleet.records import ServerRecord
from tests.fleet.test_view import host

reactor: Any = global_reactor


def main(name: str, endpoint: str) -> None:
    """Publish a server with one host, until somebody ends it."""
    record = ServerRecord(name, "127.0.0.1:7000")
    etcd = Etcd(reactor, [endpoint])
    directory = FleetDirectory(reactor, etcd, Settings(name, "/fleet/", 2), Random(), lambda: record)
    directory.publish(host(name))
    directory.start()
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
