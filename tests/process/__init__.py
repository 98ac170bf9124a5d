"""Tests for L{reverseproxy.process}."""
