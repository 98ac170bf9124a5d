"""
Log lines for people and for programs, on top of L{twisted.logger}.

L{make_observer} returns an observer for L{twisted.logger.globalLogBeginner}.  The
text format is one line for each event::

    2026-07-14T12:00:00.123Z WARN  tunnel.server: refused 10.0.0.7:50000: ...

with the lines of a traceback indented below it.  The JSON format is one object
for each event, with C{time}, C{level}, C{namespace}, C{message} and every field
of the event.  Lines of a worker have its number: C{[2]} before the namespace, or
C{worker}.

Peers choose much of what is logged about them.  So control characters and
line breaks are escaped (a peer can't forge a line or send escape sequences to a
terminal), lengths are bounded, fields that are named like secrets are not
written, and a L{Throttle} keeps a flood of bad peers from filling the disk.  All
other lines are bounded by L{reverseproxy.logs.bounds.LogBounds}.
"""

from __future__ import annotations

__all__ = [
    "DEBUGGING",
    "DEFAULT_LEVEL",
    "LOG_PATH",
    "Debugging",
    "LeftOut",
    "LogFile",
    "LogObserver",
    "Throttle",
    "counted",
    "how_many",
    "escape",
    "format_time",
    "level_name",
    "loss",
    "make_observer",
    "parse_level",
    "said",
    "shorten",
]

from reverseproxy.logs.file import LogFile
from reverseproxy.logs.formatting import counted, escape, format_time, how_many, loss, said, shorten
from reverseproxy.logs.levels import DEBUGGING, DEFAULT_LEVEL, Debugging, level_name, parse_level
from reverseproxy.logs.observer import LOG_PATH, LogObserver, make_observer
from reverseproxy.logs.throttle import LeftOut, Throttle
