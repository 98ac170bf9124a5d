"""States of agents as their servers report them over links, which is faster than the directory; pure."""

from __future__ import annotations

__all__ = ["ReportedStates"]

from reverseproxy.fleet.records import HostKey, HostRecord


class ReportedStates:
    """The reported states that no later record of the directory has replaced."""

    def __init__(self) -> None:
        self._gone: set[HostKey] = set()
        self._well: dict[HostKey, bool] = {}

    def set_gone(self, key: HostKey) -> None:
        """Note that a server does not have an agent any more."""
        self._gone.add(key)

    def set_well(self, key: HostKey, well: bool) -> None:
        """Note that a server has an agent, and whether it is healthy."""
        self._gone.discard(key)
        self._well[key] = well

    def forget(self, key: HostKey) -> None:
        """Forget what was reported: the agent is new, or its link is."""
        self._gone.discard(key)
        self._well.pop(key, None)

    def record_changed(self, record: HostRecord, old: HostRecord) -> None:
        """Forget what a changed record of the directory replaces."""
        self._gone.discard(record.key)
        if record.well is not old.well:
            self._well.pop(record.key, None)

    def is_gone(self, key: HostKey) -> bool:
        """Return whether the agent's server has reported it gone."""
        return key in self._gone

    def is_well(self, record: HostRecord) -> bool:
        """Return whether an agent is healthy, by the last report, or else by its record."""
        return self._well.get(record.key, record.well)
