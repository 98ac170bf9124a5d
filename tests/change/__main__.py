"""
The tests of changes under load, for as long as one likes.

C{python -m tests.change --seconds 600}: reloads, and nothing else.
C{python -m tests.change rolling --times 5}: servers and agents are restarted in turn.
C{python -m tests.change upgrade --times 3}: other processes take the place of a server's.
C{python -m tests.change moments}: changes during changes, with errors, and twice at once.
"""

from __future__ import annotations

import argparse
import os
import sys

from twisted.scripts.trial import run

TESTS = {
    "reload": (
        "test_reload.ServerTests.test_everything_changes",
        "test_reload.WorkersTests.test_everything_changes",
    ),
    "rolling": ("test_rolling",),
    "upgrade": ("test_upgrade_of_all",),
    "moments": ("test_moments",),
}


def main() -> None:
    """Run them, with trial."""
    parser = argparse.ArgumentParser(prog="python -m tests.change", description=__doc__)
    parser.add_argument("what", nargs="?", choices=list(TESTS), default="reload")
    parser.add_argument("--seconds", type=float, default=600.0, help="how long each test of reloads goes on")
    parser.add_argument("--times", type=int, default=3, help="how often all is restarted, or upgraded")
    options = parser.parse_args()
    # Before they are imported, as they read these once.
    os.environ["REVERSEPROXY_CHANGE_SECONDS"] = str(options.seconds)
    os.environ["REVERSEPROXY_ROLLINGS"] = os.environ["REVERSEPROXY_UPGRADES"] = str(options.times)
    os.environ["REVERSEPROXY_MOMENTS"] = "yes"
    from tests.change import test_reload

    test_reload.ReloadCase.timeout = int(options.seconds + 120)
    sys.argv[1:] = [f"tests.change.{name}" for name in TESTS[options.what]]
    run()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
