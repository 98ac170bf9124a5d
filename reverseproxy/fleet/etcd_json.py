"""
The JSON of etcd's version 3 gateway; pure.

Keys and values are in base64, and 64-bit numbers are strings. Everything that comes is checked, and
raises L{EtcdError} if it is malformed.
"""

from __future__ import annotations

__all__ = [
    "MAX_ANSWER",
    "MAX_LINE",
    "EtcdError",
    "KeyValue",
    "LineReader",
    "TooLong",
    "WatchMessage",
    "error_of",
    "get_body",
    "number_of",
    "range_body",
    "read_range",
    "read_watch",
    "transaction_body",
    "watch_body",
]

import json
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from reverseproxy.errors import ReverseProxyError

MAX_LINE: Final = 16 * 1024 * 1024
"""Bytes of one message of a watch; etcd fragments messages above some 2 MiB."""

MAX_ANSWER: Final = 4 * 1024 * 1024
"""Bytes of one response; a single key takes 2 MiB at most, as etcd accepts no request above 1.5 MiB."""

UNAVAILABLE: Final = 14
UNAUTHENTICATED: Final = 16
NOT_FOUND: Final = 5
OUT_OF_RANGE: Final = 11
"""gRPC status codes, which the gateway passes on; C{OUT_OF_RANGE} is that of a compacted revision."""


class EtcdError(ReverseProxyError):
    """
    An error that etcd has answered, or the failure of a request to it.

    @ivar code: the gRPC status code; 0 where there is none, such as when no response came.
    """

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class TooLong(EtcdError):
    """A response above the limit: fewer keys have to be requested at once."""


class KeyValue(NamedTuple):
    """
    A key with its value.

    @ivar value: L{None} if the key has been deleted.
    @ivar revision: of its last change.
    @ivar created: the revision in which it was created.
    @ivar lease: the id of the lease that it is attached to; 0 for none.
    """

    key: str
    value: bytes | None
    revision: int
    created: int = 0
    lease: int = 0


class WatchMessage(NamedTuple):
    """
    A message of a watch.

    @ivar revision: the store's revision when it was sent.
    @ivar events: changes, in their order.
    @ivar fragment: whether another message continues the same revisions.
    @ivar created: whether it confirms the watch.
    @ivar canceled: why etcd ends the watch with it; empty if it does not.
    @ivar compacted: up to which revision history is gone; 0 if that is not the reason.
    """

    revision: int
    events: tuple[KeyValue, ...] = ()
    fragment: bool = False
    created: bool = False
    canceled: str = ""
    compacted: int = 0


# requests


def _text(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def _key(key: str) -> str:
    return _text(key.encode("utf-8", "surrogateescape"))


def _end(prefix: str) -> str:
    """Return the end of the range of a prefix; a prefix is never empty, nor ends with the byte 0xFF."""
    raw = prefix.encode("utf-8", "surrogateescape")
    return _text(raw[:-1] + bytes((raw[-1] + 1,)))


def range_body(prefix: str, limit: int, after: str = "", revision: int = 0) -> dict[str, Any]:
    """
    Make a request for keys with a prefix, in their order.

    @param limit: how many keys at most.
    @param after: the key behind which to begin; empty for the beginning.
    @param revision: as of which the keys are read; 0 for now.
    """
    start = _text(after.encode("utf-8", "surrogateescape") + b"\0") if after else _key(prefix)
    return {"key": start, "range_end": _end(prefix), "limit": str(limit), "revision": str(revision)}


def get_body(key: str) -> dict[str, Any]:
    """Make a request for one key."""
    return {"key": _key(key)}


def transaction_body(
    puts: Iterable[tuple[str, bytes]], deletes: Iterable[str], lease: int = 0, absent: Iterable[str] = ()
) -> dict[str, Any]:
    """
    Make a transaction that changes several keys.

    @param puts: keys and values to write.
    @param deletes: keys to delete.
    @param lease: the lease to attach written keys to; 0 for none.
    @param absent: keys that must not exist for the transaction to be executed.
    """
    operations: list[dict[str, Any]] = [
        {"request_put": {"key": _key(key), "value": _text(value), "lease": str(lease)}} for key, value in puts
    ]
    operations += [{"request_delete_range": {"key": _key(key)}} for key in deletes]
    body: dict[str, Any] = {"success": operations}
    compare = [
        {"key": _key(key), "target": "CREATE", "result": "EQUAL", "create_revision": "0"} for key in absent
    ]
    if compare:
        body["compare"] = compare
    return body


def watch_body(prefix: str, start: int) -> dict[str, Any]:
    """Make a request to watch keys with a prefix, from a revision on."""
    return {
        "create_request": {
            "key": _key(prefix),
            "range_end": _end(prefix),
            "start_revision": str(start),
            "progress_notify": True,
            "fragment": True,
        }
    }


# responses


def _bad(what: str, value: Any) -> EtcdError:
    return EtcdError(f"etcd's answer is not understood: {what} is {json.dumps(value)[:64]}")


def number_of(value: Mapping[str, Any], name: str) -> int:
    """
    Return a 64-bit number; a missing field is 0.

    @raise EtcdError: if it is not a number.
    """
    found = value.get(name, 0)
    if isinstance(found, str) and len(found) <= 20 and found.removeprefix("-").isdecimal():
        return int(found)
    if type(found) is int:
        return found
    raise _bad(name, found)


def _object(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = value.get(name, {})
    if not isinstance(found, dict):
        raise _bad(name, found)
    return found


def _list(value: Mapping[str, Any], name: str) -> list[Any]:
    found = value.get(name, [])
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise _bad(name, found)
    return found


def _bytes(value: Mapping[str, Any], name: str) -> bytes:
    found = value.get(name, "")
    try:
        return b64decode(found, validate=True)
    except (TypeError, ValueError, Base64Error):
        raise _bad(name, found) from None


def revision_of(answer: Mapping[str, Any]) -> int:
    """
    Return the store's revision from the header of a response; 0 if it has none.

    @raise EtcdError: if it is malformed.
    """
    return number_of(_object(answer, "header"), "revision")


def _key_value(found: Mapping[str, Any], deleted: bool = False) -> KeyValue:
    return KeyValue(
        _bytes(found, "key").decode("utf-8", "surrogateescape"),
        None if deleted else _bytes(found, "value"),
        number_of(found, "mod_revision"),
        number_of(found, "create_revision"),
        number_of(found, "lease"),
    )


def read_range(answer: Mapping[str, Any]) -> tuple[list[KeyValue], bool, int]:
    """
    Parse the response to L{range_body}.

    @return: the keys, whether there are more, and the store's revision.
    @raise EtcdError: if it is malformed.
    """
    found = [_key_value(each) for each in _list(answer, "kvs")]
    return found, answer.get("more") is True, revision_of(answer)


def read_watch(message: Mapping[str, Any]) -> WatchMessage:
    """
    Parse a message of a watch.

    @raise EtcdError: if it is malformed, or reports an error.
    """
    error = error_of(message)
    if error is not None:
        raise error
    result = _object(message, "result")
    events = [
        _key_value(_object(each, "kv"), each.get("type") == "DELETE") for each in _list(result, "events")
    ]
    canceled = ""
    if result.get("canceled") is True:
        canceled = str(result.get("cancel_reason") or "etcd has cancelled the watch")[:200]
    return WatchMessage(
        revision_of(result),
        tuple(events),
        result.get("fragment") is True,
        result.get("created") is True,
        canceled,
        number_of(result, "compact_revision"),
    )


def error_of(answer: Mapping[str, Any]) -> EtcdError | None:
    """Return the error that a response reports; L{None} if it reports none."""
    found: Any = answer.get("error")
    if found is None:
        return None
    if isinstance(found, dict):  # the format of streaming methods
        return EtcdError(_said(found.get("message")), _code(found.get("grpc_code")))
    return EtcdError(_said(answer.get("message") or found), _code(answer.get("code")))


def _said(message: Any) -> str:
    text = message if isinstance(message, str) else "an error without a message"
    return "".join(each if each.isprintable() else "?" for each in text[:200]).removeprefix("etcdserver: ")


def _code(value: Any) -> int:
    return value if type(value) is int else 0


class LineReader:
    """Parses a stream of JSON objects, one a line."""

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> Iterator[Mapping[str, Any]]:
        """
        Take bytes.

        @return: the messages that are complete now.
        @raise EtcdError: if a line is not a JSON object, or above the limit.
        """
        while data:
            line, end, data = data.partition(b"\n")
            self._size += len(line)
            if self._size > self._limit:
                raise EtcdError(f"etcd sends a message of more than {self._limit} bytes")
            self._parts.append(line)
            if not end:
                return
            whole = b"".join(self._parts)
            self._parts.clear()
            self._size = 0
            if whole.strip():
                yield read_json(whole)


def read_json(data: bytes) -> Mapping[str, Any]:
    """
    Parse a JSON object.

    @raise EtcdError: if it is not one.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        shown = data[:40].decode("ascii", "backslashreplace")
        raise EtcdError(f"this is no etcd: it answers {json.dumps(shown)}")
    return found
