"""The process of one detached scheduler: `python -m mesos_actor.actors.cli.scheduler DIRECTORY`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mesos_actor.actors.cli.detached import OUTCOME_FILE
from mesos_actor.actors.errors import MesosActorError
from mesos_actor.actors.framework import Framework
from mesos_actor.actors.frameworks.batch import Batch
from mesos_actor.actors.frameworks.service import Service
from mesos_actor.actors.frameworks.specs import batch_spec, service_spec
from mesos_actor.actors.ids import FrameworkId


def _framework(kind: str, spec: object, directory: Path) -> Framework:
    """The framework, which tells where it was started from that a master took it in."""

    def ready(framework_id: FrameworkId) -> None:
        partial = directory / "ready.json.partial"
        partial.write_text(json.dumps({"framework_id": framework_id}))
        partial.replace(directory / "ready.json")

    class ReadyBatch(Batch):
        def on_registered(self, framework_id: FrameworkId) -> None:
            ready(framework_id)
            super().on_registered(framework_id)

    class ReadyService(Service):
        def on_registered(self, framework_id: FrameworkId) -> None:
            ready(framework_id)
            super().on_registered(framework_id)

    return ReadyBatch(batch_spec(spec)) if kind == "batch" else ReadyService(service_spec(spec))


def main() -> int:
    """Run the scheduler that the directory describes to its end."""
    from mesos_actor.actors.run import run

    directory = Path(sys.argv[1])
    wanted = json.loads((directory / "spec.json").read_text())
    framework = _framework(wanted["kind"], wanted["spec"], directory)
    try:
        run(
            framework,
            masters=wanted["masters"] or None,
            state_dir=directory,
            key_dir=wanted["key_dir"] or None,
            insecure=wanted["insecure"],
        )
    except MesosActorError as error:
        print(f"mesos-actor scheduler: {error}", file=sys.stderr)
        return 1
    if isinstance(framework, Batch):
        (directory / OUTCOME_FILE).write_text(framework.state.outcome)
    elif isinstance(framework, Service) and framework.state.finished:
        (directory / OUTCOME_FILE).write_text("removed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
