"""
Access logs: one line for each request or session.

C{record} has the record of a request or session, C{finished} makes it of a request
that has ended, C{variables} has the variables of formats, C{formats} compiles
formats to functions, and C{log} writes the lines.
"""

from __future__ import annotations

__all__ = ["AccessLog", "AccessNotes", "AccessRecord", "RequestDetails", "access_record"]

from reverseproxy.proxy.access.finished import AccessNotes, access_record
from reverseproxy.proxy.access.log import AccessLog
from reverseproxy.proxy.access.record import AccessRecord, RequestDetails
