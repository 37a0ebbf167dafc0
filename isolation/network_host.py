"""The kernel's network, by iproute2's `ip` and nftables' `nft`: started with argument vectors, told by standard input.

Not by netlink from here: pyroute2 takes 130 ms and 24 MiB to be imported, more than the rest of an agent's isolation,
and knows of nftables neither maps nor dnat nor fib; docs/design.md tells more. Calls wait; only from a thread.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from mesos_actor.actors.errors import MesosActorError
from mesos_actor.isolation.network_plan import Plan, overlap

PROGRAMS = ("ip", "nft")
SEARCHED_TOO = "/usr/sbin:/sbin"
"""Where they are, and where the PATH of a service that was not started by root's shell may not lead."""
PATIENCE_S = 60.0
"""Each takes milliseconds, but for the first that the kernel loads modules for; one that takes so long hangs."""
MAX_OUTPUT = 1 << 20
MAX_SAID = 500
"""Characters of what a program complained of."""
NAMESPACES = "run/netns"
"""Where `ip netns` keeps them (ip-netns(8))."""


class NetworkError(MesosActorError):
    """The kernel, or the program that speaks with it, refused; the text names what was wanted and the fix."""


class Ran(msgspec.Struct, frozen=True):
    """How a program ended."""

    status: int
    out: str = ""
    err: str = ""


Run = Callable[[Sequence[str], str], Ran]


def run_program(argv: Sequence[str], told: str) -> Ran:
    """Raises NetworkError when it cannot be started or hangs."""
    environment = {"PATH": f"{os.environ.get('PATH', os.defpath)}:{SEARCHED_TOO}", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            argv,
            input=told,
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # names of links may hold any bytes
            check=False,
            timeout=PATIENCE_S,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise NetworkError(f"`{' '.join(argv)}` did not end within {PATIENCE_S:g} s") from None
    except OSError as error:
        raise NetworkError(f"cannot start `{argv[0]}`: {error.strerror}") from None
    return Ran(done.returncode, done.stdout[:MAX_OUTPUT], done.stderr)


class NetworkHost:
    """This host's. `run` and `root` are for tests: what stands for the programs, and where /proc and /run are."""

    def __init__(self, run: Run = run_program, root: Path = Path("/"), path: str | None = None) -> None:
        self._run = run
        self._root = root
        self._path = f"{os.environ.get('PATH', os.defpath) if path is None else path}:{SEARCHED_TOO}"

    def missing(self) -> list[str]:
        """The programs that are not here."""
        return [name for name in PROGRAMS if shutil.which(name, path=self._path) is None]

    def has_ipv6(self) -> bool:
        return (self._root / "proc/sys/net/ipv6").exists()

    def has_link(self, name: str) -> bool:
        """Asked of the kernel: /sys may be that of another network namespace than ours."""
        try:
            return socket.if_nametoindex(name) > 0
        except OSError:
            return False

    def namespace_path(self, name: str) -> str:
        return str(self._root / NAMESPACES / name)

    def namespaces(self, prefix: str) -> list[str]:
        """Those of that prefix."""
        try:
            return sorted(path.name for path in (self._root / NAMESPACES).iterdir() if path.name.startswith(prefix))
        except FileNotFoundError:
            return []

    def text(self, path: str) -> str:
        """Of a small file; empty: there is none."""
        try:
            with (self._root / path.lstrip("/")).open("rb") as file:
                return file.read(1 << 16).decode(errors="replace")
        except OSError:
            return ""

    # -- what changes it ----------------------------------------------------------------------------------------------

    def make_bridge(self, plan: Plan) -> bool:
        """The agent's bridge, which is not there. Returns whether forwarding had to be allowed on this host. Raises
        NetworkError."""
        if other := overlap(plan.subnet, self._routes(), plan.bridge):
            raise NetworkError(
                f"container_subnet: {plan.subnet} overlaps with the route {other} of this host: start the agent with "
                "another --container-subnet"
            )
        self._batch(plan.bridge_lines(), "", "make the agent's bridge")
        # Published ports answer on 127.0.0.1 too; the rules keep containers away from everything else there.
        self._set(f"proc/sys/net/ipv4/conf/{plan.bridge}/route_localnet", "1")
        forwards = self.text("proc/sys/net/ipv4/ip_forward").strip() == "1"
        if not forwards:
            self._set("proc/sys/net/ipv4/ip_forward", "1")
        return not forwards

    def attach(self, plan: Plan, number: int) -> None:
        """A namespace with its cable to the bridge. Raises NetworkError."""
        name = plan.link(number)
        self._do(["ip", "netns", "add", name], "", "make a network namespace")
        self._batch(plan.cable_lines(number), "", "connect the container with the bridge")
        self._batch(plan.inside_lines(number), name, "give the container its address")

    def join(self, plan: Plan, numbers: Sequence[int]) -> None:
        """Connect those that `attach` made, as far as they are there, with a new bridge. Raises NetworkError."""
        there = [number for number in numbers if self.has_link(plan.link(number))]
        if there:
            self._batch(plan.joining_lines(there), "", "connect the containers with the bridge")

    def detach(self, plan: Plan, number: int) -> None:
        """What `attach` made, as far as it is there. Raises NetworkError."""
        name = plan.link(number)
        self.remove_link(name)
        if Path(self.namespace_path(name)).exists():
            self._do(["ip", "netns", "delete", name], "", "remove a network namespace")

    def remove_link(self, name: str) -> None:
        """Raises NetworkError."""
        if self.has_link(name):
            ran = self._run(["ip", "link", "delete", "dev", name], "")
            if ran.status and self.has_link(name):  # it went with its container's end of the cable meanwhile
                raise NetworkError(_refusal("remove a network link", ["ip", "link", "delete", "dev", name], ran))

    def apply(self, rules: str) -> None:
        """One transaction of nftables. Raises NetworkError."""
        self._do(["nft", "-f", "-"], rules, "publish ports")

    # -- by programs --------------------------------------------------------------------------------------------------

    def _routes(self) -> list[tuple[str, str]]:
        said = self._do(["ip", "-json", "-4", "route", "show", "table", "all"], "", "read this host's routes")
        try:
            routes = json.loads(said or "[]")
            return [(str(one.get("dst", "")), str(one.get("dev", ""))) for one in routes]
        except (ValueError, AttributeError, TypeError):
            raise NetworkError("`ip -json route` says nothing that is JSON: install iproute2 4.13 or newer") from None

    def _batch(self, lines: Sequence[str], namespace: str, what: str) -> None:
        within = ["-netns", namespace] if namespace else []
        self._do(["ip", *within, "-batch", "-"], "".join(f"{line}\n" for line in lines), what)

    def _do(self, argv: Sequence[str], told: str, what: str) -> str:
        ran = self._run(argv, told)
        if ran.status != 0:
            raise NetworkError(_refusal(what, argv, ran))
        return ran.out

    def _set(self, path: str, value: str) -> None:
        try:
            (self._root / path).write_text(value)
        except OSError as error:
            raise NetworkError(
                f"cannot set /{path} to {value}: {error.strerror}; if this agent runs in a container, let it have a "
                "/proc/sys that can be written to"
            ) from None


_FIXES = (
    ("not supported", "load the kernel's modules: modprobe -a bridge veth nf_tables nft_chain_nat nft_fib_ipv4"),
    ("Unknown device type", "load the kernel's modules: modprobe -a bridge veth"),
    ("Could not process rule: No such file", "load the kernel's modules: modprobe -a nft_chain_nat nft_nat nft_masq"),
    ("not permitted", "give the agent CAP_NET_ADMIN and CAP_SYS_ADMIN"),
)
"""What the kernel's words, as the two programs have them, mean for the operator."""


def _refusal(what: str, argv: Sequence[str], ran: Ran) -> str:
    said = " ".join((ran.err or ran.out).split())[:MAX_SAID] or f"exit status {ran.status}"
    fix = next((f"; {advice}" for words, advice in _FIXES if words in said), "")
    return f"cannot {what}: `{' '.join(argv)}` says: {said}{fix}"
