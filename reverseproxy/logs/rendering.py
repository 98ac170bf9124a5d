"""Format log events as lines: text for people, JSON for programs; bounded, and without secrets."""

from __future__ import annotations

__all__ = ["MAX_FIELD", "MAX_FIELDS", "MAX_MESSAGE", "MAX_TRACEBACK", "render_json", "render_text"]

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final

from twisted.logger import (
    LogEvent,
    formatEvent,
)
from twisted.python.failure import Failure
from twisted.python.reflect import safe_str

from reverseproxy.logs.formatting import cut, escape, format_time
from reverseproxy.logs.levels import level_of

MAX_MESSAGE: Final = 8192
"""The maximum length of a message in characters; longer ones are cut."""

MAX_FIELD: Final = 2048
"""The maximum length of a field of a JSON line in characters."""

MAX_FIELDS: Final = 64
"""The maximum number of fields of a JSON line, and of items of a list or mapping in it."""

MAX_TRACEBACK: Final = 32768
"""The maximum length of a traceback in characters; of a longer one the end is kept."""

_SECRET: Final = re.compile(
    r"(?:^|_)(?:password|passwd|passphrase|secret|token|credential|authorization|cookie|(?:private|api)_?key)s?$",
    re.IGNORECASE,
)
_REDACTED: Final = "[redacted]"


# The keys that twisted.python.log adds to the caller's fields.
_LEGACY_KEYS: Final = frozenset(
    {"isError", "message", "system", "format", "time", "failure", "why", "logLevel"}
)
_OWN_KEYS: Final = frozenset({"time", "level", "namespace", "message", "traceback", "worker"})


def _without_secrets(event: LogEvent) -> LogEvent:
    """Replace the values of fields that are named like secrets."""
    secrets = {key: _REDACTED for key in event if _SECRET.search(key)}
    if not secrets:
        return event
    # log_flattened would still contain the original values.
    return {key: value for key, value in event.items() if key != "log_flattened"} | secrets


def _message(event: LogEvent) -> str:
    """Return the message without traceback, as one bounded line."""
    if "log_failure" not in event and "failure" in event and "log_text" in event:
        # An event of twisted.python.log.err, whose text contains the traceback.
        text = safe_str(event.get("why") or "Unhandled Error")
    else:
        text = formatEvent(event)
    return escape(cut(text.strip("\n"), MAX_MESSAGE))


def _namespace(event: LogEvent) -> str:
    """Return the namespace of an event; for modules of this project without the package's name."""
    namespace = event.get("log_namespace")
    if namespace is None or namespace == "log_legacy":
        system = event.get("log_system")
        namespace = "twisted" if system in (None, "-", "") else system
    return escape(cut(safe_str(namespace).removeprefix("reverseproxy."), 128))


def _traceback(event: LogEvent) -> list[str]:
    """Return the escaped lines of the traceback; empty if the event has none."""
    failure = event.get("log_failure", event.get("failure"))
    if not isinstance(failure, Failure):
        return []
    try:
        text = failure.getTraceback()
    except Exception as error:
        text = f"(the traceback can't be shown: {safe_str(error)})"
    if len(text) > MAX_TRACEBACK:
        text = f"({len(text) - MAX_TRACEBACK} characters left out)\n{text[-MAX_TRACEBACK:]}"
    return [escape(line) for line in text.rstrip().split("\n")]


def render_text(event: LogEvent, worker: int = 0) -> str:
    """Return an event as one line of text, with the traceback indented below it."""
    event = _without_secrets(event)
    time = format_time(event.get("log_time"))
    who = f"[{worker}] " if worker else ""
    line = f"{time} {level_of(event):5} {who}{_namespace(event)}: {_message(event)}\n"
    return line + "".join(f"    {part}\n" for part in _traceback(event))


def render_json(event: LogEvent, worker: int = 0) -> str:
    """Return an event as a JSON object on one line."""
    event = _without_secrets(event)
    record: dict[str, Any] = {
        "time": format_time(event.get("log_time")),
        "level": level_of(event),
        "namespace": _namespace(event),
        "message": _message(event),
    }
    if worker:
        record["worker"] = worker
    traceback = _traceback(event)
    if traceback:
        record["traceback"] = "\n".join(traceback)
    legacy = "isError" in event
    for key, value in event.items():
        if key.startswith("log_") or (legacy and key in _LEGACY_KEYS):
            continue
        if len(record) >= MAX_FIELDS:
            break
        record[cut(f"{key}_" if key in _OWN_KEYS else key, MAX_FIELD)] = _jsonable(value)
    return json.dumps(record) + "\n"


def _jsonable(value: object, depth: int = 3) -> Any:
    """
    Convert a value to a bounded value of JSON.

    @param depth: how many levels of lists and mappings to keep; deeper ones become text.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 64:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, bytes | bytearray):
        value = bytes(value[: MAX_FIELD + 1]).decode("utf-8", "backslashreplace")
    if depth and isinstance(value, Mapping):
        return {
            _text(key): _REDACTED if _SECRET.search(_text(key)) else _jsonable(item, depth - 1)
            for key, item in list(value.items())[:MAX_FIELDS]
        }
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_jsonable(item, depth - 1) for item in list(value)[:MAX_FIELDS]]
    return _text(value)


def _text(value: object) -> str:
    """Convert any value to bounded text that every JSON parser accepts."""
    text = value if isinstance(value, str) else safe_str(value)
    return cut(text, MAX_FIELD).encode("utf-8", "backslashreplace").decode("utf-8")
