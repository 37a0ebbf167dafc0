"""Isolators beside the limits: what a container sees, which devices it may use, which GPUs it has.

`ConfinementIsolator` gives every container of an agent the same Confinement. `DevicesIsolator` comes after the isolator
that makes the cgroup, attaches the device filter to it, and gives out whole GPUs: those a container was not given it
cannot open. Who has which is kept in a file a container, so that the agent's next life knows.

Mesos: isolators namespaces/*, filesystem/linux, linux/{capabilities,nnp,seccomp}; cgroups/devices, gpu/nvidia.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.ids import ContainerId
from mesos_actor.actors.messages.containers import LaunchContainer
from mesos_actor.isolation.cgroup import CgroupError
from mesos_actor.isolation.confinement_plan import Confinement, fields_of
from mesos_actor.isolation.container_records import Assigned, ContainerRecords
from mesos_actor.isolation.device_filter import DEFAULT_RULES, DeviceRule, attach, program_of
from mesos_actor.isolation.gpus import Gpu, GpuPool, NotEnoughGpus
from mesos_actor.isolation.isolator import BaseIsolator, Contribution, IsolatorError, Watch

GPU_VARIABLE = "MESOS_ACTOR_GPUS"
"""The PCI addresses of the container's GPUs, with commas between."""
MILLI = 1_000


class ConfinementIsolator(BaseIsolator):
    """Raises InvalidInput when the plan makes no sense: the agent does not start with it."""

    name = "namespaces"

    def __init__(self, plan: Confinement) -> None:
        self._fields = fields_of(plan)

    def prepare(self, launch: LaunchContainer, sandbox: str) -> Contribution:
        return Contribution(fields={"confine": self._fields})


class DevicesIsolator(BaseIsolator):
    """`cgroup_of` tells the directory of a container's cgroup; `allowed` is added to Mesos' default whitelist; `gpus`
    may be given out, `directory` is where it is kept who has which (made when it is not there)."""

    name = "devices"

    def __init__(
        self,
        cgroup_of: Callable[[ContainerId], str],
        directory: Path,
        allowed: Sequence[DeviceRule] = (),
        gpus: Sequence[Gpu] = (),
        attach_filter: Callable[[str, Sequence[DeviceRule]], None] = attach,
    ) -> None:
        self._cgroup_of = cgroup_of
        self._records = ContainerRecords(directory, Assigned)
        self._rules = (*DEFAULT_RULES, *allowed)
        program_of(self._rules)  # refuses rules without sense now, not at the first launch
        self._pool = GpuPool(gpus)
        self._attach = attach_filter
        self._lock = threading.Lock()
        self._watch: Watch | None = None

    def start(self, watch: Watch) -> None:
        """Raises OSError when the directory cannot be made."""
        self._watch = watch
        self._records.start()

    def prepare(self, launch: LaunchContainer, sandbox: str) -> Contribution:
        wanted, rest = divmod(launch.resources.scalar("gpus"), MILLI)
        if rest:
            raise InvalidInput(f"gpus: {wanted}.{rest:03} is no number of whole devices: use a whole number")
        try:
            with self._lock:
                gpus = self._pool.assign(launch.container_id, wanted)
                if gpus:
                    addresses = tuple(gpu.address for gpu in gpus)
                    self._records.write(launch.container_id, Assigned(launch.container_id, addresses))
            rules = (*self._rules, *(rule for gpu in gpus for rule in gpu.rules))
            self._attach(self._cgroup_of(launch.container_id), rules)
        except NotEnoughGpus as error:
            raise IsolatorError("spawn", f"gpus: {error}") from None
        except CgroupError as error:
            raise IsolatorError("spawn", f"devices: {error}") from None
        except OSError as error:
            raise IsolatorError("spawn", f"gpus: cannot write {error.filename}: {error.strerror}") from None
        if not gpus:
            return Contribution()
        devices = {device.path: device for gpu in gpus for device in gpu.devices}
        nodes = [[d.path, d.kind, d.major, d.minor, d.mode] for d in devices.values()]
        variable = ",".join(gpu.address for gpu in gpus)
        return Contribution(env={GPU_VARIABLE: variable}, fields={"confine": {"devices": nodes}})

    def update(self, container_id: ContainerId, launch: LaunchContainer) -> None:
        """GPUs stay as they were given at the launch: a running program has them open."""
        held = len(self._pool.held(container_id))
        wanted = launch.resources.scalar("gpus")
        if wanted != held * MILLI:
            text = f"gpus: a running container keeps its {held}, {wanted / MILLI:g} are wanted now: launch another one"
            raise IsolatorError("spawn", text)

    def cleanup(self, container_id: ContainerId) -> None:
        with self._lock:
            self._records.remove(container_id)
            self._pool.release(container_id)

    def recover(self, kept: Collection[ContainerId]) -> Collection[ContainerId]:
        """Those that exist have again what they had. A GPU of theirs that this host has no more is logged."""
        wanted, found = set(kept), {one.container_id: one.names for one in self._records.read()}
        with self._lock:
            lost = self._pool.recover({name: names for name, names in found.items() if name in wanted})
        for container_id, addresses in lost.items():
            if self._watch is not None:
                self._watch.log("gpus_lost", level="warning", container=container_id, gpus=", ".join(addresses))
        return [container_id for container_id in found if container_id not in wanted]
