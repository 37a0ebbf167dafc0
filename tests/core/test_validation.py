"""Each rule with its text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from mesos_actor.actors.core import validation
from mesos_actor.actors.core.allocation import Allocation
from mesos_actor.actors.core.offers import MAX_VOIDED, Offers
from mesos_actor.actors.ids import (
    Address,
    AgentId,
    ExecutorId,
    FrameworkId,
    MasterId,
    OfferId,
    Principal,
    Role,
    TaskId,
)
from mesos_actor.actors.messages.agents import RegisterAgent
from mesos_actor.actors.messages.values import (
    MAX_REFUSE_MS,
    AgentInfo,
    Command,
    Demand,
    ExecutorInfo,
    ExecutorReport,
    Filters,
    FrameworkInfo,
    RLimit,
    Task,
    TaskLimits,
    TaskReport,
    Uri,
)
from mesos_actor.actors.resources import Attribute, Attributes, Resource, Resources
from mesos_actor.actors.task import TaskState
from tests.strategies import structs

ONE, FOUR = Resources.parse("cpus:1"), Resources.parse("cpus:4")
TRUE = Command(("true",))


def make(**fields: Any) -> Task:
    fields.setdefault("command", None if "executor" in fields else TRUE)
    return replace(Task(TaskId("t"), ONE), **fields)


def executor(**fields: Any) -> ExecutorInfo:
    return replace(ExecutorInfo(ExecutorId("e"), TRUE, ONE), **fields)


@pytest.mark.parametrize(
    ("task", "text"),
    [
        (make(task_id=TaskId("")), "Task ID is invalid: ID must not be empty"),
        (make(task_id=TaskId("a/b")), "Task ID is invalid: 'a/b' contains invalid characters"),
        (make(task_id=TaskId("..")), "Task ID is invalid: '..' is disallowed"),
        (make(task_id=TaskId("x" * 256)), "Task ID is invalid: ID must not be greater than 255 characters"),
        (make(task_id=TaskId("live")), "Task has duplicate ID: live"),
        (make(task_id=TaskId("lost")), "Task reuses the ID of an unreachable task: lost"),
        (
            make(command=None),
            "Task should have at least one (but not both) of CommandInfo or ExecutorInfo present",
        ),
        (
            make(command=TRUE, executor=executor()),
            "Task should have at least one (but not both) of CommandInfo or ExecutorInfo present",
        ),
        (make(kill_grace_ms=-1), "Task's 'kill_grace_ms' must be non-negative, not -1"),
        (make(max_completion_ms=-5), "Task's 'max_completion_ms' must be non-negative, not -5"),
        (make(max_completion_ms=10**18), f"Task's 'max_completion_ms' must be at most 3153600000000, not {10**18}"),
        (
            make(limits=TaskLimits(io_reads=0)),
            "Task uses invalid limits: 'io_reads' limit of 0 is out of range; give one from 1 to 2147483648",
        ),
        (
            make(limits=TaskLimits(io_weight=5), executor=executor()),
            "Task uses invalid limits: 'io_weight' is of a whole container, and this task's is its executor's;"
            " limit the executor instead",
        ),
        (
            make(executor=executor(limits=TaskLimits(mem_swap_bytes=-7))),
            f"Executor uses invalid limits: 'mem_swap' limit of -7 bytes is out of range; give one from 0 to {1 << 60}",
        ),
        (
            make(command=replace(TRUE, rlimits=(RLimit("core", 1, 0),))),
            "Task's command has invalid 'rlimits': 'core' has a soft limit of 1 above its hard one of 0;"
            " lower the one or raise the other",
        ),
        (make(name="x" * 256), "Task's 'name' must not be longer than 255 characters"),
        (make(resources=Resources()), "Task uses no resources"),
        (
            make(resources=Resources((Resource("cpus", -1),))),
            "Task uses invalid resources: Resource 'cpus' is negative: -0.001",
        ),
        (
            make(resources=Resources((Resource("gpus", 500),))),
            "Task uses invalid resources: The 'gpus' resource must be an unsigned integer, not 0.5",
        ),
        (make(command=Command(())), "Task's command has no program to execute: 'argv' is empty"),
        (make(command=Command(("",))), "Task's command has no program to execute: 'argv' is empty"),
        (
            make(command=Command(("a", "b"), shell=True)),
            "Task's command has 'shell' set, so 'argv' must have exactly one item, not 2",
        ),
        (make(command=Command(("a\0",))), "Task's command has a NUL character in 'argv'"),
        (
            make(command=Command(("a",), env={"A=B": "x"})),
            "Task's command has an invalid environment variable name 'A=B': it must not be empty or contain '='",
        ),
        (
            make(command=Command(("a",), env={"A": "\0"})),
            "Task's command has a NUL character in the environment variable 'A'",
        ),
        (
            make(command=Command(("a",), user="x y")),
            "Task's command has an invalid 'user' 'x y': give the name of a Unix user",
        ),
        (
            make(command=Command(("a",), uris=(Uri("http://x/y"),))),
            "Task's command has an invalid URI: 'path' must be an absolute path or a file:// URL, not 'http://x/y'",
        ),
        (
            make(command=Command(("a",), uris=(Uri("/x", "../y"),))),
            "Task's command has an invalid URI: 'output_file' must be a relative path inside the sandbox, not '../y'",
        ),
        (
            make(command=Command(("a",), uris=(Uri("file:///x/"),))),
            "Task's command has an invalid URI: 'path' 'file:///x/' names no file; set 'output_file'",
        ),
        (make(executor=executor(executor_id=ExecutorId("."))), "Executor ID is invalid: '.' is disallowed"),
        (
            make(executor=executor(shutdown_grace_ms=-1)),
            "ExecutorInfo's 'shutdown_grace_ms' must be non-negative, not -1",
        ),
        (
            make(executor=executor(resources=Resources((Resource("cpus", -1),)))),
            "Executor uses invalid resources: Resource 'cpus' is negative: -0.001",
        ),
        (
            make(executor=executor(command=Command(()))),
            "Executor's command has no program to execute: 'argv' is empty",
        ),
        (make(), None),
        (make(task_id=TaskId("ünï cödé")), None),
        (make(command=Command(("a b",), shell=True, env={"A": "1"}, uris=(Uri("file:///x"),), user="www-data")), None),
        (make(executor=executor(resources=Resources())), None),
    ],
)
def test_task_rules(task: Task, text: str | None) -> None:
    assert text == validation.task_error(task, (TaskId("live"),), (TaskId("lost"),))


def test_a_task_fits_with_its_executor_counted_once() -> None:
    task = make(executor=executor())

    assert (Resources.parse("cpus:2"), None) == validation.fits(task, {}, FOUR)
    assert (Resources.parse("cpus:3"), None) == validation.fits(task, {ExecutorId("e"): executor()}, FOUR)


def test_a_task_that_does_not_fit_leaves_the_offer_alone() -> None:
    text = "Total resources cpus:2 required by task and its executor is more than available cpus:1"

    assert (ONE, text) == validation.fits(make(executor=executor()), {}, ONE)


def test_an_executor_must_be_the_one_that_runs() -> None:
    text = "ExecutorInfo is not compatible with existing ExecutorInfo with same ExecutorID: 'e'"

    assert (FOUR, text) == validation.fits(make(executor=executor(data=b"x")), {ExecutorId("e"): executor()}, FOUR)


@pytest.mark.parametrize(("refuse_ms", "us"), [(-5, 0), (0, 0), (7, 7_000), (MAX_REFUSE_MS + 1, MAX_REFUSE_MS * 1_000)])
def test_filters_are_cut_to_what_is_allowed(refuse_ms: int, us: int) -> None:
    assert us == validation.refuse_us(Filters(refuse_ms))


# -- offers


def outstanding() -> Offers:
    offers = Offers(1_000)
    offers.master_id = MasterId("m")
    info = AgentInfo("a", Address("tcp://a:1/agent"), FOUR)
    for framework, agent, role in (("f", "a", "*"), ("f", "a", "*"), ("f", "b", "*"), ("f", "a", "r"), ("g", "a", "*")):
        allocation = Allocation(FrameworkId(framework), AgentId(agent), Role(role), ONE)
        offers.issue(allocation, info, (), 0)
    return offers


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((), "No offers specified"),
        ((0, 1, 0), "Duplicate offer m-O0 in offer list"),
        ((0, 9), "Offer m-O9 is no longer valid"),
        ((4,), "Offer m-O4 has invalid framework g while framework f is expected"),
        (
            (0, 3),
            "Aggregated offers must be allocated to the same role."
            " Offer m-O3 uses role 'r' but another is using role '*'",
        ),
        (
            (0, 2),
            "Aggregated offers must belong to one single agent. Offer m-O2 uses agent b and agent a",
        ),
        ((0, 1), None),
    ],
)
def test_offer_rules(numbers: tuple[int, ...], text: str | None) -> None:
    ids = [OfferId(f"m-O{n}") for n in numbers]

    assert text == validation.offers_error(ids, FrameworkId("f"), outstanding())


def test_an_offer_leaves_once() -> None:
    offers = outstanding()

    taken = offers.take(OfferId("m-O0"))
    assert taken is not None and taken.offer.offer_id == "m-O0"
    assert offers.take(OfferId("m-O0")) is None
    assert offers.of_framework(FrameworkId("f")) == ["m-O1", "m-O2", "m-O3"]
    assert offers.of_agent(AgentId("a")) == ["m-O1", "m-O3", "m-O4"]


def test_offers_lapse_in_the_order_they_were_made() -> None:
    offers = outstanding()

    assert (offers.next_expiry_us(), offers.expired(999)) == (1_000, [])
    assert len(offers.expired(1_000)) == 5
    assert [o.offer.offer_id for o in offers.after(2, 9)] == ["m-O3", "m-O4"]
    offers.void(offers.expired(1_000), "timed-out")
    assert None is offers.next_expiry_us()


def test_only_so_many_rescinded_offers_are_remembered() -> None:
    offers = outstanding()
    info = AgentInfo("a", Address("tcp://a:1/agent"), FOUR)
    allocation = Allocation(FrameworkId("f"), AgentId("a"), Role("*"), ONE)
    offers.void([OfferId("m-O0")], "agent-lost")
    assert offers.void_reason(OfferId("m-O0")) == "agent-lost"

    offers.void([offers.issue(allocation, info, (), 0).offer_id for _ in range(MAX_VOIDED)], "x")

    assert offers.void_reason(OfferId("m-O0")) == ""


# -- agents, frameworks, demands

INFO = AgentInfo("a", Address("tcp://a:1/agent"), FOUR)
F = FrameworkId("f")


@pytest.mark.parametrize(
    ("info", "text"),
    [
        (AgentInfo("", INFO.address, FOUR), "AgentInfo.hostname must be a host's name of 1 to 255 characters, not ''"),
        (AgentInfo("a", INFO.address, Resources((Resource("cpus"),))), "AgentInfo.resources: Resource 'cpus' has no"),
        (
            AgentInfo("a", INFO.address, FOUR, Attributes((Attribute("rack"),))),
            "AgentInfo.attributes: Attribute 'rack' has no value",
        ),
        (INFO, None),
    ],
)
def test_agent_rules(info: AgentInfo, text: str | None) -> None:
    problem = validation.agent_error(info)

    assert problem == text or (problem and text and problem.startswith(text))


P = Principal("p")


def test_what_a_framework_says_of_itself_is_bounded() -> None:
    """Every master keeps it in memory, in its log and in its snapshots."""
    problem = validation.framework_error(FrameworkInfo("f", labels={"a": "x" * 70_000}), (), P)

    assert problem is not None
    assert problem.startswith("FrameworkInfo has 70")
    assert "at most 65536 are accepted: shorten its labels" in problem


def reported(**fields: Any) -> TaskReport:
    return replace(TaskReport(F, TaskId("t"), ONE, Role("*"), TaskState.RUNNING), **fields)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"registration": "x" * 256}, "RegisterAgent.registration must be a name of 1 to 255 characters"),
        ({"tasks": (reported(), reported())}, "Task 't' of framework f is reported twice"),
        ({"tasks": (reported(state=TaskState.UNKNOWN),)}, "Task 't' of framework f is reported UNKNOWN"),
        ({"tasks": (reported(role=Role("")),)}, "Task 't' of framework f: Role name must not be empty"),
        (
            {"executors": (ExecutorReport(F, executor(), Role("*")),) * 2},
            "Executor 'e' of framework f is reported twice",
        ),
        (
            {"executors": (ExecutorReport(F, executor(shutdown_grace_ms=-1), Role("*")),)},
            "Executor 'e' of framework f: ExecutorInfo's 'shutdown_grace_ms' must be non-negative, not -1",
        ),
        ({"tasks": (reported(),), "executors": (ExecutorReport(F, executor(), Role("*")),)}, None),
    ],
)
def test_registration_rules(fields: dict[str, Any], text: str | None) -> None:
    message = replace(RegisterAgent(INFO, "r", AgentId("a")), **fields)

    assert text == validation.registration_error(message)


@pytest.mark.parametrize(
    ("demands", "text"),
    [
        ((Demand(Role("x"), ONE, 1),), "Role 'x' is not one of the framework's roles"),
        ((Demand(Role("*"), Resources(), 1),), "Demand's 'shape' has no resources"),
        (
            (Demand(Role("*"), Resources((Resource("cpus"),)), 1),),
            "Demand's 'shape' is invalid: Resource 'cpus' has no",
        ),
        ((Demand(Role("*"), ONE, 1),) * 1_001, "1001 demands; at most 1000 are accepted"),
        ((Demand(Role("*"), ONE, 1),), None),
    ],
)
def test_demand_rules(demands: tuple[Demand, ...], text: str | None) -> None:
    problem = validation.demands_error(demands, FrameworkInfo("f"))

    assert problem == text or (problem and text and problem.startswith(text))


@settings(max_examples=15)
@given(structs(Task))
def test_no_task_off_the_wire_makes_the_rules_raise(task: Task) -> None:
    problem = validation.task_error(task, (), ())

    if problem is None:
        rest, problem = validation.fits(task, {}, FOUR)
        assert (rest == FOUR) or problem is None


@settings(max_examples=12)
@given(structs(RegisterAgent))
def test_no_registration_off_the_wire_makes_the_rules_raise(message: RegisterAgent) -> None:
    validation.registration_error(message)


@pytest.mark.parametrize(
    ("command", "size"),
    [
        (Command(("x" * (1 << 21),)), None),
        (Command(("x" * (1 << 21), "y")), (1 << 21) + 1),
        (Command(("e",), env={"A": "\u00e9" * (1 << 20)}), (1 << 21) + 2),
        (Command(("e",), env={"A" * (1 << 21): ""}), (1 << 21) + 1),
    ],
)
def test_a_command_longer_than_any_kernel_executes_is_refused(command: Command, size: int | None) -> None:
    problem = validation.command_error(command, "Task's command")

    if size is None:
        assert problem is None
    else:
        assert problem is not None
        assert problem.startswith(f"Task's command has 'argv' and 'env' of {size} bytes together; at most 2097152 can")
