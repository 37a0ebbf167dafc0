"""What stands for `ip`, `nft` and the kernel: it keeps what there is as files, and refuses what they would."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mesos_actor.isolation.network_host import NetworkHost, Ran


class PretendedNetwork(NetworkHost):
    """`absent`: programs that are not installed. `refuse`: a piece of a command or of its input -> what is said."""

    def __init__(self, root: Path) -> None:
        super().__init__(self.run, root)
        self.root = root
        self.absent: list[str] = []
        self.refuse: dict[str, str] = {}
        self.routes: list[dict[str, str]] = [{"dst": "default", "dev": "eth0"}, {"dst": "10.0.0.0/24", "dev": "eth0"}]
        self.inside: dict[str, list[str]] = {}
        self.lines: list[str] = []
        self.table = ""
        self.transactions = 0
        self.links = root / "sys/class/net"
        self.spaces = root / "run/netns"
        for directory in (self.links, self.spaces, root / "proc/sys/net/ipv4/conf", root / "proc/sys/net/ipv6"):
            directory.mkdir(parents=True)
        (root / "proc/sys/net/ipv4/ip_forward").write_text("0\n")
        (root / "etc").mkdir()
        (root / "etc/resolv.conf").write_text("nameserver 10.0.0.53\n")

    def missing(self) -> list[str]:
        return self.absent

    def has_link(self, name: str) -> bool:
        return (self.links / name).exists()

    def left(self) -> list[str]:
        """The names of everything there is."""
        found = sorted(path.name for place in (self.links, self.spaces) for path in place.iterdir())
        return found + (["rules"] if self.table else [])

    def run(self, argv: Sequence[str], told: str) -> Ran:
        for piece, words in self.refuse.items():
            if piece in " ".join(argv) or piece in told:
                return Ran(1, err=words)
        match list(argv):
            case ["ip", "-json", "-4", "route", "show", "table", "all"]:
                return Ran(0, json.dumps(self.routes))
            case ["ip", "netns", "add", name]:
                (self.spaces / name).touch(exist_ok=False)
            case ["ip", "netns", "delete", name]:
                (self.spaces / name).unlink()
                self.inside.pop(name, None)
                if (self.links / name).exists():  # its cable goes with it
                    (self.links / name).rmdir()
            case ["ip", "-netns", name, "-batch", "-"]:
                self.inside[name] = told.splitlines()
            case ["ip", "-batch", "-"]:
                for line in told.splitlines():
                    self._line(line.split())
            case ["ip", "link", "delete", "dev", name]:
                (self.links / name).rmdir()
            case ["nft", "-f", "-"]:
                self.transactions += 1
                self.table = told if "table ip mesos_actor_0123abcd {" in told else ""
            case other:
                raise AssertionError(other)
        return Ran(0)

    def _line(self, words: list[str]) -> None:
        self.lines.append(" ".join(words))
        if words[:3] == ["link", "add", "name"]:
            (self.links / words[3]).mkdir()
            (self.root / "proc/sys/net/ipv4/conf" / words[3]).mkdir(exist_ok=True)
            if "netns" in words:
                name = words[words.index("netns") + 1]
                assert (self.spaces / name).exists()
                self.inside[name] = []
