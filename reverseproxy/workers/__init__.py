"""
Several processes for one configuration, to use more than one core.

The process that twistd runs is the supervisor (L{reverseproxy.workers.supervisor}):
it binds the ports, and runs workers, each of which does all that a single
process does (L{reverseproxy.workers.worker}).  Workers are linked with one
another (L{reverseproxy.workers.links}), so that each of them can use every
agent, whichever worker has its connection.
"""

from __future__ import annotations

__all__: list[str] = []
