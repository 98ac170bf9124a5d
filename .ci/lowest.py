#!/usr/bin/env python3
"""
Constraints for pip: the lowest version that setup.cfg allows of everything it asks for.

    python .ci/lowest.py test > constraints.txt
    pip install -c constraints.txt '.[test]'

The arguments are the extras that count too.  What comes with these packages
alone, and is not named in setup.cfg, is as new as they let it be.
"""

import sys
from configparser import ConfigParser
from pathlib import Path

from packaging.requirements import Requirement


def floor(requirement: Requirement) -> str:
    """
    The lowest version that is allowed.

    @raise ValueError: if any is, or it is said in another way than C{>=}.
    """
    lowest = [each.version for each in requirement.specifier if each.operator == ">="]
    if len(lowest) != 1:
        raise ValueError(
            f"setup.cfg: {requirement}: "
            f"write the lowest version that was tested, as in {requirement.name}>=1.2"
        )
    return lowest[0]


def constraints(parser: ConfigParser, extras: list[str]) -> list[str]:
    """
    One line for each requirement.

    @raise ValueError: naming everything without a lowest version.
    """
    texts = [
        parser["options"]["install_requires"],
        *(parser["options.extras_require"][each] for each in extras),
    ]
    lines: list[str] = []
    problems: list[str] = []
    for line in "\n".join(texts).splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        requirement = Requirement(line)
        try:
            lines.append(f"{requirement.name}=={floor(requirement)}")
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    return lines


def main() -> None:
    """Print them."""
    parser = ConfigParser()
    parser.read(Path(__file__).resolve().parent.parent / "setup.cfg")
    try:
        lines = constraints(parser, sys.argv[1:])
    except ValueError as error:
        sys.exit(str(error))
    sys.stdout.write("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()
