"""Children of the fork server are what fresh interpreters would be, as far as programs see."""

from __future__ import annotations

import json
import os
from typing import Any

from tests.integration.harness import OURS, Child, IntegrationTestCase

SHOW = """
import json, os, signal, sys, threading
print(json.dumps({
    "arguments": sys.argv,
    "all": sys.orig_argv[1:],
    "directory": os.getcwd(),
    "environ": os.environ.get("SHOWN"),
    "files": sorted(map(int, os.listdir("/proc/self/fd")))[:-1],
    "input": os.readlink("/proc/self/fd/0").partition(":")[0],
    "main": __name__,
    "reactor": "twisted.internet.reactor" in sys.modules,
    "signals": [str(signal.getsignal(each)) for each in (signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE)],
    "threads": threading.active_count(),
}))
sys.stderr.write("at once")
sys.exit(int(os.environ["SHOWN"]))
"""


class ForkedTests(IntegrationTestCase):
    """The same program, in an interpreter of its own and forked."""

    async def run_program(self, imported: tuple[str, ...], program: str, **environ: str) -> Child:
        child = Child("program")
        self.spawn(child, "-c", program, "one", "two", imported=imported, **environ)
        await child.ended()
        return child

    async def shown(self, imported: tuple[str, ...]) -> tuple[dict[str, Any], int | None]:
        child = await self.run_program(imported, SHOW, SHOWN="7")
        self.assertEqual(child._partial[2], b"at once")
        return json.loads(child.lines[0]), child.status

    async def test_the_same(self) -> None:
        fresh, status = await self.shown(())
        self.assertEqual(status, 7)
        self.assertEqual(fresh["directory"], str(self.directory))
        self.assertEqual(await self.shown(OURS), (fresh, status))

    async def test_ends(self) -> None:
        self.expected_errors = ["Traceback"]
        for imported in ((), OURS):
            for program, status, line in (
                ("", 0, None),
                ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9, None),
                ("import sys; sys.exit('no')", 1, "no"),
                ("1 / 0", 1, "ZeroDivisionError: division by zero"),
            ):
                child = await self.run_program(imported, program)
                self.assertEqual(child.status, status)
                self.assertEqual(child.lines[-1] if line else None, line)

    async def test_beside_each_other(self) -> None:
        children = [Child(f"child {number}") for number in range(5)]
        for number, child in enumerate(children):
            self.spawn(child, "-c", f"print({number}, flush=True); input()", imported=OURS)
        pids = {child.pid for child in children}
        self.assertEqual(len(pids), 5)
        self.assertNotIn(os.getpid(), pids)
        for number, child in enumerate(children):
            await child.wait_for(f"^{number}$")
        for child in children:
            self.assertEqual(await child.kill(), -9)
            self.assertEqual(len(child.lines), 1)
