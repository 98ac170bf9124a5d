"""Build the directory of the fleet in etcd, from C{fleet.etcd}."""

from __future__ import annotations

__all__ = ["DirectoryChange", "make_client", "make_directory"]

import math
import os
from collections.abc import Callable
from pathlib import Path
from random import SystemRandom
from typing import Any, Final

from reverseproxy.assembly.world import World, tell_of_expiry
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.models import EtcdConfig, FleetConfig
from reverseproxy.fleet.directory import FleetDirectory, Settings
from reverseproxy.fleet.etcd import TIMEOUT, Etcd
from reverseproxy.fleet.records import ServerRecord
from reverseproxy.problems import DOCUMENT
from reverseproxy.tls import ClientTls

_PLACE: Final = DOCUMENT / "fleet" / "etcd"

MAX_PASSWORD: Final = 4096
"""The most characters of a password."""


def make_directory(
    config: FleetConfig, who: Callable[[], ServerRecord], world: World, publishes: bool
) -> FleetDirectory:
    """
    Make the directory of a fleet; nothing is dialled yet.

    @param who: returns this server's record, once it is bound.
    @param publishes: whether this process writes the records of this server.
    @raise ConfigError: if its certificates can't be used.
    """
    etcd = config.etcd
    assert etcd is not None  # as checked when the configuration was loaded
    world.fleet_resources.store_tls = _tls(etcd)
    client = _client(etcd, world)
    return FleetDirectory(world.reactor, client, _settings(config), world.random, who, publishes)


class DirectoryChange:
    """
    A prepared change of C{fleet.etcd}.

    The known and published records stay, and are written to the new etcd.
    """

    def __init__(
        self,
        directory: FleetDirectory,
        config: FleetConfig,
        old: FleetConfig,
        world: World,
        findings: Diagnostics,
    ) -> None:
        """
        @raise ConfigError: if its certificates can't be used.
        """
        assert config.etcd is not None
        self._directory = directory
        self._world = world
        self._config = config.etcd
        self._anew = _dialled(config.etcd) != _dialled(old.etcd)
        self._tls = _tls(config.etcd) if self._anew else world.fleet_resources.store_tls
        if self._tls is not None:
            tell_of_expiry(findings, self._tls)

    def commit(self) -> None:
        """Apply the change."""
        self._world.fleet_resources.store_tls = self._tls
        etcd = _client(self._config, self._world) if self._anew else None
        self._directory.change(_ttl(self._config), etcd)


def _dialled(etcd: EtcdConfig | None) -> object:
    """Return the settings that a connection depends on, for comparison."""
    return None if etcd is None else etcd.model_copy(update={"lease_ttl": 0.0, "prefix": ""})


def _settings(config: FleetConfig) -> Settings:
    etcd = config.etcd
    assert etcd is not None
    return Settings(config.server_id, etcd.prefix, _ttl(etcd))


def _ttl(etcd: EtcdConfig) -> int:
    """Return the time to live of the lease in whole seconds, as etcd has it."""
    return math.ceil(etcd.lease_ttl)


def _tls(etcd: EtcdConfig) -> ClientTls | None:
    if etcd.tls is None:
        return None
    return ClientTls(etcd.tls, "localhost", _PLACE / "tls_context")


def _client(etcd: EtcdConfig, world: World) -> Etcd:
    return make_client(etcd, world.fleet_resources.store_tls, world.reactor)


def make_client(etcd: EtcdConfig, tls: ClientTls | None, reactor: Any) -> Etcd:
    """
    Make a client of etcd; nothing is dialled yet.

    It begins with a random endpoint, so that the watches of all clients are spread.
    """
    return Etcd(
        reactor,
        SystemRandom().sample(etcd.endpoints, len(etcd.endpoints)),
        tls=tls,
        user=etcd.user,
        password=lambda: _password(etcd),
        # A lease must outlive a request that times out.
        timeout=min(TIMEOUT, etcd.lease_ttl / 3),
    )


def _password(etcd: EtcdConfig) -> str:
    """
    Read the password.

    @raise OSError: if its file can't be read.
    @raise ValueError: if it is empty.
    """
    if etcd.password_env:
        found = os.environ.get(etcd.password_env, "")
        if not found:
            raise ValueError(f"the environment variable {etcd.password_env} is empty")
        return found
    with Path(etcd.password_file).open(encoding="utf-8") as file:
        found = file.read(MAX_PASSWORD).rstrip("\r\n")
    if not found:
        raise ValueError(f"{etcd.password_file} is empty")
    return found
