"""
The operator's face: what can be asked of a running process, and changed in it.

C{service} listens, and puts the rest together; C{http} reads requests and writes
answers, on Twisted's HTTP server; C{access} decides who may do what; C{probes},
C{mosn}, C{exposition} and C{api} say what is at which path.

What they tell comes from a L{source<reverseproxy.admin.sources.ISource>}: the one
process that there is (C{local}), or all workers (C{gathered}), whose answers
C{merging} makes one of.  So there is one way to answer, however many processes
there are.
"""

from __future__ import annotations

__all__ = ["AdminServer", "Inspector", "ISource", "LocalSource"]

from reverseproxy.admin.inspector import Inspector
from reverseproxy.admin.service import AdminServer
from reverseproxy.admin.sources import ISource, LocalSource
