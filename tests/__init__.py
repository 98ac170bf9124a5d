"""
Tests.

Hypothesis explores at random while the project is worked on.  A check of a
change must give the same result each time, so there (where C{CI} is set) it
tries the same examples each time.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None, database=None, print_blob=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
