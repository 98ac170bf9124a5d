"""Distributed traces: which one a request belongs to, and the spans that it makes of it."""
