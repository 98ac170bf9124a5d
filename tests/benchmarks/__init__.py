"""Tests for the benchmarks' own arithmetic; nothing is started."""
