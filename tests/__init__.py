"""
Tests.

Hypothesis explores at random while the project is worked on.  A check of a
change must give the same result each time, so there (where C{CI} is set) it
tries the same examples each time.  How long an example takes says nothing: other
tests run beside it.  Where the same tests run again, with other versions of
libraries (C{TESTED_BEFORE}), some examples are enough.
"""

from __future__ import annotations

import os
from typing import Final

from hypothesis import HealthCheck, settings

AGAIN: Final = 20
"""Examples where the same tests run again."""

settings.register_profile("any", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("any"), derandomize=True, database=None, print_blob=True)
settings.register_profile("again", settings.get_profile("ci"), max_examples=AGAIN)
if os.environ.get("CI"):
    settings.load_profile("again" if os.environ.get("TESTED_BEFORE") else "ci")
else:
    settings.load_profile("any")


def most(examples: int) -> int:
    """How many examples a test tries that says so itself."""
    return min(examples, AGAIN) if os.environ.get("TESTED_BEFORE") else examples
