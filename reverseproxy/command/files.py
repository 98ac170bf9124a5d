"""Serve a directory of files: read only, without hidden files."""

from __future__ import annotations

__all__ = ["Files", "serve_directory"]

import os
from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import File

from reverseproxy.listener import remove_stale_socket


class Files(File):
    """
    The files of a directory and its subdirectories.

    Names that begin with a dot are hidden, and so are links that lead out of the directory.
    """

    def getChild(self, path: bytes, request: Any) -> Any:  # noqa: N802 - Twisted's name
        """Return a file or a subdirectory."""
        if path.startswith(b".") or b"/" in path or b"\0" in path:
            return self.childNotFound
        child: Any = File.getChild(self, path, request)
        if isinstance(child, File) and not _within(child, self):
            return self.childNotFound
        return child

    def listNames(self) -> list[str]:  # noqa: N802 - Twisted's name
        """Return the names in a listing."""
        names = File.listNames(self)
        return [name for name in names if not name.startswith(".")]


def _within(child: File, parent: File) -> bool:
    inside, directory = child.realpath().path, parent.realpath().path
    return bool(inside == directory or inside.startswith(directory.rstrip(os.sep) + os.sep))


def serve_directory(directory: str, socket: str, reactor: Any) -> Any:
    """
    Serve a directory on a Unix socket, to which only its owner may connect.

    @return: the port.
    """
    root: Resource = Files(directory)
    remove_stale_socket(socket)
    site = Site(root, reactor=reactor)
    site.noisy = False
    site.displayTracebacks = False
    return reactor.listenUNIX(socket, site, mode=0o600)
