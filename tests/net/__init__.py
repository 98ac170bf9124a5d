"""Tests for L{reverseproxy.net}."""
