"""Kill, stop and cut the processes of a real cluster under load, and check that nothing was lost.

    python benchmarks/soak.py [--minutes 1 | --kills 100] [--seed N] [--masters 3] [--agents 3] [--cut] [--keep]

Two frameworks (soak_load.py) launch short tasks all the time, and clients write and read weights through any master.
Meanwhile masters (half of the time the leader), agents and frameworks are killed with kill -9 and started again after
0.2 to 3 s, masters are stopped with SIGSTOP for 0.5 to 4 s, and with --cut their links are cut, each in a network
namespace of its own (as root; nothing of it is seen outside, or left behind). Never more than a minority of the masters
is away at once, except now and then all of them. Then all heal, the frameworks end, and what was told is compared with
what happened. The exit status is 0 when nothing was lost, ran twice or was told wrongly, and the cluster is in order.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from soak_cluster import (
    LOOK_S,
    NETWORK,
    START_LIMIT_S,
    Leads,
    Part,
    Trouble,
    do,
    enter_namespaces,
    free_ports,
    make_network,
    pids_with,
)
from soak_load import STOP_FILE, Verdict, Weights, judge, zone_errors

from mesos_actor.actors.client import Client, credentials
from mesos_actor.actors.client_registry import describe, leader_of, read_registry
from mesos_actor.actors.errors import MesosActorError
from mesos_actor.raft.backup import decode_backup, digest

HERE = Path(__file__).resolve().parent
FRAMEWORKS = 2
ROLES = 3
ORDER_LIMIT_S = 90.0
"""For the last task to end and the masters to agree, once nothing is disturbed any more."""
AWAY_S = (0.2, 3.0)
STOPPED_S = (0.5, 4.0)
BETWEEN_S = (0.1, 1.2)
RESOURCES = "cpus:4;mem:1024;disk:1024;ports:[31000-31009]"
QUICK = {
    "MESOS_ACTOR_AGENT_REGISTRATION_BACKOFF": "100ms",
    "MESOS_ACTOR_AGENT_REGISTRATION_BACKOFF_MAX": "300ms",
    "MESOS_ACTOR_AGENT_UPDATE_RETRY": "500ms",
}
"""Waits that are for thousands of hosts, made short for one."""


# -- the run ----------------------------------------------------------------------------------------------------------


class Soak:
    """One run: `bring_up`, `disturb`, `put_in_order`; then its report."""

    def __init__(self, options: argparse.Namespace, directory: Path) -> None:
        self.options, self.directory = options, directory
        self.rng = random.Random(options.seed)
        self.keys = str(directory / "keys")
        self.home = directory / "home"
        self.started_s = time.monotonic()
        #: kind -> number of kill -9; `stop` and `cut` beside them
        self.done: Counter[str] = Counter()
        #: what was done to the leading master -> when
        self.leader_hit: dict[str, list[float]] = {"kill": [], "stop": [], "cut": [], "all": []}
        self.troubles: list[str] = []
        self.repairs: set[asyncio.Task[None]] = set()
        self.verdicts: list[Verdict] = []
        self.register_errors: list[str] = []
        for path in (self.home, directory / "ran"):
            path.mkdir()
        self._make_parts()
        self.leads = Leads(self.masters)

    def _make_parts(self) -> None:
        count = self.options.masters
        cut = self.options.cut
        places = (
            [f"{NETWORK}{10 + n}:5050" for n in range(1, count + 1)]
            if cut
            else [f"127.0.0.1:{port}" for port in free_ports(count, random.Random())]
        )
        self.addresses = ",".join(places)
        env = {k: v for k, v in os.environ.items() if not k.startswith(("MESOS_ACTOR_", "XDG_"))}
        env |= {"HOME": str(self.home)}
        start = [sys.executable, "-m", "mesos_actor", "start", "--masters", self.addresses, "--key-dir", self.keys]
        start += ["--log-json"]

        def served(kind: str, number: int, *more: str) -> Part:
            name = f"{kind}-{number}"
            here = ["--work-dir", str(self.directory / name), "--ready-file", str(self.directory / f"{name}.ready")]
            inside = ["nsenter", f"--net=/run/netns/m{number}"] if cut and kind == "master" else []
            return Part(kind, name, self.directory, [*inside, *start, *here, *more], env | QUICK)

        self.masters = [
            served("master", n, "--as", "master", "--port", place.rpartition(":")[2])
            for n, place in enumerate(places, 1)
        ]
        # The soak is about masters, frameworks and what is lost; every host can do this.
        agent = ("--as", "agent", "--isolation", "process", "--resources", RESOURCES, "--hostname")
        self.agents = [served("agent", n, *agent, f"host-{n}") for n in range(1, self.options.agents + 1)]
        load = [sys.executable, str(HERE / "soak_load.py"), str(self.directory)]
        self.frameworks = [
            Part("framework", f"load-{n}", self.directory, [*load, f"load-{n}", self.addresses, self.keys], env)
            for n in range(FRAMEWORKS)
        ]
        self.parts = [*self.masters, *self.agents, *self.frameworks]

    async def run(self) -> bool:
        """Everything, to the report; whether all is well."""
        try:
            await self.bring_up()
            weights = Weights(self.addresses, self.keys, ROLES, self.rng)
            try:
                async with weights:
                    await self.disturb()
                    await self.put_in_order(weights)
            finally:
                self.register_errors = zone_errors(weights.history)
                with open(self.directory / "weights.jsonl", "wb") as file:
                    file.writelines(msgspec.json.encode(op) + b"\n" for op in weights.history)
            self.weights = weights
            return self.report()
        except Trouble as trouble:
            print(f"\nFAILED: {trouble}")
            return False

    async def bring_up(self) -> None:
        init = [sys.executable, "-m", "mesos_actor", "init", "--key-dir", self.keys]
        subprocess.run(init, check=True, stdout=subprocess.DEVNULL)
        for master in self.masters:
            master.start("--initialize")
        for part in (*self.agents, *self.frameworks):
            part.start()
        for part in self.parts:
            await part.until_ready()
        await self.until(lambda: all(self.has_run(one) for one in self.frameworks), "each framework has run a task")
        say(f"{len(self.masters)} masters at {self.addresses}, {len(self.agents)} agents, {FRAMEWORKS} frameworks")

    def has_run(self, framework: Part) -> bool:
        return next((self.directory / "ran").glob(f"{framework.name}-*"), None) is not None

    async def until(self, condition: Callable[[], Any], what: str, limit_s: float = ORDER_LIMIT_S) -> None:
        deadline = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > deadline:
                raise Trouble(f"not within {limit_s:g} s: {what}")
            await asyncio.sleep(LOOK_S)

    # -- disturbing ---------------------------------------------------------------------------------------------------

    @property
    def kills(self) -> int:
        return sum(count for kind, count in self.done.items() if kind not in ("stop", "cut"))

    async def disturb(self) -> None:
        options = self.options
        began_s = told_s = time.monotonic()
        wanted = {"master": 35, "stop": 15, "agent": 20, "framework": 15, "all": 2, "cut": 25 if options.cut else 0}
        kinds, weights = zip(*wanted.items(), strict=True)
        while not (
            self.kills >= options.kills if options.kills else time.monotonic() - began_s >= options.minutes * 60
        ):
            what = self.rng.choices(kinds, weights)[0]
            while not self.disturb_once(what):
                await asyncio.sleep(LOOK_S)
                self.look_for_trouble()
            if time.monotonic() - told_s > 10:
                told_s = time.monotonic()
                say(f"{told_s - began_s:5.0f} s: {self.told()}")
            await asyncio.sleep(self.rng.uniform(*BETWEEN_S))
            self.look_for_trouble()
        while self.repairs:
            await asyncio.wait(self.repairs)
        self.look_for_trouble()

    def told(self) -> str:
        return ", ".join(f"{kind} {count}" for kind, count in sorted(self.done.items()))

    def disturb_once(self, what: str) -> bool:
        """Do it, if it can be done now."""
        here = [m for m in self.masters if not m.away]
        leader = self.leads.leader()
        if what == "all":
            if len(here) < len(self.masters):
                return False
            self.leader_hit["all"].append(time.time())
            for master in here:
                self.kill(master)
            return True
        if what in ("agent", "framework"):
            parts = [p for p in self.parts if p.kind == what and not p.away]
            if parts:
                self.kill(self.rng.choice(parts))
            return bool(parts)
        if len(self.masters) - len(here) >= max(1, (len(self.masters) - 1) // 2):  # a single one goes down, too
            return False
        leading = [m for m in here if m.name == leader]
        master = leading[0] if leading and self.rng.random() < 0.5 else self.rng.choice(here)
        if master in leading:
            self.leader_hit["kill" if what == "master" else what].append(time.time())
        if what == "master":
            self.kill(master)
        else:
            self.done[what] += 1
            self.repair(self.stop_for_a_while(master) if what == "stop" else self.cut_for_a_while(master))
        return True

    def kill(self, part: Part) -> None:
        self.done[part.kind] += 1
        part.away = True
        part.kill()
        self.repair(self.start_again(part))

    def repair(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self.repairs.add(task)
        task.add_done_callback(self._repaired)

    def _repaired(self, task: asyncio.Task[None]) -> None:
        self.repairs.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.troubles.append(str(error))

    async def start_again(self, part: Part) -> None:
        await asyncio.sleep(self.rng.uniform(*AWAY_S))
        part.start()
        await part.until_ready()

    async def stop_for_a_while(self, master: Part) -> None:
        master.away = True
        master.signal(signal.SIGSTOP)
        await asyncio.sleep(self.rng.uniform(*STOPPED_S))
        master.signal(signal.SIGCONT)
        master.away = False

    async def cut_for_a_while(self, master: Part) -> None:
        link = f"m{master.name.rpartition('-')[2]}"
        master.away = True
        do(f"ip link set {link} down")
        await asyncio.sleep(self.rng.uniform(*STOPPED_S))
        do(f"ip link set {link} up")
        master.away = False

    def look_for_trouble(self) -> None:
        """A process that ended without having been killed is the end of the run."""
        dead = [part for part in self.parts if not part.away and not part.is_alive()]
        self.troubles += [f"{part.name} ended by itself:\n{part.tail()}" for part in dead]
        if self.troubles:
            raise Trouble("\n".join(self.troubles))

    # -- afterwards ---------------------------------------------------------------------------------------------------

    async def put_in_order(self, weights: Weights) -> None:
        """Nothing is disturbed any more: the frameworks end, the writers stop, the masters agree."""
        began_s = time.monotonic()
        (self.directory / STOP_FILE).touch()

        def frameworks_ended() -> bool:
            return all((self.directory / f"{f.name}.history").exists() for f in self.frameworks)

        try:
            await self.until(frameworks_ended, "every task has ended")
        except Trouble:
            raise Trouble(f"not every task ended within {ORDER_LIMIT_S:g} s\n{await self.open_tasks()}") from None
        for framework in self.frameworks:
            history = json.loads((self.directory / f"{framework.name}.history").read_text())
            self.verdicts.append(judge(history, self.directory))
            ids = [key for key in history if key.startswith("id/")]
            if len(ids) != 1:
                self.troubles.append(f"{framework.name} was given not one id, but {ids}")
        await weights.finish()
        for client in weights.clients:
            if not await weights.read_once(client):
                self.troubles.append("the registry cannot be read at the end")
        await self.masters_agree()
        self.order_s = time.monotonic() - began_s

    async def open_tasks(self) -> str:
        """What the leading master knows of tasks that have not ended, for a failure."""
        addresses, keys = credentials(self.addresses, self.keys, False)
        try:
            async with Client(addresses, keys) as client:
                rows = [row for row in await client.query("tasks") if not row.get("ended_us")]
                return "\n".join(json.dumps(row) for row in rows[:10])
        except MesosActorError as error:
            return str(error)

    async def masters_agree(self) -> None:
        """One leads, all have the same registry, and every agent is there."""
        addresses, keys = credentials(self.addresses, self.keys, False)
        deadline = time.monotonic() + ORDER_LIMIT_S
        async with Client(addresses, keys) as client:
            while problem := await self._disagreement(client, addresses, keys):
                if time.monotonic() > deadline:
                    raise Trouble(f"the masters do not agree after {ORDER_LIMIT_S:g} s: {problem}")
                await asyncio.sleep(0.1)

    async def _disagreement(self, client: Client, addresses: Any, keys: Any) -> str:
        try:
            standings = await describe(client)
            agents = await client.query("agents")
            texts = []
            for one in addresses:
                async with Client((one,), keys) as single:
                    texts.append(await read_registry(single, stale=True))
        except MesosActorError as error:
            return str(error)
        states = Counter(s.description.state if s.description is not None else s.problem for s in standings)
        if states != Counter(leader=1, follower=len(self.masters) - 1) or leader_of(standings) is None:
            return f"states {dict(states)}"
        digests = {digest(decode_backup(text.data)) for text in texts}
        if len(digests) != 1 or len({text.source for text in texts}) != len(self.masters):
            return f"registries {digests} of {[text.source for text in texts]}"
        if Counter(row["state"] for row in agents) != {"active": len(self.agents)}:
            return f"agents {[(row['agent_id'], row['state']) for row in agents]}"
        return ""

    def report(self) -> bool:
        self.leads.look()
        total = {name: sum(getattr(v, name) for v in self.verdicts) for name in ("launched", "ended", "told_lost")}
        wrong = {name: [x for v in self.verdicts for x in getattr(v, name)] for name in ("lost", "twice", "untrue")}
        reasons = sum((Counter(v.reasons) for v in self.verdicts), Counter())
        history = self.weights.history
        outcomes = Counter(op.outcome for op in history if op.kind == "write")
        reads = sum(op.kind == "read" for op in history) // ROLES
        say(f"\ndone: {self.kills} kills, {self.told()}; in {time.monotonic() - self.started_s:.0f} s")
        say(f"tasks launched {total['launched']}, ended {total['ended']}; {total['told_lost']} of them never ran,")
        say(f"  were told so and launched again: {dict(reasons)}")
        say(f"weights written: {dict(outcomes)}; registry read {reads} times")
        say(f"led: {len(self.leads.all)} times, terms up to {max(lead.term for lead in self.leads.all)}")
        for what, name in (("kill", "kill of the leader"), ("stop", "SIGSTOP of it"), ("cut", "cut of it")):
            gaps = [self.leads.gap_s(at_s, 1e9 if what == "kill" else STOPPED_S[1]) for at_s in self.leader_hit[what]]
            say(f"from {name} to the next: {figures([gap for gap in gaps if gap is not None])}", skip=not gaps)
        gaps = [self.leads.gap_s(at_s) for at_s in self.leader_hit["all"]]
        say(f"all killed, some seconds away: {figures([g for g in gaps if g is not None])}", skip=not gaps)
        say(f"in order again {self.order_s:.1f} s after the last repair")
        counts = {
            "tasks lost": wrong["lost"],
            "tasks that ran twice": wrong["twice"],
            "tasks told otherwise than they went": wrong["untrue"],
            "weights lost or out of order": self.register_errors,
            "terms with two leaders": self.leads.doubles(),
            "other": self.troubles,
        }
        for name, errors in counts.items():
            say(f"{name}: {len(errors)}")
            for error in errors[:10]:
                say(f"    {error}")
        return not any(counts.values())

    def end(self) -> None:
        """No process of this run stays, whoever its parent is; they are known by their HOME."""
        mark = f"HOME={self.home}".encode()
        deadline = time.monotonic() + START_LIMIT_S
        while pids := [pid for pid in pids_with(mark) if pid != os.getpid()]:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                say(f"processes {pids} cannot be ended")
                return
            for part in self.parts:
                part.is_alive()
            time.sleep(LOOK_S)


def figures(gaps_s: list[float]) -> str:
    if not gaps_s:
        return "never"
    return f"{len(gaps_s)} times, median {statistics.median(gaps_s):.2f} s, longest {max(gaps_s):.2f} s"


def say(text: str, skip: bool = False) -> None:
    if not skip:
        print(text, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long to disturb (default 1)")
    parser.add_argument("--kills", type=int, default=0, help="disturb until so many were killed, instead")
    parser.add_argument("--seed", type=int, default=None, help="of what is done when; the default is another each time")
    parser.add_argument("--masters", type=int, default=3)
    parser.add_argument("--agents", type=int, default=3)
    parser.add_argument("--cut", action="store_true", help="cut masters off the network too; needs root")
    parser.add_argument("--keep", action="store_true", help="keep logs and state (they are kept after a failure)")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.masters < 1 or options.masters % 2 == 0 or options.agents < 1:
        parser.error("an odd number of masters and at least one agent are needed")
    if options.cut and not options.inside:
        enter_namespaces()
    if options.cut:
        make_network(options.masters)
    options.seed = random.randrange(1_000_000) if options.seed is None else options.seed
    say(f"seed {options.seed}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    directory = Path(tempfile.mkdtemp(prefix="mesos-actor-soak-"))
    soak = Soak(options, directory)
    well = False
    try:
        well = asyncio.run(soak.run())
    finally:
        soak.end()
        if options.keep or not well:
            say(f"logs and state are in {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    say("PASSED" if well else "FAILED")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
