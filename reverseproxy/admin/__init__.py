"""
The admin API: an HTTP server through which operators monitor and control a running process.

C{service} listens and routes requests; C{http} and C{request} read requests and write
answers, on Twisted's HTTP server; C{access} authenticates callers; C{probes},
C{mosn}, C{exposition} and C{api} implement the paths.

They get their data from a L{source<reverseproxy.admin.sources.ISource>}: the
only process (C{LocalSource} in C{sources}), or all workers (C{workers_source}),
whose answers C{merging} merges.  So the paths are implemented once, for any
number of processes.
"""

from __future__ import annotations

__all__ = ["Inspector", "ISource", "LocalSource"]

# C{service}, with all that answers requests, is imported where an admin API is configured.
from reverseproxy.admin.inspector import Inspector
from reverseproxy.admin.sources import ISource, LocalSource
