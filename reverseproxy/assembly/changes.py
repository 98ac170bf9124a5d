"""
Compare two configurations: pure.

The models are compared, not the text: a router in a file of its own is equal to the
same router in the document.
"""

from __future__ import annotations

__all__ = ["RESTART", "Changes", "Delta", "Pairing", "compare", "pair_agents"]

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

from reverseproxy.config.keys import acted_keys
from reverseproxy.config.models import Config, FleetConfig, ServerConfig, TunnelAgentConfig

_T = TypeVar("_T")

RESTART: Final[Mapping[str, str]] = {
    "servers[0].processor": "how many workers there are is settled when the process starts",
    "servers[0].default_log_path": "the log is opened before the process gives up its privileges",
    "servers[0].max_log_size_per_hour": "the log has its share of this since it was opened",
    "tracing": "spans that were begun are still to be sent to where the process sends them",
}
"""The keys that take effect only with a restart, with the reasons."""

_PARTS: Final = frozenset({"servers", "cluster_manager", "extends", "admin", "fleet"})
_PARTS_OF_SERVER: Final = frozenset({"listeners", "routers"})


@dataclass(frozen=True, slots=True)
class Delta:
    """
    The differences between two sets of named objects.

    @ivar added: in the order of the new configuration, as is C{changed}.
    @ivar removed: in the order of the old one.
    """

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)

    @classmethod
    def of(cls, old: Mapping[str, _T], new: Mapping[str, _T]) -> Delta:
        """Compare two mappings by name."""
        return cls(
            tuple(name for name in new if name not in old),
            tuple(name for name, value in new.items() if name in old and old[name] != value),
            tuple(name for name in old if name not in new),
        )

    def to_json(self) -> dict[str, list[str]]:
        """Return the same as JSON."""
        return {"added": list(self.added), "changed": list(self.changed), "removed": list(self.removed)}

    def __str__(self) -> str:
        told = (("added", self.added), ("changed", self.changed), ("removed", self.removed))
        return ", ".join(f"{len(names)} {what}" for what, names in told if names)


@dataclass(frozen=True, slots=True)
class Changes:
    """
    The differences between two configurations.

    @ivar listeners: by name, as are C{clusters} and C{routers}.
    @ivar agents: by cluster and hosting listener.
    @ivar admin: whether the admin API has changed.
    @ivar settings: other changed keys that take effect at once.
    @ivar restart: changed keys that take effect only with a restart, with the reasons.
    """

    listeners: Delta
    clusters: Delta
    routers: Delta
    agents: Delta
    admin: bool
    settings: tuple[str, ...]
    restart: Mapping[str, str]

    def __bool__(self) -> bool:
        parts = (self.listeners, self.clusters, self.routers, self.agents, self.admin)
        return any(parts) or bool(self.settings or self.restart)

    def to_json(self) -> dict[str, Any]:
        """Return the same as JSON."""
        return {
            "listeners": self.listeners.to_json(),
            "clusters": self.clusters.to_json(),
            "routers": self.routers.to_json(),
            "agents": self.agents.to_json(),
            "admin": self.admin,
            "settings": list(self.settings),
            "needs_restart": dict(self.restart),
        }

    def __str__(self) -> str:
        """Return a summary for the log."""
        parts = (
            ("listeners", self.listeners),
            ("clusters", self.clusters),
            ("routers", self.routers),
            ("agents", self.agents),
        )
        told = [f"{what}: {delta}" for what, delta in parts if delta]
        if self.admin:
            told.append("admin")
        told += self.settings
        return "; ".join(told) or f"no changes{' without a restart' if self.restart else ''}"


def compare(old: Config, new: Config) -> Changes:
    """Return the differences between two configurations."""
    settings: list[str] = []
    restart: dict[str, str] = {}
    for key in _differing(old, new, _PARTS):
        restart[key] = "it is looked at when the process starts"
    for name in _differing(old.server, new.server, _PARTS_OF_SERVER):
        key = f"servers[0].{name}"
        if key in RESTART:
            restart[key] = RESTART[key]
        elif name in _LIVE:
            settings.append(key)
        else:
            restart[key] = "it is looked at when the process starts"
    _compare_fleets(old.fleet, new.fleet, settings, restart)
    pairing = pair_agents(old.agents, new.agents)
    return Changes(
        listeners=Delta.of(
            {each.name: each for each in old.server.listeners},
            {each.name: each for each in new.server.listeners},
        ),
        clusters=Delta.of(
            {each.name: each for each in old.cluster_manager.clusters},
            {each.name: each for each in new.cluster_manager.clusters},
        ),
        routers=Delta.of(
            {name: router for name, (_, router) in old.routers.items()},
            {name: router for name, (_, router) in new.routers.items()},
        ),
        agents=pairing.delta(old.agents, new.agents),
        admin=old.admin != new.admin,
        settings=tuple(settings),
        restart=restart,
    )


def _compare_fleets(
    old: FleetConfig | None, new: FleetConfig | None, settings: list[str], restart: dict[str, str]
) -> None:
    """Compare C{fleet}: all changes need a restart, except those of how etcd is reached."""
    if old is None or new is None or old.etcd is None or new.etcd is None:
        if old != new:
            restart["fleet"] = "a server joins a fleet when it starts, and leaves it when it stops"
        return
    if old.server_id != new.server_id:
        restart["fleet.server_id"] = "others know this server by it"
    if old.peers != new.peers:
        restart["fleet.peers"] = "it is looked at when the process starts"
    if old.etcd.prefix != new.etcd.prefix:
        restart["fleet.etcd.prefix"] = "it would be another fleet"
    if old.etcd != new.etcd.model_copy(update={"prefix": old.etcd.prefix}):
        settings.append("fleet.etcd")


_LIVE: Final = frozenset(
    {
        "mosn_server_name",
        "default_log_level",
        "max_unfinished_size",
        "tls_handshake_share",
        "graceful_timeout",
    }
)
"""Keys of the server that take effect at once: they are read at each use, or applied by the commit."""


def _differing(
    old: Config | ServerConfig, new: Config | ServerConfig, parts: frozenset[str]
) -> Iterator[str]:
    """Return the keys with different values, among those that are acted on."""
    for name in acted_keys(type(old)):
        if name not in parts and getattr(old, name) != getattr(new, name):
            yield name


class Pairing(NamedTuple):
    """
    The agents of a new configuration matched with those of an old one.

    Agents have no names: equal ones are matched first, and then those with the same
    cluster and hosting listener, in their order.

    @ivar same: equal agents: the index in the new configuration to that in the old one.
    @ivar changed: agents with differences, likewise.
    @ivar added: indices in the new configuration.
    @ivar removed: indices in the old one.
    """

    same: dict[int, int]
    changed: dict[int, int]
    added: tuple[int, ...]
    removed: tuple[int, ...]

    def delta(self, old: Sequence[TunnelAgentConfig], new: Sequence[TunnelAgentConfig]) -> Delta:
        """Return the same by names, for people."""
        return Delta(
            tuple(_name_of(new[number]) for number in self.added if new[number].enable),
            tuple(
                _name_of(new[number])
                for number, before in self.changed.items()
                if old[before].enable or new[number].enable
            ),
            tuple(_name_of(old[number]) for number in self.removed if old[number].enable),
        )


def _name_of(agent: TunnelAgentConfig) -> str:
    return f"{agent.cluster} by {agent.hosting_listener}"


def pair_agents(old: Sequence[TunnelAgentConfig], new: Sequence[TunnelAgentConfig]) -> Pairing:
    """Match the agents of two configurations."""
    left = dict(enumerate(old))
    same: dict[int, int] = {}
    for number, agent in enumerate(new):
        found = next((before for before, other in left.items() if other == agent), None)
        if found is not None:
            same[number] = found
            del left[found]
    like: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for before, agent in left.items():
        like[agent.cluster, agent.hosting_listener].append(before)
    changed: dict[int, int] = {}
    added: list[int] = []
    for number, agent in enumerate(new):
        if number in same:
            continue
        candidates = like[agent.cluster, agent.hosting_listener]
        if candidates:
            changed[number] = candidates.pop(0)
            del left[changed[number]]
        else:
            added.append(number)
    return Pairing(same, changed, tuple(added), tuple(left))
