"""C{python -m reverseproxy}: the same as the command C{reverseproxy}."""

from __future__ import annotations

from reverseproxy.command import main

if __name__ == "__main__":
    main()
