"""
The JSON of etcd's version 3, as its gateway has it; pure.

Keys and values are base64 in it, and numbers of 64 bits are texts.  Whatever comes is
checked, and raises L{EtcdError} if it is not what was asked for.
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
"""Bytes of one message of a watch; etcd splits what would be longer than some 2 MiB."""

MAX_ANSWER: Final = 4 * 1024 * 1024
"""Bytes of one answer; a key has 2 MiB in it at the most, as etcd takes no request of more than 1.5 MiB."""

UNAVAILABLE: Final = 14
UNAUTHENTICATED: Final = 16
NOT_FOUND: Final = 5
OUT_OF_RANGE: Final = 11
"""Codes of gRPC, which the gateway passes on; C{OUT_OF_RANGE}: a revision that has been compacted."""


class EtcdError(ReverseProxyError):
    """
    Etcd has not done what it was asked for.

    @ivar code: what gRPC calls the reason; 0 where there is none, such as when there was no answer.
    """

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class TooLong(EtcdError):
    """An answer has more bytes than are taken: less has to be asked for at once."""


class KeyValue(NamedTuple):
    """
    A key, and what it has.

    @ivar value: L{None} if it has been deleted.
    @ivar revision: when it was changed last.
    @ivar created: the revision in which it was made.
    @ivar lease: with which lease it goes; 0 for none.
    """

    key: str
    value: bytes | None
    revision: int
    created: int = 0
    lease: int = 0


class WatchMessage(NamedTuple):
    """
    A message of a watch.

    @ivar revision: which one the store had when it was sent.
    @ivar events: changes, in their order.
    @ivar fragment: whether more of them will come of the same revisions.
    @ivar created: whether the watch begins with it.
    @ivar canceled: why the watch ends with it; empty if it does not.
    @ivar compacted: up to which revision changes can't be had any more; 0 if that is not why.
    """

    revision: int
    events: tuple[KeyValue, ...] = ()
    fragment: bool = False
    created: bool = False
    canceled: str = ""
    compacted: int = 0


# what is asked


def _text(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def _key(key: str) -> str:
    return _text(key.encode("utf-8", "surrogateescape"))


def _end(prefix: str) -> str:
    """The first key behind all those that begin so; a prefix is never empty, nor ends with the last byte."""
    raw = prefix.encode("utf-8", "surrogateescape")
    return _text(raw[:-1] + bytes((raw[-1] + 1,)))


def range_body(prefix: str, limit: int, after: str = "", revision: int = 0) -> dict[str, Any]:
    """
    Ask for keys with a prefix, in their order.

    @param after: begin behind this one.
    @param revision: as the store was then; 0 for now.
    """
    start = _text(after.encode("utf-8", "surrogateescape") + b"\0") if after else _key(prefix)
    return {"key": start, "range_end": _end(prefix), "limit": str(limit), "revision": str(revision)}


def get_body(key: str) -> dict[str, Any]:
    """Ask for one key."""
    return {"key": _key(key)}


def transaction_body(
    puts: Iterable[tuple[str, bytes]], deletes: Iterable[str], lease: int = 0, absent: Iterable[str] = ()
) -> dict[str, Any]:
    """
    Change keys at once.

    @param lease: what is put goes with it.
    @param absent: nothing is done unless none of these keys is there.
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
    """Ask to be told of changes of keys with a prefix, from a revision on."""
    return {
        "create_request": {
            "key": _key(prefix),
            "range_end": _end(prefix),
            "start_revision": str(start),
            "progress_notify": True,
            "fragment": True,
        }
    }


# what is answered


def _bad(what: str, value: Any) -> EtcdError:
    return EtcdError(f"etcd's answer is not understood: {what} is {json.dumps(value)[:64]}")


def number_of(value: Mapping[str, Any], name: str) -> int:
    """
    Read a number of 64 bits; one that is 0 is left out.

    @raise EtcdError: if it is none.
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
    Read which revision the store had.

    @raise EtcdError: if there is none.
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
    Read an answer to L{range_body}.

    @return: the keys, whether there are more, and the store's revision now.
    @raise EtcdError: if it is none.
    """
    found = [_key_value(each) for each in _list(answer, "kvs")]
    return found, answer.get("more") is True, revision_of(answer)


def read_watch(message: Mapping[str, Any]) -> WatchMessage:
    """
    Read a message of a watch.

    @raise EtcdError: if it is none, or tells of an error.
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
    """What an answer says is wrong, if anything is."""
    found: Any = answer.get("error")
    if found is None:
        return None
    if isinstance(found, dict):  # so it is in streams
        return EtcdError(_said(found.get("message")), _code(found.get("grpc_code")))
    return EtcdError(_said(answer.get("message") or found), _code(answer.get("code")))


def _said(message: Any) -> str:
    text = message if isinstance(message, str) else "an error without a message"
    return "".join(each if each.isprintable() else "?" for each in text[:200]).removeprefix("etcdserver: ")


def _code(value: Any) -> int:
    return value if type(value) is int else 0


class LineReader:
    """Takes messages out of a stream: JSON objects, one a line."""

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> Iterator[Mapping[str, Any]]:
        """
        Take in some bytes.

        @return: the messages that are complete now.
        @raise EtcdError: if a line is none, or too long.
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
    Read a JSON object.

    @raise EtcdError: if it is none.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        shown = data[:40].decode("ascii", "backslashreplace")
        raise EtcdError(f"this is no etcd: it answers {json.dumps(shown)}")
    return found
