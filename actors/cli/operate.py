"""Operating: service apply|list|scale|remove, weight, gone, completion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from mesos_actor.actors.cli.options import AsJson, Insecure, KeyDir, Masters, Timeout, whole
from mesos_actor.actors.cli.output import Column, Row, fail, print_rows
from mesos_actor.actors.errors import InvalidInput

service = typer.Typer(help="Keep N copies of a task running: apply, list, scale, remove.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    for command in (apply, list_services, scale, remove):
        service.command(name="list" if command is list_services else None)(command)
    app.add_typer(service, name="service")
    for other in (weight, gone, completion):
        app.command()(other)


SERVICES = (
    Column("SERVICE", "name"),
    Column("FRAMEWORK", "framework_id"),
    Column("STATE", "state"),
    Column("RUNNING", lambda row: f"{row.get('running', '?')}/{row.get('instances', '?')}", right=True),
    Column("FAILURES", lambda row: sum(copy["failures"] for copy in row["copies"]), right=True),
    Column("VERSION", "version", right=True),
    Column("COPIES", lambda row: [c["task_id"] for c in row.get("copies", []) if c["task_id"]]),
)


def apply(
    file: Annotated[Path, typer.Argument(help="The service, as TOML or JSON; - reads standard input.")],
    masters: Masters = "",
    key_dir: KeyDir = "",
    insecure: Insecure = False,
    timeout: Timeout = 30.0,
) -> None:
    """Start a service, or change the one of this name copy by copy; prints its framework's id.

    Several at once on one host wait for each other. Do not start one service from two hosts at once: each would start
    its own.

    \b
    Example: mesos-actor service apply web.toml        with web.toml:
      name = "web"
      instances = 3
      command = ["python3", "/srv/web.py"]
      cpus = 0.5
      ports = 1
    """
    from mesos_actor.actors.cli import detached
    from mesos_actor.actors.frameworks.specs import service_spec

    data = detached.read_spec(file)
    spec = service_spec(data)
    # Held until the new one is registered, so that the next to look finds it.
    with detached.service_lock(spec.name, timeout):
        running = _services(masters, key_dir, insecure, timeout, spec.name)
        if len(running) > 1:
            fail(_ambiguous(spec.name, running))
        if running:
            shown = _instruct(masters, key_dir, insecure, timeout, running[0], {"do": "apply", "spec": data})
            print(shown["framework_id"])
            return
        print(detached.start("service", data, masters, key_dir, insecure, timeout))


def list_services(
    masters: Masters = "",
    key_dir: KeyDir = "",
    insecure: Insecure = False,
    timeout: Timeout = 5.0,
    as_json: AsJson = False,
) -> None:
    """The services and their copies. FAILURES counts how often in a row copies have ended by their own fault: look at
    mesos-actor tasks, and at their logs."""
    rows = []
    for framework in _services(masters, key_dir, insecure, timeout, ""):
        if framework["state"] == "active":
            shown = _instruct(masters, key_dir, insecure, timeout, framework, {"do": "show"})
            rows.append({**shown, "state": "active"})
        else:
            known = {"name": framework["name"], "framework_id": framework["framework_id"]}
            rows.append({**known, "state": framework["state"], "copies": []})
    print_rows(rows, SERVICES, as_json, "no services; start one with: mesos-actor service apply FILE")


def scale(
    name: Annotated[str, typer.Argument(help="The service's name.")],
    instances: Annotated[int, typer.Argument(help="How many copies.", parser=whole(0))],
    masters: Masters = "",
    key_dir: KeyDir = "",
    insecure: Insecure = False,
    timeout: Timeout = 5.0,
) -> None:
    """Have another number of copies; those that run are not replaced."""
    framework = _the_service(masters, key_dir, insecure, timeout, name)
    _instruct(masters, key_dir, insecure, timeout, framework, {"do": "scale", "instances": instances})
    print(f"{name}: {instances} wanted")


def remove(
    name: Annotated[str, typer.Argument(help="The service's name.")],
    masters: Masters = "",
    key_dir: KeyDir = "",
    insecure: Insecure = False,
    timeout: Timeout = 5.0,
) -> None:
    """End a service and all its copies."""
    framework = _the_service(masters, key_dir, insecure, timeout, name)
    _instruct(masters, key_dir, insecure, timeout, framework, {"do": "remove"})
    print(f"{name}: being removed")


def _services(masters: str, key_dir: str, insecure: bool, timeout: float, name: str) -> list[Row]:
    """The frameworks that are services and have not ended, of this name or all."""
    from mesos_actor.actors.client import query

    rows = query(masters, key_dir, insecure, timeout, "frameworks", {"name": name} if name else {})
    return [
        row for row in rows if row["state"] != "removed" and row.get("labels", {}).get("mesos-actor/kind") == "service"
    ]


def _the_service(masters: str, key_dir: str, insecure: bool, timeout: float, name: str) -> Row:
    found = _services(masters, key_dir, insecure, timeout, name)
    if not found:
        fail(f"there is no service {name!r}; see: mesos-actor service list")
    if len(found) > 1:
        fail(_ambiguous(name, found))
    return found[0]


def _ambiguous(name: str, found: list[Row]) -> str:
    ids = ", ".join(row["framework_id"] for row in found)
    return f"there are {len(found)} services {name!r}: {ids}; end all but one of them with: mesos-actor teardown ID"


def _instruct(
    masters: str, key_dir: str, insecure: bool, timeout: float, framework: Row, wanted: dict[str, Any]
) -> dict[str, Any]:
    """Ask a service for something; the service as it then stands."""
    if framework["state"] != "active":
        fail(
            f"the scheduler of service {framework['name']} is {framework['state']}; on the host where it was applied, "
            f"start it again with: mesos-actor submit --resume {framework['framework_id']}; or end the service with: "
            f"mesos-actor teardown {framework['framework_id']}"
        )
    from mesos_actor.actors.client import new_id, order
    from mesos_actor.actors.ids import FrameworkId
    from mesos_actor.actors.messages.clients import Instruct

    message = Instruct(
        operation_id=new_id(),
        framework_id=FrameworkId(framework["framework_id"]),
        data=json.dumps(wanted).encode(),
    )
    answer = order(masters, key_dir, insecure, timeout, message)
    shown = json.loads(answer.data)
    if not isinstance(shown, dict):
        fail(f"{framework['framework_id']} answered in words that a service does not use")
    return shown


def weight(
    role: Annotated[str, typer.Argument(help="The role.")],
    value: Annotated[str, typer.Argument(help="Its weight; 1 is the default, 2 gets twice as much.")],
    masters: Masters = "",
    key_dir: KeyDir = "",
    insecure: Insecure = False,
    timeout: Timeout = 5.0,
) -> None:
    """Set how much a role counts when roles compete."""
    from mesos_actor.actors.client import new_id, order
    from mesos_actor.actors.ids import Role, role_error
    from mesos_actor.actors.messages.clients import SetRoleWeight
    from mesos_actor.actors.resources import Resources

    if problem := role_error(role):
        raise typer.BadParameter(problem)
    try:
        weight_milli = Resources.parse(f"weight:{value}").scalar("weight")
    except InvalidInput:
        weight_milli = 0
    if weight_milli <= 0:
        raise typer.BadParameter(f"{value} is no weight; give a number above 0 with at most three decimals")
    order(masters, key_dir, insecure, timeout, SetRoleWeight(new_id(), Role(role), weight_milli))
    print(f"{role}: weight {value}")


def gone(
    agent: Annotated[str, typer.Argument(help="The agent's id.")],
    masters: Masters = "",
    key_dir: KeyDir = "",
    insecure: Insecure = False,
    timeout: Timeout = 5.0,
) -> None:
    """Declare that an agent never comes back: its tasks are gone and its id is banned."""
    from mesos_actor.actors.client import new_id, order
    from mesos_actor.actors.ids import AgentId
    from mesos_actor.actors.messages.clients import MarkAgentGone

    order(masters, key_dir, insecure, timeout, MarkAgentGone(operation_id=new_id(), agent_id=AgentId(agent)))
    print(f"{agent} is gone")


def completion(
    shell: Annotated[str, typer.Argument(help="bash, zsh or fish.")] = "bash",
) -> None:
    """Print the script that completes commands and options in your shell.

    \b
    Example: mesos-actor completion bash > ~/.local/share/bash-completion/completions/mesos-actor
    """
    from typer.completion import completion_init, get_completion_script  # type: ignore[attr-defined]

    from mesos_actor.actors.cli.app import COMPLETE_VARIABLE

    if shell not in ("bash", "zsh", "fish"):
        raise typer.BadParameter(f"{shell} is not one of bash, zsh, fish")
    completion_init()
    print(get_completion_script(prog_name="mesos-actor", complete_var=COMPLETE_VARIABLE, shell=shell))
