"""The `linux` containerizer: the pipeline of process.py with the isolators of this host.

One cgroup tree belongs to one agent, found again by its work directory: two agents of a host never touch each other's
containers, and an agent that starts again ends whatever its former life has left.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from mesos_actor.actors.core.container_network import DEFAULT_SUBNET
from mesos_actor.actors.ids import ContainerId
from mesos_actor.isolation.cgroup import TREE, make_tree
from mesos_actor.isolation.cgroup_isolator import CgroupIsolator
from mesos_actor.isolation.containerizer import IMAGES_MAX_BYTES
from mesos_actor.isolation.ends import EXIT_REPEAT_US
from mesos_actor.isolation.gpus import discover
from mesos_actor.isolation.isolator import Isolator
from mesos_actor.isolation.launcher_client import IDLE_S
from mesos_actor.isolation.limits import UNLIMITED
from mesos_actor.isolation.linux_isolators import DevicesIsolator
from mesos_actor.isolation.network_isolator import NetworkIsolator
from mesos_actor.isolation.paths import sandboxes_of
from mesos_actor.isolation.process import ProcessContainerizer
from mesos_actor.isolation.processors_isolator import ProcessorsIsolator
from mesos_actor.isolation.root_isolator import RootIsolator

_DIGEST_CHARACTERS = 8


def tree_name(work_dir: Path) -> str:
    """The name of an agent's tree below its own cgroup."""
    digest = hashlib.sha256(str(work_dir.absolute()).encode(errors="surrogateescape")).hexdigest()
    return f"{TREE}-{digest[:_DIGEST_CHARACTERS]}"


class LinuxContainerizer(ProcessContainerizer):
    """Containers with a cgroup each, and whatever their commands ask for around them. `more` are isolators that come
    after ours, in their order. `volume_roots`, `confine_all`, `images_max_bytes`: see root_isolator.py;
    `container_subnet`: network_isolator.py. An agent of root's filters devices (device_filter.py); the kernel lets
    nobody else do that, and a container in a user namespace can make none. It alone has a bridge.

    `cgroup_root` names the subtree that was delegated to this agent; empty: the cgroup it was started in. `pids_limit`
    is for containers that name none; 0: no limit. Raises Unusable with all that is missing on this host, CgroupError.
    """

    def __init__(
        self,
        work_dir: Path,
        executor_environment: Callable[[ContainerId], dict[str, str]] | None = None,
        launcher_idle_s: float = IDLE_S,
        exit_repeat_us: int = EXIT_REPEAT_US,
        *,
        cgroup_root: str = "",
        pids_limit: int = 0,
        volume_roots: Sequence[str] = (),
        confine_all: bool = False,
        images_max_bytes: int = IMAGES_MAX_BYTES,
        container_subnet: str = DEFAULT_SUBNET,
        more: Sequence[Isolator] = (),
    ) -> None:
        tree = make_tree(cgroup_root, tree_name(work_dir))
        isolators: list[Isolator] = [
            CgroupIsolator(tree, pids_limit or UNLIMITED, str(sandboxes_of(work_dir.absolute()))),
            ProcessorsIsolator(tree, work_dir.absolute() / "processors"),
        ]
        joined = None
        if os.geteuid() == 0:
            directory = work_dir.absolute() / "gpus"
            isolators.append(DevicesIsolator(lambda name: tree.of(name).directory, directory, gpus=discover()))
            network = NetworkIsolator(work_dir.absolute(), tree_name(work_dir)[-_DIGEST_CHARACTERS:], container_subnet)
            isolators.append(network)
            joined = network.joined
        isolators.append(
            RootIsolator(
                work_dir, volume_roots, confine_all=confine_all, images_max_bytes=images_max_bytes, joined=joined
            )
        )
        isolators += more
        super().__init__(work_dir, executor_environment, launcher_idle_s, exit_repeat_us, isolators)
