"""Tests for L{reverseproxy.tracing}."""
