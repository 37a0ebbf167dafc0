"""The process of one framework of a chaos run.

    python -m mesos_actor.actors.chaos.load DIRECTORY NAME MASTERS KEY_DIR

The name says what it is: `ledger-…` is the framework that remembers everything, `batch-…` runs one built-in batch after
another, `service-…` one built-in service. Each ends when the directory says so, and leaves `NAME.history` behind.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from mesos_actor.actors.chaos.ledger import (
    LOOK_S,
    RAN_DIRECTORY,
    STOP_FILE,
    Ledger,
    TaskRecord,
    decode_record,
    encode_record,
    told_of,
)
from mesos_actor.actors.errors import PeerError
from mesos_actor.actors.frameworks.batch import OUTCOME, Batch
from mesos_actor.actors.frameworks.batch_state import Kept
from mesos_actor.actors.frameworks.service import Service
from mesos_actor.actors.frameworks.service_state import Copy
from mesos_actor.actors.frameworks.specs import batch_spec, service_spec
from mesos_actor.actors.messages.values import Status
from mesos_actor.actors.run import run

FLAKY_EVERY = 5
"""The first attempt of each so manieth instance fails."""
FLAKY_STATUS = 3
BATCH_WIDTH = 12
SERVICE_COPIES = 3
_TOLD = "told/"
_STOP = "stop?"


def batch_of(name: str, directory: Path) -> Any:
    """A batch of two groups, the second after the first."""
    ran = f"echo run >> {directory}/{RAN_DIRECTORY}/{name}-$MESOS_TASK_ID"
    mark = f"{directory}/{RAN_DIRECTORY}/.{name}-$MESOS_ACTOR_INDEX"
    flaky = (
        f"[ $((MESOS_ACTOR_INDEX % {FLAKY_EVERY})) != 1 ] || [ -e {mark} ] || {{ touch {mark}; exit {FLAKY_STATUS}; }}"
    )
    shared = {"cpus": 0.1, "mem": 8, "retries": 100}
    first = {"name": "map", "instances": BATCH_WIDTH, "shell": f"{ran}; {flaky}; sleep 0.3", **shared}
    after = {"name": "reduce", "instances": 2, "after": ["map"], "shell": f"{ran}; sleep 0.5", **shared}
    return {"name": name, "role": "batch", "task": [first, after]}


def service_of(name: str, directory: Path) -> Any:
    """A service whose copies end by themselves now and then."""
    line = f"echo run >> {directory}/{RAN_DIRECTORY}/{name}-$MESOS_TASK_ID; exec sleep $((2 + 3 * MESOS_ACTOR_INDEX))"
    shape = {"shell": line, "cpus": 0.1, "mem": 8, "backoff": "200ms", "backoff_max": "1s"}
    return {"name": name, "role": "service", "instances": SERVICE_COPIES, **shape}


class WatchedBatch(Batch):
    """The built-in batch, which also keeps what it is told."""

    def on_update(self, status: Status) -> None:
        _keep_told(self, status)
        super().on_update(status)


class WatchedService(Service):
    """The built-in service, which also keeps what it is told. Once it is to end it waits until every copy runs, as it
    must when nothing is disturbed any more, and removes itself."""

    directory: Path

    def on_start(self) -> None:
        super().on_start()
        self.set_timer(_STOP, LOOK_S)

    def on_update(self, status: Status) -> None:
        _keep_told(self, status)
        super().on_update(status)

    def on_timer(self, name: str) -> None:
        if name == _STOP:
            self.set_timer(_STOP, LOOK_S)
            if (self.directory / STOP_FILE).exists() and not self.state.removing and self.all_run():
                self.state.remove()
        super().on_timer(name)

    def all_run(self) -> bool:
        copies = [self.state.copies[index] for index in range(self.state.spec.instances)]
        return all(copy.running_since_us and not copy.ending for copy in copies)


def _keep_told(framework: Batch | Service, status: Status) -> None:
    key = f"{_TOLD}{status.task_id}"
    record = decode_record(framework.kept[key]) if key in framework.kept else TaskRecord(status.agent_id)
    told = told_of(status)
    if told not in record.told:
        record.told.append(told)
        framework.persist(key, encode_record(record))


# -- histories --------------------------------------------------------------------------------------------------------


class Instance(msgspec.Struct, frozen=True):
    """What a built-in framework kept of one place: its group (of a service, none), index, and its newest task."""

    group: str
    index: int
    state: str
    last: int
    """Attempt of a batch's instance, counted from 0; generation of a service's copy, from 1."""


class History(msgspec.Struct):
    """What a framework leaves behind."""

    name: str
    kind: str
    ids: list[str] = []
    """What masters have called it."""
    outcome: str = ""
    tasks: dict[str, TaskRecord] = {}
    instances: list[Instance] = []


def _told(kept: Any, prefix: str) -> dict[str, TaskRecord]:
    return {key.removeprefix(prefix): decode_record(data) for key, data in kept.items() if key.startswith(prefix)}


def ledger_history(framework: Ledger) -> History:
    ids = [key.removeprefix("id/") for key in framework.kept if key.startswith("id/")]
    return History(framework.name, "ledger", ids, "finished", _told(framework.kept, "task/"))


def batch_history(batch: Batch) -> History:
    history = History(batch.name, "batch", [], batch.kept.get(OUTCOME, b"").decode(), _told(batch.kept, _TOLD))
    for key, data in batch.kept.items():
        if key.startswith("instance/"):
            group, _, index = key.removeprefix("instance/").rpartition("/")
            kept = msgspec.msgpack.decode(data, type=Kept)
            history.instances.append(Instance(group, int(index), kept.state, kept.attempt))
    return history


def service_history(service: Service) -> History:
    outcome = "removed" if service.state.finished else ""
    history = History(service.name, "service", [], outcome, _told(service.kept, _TOLD))
    for key, data in service.kept.items():
        if key.startswith("copy/"):
            copy = msgspec.msgpack.decode(data, type=Copy)
            history.instances.append(Instance("", copy.index, copy.task_id, copy.generation))
    return history


def write_histories(directory: Path, name: str, histories: list[History]) -> None:
    partial = directory / f"{name}.partial"
    partial.write_bytes(msgspec.json.encode(histories))
    partial.replace(directory / f"{name}.history")


def read_histories(path: Path) -> list[History]:
    return msgspec.json.decode(path.read_bytes(), type=list[History])


# -- processes --------------------------------------------------------------------------------------------------------


def run_batches(name: str, directory: Path, masters: str, key_dir: str) -> list[History]:
    """One batch after the other, going on where an earlier process was killed, until the directory says stop."""
    number = 0
    while True:
        one = f"{name}-{number}"
        done = directory / f"{one}.ended"
        if not done.exists():
            batch = WatchedBatch(batch_spec(batch_of(one, directory)))
            try:
                run(batch, masters, state_dir=directory / one, key_dir=key_dir)
            except PeerError:
                # Killed after the batch was over and its framework removed, before this file was written.
                if OUTCOME not in batch.kept:
                    raise
            write_histories(directory, one, [batch_history(batch)])
            (directory / f"{one}.history").rename(done)
        number += 1
        if (directory / STOP_FILE).exists() and not (directory / f"{name}-{number}").exists():
            return [read_histories(directory / f"{name}-{n}.ended")[0] for n in range(number)]


def main(directory: Path, name: str, masters: str, key_dir: str) -> None:
    kind = name.partition("-")[0]
    if kind == "batch":
        histories = run_batches(name, directory, masters, key_dir)
    elif kind == "service":
        service = WatchedService(service_spec(service_of(name, directory)))
        service.directory = directory
        run(service, masters, state_dir=directory / name, key_dir=key_dir)
        histories = [service_history(service)]
    else:
        ledger = Ledger(name, directory)
        run(ledger, masters, state_dir=directory / name, key_dir=key_dir)
        histories = [ledger_history(ledger)]
    write_histories(directory, name, histories)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:5])
