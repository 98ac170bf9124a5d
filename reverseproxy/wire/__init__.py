"""Bytes in, events out: no Twisted, no sockets, no clocks."""
