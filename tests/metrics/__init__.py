"""Tests for L{reverseproxy.metrics}."""
