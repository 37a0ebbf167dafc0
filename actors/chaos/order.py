"""Whether a cluster that nobody disturbs any more is in order: asked from outside, as an operator would."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from mesos_actor.actors.chaos.processes import pids_with
from mesos_actor.actors.client import Client, credentials
from mesos_actor.actors.client_registry import describe, leader_of, read_registry
from mesos_actor.actors.core import environment
from mesos_actor.actors.errors import MesosActorError
from mesos_actor.raft.backup import decode_backup, digest

SHOWN_TASKS = 10


async def disagreement(masters: str, key_dir: str, master_count: int, agent_count: int) -> str:
    """What is not in order: one leads, all have the same registry, every agent is there. Empty when all is."""
    addresses, keys = credentials(masters, key_dir, False)
    try:
        async with Client(addresses, keys) as client:
            standings = await describe(client)
            agents = await client.query("agents")
        texts = []
        for one in addresses:
            async with Client((one,), keys) as single:
                texts.append(await read_registry(single, stale=True))
    except MesosActorError as error:
        return str(error)
    states = Counter(s.description.state if s.description is not None else s.problem for s in standings)
    wanted = Counter(leader=1, follower=master_count - 1)
    if +states != +wanted or leader_of(standings) is None:
        return f"states {dict(states)}"
    digests = {digest(decode_backup(text.data)) for text in texts}
    if len(digests) != 1 or len({text.source for text in texts}) != master_count:
        return f"registries {digests} of {[text.source for text in texts]}"
    if Counter(row["state"] for row in agents) != {"active": agent_count}:
        return f"agents {[(row['agent_id'], row['state']) for row in agents]}"
    return ""


async def open_tasks(masters: str, key_dir: str) -> str:
    """What the leading master knows of tasks that have not ended, for an account of what went wrong."""
    addresses, keys = credentials(masters, key_dir, False)
    try:
        async with Client(addresses, keys) as client:
            rows = [row for row in await client.query("tasks") if not row.get("ended_us")]
            return "\n".join(json.dumps(row) for row in rows[:SHOWN_TASKS])
    except MesosActorError as error:
        return str(error)


def tasks_left(mark: bytes) -> list[str]:
    """Processes of tasks that still run, of those with this mark."""
    name = f"{environment.TASK_ID}=".encode()
    found = []
    for pid in pids_with(mark):
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        found += [f"process {pid} of task {v.removeprefix(name).decode()}" for v in variables if v.startswith(name)]
    return found
