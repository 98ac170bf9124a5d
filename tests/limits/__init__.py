"""Tests for L{reverseproxy.limits}."""
