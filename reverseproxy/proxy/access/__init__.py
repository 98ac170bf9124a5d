"""
Access logs: one line for each request or session.

C{record} says what is known of one, and C{telling} gathers it; C{variables} has what a format may
say of that, C{formats} makes functions of formats, and C{log} writes.
"""

from __future__ import annotations

__all__ = ["AccessLog", "AccessNotes", "AccessRecord", "RequestDetails", "access_record"]

from reverseproxy.proxy.access.finished import AccessNotes, access_record
from reverseproxy.proxy.access.log import AccessLog
from reverseproxy.proxy.access.record import AccessRecord, RequestDetails
