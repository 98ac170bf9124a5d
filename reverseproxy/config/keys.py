"""The properties of keys, for other packages."""

from __future__ import annotations

__all__ = ["acted_keys"]

from reverseproxy.config._base import Model, keys_of


def acted_keys(model: type[Model]) -> tuple[str, ...]:
    """Return the attributes of a model whose keys are acted on, in its order."""
    return tuple(name for name, _, info in keys_of(model) if info.acted)
