"""From the routers of a configuration to those that decide."""

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

    Those that are in use take over what these are.
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
        @param old: those that are in use.
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
        Find the one that is in use under a name, or will be.

        If there is none in the configuration, all requests are answered with 404, as in
        MOSN; or it could not be built, which is noted already.
        """
        return self._world.routers.get(name) or self._new.setdefault(name, _nothing(name))

    def commit(self, wanted: Collection[str]) -> None:
        """
        Let them be in use.

        @param wanted: the names by which listeners look for routers.
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
