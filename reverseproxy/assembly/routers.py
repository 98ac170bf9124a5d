"""Build the routers of a configuration."""

from __future__ import annotations

__all__ = ["Routers"]

from collections.abc import Collection, Mapping
from functools import partial

from reverseproxy.assembly.world import World
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.models import RouterConfig
from reverseproxy.problems import Place
from reverseproxy.routing import Router


class Routers:
    """
    The routers of one configuration.

    The routers in use stay, and take over the tables of these on the commit.
    """

    def __init__(
        self,
        world: World,
        findings: Diagnostics,
        configs: Mapping[str, tuple[Place, RouterConfig]],
        old: Routers | None = None,
    ) -> None:
        """
        @param configs: by name, each with its place in the document.
        @param old: the routers in use.
        """
        self._world = world
        self.configs = {name: config for name, (_, config) in configs.items()}
        self._new: dict[str, Router] = {}
        for name, (place, config) in configs.items():
            if old is not None and old.configs.get(name) == config:
                self._new[name] = world.routers[name]
                continue
            router = findings.attempt(place, partial(Router, config, place, world.random.random))
            if router is not None:
                self._new[name] = router
                for warning in router.warnings:
                    findings.add_warning(warning)

    def find(self, name: str) -> Router:
        """
        Return the router in use, or to be used, under a name.

        If there is none in the configuration, return one that answers all requests with 404, as in
        MOSN.  The same if it could not be built, for which there is an error already.
        """
        return self._world.routers.get(name) or self._new.setdefault(name, _nothing(name))

    def commit(self, wanted: Collection[str]) -> None:
        """
        Take these routers into use.

        @param wanted: the names of routers that listeners refer to.
        """
        used = self._world.routers
        for name in list(used):
            if name not in self._new:
                used[name].take_over(_nothing(name))
                if name not in wanted:
                    del used[name]
        for name, router in self._new.items():
            if name not in used:
                used[name] = router
            elif used[name] is not router:
                used[name].take_over(router)


def _nothing(name: str) -> Router:
    return Router(RouterConfig(router_config_name=name))
