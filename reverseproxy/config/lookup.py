"""The reference of the configuration, for a terminal: all of it, or one key."""

from __future__ import annotations

__all__ = ["everything", "look_up"]

import re
from difflib import get_close_matches

from reverseproxy.config.reference import generate, sections


def everything() -> str:
    """Return the whole reference."""
    return _plain(generate())


def look_up(name: str) -> tuple[list[str], list[str]]:
    """
    Find a key, or an object with all its keys.

    @param name: a key or an object in any case, or C{"object.key"}.
    @return: the descriptions of all matches; and if there is none, similar names.
    """
    wanted = name.strip().strip(".").lower()
    objects = re.sub(r"\[\d*\]", "", wanted).split(".")
    key, around = objects[-1], objects[:-1]
    found: list[str] = []
    names: set[str] = set()
    for section in sections():
        title = section.title.lower()
        names.add(section.title.partition(" of ")[0])
        if not around and key in (title, title.partition(" of ")[0]):
            found.append(_plain(section.text).strip())
            continue
        if around and around[-1] not in {title, *title.split(" of "), *section.names}:
            continue
        for entry in section.entries:
            names.update(entry.names)
            if key in {each.lower() for each in entry.names}:
                found.append(f"{section.title}:\n{_indented(_plain(entry.text).strip())}")
    if found:
        return found, []
    return [], get_close_matches(key, sorted(names), n=3)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" if line else "" for line in text.splitlines())


def _plain(text: str) -> str:
    """Remove the markup of reStructuredText."""
    text = re.sub(r"(?m)^\.\. _.*:\n\n", "", text)
    text = re.sub(r"``(.*?)``", r"\1", text)
    text = re.sub(r"(?<!\\)\*\*?([^*\n]+)\*\*?", r"\1", text)
    return re.sub(r"\\([*`|\\])", r"\1", text)
