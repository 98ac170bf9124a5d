"""Register C{twistd reverseproxy}."""

from __future__ import annotations

from twisted.application.service import ServiceMaker

reverseproxy = ServiceMaker(
    "reverseproxy",
    "reverseproxy.tap",
    "Reverse tunnels, HTTP and TCP proxying with MOSN configuration files.",
    "reverseproxy",
)
