"""
A process that imports once, and forks children that begin where their imports would have ended.

Most of what a C{twistd reverseproxy} does in a short test is to import: seven tenths
of a second, for many hundreds of processes.  A child of this server is a process of
its own, with its own arguments, environment, directory and files, and there was
neither a reactor nor a thread in what it was forked from.  What depends on how an
interpreter starts (flags, C{PYTHONPATH}, preloaded libraries) needs a new one.

Run as C{python -m tests.integration.forkserver FD MODULE...}: FD is a socket for
whole messages.  Each request brings the child's standard files, and one more to
which its status is written when it has ended.
"""

from __future__ import annotations

__all__ = ["MAX_REQUEST", "main"]

import gc
import json
import os
import runpy
import selectors
import signal
import socket
import sys
from importlib import import_module
from typing import Any

MAX_REQUEST = 200_000
"""Bytes of the largest request."""

FILES = 4
"""Descriptors that come with a request: what becomes 0, 1 and 2, and where the status goes."""

Request = dict[str, Any]


def serve(control: socket.socket) -> Request | None:
    """
    Fork a child for each request.

    @return: in the server L{None}, when nobody is left to ask; in a child what was asked for.
    """
    children: dict[int, int] = {}
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    selector.register(woken, selectors.EVENT_READ)
    while True:
        ready = [key.fileobj for key, _ in selector.select()]
        if woken in ready:
            woken.recv(4096)
            _tell_ends(children)
        if control in ready:
            message, files, _, _ = socket.recv_fds(control, MAX_REQUEST, FILES)
            if not message:
                return None
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for end in (control, woken, wake, selector):
                    end.close()
                for other in (*children.values(), files.pop()):
                    os.close(other)
                return {**json.loads(message), "files": files}
            children[pid] = files.pop()
            for file in files:
                os.close(file)
            control.send(b"%d" % pid)


def _tell_ends(children: dict[int, int]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        file = children.pop(pid)
        os.write(file, b"%d" % status)
        os.close(file)


def enter(request: Request) -> None:
    """Become what C{python} is with these files, directory, environment and arguments, and run it."""
    files = request["files"]
    for number, file in enumerate(files):
        os.dup2(file, number)
    for file in files:
        os.close(file)
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environ"])
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = open(number, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.orig_argv[:] = [sys.executable, *request["arguments"]]
    option, program, *rest = request["arguments"]
    gc.enable()
    if option == "-c":
        sys.argv[:] = ["-c", *rest]
        main = type(sys)("__main__")
        sys.modules["__main__"] = main
        exec(program, vars(main))
    else:
        sys.argv[:] = [program, *rest]
        runpy.run_module(program, run_name="__main__", alter_sys=True)


def main(control: str, *modules: str) -> None:
    """Import, fork, and in each child run what was asked for."""
    gc.disable()
    for name in modules:
        import_module(name)
    if "twisted.internet.reactor" in sys.modules:
        raise RuntimeError("a reactor can't be shared with children")
    gc.freeze()
    request = serve(socket.socket(fileno=int(control)))
    if request is not None:
        enter(request)


if __name__ == "__main__":
    main(*sys.argv[1:])
