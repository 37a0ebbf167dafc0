"""The files of a cgroup v2, declared as typed interfaces with cgroupspy's classes.

cgroupspy (PyPI) declares a cgroup's files as descriptors on controllers, and controllers on nodes. It knows only v1,
where each controller has a tree of its own: its tree walkers and its controllers want those mounts, so a node here is a
subclass that has all controllers of the one v2 tree. Node (paths), Controller and the interface classes are
cgroupspy's; the declarations below and the formats that v1 did not have are ours.

Reading raises OSError: FileNotFoundError where the controller is not enabled or the cgroup is gone, ENODEV where it
went away in the middle, EOPNOTSUPP for pressure on a kernel that does not measure it.

Kernel document: Documentation/admin-guide/cgroup-v2.rst.
"""

# mypy: allow-subclassing-any
from __future__ import annotations

import functools
import os
from typing import Any

import msgspec
from cgroupspy.controllers import Controller
from cgroupspy.interfaces import (
    BaseFileInterface,
    CommaDashSetFile,
    DictFile,
    FlagFile,
    IntegerFile,
    ListFile,
    MultiLineIntegerFile,
)
from cgroupspy.nodes import Node

READ_BYTES = 65_536
MAX_LINES = 10_000
"""Lines of one file that are looked at; io.stat has one for each device."""


class Number(IntegerFile):
    """A single whole number."""

    def __get__(self, instance: Any, owner: Any = None) -> int:
        return int(super().__get__(instance, owner))

    def __set__(self, instance: Any, value: int) -> None:
        super().__set__(instance, value)


class Maximum(BaseFileInterface):
    """A whole number, or None for `max`."""

    def __get__(self, instance: Any, owner: Any = None) -> int | None:
        text = str(super().__get__(instance, owner))
        return None if text == "max" else int(text)

    def __set__(self, instance: Any, value: int | None) -> None:
        super().__set__(instance, "max" if value is None else value)


class Flag(FlagFile):
    """0 or 1."""

    def __get__(self, instance: Any, owner: Any = None) -> bool:
        return bool(super().__get__(instance, owner))

    def __set__(self, instance: Any, value: bool) -> None:
        super().__set__(instance, value)


class Text(BaseFileInterface):
    """A line as it stands."""

    def __get__(self, instance: Any, owner: Any = None) -> str:
        return str(super().__get__(instance, owner))

    def __set__(self, instance: Any, value: str) -> None:
        super().__set__(instance, value)


class Names(ListFile):
    """Names on one line."""

    def __get__(self, instance: Any, owner: Any = None) -> tuple[str, ...]:
        return tuple(super().__get__(instance, owner))


class Numbers(MultiLineIntegerFile):
    """A number a line. Writing takes one number: the kernel moves one process a write."""

    def __get__(self, instance: Any, owner: Any = None) -> list[int]:
        return list(super().__get__(instance, owner))

    def __set__(self, instance: Any, value: int) -> None:
        super().__set__(instance, (value,))


class Processors(CommaDashSetFile):
    """Numbers in the kernel's list format, `0-3,8`."""

    def __get__(self, instance: Any, owner: Any = None) -> set[int]:
        return set(super().__get__(instance, owner))

    def __set__(self, instance: Any, value: set[int]) -> None:
        super().__set__(instance, value)


class Counters(DictFile):
    """`name number` a line. cgroupspy's cannot read an empty file."""

    readonly = True

    def __get__(self, instance: Any, owner: Any = None) -> dict[str, int]:
        return dict(super().__get__(instance, owner))

    def sanitize_get(self, value: str) -> dict[str, int]:
        parts = (line.split() for line in value.splitlines()[:MAX_LINES])
        return {part[0]: int(part[1]) for part in parts if len(part) == 2 and part[1].isdigit()}


class Quota(BaseFileInterface):
    """cpu.max: microseconds, or None for `max`, in each period of microseconds."""

    def __get__(self, instance: Any, owner: Any = None) -> tuple[int | None, int]:
        quota, period = str(super().__get__(instance, owner)).split()
        return None if quota == "max" else int(quota), int(period)

    def __set__(self, instance: Any, value: tuple[int | None, int]) -> None:
        quota, period = value
        super().__set__(instance, f"{'max' if quota is None else quota} {period}")


class PerDevice(BaseFileInterface):
    """`major:minor name=number ...` a line; None for `max`. io.stat, io.max."""

    readonly = True

    def __get__(self, instance: Any, owner: Any = None) -> dict[str, dict[str, int | None]]:
        return dict(super().__get__(instance, owner))

    def sanitize_get(self, value: str) -> dict[str, dict[str, int | None]]:
        devices: dict[str, dict[str, int | None]] = {}
        for line in value.splitlines()[:MAX_LINES]:
            name, _, rest = line.partition(" ")
            pairs = (part.partition("=") for part in rest.split())
            found = {key: int(v) if v.isdigit() else None for key, _, v in pairs if v.isdigit() or v == "max"}
            if found:
                devices[name] = found
        return devices


class Stall(msgspec.Struct, frozen=True):
    """How long, since the cgroup was made, some of its processes, and all of them at once, waited for a resource."""

    some_us: int = 0
    full_us: int = 0
    some_avg10_permille: int = 0
    """Share of the last ten seconds, in thousandths."""
    full_avg10_permille: int = 0


class Pressure(BaseFileInterface):
    """`some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and a line `full`. (Documentation/accounting/psi.rst)"""

    readonly = True

    def __get__(self, instance: Any, owner: Any = None) -> Stall:
        fields: dict[str, int] = {}
        for line in str(super().__get__(instance, owner)).splitlines():
            kind, *pairs = line.split()
            values = dict(pair.split("=", 1) for pair in pairs)
            if kind in ("some", "full"):
                fields[f"{kind}_us"] = int(values.get("total", "0"))
                fields[f"{kind}_avg10_permille"] = round(float(values.get("avg10", "0")) * 10)
        return Stall(**fields)


class Files(Controller):
    """A controller whose files are opened for reading or for writing only: cgroupspy's would make one that is missing,
    which the kernel refuses with a misleading EACCES."""

    def get_property(self, filename: bytes) -> str:
        descriptor = os.open(self.filepath(filename), os.O_RDONLY | os.O_CLOEXEC)
        try:
            parts = []
            while part := os.read(descriptor, READ_BYTES):
                parts.append(part)
        finally:
            os.close(descriptor)
        return b"".join(parts).decode(errors="replace").strip()

    def set_property(self, filename: bytes, value: object) -> int:
        descriptor = os.open(self.filepath(filename), os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            return os.write(descriptor, str(value).encode())
        finally:
            os.close(descriptor)


class CoreFiles(Files):
    """What every cgroup has; the root cgroup has only some of it."""

    type = Text("cgroup.type", readonly=True)
    procs = Numbers("cgroup.procs")
    threads = Numbers("cgroup.threads")
    controllers = Names("cgroup.controllers")
    subtree_controllers = Names("cgroup.subtree_control")
    subtree_control = Text("cgroup.subtree_control")
    events = Counters("cgroup.events")
    stat = Counters("cgroup.stat")
    max_depth = Maximum("cgroup.max.depth")
    max_descendants = Maximum("cgroup.max.descendants")
    freeze = Flag("cgroup.freeze")
    kill = Flag("cgroup.kill", writeonly=True)


class CpuFiles(Files):
    stat = Counters("cpu.stat")
    weight = Number("cpu.weight")
    max = Quota("cpu.max")
    max_burst = Number("cpu.max.burst")
    pressure = Pressure("cpu.pressure")


class CpusetFiles(Files):
    cpus = Processors("cpuset.cpus")
    cpus_effective = Processors("cpuset.cpus.effective", readonly=True)
    mems = Processors("cpuset.mems")
    mems_effective = Processors("cpuset.mems.effective", readonly=True)
    partition = Text("cpuset.cpus.partition")


class MemoryFiles(Files):
    current = Number("memory.current", readonly=True)
    peak = Number("memory.peak", readonly=True)
    """Since Linux 5.19."""
    min = Maximum("memory.min")
    low = Maximum("memory.low")
    high = Maximum("memory.high")
    max = Maximum("memory.max")
    oom_group = Flag("memory.oom.group")
    events = Counters("memory.events")
    stat = Counters("memory.stat")
    swap_current = Number("memory.swap.current", readonly=True)
    swap_max = Maximum("memory.swap.max")
    pressure = Pressure("memory.pressure")


class PidsFiles(Files):
    current = Number("pids.current", readonly=True)
    max = Maximum("pids.max")
    events = Counters("pids.events")


class IoFiles(Files):
    stat = PerDevice("io.stat")
    max = PerDevice("io.max")
    weight = Text("io.weight")
    pressure = Pressure("io.pressure")


class CgroupNode(Node):
    """One cgroup of the v2 tree: all controllers, and the files of every cgroup, as typed attributes.

    The first node of a chain is named by its absolute path, those below by their own names. Nothing is read or made
    by making one. hugetlb's files are named by page size, so they are reached by `huge_pages`.
    """

    CONTROLLERS: dict[bytes, Any] = {}

    def __init__(self, name: str, parent: CgroupNode | None = None) -> None:
        super().__init__(os.fsencode(name), parent)
        self.core = CoreFiles(self)
        self.cpu = CpuFiles(self)
        self.cpuset = CpusetFiles(self)
        self.memory = MemoryFiles(self)
        self.pids = PidsFiles(self)
        self.io = IoFiles(self)

    @property
    def directory(self) -> str:
        """The absolute path."""
        return os.fsdecode(self.full_path)

    def huge_pages(self, size: str) -> HugetlbFiles:
        """hugetlb's files for pages of one size: `2MB`, `1GB`."""
        return _hugetlb_files(size)(self)

    def read(self, file: str) -> str:
        """A file by its name, without the last newline."""
        return str(self.core.get_property(os.fsencode(file)))

    def write(self, file: str, content: str) -> None:
        """One write of `content` to a file by its name."""
        self.core.set_property(os.fsencode(file), content)


class HugetlbFiles(Files):
    """Declared for one page size by `CgroupNode.huge_pages`."""

    current: int
    max: int | None
    reserved_max: int | None
    events: dict[str, int]


@functools.cache
def _hugetlb_files(size: str) -> type[HugetlbFiles]:
    return type(
        f"Hugetlb{size}Files",
        (HugetlbFiles,),
        {
            "current": Number(f"hugetlb.{size}.current", readonly=True),
            "max": Maximum(f"hugetlb.{size}.max"),
            "reserved_max": Maximum(f"hugetlb.{size}.rsvd.max"),
            "events": Counters(f"hugetlb.{size}.events"),
        },
    )
