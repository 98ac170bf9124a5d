"""
Read and change the server's file of tokens.

The format is that of the credential policy C{static}, which also validates the file before and
after a change.
"""

from __future__ import annotations

__all__ = ["TokenFile", "TokenProblem", "write_secret"]

import json
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from reverseproxy.errors import OptionsError
from reverseproxy.problems import Place
from reverseproxy.tunnel.static_tokens import MAX_TOKENS_FILE, parse_tokens
from reverseproxy.tunnel.watched_documents import parse_document
from reverseproxy.tunnel.watched_files import read_text

_COMMENT = re.compile(r"(?m)^\s*#|\s#")


class TokenProblem(Exception):
    """A file of tokens can't be used or changed; the message says why."""


class TokenFile:
    """A file of tokens."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._text = ""
        self._wrapped = False

    def add(
        self,
        agent: str,
        clusters: Sequence[str],
        max_weight: int | None,
        another: bool,
        output: str | None,
        domains: Sequence[str] = (),
        ports: Sequence[str] = (),
        no_cluster: bool = False,
    ) -> str:
        """
        Make a token.

        @param another: whether to allow it in addition to existing tokens of the agent.
        @param no_cluster: whether the agent may join only clusters that it brings, rather than any.
        @param domains: domains that the agent may bring; C{ports} likewise.
        @param output: a new file for the token; L{None} for none.
        @return: the token.
        @raise TokenProblem: if that fails; then nothing has changed.
        """
        if not agent:
            raise TokenProblem("an agent needs a name")
        entries = self._read(missing_is_empty=True)
        token = secrets.token_urlsafe(32)
        entry = _entry_with(entries, agent, token, another)
        if clusters or no_cluster:
            entry["clusters"] = list(clusters)
        if max_weight is not None:
            entry["max_weight"] = max_weight
        for key, values in (("domains", domains), ("ports", ports)):
            if values:
                entry[key] = list(values)
        if output is not None:
            write_secret(output, token)
        try:
            self._write(entries)
        except TokenProblem:
            if output is not None:
                Path(output).unlink()
            raise
        return token

    def agents(self) -> set[str]:
        """
        Return the names of agents that have tokens.

        @raise TokenProblem: if the file can't be used.
        """
        return {entry["agent"] for entry in self._read()}

    def describe(self) -> list[str]:
        """
        Describe all tokens, without their secrets.

        @raise TokenProblem: if the file can't be used.
        """
        lines = []
        for entry in self._read():
            prints = ", ".join(map(_fingerprint, _tokens(entry)))
            clusters = entry.get("clusters")
            allowed = "any cluster" if clusters is None else ", ".join(clusters) or "no cluster but its own"
            weight = f", weight up to {entry['max_weight']}" if entry.get("max_weight") is not None else ""
            routes = ", ".join(str(each) for key in ("domains", "ports") for each in entry.get(key) or ())
            routes = f", may bring {routes}" if routes else ""
            lines.append(f"{entry['agent']}: {allowed}{weight}{routes}; fingerprints: {prints}")
        return lines

    def revoke(self, agent: str, fingerprint: str | None) -> int:
        """
        Remove tokens of an agent.

        @param fingerprint: that of the only token to remove; L{None} for all.
        @return: how many were removed.
        @raise TokenProblem: if that fails; then nothing has changed.
        """
        entries = self._read()
        left, count = [], 0
        for entry in entries:
            tokens = _tokens(entry)
            kept = tokens
            if entry["agent"] == agent:
                kept = [] if fingerprint is None else [t for t in tokens if _fingerprint(t) != fingerprint]
            count += len(tokens) - len(kept)
            if len(kept) == len(tokens):
                left.append(entry)
            elif kept:
                changed = {key: value for key, value in entry.items() if key not in ("token", "tokens")}
                left.append({**changed, "tokens": kept})
        if not count:
            what = "token" if fingerprint is None else f"token with the fingerprint {fingerprint}"
            names = ", ".join(dict.fromkeys(entry["agent"] for entry in entries)) or "nobody"
            raise TokenProblem(f"{agent} has no {what}; there are tokens of {names}")
        self._write(left)
        return count

    def _read(self, missing_is_empty: bool = False) -> list[dict[str, Any]]:
        try:
            self._text = read_text(self._path, MAX_TOKENS_FILE)
            document = parse_document(self._path, self._text)
            parse_tokens(document, Place(self._path))
        except FileNotFoundError as error:
            if missing_is_empty:
                return []
            raise TokenProblem(f"{self._path} can't be read: {error.strerror}") from None
        except OSError as error:
            raise TokenProblem(f"{self._path} can't be read: {error.strerror}") from None
        except OptionsError as error:
            raise TokenProblem(str(error)) from None
        self._wrapped = isinstance(document, Mapping)
        entries = document["tokens"] if isinstance(document, Mapping) else document
        return [dict(entry) for entry in entries]

    def _write(self, entries: list[dict[str, Any]]) -> None:
        """Replace all entries atomically."""
        document: Any = {"tokens": entries} if self._wrapped else entries
        try:
            parse_tokens(document, Place(self._path))
        except OptionsError as error:
            raise TokenProblem(str(error)) from None
        if self._path.endswith(".json"):
            text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        elif _COMMENT.search(self._text):
            raise TokenProblem(
                f"{self._path} has comments, which would be lost: change it by hand, or take them out"
            )
        else:
            text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
        try:
            _replace(self._path, text)
        except OSError as error:
            raise TokenProblem(f"{self._path} can't be written: {error.strerror}") from None


def _entry_with(entries: list[dict[str, Any]], agent: str, token: str, another: bool) -> dict[str, Any]:
    """
    Add a token to the entry of an agent, or make an entry.

    @param another: whether the agent may have tokens already.
    @raise TokenProblem: if it has, and may not.
    """
    entry = next((each for each in entries if each["agent"] == agent), None)
    if entry is None:
        entry = {"agent": agent, "token": token}
        entries.append(entry)
    elif not another:
        raise TokenProblem(
            f"{agent} has a token already; --another makes one more, to change them without a gap"
        )
    else:
        entry["tokens"] = [*_tokens(entry), token]
        entry.pop("token", None)
    return entry


def _tokens(entry: Mapping[str, Any]) -> list[str]:
    return [entry["token"]] if "token" in entry else list(entry["tokens"])


def _fingerprint(token: str) -> str:
    """Return the fingerprint of a token."""
    return sha256(token.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _replace(path: str, text: str) -> None:
    """
    Replace a file atomically, with its mode and owner.

    @raise OSError: if that fails; then the old file is unchanged.
    """
    target = os.path.realpath(path)
    try:
        before = os.stat(target)
    except FileNotFoundError:
        before = None
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(target), prefix=".tokens-")
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if before is not None:
            if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                os.chown(temporary, before.st_uid, before.st_gid)
            os.chmod(temporary, stat.S_IMODE(before.st_mode))
        os.replace(temporary, target)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_secret(path: str, secret: str) -> None:
    """
    Write a new file that only its owner may read.

    @raise TokenProblem: if it exists, or can't be written.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "w", encoding="utf-8") as file:
            file.write(f"{secret}\n")
    except FileExistsError:
        raise TokenProblem(f"{path} is there already, and may be a token that is needed") from None
    except OSError as error:
        raise TokenProblem(f"{path} can't be written: {error.strerror}") from None
