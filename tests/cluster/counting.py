"""Counting what code does, as a measure of its cost that no busy machine can spoil."""

from __future__ import annotations

__all__ = ["count_steps", "pure_heapq"]

import importlib.util
import sys
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any


def count_steps(action: Callable[[], object]) -> int:
    """How many byte codes are executed in C{action} and all that it calls."""
    steps = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal steps
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        if event == "opcode":
            steps += 1
        return trace

    before = sys.gettrace()
    # Python 3.12 only counts byte codes if some frame asks for it before tracing begins.
    sys._getframe().f_trace_opcodes = True
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return steps


def pure_heapq() -> ModuleType:
    """The heapq module without its C part, so that its work can be counted."""
    spec = importlib.util.find_spec("heapq")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    accelerator = sys.modules.get("_heapq")
    sys.modules["_heapq"] = None  # type: ignore[assignment]
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["_heapq"]
        if accelerator is not None:
            sys.modules["_heapq"] = accelerator
    return module
