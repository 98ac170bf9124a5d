"""C{python -m tests.change --seconds 600}: the tests of reloads for as long as one likes."""

from __future__ import annotations

import argparse
import os
import sys

from twisted.scripts.trial import run


def main() -> None:
    """Run them, with trial."""
    parser = argparse.ArgumentParser(prog="python -m tests.change", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long each test goes on")
    seconds = parser.parse_args().seconds
    os.environ["REVERSEPROXY_CHANGE_SECONDS"] = str(seconds)
    names = ("ServerTests.test_everything_changes", "WorkersTests.test_everything_changes")
    from tests.change import test_reload

    test_reload.ReloadCase.timeout = int(seconds + 120)
    sys.argv[1:] = [f"tests.change.test_reload.{name}" for name in names]
    run()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
