"""Work: run, submit, wait, kill, teardown, logs."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from mesos_actor.actors.cli.options import Insecure, KeyDir, Masters, Timeout, seconds, whole
from mesos_actor.actors.cli.output import fail
from mesos_actor.actors.errors import InvalidInput

EXIT_SIGNAL = 128
"""Added to the number of the signal that ended a task, as shells do."""
EXIT_NEVER_RAN = 125
"""The task did not come to an end of its own (docker run's number for the same)."""


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})(run)
    for command in (submit, wait, kill, teardown, logs):
        app.command()(command)


def run(
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CMD…", help="What to run, after --, with its arguments. An --image may know it itself."
        ),
    ] = None,
    cpus: Annotated[str, typer.Option(metavar="NUMBER", help="Cores for each task.")] = "1",
    mem: Annotated[
        str, typer.Option(metavar="AMOUNT", help="Memory for each task, in MB or with a unit: 512MiB.")
    ] = "128",
    disk: Annotated[str, typer.Option(metavar="AMOUNT", help="Disk for each task, in MB or with a unit.")] = "0",
    limit: Annotated[
        str,
        typer.Option(
            metavar="LIMITS",
            help="What a task may never get past, apart from its request: 'cpus:2;mem:1GiB;pids:100;io_read:10MiB'; "
            "none: no limit.",
        ),
    ] = "",
    rlimit: Annotated[
        str,
        typer.Option(metavar="LIMITS", help="Of each of its processes, soft and hard: 'nofile:1024:4096;core:0'."),
    ] = "",
    ports: Annotated[
        int,
        typer.Option(
            metavar="N", help="Ports for each task; their numbers are in PORT0, PORT1, …", parser=whole(0, 100)
        ),
    ] = 0,
    name: Annotated[str, typer.Option(help="What people see; by default the program's name.")] = "",
    env: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A variable; may be repeated.")] = None,
    uri: Annotated[
        list[str] | None, typer.Option(metavar="PATH", help="A file on the agent to copy into the sandbox.")
    ] = None,
    instances: Annotated[
        int, typer.Option(metavar="N", help="How many copies, told apart by MESOS_ACTOR_INDEX.", parser=whole(1))
    ] = 1,
    role: Annotated[str, typer.Option(help="The role to take offers in.")] = "*",
    constraint: Annotated[
        list[str] | None, typer.Option(metavar="RULE", help="What an agent must meet: rack==r1.")
    ] = None,
    shell: Annotated[bool, typer.Option("--shell", help="CMD is one line for /bin/sh.")] = False,
    time_limit: Annotated[str, typer.Option(metavar="TIME", help="End a task after so long: 30s, 10m.")] = "0",
    image: Annotated[
        str, typer.Option(help="Its root file system: python:3.12, or oci:/DIR, docker-archive:/FILE.tar on the agent.")
    ] = "",
    volume: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST:CONTAINER[:ro]", help="A path of the agent's host to see inside; may be repeated."),
    ] = None,
    network: Annotated[
        str | None, typer.Option(metavar="host|bridge|own|none", help="Its network; without it the host's.")
    ] = None,
    publish: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST:CONTAINER[/udp]",
            help="A port of the host, or PORT0, PORT1, … of --ports, that leads into its network bridge; may be "
            "repeated.",
        ),
    ] = None,
    container_type: Annotated[
        str | None,
        typer.Option(metavar="linux|docker", help="Who makes its container; without it, as the agent likes."),
    ] = None,
    pull: Annotated[
        str | None,
        typer.Option(
            metavar="missing|always|never",
            help="When a registry is asked for the image; without it, when it is missing.",
        ),
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Its root file system cannot be written to.")] = False,
    masters: Masters = "",
    key_dir: KeyDir = "",
    insecure: Insecure = False,
    timeout: Timeout = 30.0,
) -> None:
    """Run a command on the cluster, with its output here, and end with its exit status.

    Ctrl-C ends the task, twice leaves at once. With several instances the status is that of the first that failed.

    \b
    Examples:
      mesos-actor run -- python3 -c 'print(6 * 7)'
      mesos-actor run --cpus 0.5 --instances 10 --shell -- 'echo I am $MESOS_ACTOR_INDEX'
      mesos-actor run --image python:3.12 --volume /srv/data:/data:ro --network none -- python3 /data/count.py
      mesos-actor run --image nginx --network bridge --ports 1 --publish PORT0:80
    """
    from mesos_actor.actors.cli.attended import run_attended
    from mesos_actor.actors.core.limit_text import limit_pairs
    from mesos_actor.actors.frameworks.specs import batch_spec

    container: dict[str, Any] = {
        "image": image,
        "volumes": volume,
        "network": network,
        "publish": publish,
        "type": container_type,
        "pull": pull,
        "read_only_root": read_only,
    }
    container = {field: value for field, value in container.items() if value}
    if not command and not image:
        raise typer.BadParameter("give what to run after --, or an --image that says so itself")
    command = command or []
    if shell and len(command) != 1:
        raise typer.BadParameter("with --shell, give the whole line as one word, in quotes")
    program = _program(command[0]) if command else _of_image(image)
    group: dict[str, Any] = {
        # Told apart from other runs of the same program, so that `logs` and `kill` find the one that is meant.
        "name": f"{program}-{os.urandom(3).hex()}",
        "cpus": cpus,
        "mem": mem,
        "disk": disk,
        "limits": limit_pairs(limit, "--limit"),
        "rlimits": limit_pairs(rlimit, "--rlimit"),
        "ports": ports,
        "env": dict(_variable(text) for text in env or []),
        "uris": uri or [],
        "instances": instances,
        "constraints": constraint or [],
        "time_limit": time_limit,
        **({"container": container} if container else {}),
        **({"shell": command[0]} if shell else {"command": command}),
    }
    try:
        spec = batch_spec({"name": name or program, "role": role, "failover_timeout": 0, "task": [group]})
    except InvalidInput as error:
        # There is one task and nobody gave it a name.
        raise InvalidInput(str(error).replace(f"task[0] ({group['name']})", "run")) from None
    raise SystemExit(run_attended(spec, masters, key_dir, insecure, timeout))


def _program(text: str) -> str:
    """A name for people: the program's."""
    return Path(text.split()[0]).name[:48] if text.split() else "run"


def _of_image(image: str) -> str:
    """Likewise, of an image that knows its own program: `python` of `docker.io/library/python:3.12`."""
    last = image.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9_.-]", "-", re.split("[:@]", last)[0])[:48] or "run"


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"--env {text}: write NAME=VALUE")
    return name, value


def submit(
    file: Annotated[Path | None, typer.Argument(help="The batch, as TOML or JSON; - reads standard input.")] = None,
    resume: Annotated[str, typer.Option(metavar="ID", help="Take up again a batch or service submitted here.")] = "",
    masters: Masters = "",
    key_dir: KeyDir = "",
    insecure: Insecure = False,
    timeout: Timeout = 30.0,
) -> None:
    """Start a batch and return; prints its id. A scheduler process of its own goes on with it on this host.

    \b
    Example: mesos-actor submit jobs.toml        with jobs.toml:
      name = "count"
      [[task]]
      name = "map"
      command = ["python3", "map.py"]
      instances = 20
      retries = 2
      [[task]]
      name = "reduce"
      command = ["python3", "reduce.py"]
      after = ["map"]
    """
    from mesos_actor.actors.cli import detached
    from mesos_actor.actors.frameworks.specs import batch_spec

    if bool(resume) == (file is not None):
        raise typer.BadParameter("give either a FILE or --resume ID")
    if resume:
        print(detached.resume(resume, masters, key_dir, insecure, timeout))
        return
    assert file is not None
    data = detached.read_spec(file)
    batch_spec(data)
    print(detached.start("batch", data, masters, key_dir, insecure, timeout))


def wait(
    ids: Annotated[list[str], typer.Argument(metavar="ID…", help="What submit printed; from any host.")],
    for_s: Annotated[
        float, typer.Option("--for", metavar="SECONDS", help="At most so long; 0: for ever.", parser=seconds(0))
    ] = 0.0,
    masters: Masters = "",
    key_dir: KeyDir = "",
    insecure: Insecure = False,
    timeout: Timeout = 5.0,
) -> None:
    """Wait until these batches have ended; the exit status is 0 when all of them finished well."""
    from mesos_actor.actors.client import query

    deadline = time.monotonic() + for_s if for_s else None
    waiting, failed = list(ids), False
    pause_s = 0.05
    while waiting:
        for framework_id in list(waiting):
            rows = query(masters, key_dir, insecure, timeout, "frameworks", {"framework_id": framework_id})
            if not rows:
                fail(f"there is no framework {framework_id!r}, or it ended too long ago to be remembered")
            if rows[0]["state"] == "removed":
                waiting.remove(framework_id)
                outcome = rows[0].get("outcome") or "ended without saying how"
                failed = failed or outcome != "finished"
                print(f"{framework_id} {outcome}")
        if waiting and deadline is not None and time.monotonic() > deadline:
            fail(f"still running after {for_s:g} s: {', '.join(waiting)}")
        if waiting:
            time.sleep(pause_s)
            pause_s = min(1.0, pause_s * 1.5)
    raise SystemExit(1 if failed else 0)


def kill(
    task: Annotated[str, typer.Argument(help="The task's id.")],
    framework: Annotated[str, typer.Option(help="Its framework, when two have a task of this id.")] = "",
    grace: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="From TERM to KILL; by default the task's own.", parser=seconds(0)),
    ] = None,
    masters: Masters = "",
    key_dir: KeyDir = "",
    insecure: Insecure = False,
    timeout: Timeout = 5.0,
) -> None:
    """End one task, whatever its framework wants. The framework is told and may start another."""
    from mesos_actor.actors.client import new_id, order
    from mesos_actor.actors.ids import FrameworkId, TaskId
    from mesos_actor.actors.messages.clients import KillByOperator

    message = KillByOperator(
        operation_id=new_id(),
        task_id=TaskId(task),
        framework_id=FrameworkId(framework),
        grace_ms=-1 if grace is None else round(grace * 1000),
    )
    order(masters, key_dir, insecure, timeout, message)
    print(f"killing {task}")


def teardown(
    framework: Annotated[str, typer.Argument(help="The framework's id.")],
    masters: Masters = "",
    key_dir: KeyDir = "",
    insecure: Insecure = False,
    timeout: Timeout = 5.0,
) -> None:
    """End a framework: its tasks are killed and it may not come back."""
    from mesos_actor.actors.client import new_id, order
    from mesos_actor.actors.ids import FrameworkId
    from mesos_actor.actors.messages.scheduler import Teardown

    message = Teardown(framework_id=FrameworkId(framework), operation_id=new_id(), outcome="failed: torn down")
    order(masters, key_dir, insecure, timeout, message)
    print(f"{framework} is torn down")


def logs(
    task: Annotated[str, typer.Argument(help="The task's id.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the task has ended.")] = False,
    stderr: Annotated[bool, typer.Option("--stderr", help="Standard error instead of standard output.")] = False,
    file: Annotated[str, typer.Option(help="Another file in the sandbox, as a relative path.")] = "",
    tail: Annotated[
        int, typer.Option(metavar="BYTES", help="Begin so many bytes before the end.", parser=whole(0))
    ] = 0,
    framework: Annotated[str, typer.Option(help="The task's framework, when two have a task of this id.")] = "",
    masters: Masters = "",
    key_dir: KeyDir = "",
    insecure: Insecure = False,
    timeout: Timeout = 5.0,
) -> None:
    """Print what a task wrote, straight from its agent; also after it ended, as long as the master remembers it."""
    from mesos_actor.actors.client import read_log

    path = file or ("stderr" if stderr else "stdout")
    for piece in read_log(masters, key_dir, insecure, timeout, task, framework, path, follow, tail):
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


def exit_status(exit_code: int | None, signal_number: int | None) -> int:
    """A shell's exit status for how a task ended."""
    if exit_code is not None:
        return exit_code
    return EXIT_SIGNAL + signal_number if signal_number is not None else EXIT_NEVER_RAN


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
