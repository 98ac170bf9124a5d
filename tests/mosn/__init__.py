"""
A fake MOSN for both ends of a tunnel, as awkward on the wire as the real one.

What it does was recorded from a real MOSN: which bytes it writes in one piece,
in which order, and what it never does.  C{frames}, C{http1}, C{http2}, C{rpc}
and C{raw} say that without a socket; C{server} and C{agent} do it on real ones.
"""
