"""Tests of C{fleet/}."""
