"""mesos-actor: a cluster manager made of actors.

The public names, loaded when first used, so that `import mesos_actor` and `mesos-actor --version` stay quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mesos_actor._version import __version__

if TYPE_CHECKING:
    from mesos_actor.actors.resources import Attributes, Resource, Resources

_HOMES = {
    "Attributes": "mesos_actor.actors.resources",
    "Resource": "mesos_actor.actors.resources",
    "Resources": "mesos_actor.actors.resources",
}
"""Which module each public name lives in."""

__all__ = ["Attributes", "Resource", "Resources", "__version__"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'mesos_actor' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
