"""The agent, handler by handler: what it keeps, what it sends, and in which order."""

from __future__ import annotations

import random
from typing import TypeVar

import msgspec
import pytest

from mesos_actor.actors.actor import CancelTimer, Context, Log, Persist, Send, SetTimer, Stop
from mesos_actor.actors.agent import Agent
from mesos_actor.actors.core.settings import AgentSettings
from mesos_actor.actors.ids import (
    Address,
    AgentId,
    ClusterId,
    ContainerId,
    ExecutorId,
    FrameworkId,
    Node,
    OperationId,
    Principal,
    Role,
    TaskId,
    Term,
    UpdateId,
    node_of,
)
from mesos_actor.actors.messages.agents import (
    AcknowledgeUpdate,
    KillTask,
    Ping,
    Pong,
    RegisterAgent,
    Registered,
    RunTasks,
    ShutdownAgent,
    ShutdownExecutor,
    ShutdownFramework,
)
from mesos_actor.actors.messages.base import Message, Record
from mesos_actor.actors.messages.clients import Query, QueryResult
from mesos_actor.actors.messages.containers import (
    CollectGarbage,
    ContainerExited,
    ContainerFailed,
    ContainersRecovered,
    ContainerStarted,
    ContainerUsage,
    FileData,
    ForgetContainer,
    KillContainer,
    LaunchContainer,
    MeasureContainers,
    ReadFile,
    RecoverContainers,
    RecoveredContainer,
    UpdateContainer,
    Usage,
)
from mesos_actor.actors.messages.executors import (
    ExecutorAcknowledged,
    ExecutorRegistered,
    ExecutorUpdate,
    KillExecutorTask,
    LaunchTasks,
    RegisterExecutor,
    ShutdownYourself,
)
from mesos_actor.actors.messages.records import AgentIdentityRecord, TaskRecord
from mesos_actor.actors.messages.scheduler import ExecutorLost, FromExecutor, Refused, ToExecutor, Update
from mesos_actor.actors.messages.values import Command, ExecutorInfo, FrameworkInfo, Status, Task
from mesos_actor.actors.resources import Resource, Resources
from mesos_actor.actors.task import Reason, Source, TaskState

M1 = Address("tcp://10.0.0.1:5050/master")
M2 = Address("tcp://10.0.0.2:5050/master")
NODE = Node("tcp://10.0.0.9:5051")
PORT = Address("/containerizer")
EXECUTOR = Address("peer:e1/executor")
F = FrameworkId("c-0000")
CPUS = Resources((Resource("cpus", 1_000),))
SETTINGS = AgentSettings(hostname="h", masters=(M1, M2), resources=CPUS, max_tasks=4, max_executors=2)
WHO = FrameworkInfo("fw")
RUNNER = ExecutorInfo(ExecutorId("e"), Command(("run",)))
M = TypeVar("M", bound=Message)


class Bench:
    """An agent, its disk and its clock. Every `tell` is one handler; `disk` is what would survive."""

    def __init__(self, settings: AgentSettings = SETTINGS, disk: dict[str, Record] | None = None) -> None:
        self.settings = settings
        self.disk: dict[str, Record] = disk if disk is not None else {}
        self.now_us = 1_000_000
        self.rng = random.Random(7)
        self.timers: dict[str, int] = {}
        self.attempt = 0
        """Of the newest RegisterAgent, which `tell(..., registered())` answers."""
        self.agent = Agent(settings)
        self.ctx = self.context("local")
        self.agent.on_start(self.ctx)
        self.carry_out()

    def context(self, principal: str) -> Context:
        ctx = Context("agent", NODE, self.now_us, self.rng, dict(self.disk))
        ctx.principal = Principal(principal)
        return ctx

    def carry_out(self) -> list[Message]:
        for effect in self.ctx.effects:
            if isinstance(effect, Persist) and effect.record is not None:
                self.disk[effect.key] = effect.record
            elif isinstance(effect, Persist):
                self.disk.pop(effect.key, None)
            elif isinstance(effect, SetTimer):
                self.timers[effect.name] = self.now_us + effect.delay_us
            elif isinstance(effect, CancelTimer):
                self.timers.pop(effect.name, None)
            elif isinstance(effect, Send) and isinstance(effect.message, RegisterAgent):
                self.attempt = effect.message.attempt
        return [message for _, message in self.ctx.sent()]

    def tell(self, sender: Address, message: Message, principal: str = "cluster") -> list[Message]:
        self.ctx = self.context("local" if sender == PORT else principal)
        if isinstance(message, Registered) and not message.attempt:
            message = msgspec.structs.replace(message, attempt=self.attempt)
        self.agent.on_message(self.ctx, sender, message)
        return self.carry_out()

    def port(self, message: Message) -> list[Message]:
        return self.tell(PORT, message)

    def lose(self, node: str) -> list[Message]:
        self.ctx = self.context("local")
        self.agent.on_link_lost(self.ctx, Node(node))
        return self.carry_out()

    def fire(self, name: str) -> list[Message]:
        """Go on to the moment when this timer runs out."""
        self.now_us = max(self.now_us, self.timers.pop(name))
        self.ctx = self.context("local")
        self.agent.on_timer(self.ctx, name)
        return self.carry_out()

    def restart(self) -> Bench:
        """Another incarnation, from what survived."""
        return Bench(self.settings, self.disk)

    def logged(self) -> list[str]:
        return [e.event for e in self.ctx.effects if isinstance(e, Log)]

    def stopped(self) -> list[str]:
        return [e.reason for e in self.ctx.effects if isinstance(e, Stop)]


def registered(missing_tasks: tuple[tuple[FrameworkId, TaskId], ...] = ()) -> Registered:
    return Registered(AgentId("c-S1"), ClusterId("c"), Term(3), 25_000, missing_tasks)


@pytest.fixture
def bench() -> Bench:
    """An agent that takes part."""
    bench = Bench()
    bench.tell(M1, registered())
    return bench


def command(name: str, /, **more: object) -> Task:
    return msgspec.structs.replace(Task(TaskId(name), CPUS, Command(("true",))), **more)


def custom(name: str, /, **more: object) -> Task:
    return msgspec.structs.replace(Task(TaskId(name), CPUS, executor=RUNNER), **more)


def run(*tasks: Task, term: int = 3) -> RunTasks:
    return RunTasks(Term(term), F, WHO, Role("*"), tasks)


def only(kind: type[M], messages: list[Message]) -> M:
    found = [m for m in messages if isinstance(m, kind)]
    assert len(found) == 1, messages
    return found[0]


def updates(messages: list[Message]) -> list[tuple[str, str, str]]:
    found = [m.status for m in messages if isinstance(m, Update)]
    return [(s.task_id, s.state.value, s.reason.value) for s in found]


def launch(bench: Bench, task: Task) -> ContainerId:
    return only(LaunchContainer, bench.tell(M1, run(task))).container_id


def start(bench: Bench, task: Task) -> ContainerId:
    container = launch(bench, task)
    bench.port(ContainerStarted(container, 7))
    return container


def acknowledge_all(bench: Bench, messages: list[Message]) -> None:
    for m in messages:
        if isinstance(m, Update):
            bench.tell(M1, AcknowledgeUpdate(m.framework_id, m.status.task_id, m.status.update_id))


# -- registration ---------------------------------------------------------------------------------------------------


def test_a_fresh_agent_keeps_its_registration_before_it_registers() -> None:
    bench = Bench()

    kinds = [type(e) for e in bench.ctx.effects if isinstance(e, Persist | Send)]
    assert kinds == [Persist, Send]
    identity = bench.disk["identity"]
    message = only(RegisterAgent, [m for _, m in bench.ctx.sent()])
    assert isinstance(identity, AgentIdentityRecord)
    assert (message.registration, message.agent_id) == (identity.registration, "")
    assert message.info.address == "tcp://10.0.0.9:5051/agent"


def test_an_unanswered_agent_goes_from_master_to_master_with_longer_pauses() -> None:
    bench = Bench()
    asked, longest = [], 0

    for _ in range(40):
        before = bench.now_us
        bench.fire("register")
        longest = max(longest, bench.timers["register"] - bench.now_us, bench.now_us - before)
        asked += [to for to, _ in bench.ctx.sent()]

    assert asked == [M2, M1] * 20
    assert 5_000_000 < longest <= 60_000_000


def test_registering_keeps_the_id_before_all_else_and_cancels_the_search() -> None:
    bench = Bench()
    bench.tell(M1, registered())

    assert isinstance(bench.ctx.effects[0], Persist)
    record = bench.disk["identity"]
    assert isinstance(record, AgentIdentityRecord)
    assert (record.agent_id, record.cluster_id, record.term) == ("c-S1", "c", 3)
    assert "register" not in bench.timers
    assert "ping" in bench.timers


def test_a_master_that_does_not_lead_is_followed_to_the_one_that_does() -> None:
    bench = Bench()

    bench.tell(M1, Refused("not-leading", "", leader=M2))

    assert [to for to, _ in bench.ctx.sent()] == [M2]


@pytest.mark.parametrize("dies", [False, True])
def test_a_named_leader_that_dies_while_it_is_asked_is_not_waited_for(dies: bool) -> None:
    bench = Bench()
    bench.tell(M1, Refused("not-leading", "", leader=M2))
    if dies:
        bench.lose(node_of(M2))

    bench.fire("register")

    assert [to for to, _ in bench.ctx.sent()] == [M1 if dies else M2]


def test_two_masters_that_name_each_other_make_no_storm() -> None:
    bench = Bench()
    sent = 0

    for n in range(100):
        bench.tell((M1, M2)[n % 2], Refused("not-leading", "", leader=(M2, M1)[n % 2]))
        sent += len(bench.ctx.sent())

    assert sent < 10


@pytest.mark.parametrize(
    "message", [Refused("unauthorized", "who?"), Refused("invalid", "who?", fatal=True), ShutdownAgent("who?")]
)
def test_an_agent_that_may_not_take_part_ends(message: Message) -> None:
    bench = Bench()

    bench.tell(M1, message)

    assert bench.stopped() == ["who?"]
    assert "register" not in bench.timers


def test_another_clusters_master_is_not_obeyed(bench: Bench) -> None:
    bench.lose("tcp://10.0.0.1:5050")
    bench.fire("register")

    bench.tell(M1, Registered(AgentId("x-S1"), ClusterId("x"), Term(9), 1_000))

    assert "use another work directory" in bench.stopped()[0]
    record = bench.disk["identity"]
    assert isinstance(record, AgentIdentityRecord)
    assert record.cluster_id == "c"


def test_an_older_leader_cannot_register_the_agent(bench: Bench) -> None:
    bench.lose("tcp://10.0.0.1:5050")
    bench.fire("register")

    bench.tell(M1, Registered(AgentId("c-S1"), ClusterId("c"), Term(2), 1_000))

    assert bench.logged() == ["registered_ignored"]
    assert not bench.agent.registration.connected


def test_pings_are_answered_and_their_absence_noticed(bench: Bench) -> None:
    bench.now_us += 20_000_000
    assert bench.tell(M1, Ping(Term(3))) == [Pong(AgentId("c-S1"))]
    assert bench.timers["ping"] == bench.now_us + 25_000_000

    assert isinstance(bench.fire("ping")[0], RegisterAgent)


def test_a_master_that_does_not_know_us_is_registered_with_at_once(bench: Bench) -> None:
    messages = bench.tell(M1, Ping(Term(3), connected=False))

    assert [type(m) for m in messages] == [Pong, RegisterAgent]


def test_a_new_leader_may_call_for_the_agent(bench: Bench) -> None:
    bench.tell(M2, Ping(Term(4), connected=False))

    assert [(to, type(m)) for to, m in bench.ctx.sent()] == [(M2, Pong), (M2, RegisterAgent)]


@pytest.mark.parametrize("principal", ["executor:x", "mallory"])
def test_only_the_master_is_obeyed(bench: Bench, principal: str) -> None:
    for message in (run(command("t")), KillTask(Term(3), F, TaskId("t")), ShutdownFramework(Term(3), F), Ping(Term(9))):
        assert bench.tell(M1, message, principal) == []
    assert bench.tell(M2, run(command("t"))) == []
    assert bench.tell(EXECUTOR, ContainerExited(ContainerId("c"), 0), principal) == []


def test_what_runs_here_is_what_a_new_master_was_told(bench: Bench) -> None:
    """Cut off, it has asked another master; then an order of the one that it left arrives. (Found by `mesos-actor
    chaos`: the new master answered the framework's question with GONE, and the task ran.)"""
    start(bench, command("known"))
    report = only(RegisterAgent, bench.fire("ping"))
    assert [r.task_id for r in report.tasks] == ["known"]

    messages = bench.tell(M1, run(command("known"), command("t")))

    assert updates(messages) == [("t", "DROPPED", "AGENT_DISCONNECTED")]
    assert bench.logged() == ["not_connected"]
    assert [r.task_id for r in only(RegisterAgent, bench.fire("register")).tasks] == ["known"]


def test_only_the_answer_to_the_newest_registration_counts(bench: Bench) -> None:
    """The master handles a first registration, then the framework's acknowledgement, then a second registration that
    was sent before that and still names the task."""
    container = launch(bench, command("t"))
    news = bench.port(ContainerStarted(container, 7))
    bench.port(ContainerExited(container, 0))
    bench.lose("tcp://10.0.0.1:5050")
    (first,) = [m for m in bench.fire("register") if isinstance(m, RegisterAgent)]
    (second,) = [m for m in bench.fire("register") if isinstance(m, RegisterAgent)]
    told = [updates(bench.tell(M1, msgspec.structs.replace(registered(), attempt=first.attempt)))]
    acknowledge_all(bench, news)

    assert bench.agent.registration.connected is False
    assert first.attempt != second.attempt
    told.append(updates(bench.tell(M1, registered())))
    assert told == [[], [("t", "RUNNING", ""), ("t", "FINISHED", "")]]


def test_a_registration_is_meant_for_one_term_and_says_what_was_true_in_it(bench: Bench) -> None:
    """It was told to a master that led only later, when the agent had taken part in a term between. That master asks
    it to say so again; and until it has heard, no older leader gives it anything that it did not tell of."""
    start(bench, command("old"))
    bench.lose("tcp://10.0.0.1:5050")
    late = only(RegisterAgent, bench.fire("register"))
    assert late.term == 3
    refused = Refused("other-term", "", leader=M2, about="RegisterAgent", term=Term(5))
    again = only(RegisterAgent, bench.tell(M2, refused))
    assert (again.term, again.attempt != late.attempt) == (5, True)
    assert bench.tell(M2, refused) == []

    between = msgspec.structs.replace(registered(), attempt=again.attempt, term=Term(4))
    bench.tell(M1, between)
    assert bench.agent.registration.seeking
    bench.tell(M2, msgspec.structs.replace(registered(), attempt=again.attempt, term=Term(5)))
    assert bench.agent.registration.connected
    bench.tell(M2, refused)
    assert bench.agent.registration.connected, "of a question of long ago"


def test_a_single_master_that_calls_itself_otherwise_than_we_do_is_found_after_each_restart() -> None:
    bench = Bench(msgspec.structs.replace(SETTINGS, masters=(M1,)))
    itself = Address("tcp://10.9.9.9:5050/master")
    bench.tell(M1, registered())
    for term in (4, 5, 6):
        bench.lose("tcp://10.0.0.1:5050")
        bench.fire("register")
        refused = Refused("other-term", "", leader=itself, about="RegisterAgent", term=Term(term))
        assert only(RegisterAgent, bench.tell(M1, refused)).term == term
        bench.tell(M1, msgspec.structs.replace(registered(), term=Term(term)))
        assert (bench.agent.registration.connected, bench.agent.registration.master) == (True, M1)


def test_a_master_of_the_past_is_told_of(bench: Bench) -> None:
    bench.lose("tcp://10.0.0.1:5050")
    bench.fire("register")

    assert bench.tell(M2, Refused("other-term", "", leader=M2, term=Term(2))) == []
    assert bench.logged()[-1] == "master_of_the_past"
    assert bench.tell(M2, Refused("not-leading", "", leader=M1, term=Term(2))) == [], "an old hint"


def test_a_slow_leader_is_not_asked_again_while_the_last_question_is_on_its_way(bench: Bench) -> None:
    bench.lose("tcp://10.0.0.1:5050")
    first = only(RegisterAgent, bench.fire("register"))
    only(RegisterAgent, bench.fire("register"))
    where = bench.agent.registration._search.current

    bench.tell(where, msgspec.structs.replace(registered(), attempt=first.attempt))

    assert not bench.agent.registration.connected
    assert "registered_late" in bench.logged()


def test_a_call_names_the_term_and_the_next_question_too(bench: Bench) -> None:
    bench.lose("tcp://10.0.0.1:5050")
    bench.fire("register")

    assert only(RegisterAgent, bench.tell(M1, Ping(Term(9), connected=False))).term == 9
    assert [m for m in bench.tell(M1, Ping(Term(9), connected=False)) if isinstance(m, RegisterAgent)] == []
    again = only(RegisterAgent, bench.tell(M1, Ping(Term(10), connected=False)))
    assert again.term == 10
    bench.fire("register")
    assert bench.agent.registration.term == 10, "a term never falls"


def test_the_term_of_a_leader_that_somebody_named_is_used_at_once(bench: Bench) -> None:
    bench.lose("tcp://10.0.0.1:5050")
    bench.fire("register")

    named = Refused("not-leading", "", leader=M2, about="RegisterAgent", term=Term(7))
    assert only(RegisterAgent, bench.tell(M1, named)).term == 7


def test_a_lost_master_pauses_updates_and_coming_back_sends_them_again(bench: Bench) -> None:
    container = start(bench, command("t"))
    bench.lose("tcp://10.0.0.1:5050")

    assert updates(bench.port(ContainerExited(container, 0))) == []
    report = only(RegisterAgent, bench.fire("register"))
    assert [(r.task_id, r.state.value, r.container_id) for r in report.tasks] == [("t", "FINISHED", container)]
    assert report.frameworks == ((F, WHO),)
    assert updates(bench.tell(M1, registered())) == [("t", "RUNNING", ""), ("t", "FINISHED", "")]


def test_what_is_missing_is_dropped_reliably_and_once(bench: Bench) -> None:
    start(bench, command("here"))
    missing = registered(missing_tasks=((F, TaskId("here")), (F, TaskId("gone"))))

    messages = bench.tell(M1, missing)

    assert updates(messages) == [("gone", "DROPPED", "RECONCILIATION")]
    assert only(Update, messages).status.update_id
    assert updates(bench.tell(M1, missing)) == []
    acknowledge_all(bench, messages)
    assert "stream/c-0000/gone" not in bench.disk


# -- the life of a command task -------------------------------------------------------------------------------------


def test_a_task_is_kept_before_its_container_is_asked_for(bench: Bench) -> None:
    messages = bench.tell(M1, run(command("t")))

    launched = only(LaunchContainer, messages)
    order = [e.key if isinstance(e, Persist) else "send" for e in bench.ctx.effects if isinstance(e, Persist | Send)]
    assert order == ["framework/c-0000", "task/c-0000/t", "send"]
    assert launched.container_id.startswith("t.") and len(launched.container_id) == 14
    assert launched.env == {
        "MESOS_TASK_ID": "t",
        "MESOS_FRAMEWORK_ID": F,
        "MESOS_CONTAINER_ID": launched.container_id,
        "MESOS_AGENT_ID": "c-S1",
    }


def test_the_whole_life_of_a_task_leaves_nothing_behind(bench: Bench) -> None:
    before = dict(bench.disk)
    container = launch(bench, command("t"))

    running = bench.port(ContainerStarted(container, 7))
    assert updates(running) == [("t", "RUNNING", "")]
    finished = bench.port(ContainerExited(container, 0))
    assert updates(finished) == [("t", "FINISHED", "")]
    assert finished[-1] == ForgetContainer(container)
    last = [type(e) for e in bench.ctx.effects if isinstance(e, Persist | Send)]
    assert last == [Persist, Send, Send]
    acknowledge_all(bench, running + finished)

    assert bench.disk == before
    assert bench.agent.streams.streams == {}
    assert bench.agent.workload.containers == {}
    assert bench.agent.workload.run_count == 0


@pytest.mark.parametrize(
    ("exited", "state", "reason", "text"),
    [
        (ContainerExited(ContainerId(""), 0), "FINISHED", "", "Command exited with status 0"),
        (ContainerExited(ContainerId(""), 3), "FAILED", "COMMAND_FAILED", "Command exited with status 3"),
        (ContainerExited(ContainerId(""), None, 9), "FAILED", "COMMAND_FAILED", "terminated with signal SIGKILL"),
        (ContainerExited(ContainerId(""), text="launcher died"), "FAILED", "EXIT_STATUS_UNKNOWN", "launcher died"),
        (ContainerExited(ContainerId(""), None, 15, killed=True), "KILLED", "", "signal SIGTERM"),
    ],
)
def test_how_a_command_ends_is_told(bench: Bench, exited: ContainerExited, state: str, reason: str, text: str) -> None:
    container = start(bench, command("t"))

    messages = bench.port(msgspec.structs.replace(exited, container_id=container))

    status = only(Update, messages).status
    assert (status.state, status.reason) == (state, reason)
    assert text in status.message
    assert (status.exit_status, status.signal) == (exited.exit_status, exited.signal)
    assert (status.source, status.container_id, status.agent_id) == (Source.AGENT, container, "c-S1")


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("fetch", "FETCH_FAILED"),
        ("full", "STORAGE_FULL"),
        ("processors", "NO_FREE_PROCESSORS"),
        ("spawn", "CONTAINER_LAUNCH_FAILED"),
        ("?", "CONTAINER_LAUNCH_FAILED"),
    ],
)
def test_a_command_that_never_ran_has_failed(bench: Bench, reason: str, told: str) -> None:
    container = launch(bench, command("t"))

    messages = bench.port(ContainerFailed(container, reason, "no such file"))

    assert updates(messages) == [("t", "FAILED", told)]
    assert ForgetContainer(container) in messages


def test_the_same_task_twice_is_launched_once(bench: Bench) -> None:
    launch(bench, command("t"))

    assert bench.tell(M1, run(command("t"), command("t"))) == []


def test_news_of_unknown_containers_is_put_to_rest(bench: Bench) -> None:
    assert bench.port(ContainerStarted(ContainerId("x"), 1)) == [KillContainer(ContainerId("x"), 0)]
    assert bench.port(ContainerExited(ContainerId("x"), 1)) == [ForgetContainer(ContainerId("x"))]
    assert bench.port(ContainerFailed(ContainerId("x"), "spawn", "")) == [ForgetContainer(ContainerId("x"))]


def test_orders_of_an_older_term_are_refused(bench: Bench) -> None:
    start(bench, command("known"))

    messages = bench.tell(M2, run(command("known"), command("t"), term=2))

    assert updates(messages) == [("t", "DROPPED", "AGENT_STALE_TERM")]
    assert [to for to, _ in bench.ctx.sent()] == [M2]
    assert bench.tell(M1, KillTask(Term(2), F, TaskId("known"))) == []
    assert bench.tell(M1, ShutdownFramework(Term(2), F)) == []


def test_too_many_tasks_are_dropped_with_a_clear_text(bench: Bench) -> None:
    messages = bench.tell(M1, run(*(command(f"t{n}") for n in range(5))))

    dropped = only(Update, messages).status
    assert (dropped.task_id, dropped.reason) == ("t4", Reason.AGENT_FULL)
    assert "4 tasks already (max_tasks)" in dropped.message


@pytest.mark.parametrize("task", [command("a/b"), Task(TaskId("t"), CPUS), command("t", executor=RUNNER), command("")])
def test_an_impossible_task_is_an_error(bench: Bench, task: Task) -> None:
    before = dict(bench.disk)

    assert updates(bench.tell(M1, run(task))) == [(task.task_id, "ERROR", "TASK_INVALID")]
    assert bench.disk == before


def test_a_long_name_is_cut_in_the_containers_name(bench: Bench) -> None:
    assert len(launch(bench, command("x" * 255))) == 64 + 13
    assert len(launch(bench, command("\U0001f600" * 60)).encode()) == 64 + 13


def test_a_command_runs_as_its_frameworks_user(bench: Bench) -> None:
    message = RunTasks(Term(3), F, FrameworkInfo("fw", user="ann"), Role("*"), (command("t"),))

    assert only(LaunchContainer, bench.tell(M1, message)).command.user == "ann"


def test_a_task_that_runs_too_long_is_killed_and_has_failed(bench: Bench) -> None:
    container = start(bench, command("t", max_completion_ms=5_000, kill_grace_ms=70))
    name = f"completion/{container}"
    assert bench.timers[name] == bench.now_us + 5_000_000

    assert bench.fire(name) == [KillContainer(container, 70)]
    messages = bench.port(ContainerExited(container, None, 15, killed=True))

    assert updates(messages) == [("t", "FAILED", "MAX_COMPLETION_TIME_REACHED")]
    assert bench.agent.workload.limited == {}


def test_unacknowledged_updates_come_again_by_one_timer(bench: Bench) -> None:
    for name in ("a", "b"):
        start(bench, command(name))

    assert updates(bench.fire("updates")) == [("a", "RUNNING", ""), ("b", "RUNNING", "")]
    assert bench.timers["updates"] == bench.now_us + 20_000_000


def test_an_acknowledgement_that_ends_nothing_is_saved_soon(bench: Bench) -> None:
    container = launch(bench, command("t"))
    acknowledge_all(bench, bench.port(ContainerStarted(container, 7)))
    bench.fire("acknowledgements")

    again = bench.restart()
    again.port(ContainersRecovered((RecoveredContainer(container, True),)))

    assert updates(again.tell(M1, registered())) == []


def test_a_graceful_stop_saves_what_was_acknowledged_and_ends_nothing(bench: Bench) -> None:
    container = launch(bench, command("t"))
    acknowledge_all(bench, bench.port(ContainerStarted(container, 7)))

    bench.ctx = bench.context("local")
    bench.agent.on_stop(bench.ctx)

    assert bench.carry_out() == []
    again = bench.restart()
    again.port(ContainersRecovered((RecoveredContainer(container, True),)))
    assert updates(again.tell(M1, registered())) == []


# -- kill -----------------------------------------------------------------------------------------------------------


def kill(name: str, grace_ms: int = -1) -> KillTask:
    return KillTask(Term(3), F, TaskId(name), grace_ms)


def test_killing_a_running_task_is_told_before_and_after(bench: Bench) -> None:
    container = start(bench, command("t", kill_grace_ms=900))

    messages = bench.tell(M1, kill("t"))
    assert updates(messages) == [("t", "KILLING", "")]
    assert messages[-1] == KillContainer(container, 900)
    assert bench.tell(M1, kill("t", 0)) == [KillContainer(container, 0)]
    assert updates(bench.port(ContainerExited(container, None, 9, killed=True))) == [("t", "KILLED", "")]
    assert bench.tell(M1, kill("t")) == []


def test_a_task_killed_during_launch_never_runs_for_its_framework(bench: Bench) -> None:
    container = launch(bench, command("t"))

    assert bench.tell(M1, kill("t")) == [KillContainer(container, 3_000)]
    assert bench.port(ContainerStarted(container, 7)) == []
    ended = bench.port(ContainerExited(container, None, 15, killed=True))
    assert updates(ended) == [("t", "KILLED", "TASK_KILLED_DURING_LAUNCH")]


def test_killing_what_nobody_knows_is_answered_without_an_id(bench: Bench) -> None:
    update = only(Update, bench.tell(M1, kill("t")))

    assert (update.status.state, update.status.reason) == (TaskState.DROPPED, Reason.EXECUTOR_TERMINATED)
    assert update.status.update_id == ""


def test_a_removed_framework_ends_silently(bench: Bench) -> None:
    before = dict(bench.disk)
    ended, live = start(bench, command("ended")), start(bench, command("live"))
    bench.port(ContainerExited(ended, 0))

    assert bench.tell(M1, ShutdownFramework(Term(3), F)) == [KillContainer(live, 3_000)]
    assert updates(bench.tell(M1, run(command("new")))) == [("new", "DROPPED", "FRAMEWORK_REMOVED")]
    assert bench.port(ContainerExited(live, None, 15, killed=True)) == [ForgetContainer(live)]
    assert bench.disk == before
    assert bench.agent.workload.frameworks == {}


# -- custom executors -----------------------------------------------------------------------------------------------


def register_executor(container: ContainerId, **more: object) -> RegisterExecutor:
    return msgspec.structs.replace(RegisterExecutor(F, ExecutorId("e"), container), **more)


def news(name: str, state: TaskState, update_id: str) -> ExecutorUpdate:
    return ExecutorUpdate(
        F, ExecutorId("e"), Status(TaskId(name), state, Source.EXECUTOR, update_id=UpdateId(update_id))
    )


def with_executor(bench: Bench, *tasks: Task) -> ContainerId:
    """Tasks delivered to an executor that has registered."""
    container = only(LaunchContainer, bench.tell(M1, run(*tasks))).container_id
    bench.tell(EXECUTOR, register_executor(container), f"executor:{container}")
    return container


def test_an_executor_is_launched_once_and_fed_when_it_registers(bench: Bench) -> None:
    launched = only(LaunchContainer, bench.tell(M1, run(custom("a"), custom("b"))))
    assert launched.executor
    assert launched.env["MESOS_ACTOR_AGENT"] == "tcp://10.0.0.9:5051/agent"
    assert launched.env["MESOS_EXECUTOR_ID"] == "e"
    container = launched.container_id

    messages = bench.tell(EXECUTOR, register_executor(container), f"executor:{container}")

    assert messages == [ExecutorRegistered(AgentId("c-S1"), RUNNER, WHO), LaunchTasks((custom("a"), custom("b")))]
    grown = UpdateContainer(container, CPUS + CPUS + CPUS)
    assert bench.tell(M1, run(custom("c"))) == [grown, LaunchTasks((custom("c"),))]


def test_only_the_executors_own_key_speaks_for_it(bench: Bench) -> None:
    container = only(LaunchContainer, bench.tell(M1, run(custom("a")))).container_id

    refused = bench.tell(EXECUTOR, register_executor(container), "executor:another")

    assert [type(m) for m in refused] == [Refused]
    assert bench.tell(EXECUTOR, news("a", TaskState.FINISHED, "1"), "executor:another") == []


def test_an_unknown_executor_is_sent_home(bench: Bench) -> None:
    assert bench.tell(EXECUTOR, register_executor(ContainerId("x"))) == [ShutdownYourself(0)]


def test_an_executors_news_is_kept_forwarded_and_answered(bench: Bench) -> None:
    with_executor(bench, custom("a"))

    messages = bench.tell(EXECUTOR, news("a", TaskState.RUNNING, "n1"))

    assert updates(messages) == [("a", "RUNNING", "")]
    status = only(Update, messages).status
    assert (status.source, status.executor_id) == (Source.EXECUTOR, "e")
    assert status.update_id not in ("", "n1")
    assert messages[-1] == ExecutorAcknowledged(TaskId("a"), "n1")
    assert bench.tell(EXECUTOR, news("a", TaskState.RUNNING, "n1")) == [ExecutorAcknowledged(TaskId("a"), "n1")]
    bench.tell(EXECUTOR, news("a", TaskState.FINISHED, "n2"))
    assert bench.tell(EXECUTOR, news("a", TaskState.FAILED, "n3")) == [ExecutorAcknowledged(TaskId("a"), "n3")]


def test_an_executor_that_says_staging_is_shut_down(bench: Bench) -> None:
    with_executor(bench, custom("a"))

    assert bench.tell(EXECUTOR, news("a", TaskState.STAGING, "1")) == [ShutdownYourself(5_000)]


def test_states_that_are_not_an_executors_to_tell_change_nothing(bench: Bench) -> None:
    with_executor(bench, custom("a"))

    assert bench.tell(EXECUTOR, news("a", TaskState.GONE, "1")) == [ExecutorAcknowledged(TaskId("a"), "1")]
    assert bench.tell(EXECUTOR, news("a", TaskState.RUNNING, "")) == []


def test_an_executor_that_does_not_register_is_killed_and_its_tasks_failed(bench: Bench) -> None:
    container = only(LaunchContainer, bench.tell(M1, run(custom("a")))).container_id

    assert bench.fire(f"executor/{container}") == [KillContainer(container, 0)]
    assert updates(bench.tell(M1, run(custom("late")))) == [("late", "DROPPED", "EXECUTOR_TERMINATED")]
    messages = bench.port(ContainerExited(container, None, 9, killed=True))

    assert updates(messages) == [("a", "FAILED", "EXECUTOR_REGISTRATION_TIMEOUT")]


def test_an_executors_end_ends_its_tasks(bench: Bench) -> None:
    container = with_executor(bench, custom("a"), custom("b"))
    bench.tell(EXECUTOR, news("a", TaskState.FINISHED, "1"))

    messages = bench.port(ContainerExited(container, 1))

    assert updates(messages) == [("b", "FAILED", "EXECUTOR_TERMINATED")]
    lost = ExecutorLost(AgentId("c-S1"), ExecutorId("e"), 1, None, F, container)
    assert messages[-2:] == [ForgetContainer(container), lost]
    assert "executor/c-0000/e" not in bench.disk


def test_a_task_that_never_reached_its_executor_is_delivered_when_that_comes_back(bench: Bench) -> None:
    container = with_executor(bench, custom("a"), custom("b"))
    bench.lose("peer:e1")
    assert [type(m) for m in bench.tell(M1, run(custom("c")))] == [UpdateContainer]

    back = register_executor(container, unacknowledged_tasks=(TaskId("a"), TaskId("b")))
    messages = bench.tell(Address("peer:e2/executor"), back, f"executor:{container}")

    assert only(LaunchTasks, messages).tasks == (custom("c"),)


def test_killing_an_executors_task(bench: Bench) -> None:
    container = with_executor(bench, custom("a"))
    assert bench.tell(M1, kill("a", 10)) == [KillExecutorTask(TaskId("a"), 10)]

    bench.lose("peer:e1")
    assert bench.tell(M1, kill("a", 5)) == []
    messages = bench.tell(EXECUTOR, register_executor(container, unacknowledged_tasks=(TaskId("a"),)))
    assert messages[-1] == KillExecutorTask(TaskId("a"), 5)


def test_killing_the_last_queued_task_ends_the_executor(bench: Bench) -> None:
    container = only(LaunchContainer, bench.tell(M1, run(custom("a"), custom("b")))).container_id

    assert updates(bench.tell(M1, kill("a"))) == [("a", "KILLED", "TASK_KILLED_DURING_LAUNCH")]
    messages = bench.tell(M1, kill("b"))
    assert messages[-1] == KillContainer(container, 0)


def test_an_executor_is_shut_down_in_its_grace_then_killed(bench: Bench) -> None:
    container = with_executor(bench, custom("a"))

    assert bench.tell(M1, ShutdownExecutor(Term(3), F, ExecutorId("e"))) == [ShutdownYourself(5_000)]
    assert bench.fire(f"shutdown/{container}") == [KillContainer(container, 0)]


def test_an_executors_task_that_runs_too_long_is_killed_and_has_failed(bench: Bench) -> None:
    with_executor(bench, custom("a", max_completion_ms=50))
    name = next(n for n in bench.timers if n.startswith("completion/"))

    assert bench.fire(name) == [KillExecutorTask(TaskId("a"), 3_000)]
    messages = bench.tell(EXECUTOR, news("a", TaskState.KILLED, "1"))
    assert updates(messages) == [("a", "FAILED", "MAX_COMPLETION_TIME_REACHED")]


def test_opaque_bytes_travel_both_ways(bench: Bench) -> None:
    with_executor(bench, custom("a"))
    there = ToExecutor(F, AgentId("c-S1"), ExecutorId("e"), b"x")

    assert bench.tell(M1, there) == [there]
    back = FromExecutor(F, AgentId("forged"), ExecutorId("e"), b"y")
    assert bench.tell(EXECUTOR, back) == [FromExecutor(F, AgentId("c-S1"), ExecutorId("e"), b"y")]
    assert bench.tell(Address("peer:x/executor"), back) == []


def test_executors_and_queues_are_bounded() -> None:
    bench = Bench(msgspec.structs.replace(SETTINGS, max_executors=1, max_queued_tasks=1))
    bench.tell(M1, registered())
    other = msgspec.structs.replace(RUNNER, executor_id=ExecutorId("o"))

    messages = bench.tell(M1, run(custom("a"), custom("b"), custom("c", executor=other)))

    assert updates(messages) == [("b", "DROPPED", "AGENT_FULL"), ("c", "DROPPED", "AGENT_FULL")]


def test_a_removed_framework_takes_its_executors_along(bench: Bench) -> None:
    before = dict(bench.disk)
    container = with_executor(bench, custom("a"))

    assert bench.tell(M1, ShutdownFramework(Term(3), F)) == [ShutdownYourself(5_000)]
    assert bench.tell(EXECUTOR, news("a", TaskState.KILLED, "1")) == [ExecutorAcknowledged(TaskId("a"), "1")]
    assert bench.port(ContainerExited(container, 0)) == [ForgetContainer(container)]
    assert bench.disk == before


# -- recovery -------------------------------------------------------------------------------------------------------


def test_a_restarted_agent_asks_for_its_containers_before_it_registers(bench: Bench) -> None:
    container = start(bench, command("t"))

    again = bench.restart()

    assert [m for _, m in again.ctx.sent()] == [RecoverContainers((container,))]
    assert again.fire("recover") == [RecoverContainers((container,))]
    messages = again.port(ContainersRecovered((RecoveredContainer(container, True),)))
    report = only(RegisterAgent, messages)
    assert (report.agent_id, report.cluster_id) == ("c-S1", "c")
    assert [(t.task_id, t.state.value) for t in report.tasks] == [("t", "RUNNING")]
    assert again.port(ContainersRecovered(())) == []


def test_a_containerizer_that_never_answers_ends_the_agent(bench: Bench) -> None:
    again = bench.restart()

    for _ in range(24):
        again.fire("recover")

    assert "did not answer" in again.stopped()[0]


@pytest.mark.parametrize(
    ("seen", "fate", "expected"),
    [
        (True, RecoveredContainer(ContainerId(""), True), []),
        (False, RecoveredContainer(ContainerId(""), True), [("t", "RUNNING", "")]),
        (True, RecoveredContainer(ContainerId(""), False, 0, 3), [("t", "FAILED", "COMMAND_FAILED")]),
        (False, RecoveredContainer(ContainerId(""), False, 0, 0), [("t", "FINISHED", "")]),
        (False, None, [("t", "DROPPED", "AGENT_RESTARTED")]),
        (True, None, [("t", "FAILED", "EXIT_STATUS_UNKNOWN")]),
    ],
)
def test_what_became_of_a_task_meanwhile_is_told(
    bench: Bench, seen: bool, fate: RecoveredContainer | None, expected: list[tuple[str, str, str]]
) -> None:
    container = launch(bench, command("t"))
    if seen:
        acknowledge_all(bench, bench.port(ContainerStarted(container, 7)))
        bench.fire("acknowledgements")
    again = bench.restart()

    fates = () if fate is None else (msgspec.structs.replace(fate, container_id=container),)
    again.port(ContainersRecovered(fates))

    assert updates(again.tell(M1, registered())) == expected


def test_a_kill_under_way_goes_on_after_a_restart(bench: Bench) -> None:
    container = start(bench, command("t"))
    bench.tell(M1, kill("t"))

    again = bench.restart()

    messages = again.port(ContainersRecovered((RecoveredContainer(container, True),)))
    assert KillContainer(container, 3_000) in messages


def test_a_time_limit_counts_on_over_a_restart(bench: Bench) -> None:
    container = start(bench, command("t", max_completion_ms=5_000))
    again = bench.restart()
    again.now_us += 4_000_000

    again.port(ContainersRecovered((RecoveredContainer(container, True),)))

    assert again.timers[f"completion/{container}"] == again.now_us + 1_000_000


def test_an_ended_task_is_forgotten_by_the_containerizer_after_a_restart(bench: Bench) -> None:
    container = start(bench, command("t"))
    bench.port(ContainerExited(container, 0))

    again = bench.restart()

    assert [m for _, m in again.ctx.sent()] == [ForgetContainer(container), RecoverContainers(())]


def test_executors_that_do_not_come_back_are_killed_and_their_tasks_gone(bench: Bench) -> None:
    container = with_executor(bench, custom("a"))
    bench.tell(EXECUTOR, news("a", TaskState.RUNNING, "1"))
    again = bench.restart()
    again.port(ContainersRecovered((RecoveredContainer(container, True),)))
    again.tell(M1, registered())

    assert again.fire(f"executor/{container}") == [KillContainer(container, 0)]
    messages = again.port(ContainerExited(container, None, 9, killed=True))
    assert updates(messages) == [("a", "GONE", "EXECUTOR_REREGISTRATION_TIMEOUT")]


def test_an_executor_comes_back_with_what_the_agent_missed(bench: Bench) -> None:
    container = with_executor(bench, custom("a"), custom("b"))
    again = bench.restart()
    again.port(ContainersRecovered((RecoveredContainer(container, True),)))
    again.tell(M1, registered())
    missed = Status(TaskId("a"), TaskState.FINISHED, Source.EXECUTOR, update_id=UpdateId("9"))

    back = register_executor(container, unacknowledged_tasks=(TaskId("a"),), unacknowledged_updates=(missed,))
    messages = again.tell(EXECUTOR, back, f"executor:{container}")

    assert updates(messages) == [("a", "FINISHED", "")]
    assert only(LaunchTasks, messages).tasks == (custom("b"),)
    assert f"executor/{container}" not in again.timers


@pytest.mark.parametrize(("ended", "reason"), [(True, "EXECUTOR_TERMINATED"), (False, "AGENT_RESTARTED")])
def test_an_executor_that_is_gone_after_a_restart(bench: Bench, ended: bool, reason: str) -> None:
    container = only(LaunchContainer, bench.tell(M1, run(custom("a")))).container_id
    again = bench.restart()

    again.port(ContainersRecovered((RecoveredContainer(container, False, 0, 1),) if ended else ()))

    messages = again.tell(M1, registered())
    assert [(t, r) for t, _, r in updates(messages)] == [("a", reason)]
    assert "executor/c-0000/e" not in again.disk


def test_records_that_do_not_belong_together_are_reported_not_fatal() -> None:
    stray = TaskRecord(F, Role("*"), command("t"), ContainerId("r"), ContainerId("r"))

    bench = Bench(disk={"identity": AgentIdentityRecord("r"), "task/c-0000/t": stray})

    assert bench.logged() == ["record_without_framework"]


# -- clients --------------------------------------------------------------------------------------------------------


def test_a_file_is_read_for_whoever_asks_and_bounded(bench: Bench) -> None:
    asker = Address("peer:cli/client")
    question = ReadFile(ContainerId("c"), F, "stdout", 0, 1 << 30, OperationId("mine"))

    asked = only(ReadFile, bench.tell(asker, question))
    assert asked.length_bytes == 256 * 1024
    bench.port(FileData(asked.operation_id, 0, 2, b"hi"))

    assert bench.ctx.sent() == [(asker, FileData(OperationId("mine"), 0, 2, b"hi"))]
    assert bench.port(FileData(asked.operation_id, 0, 2, b"hi")) == []


def test_an_executor_reads_its_own_sandbox_only(bench: Bench) -> None:
    question = ReadFile(ContainerId("c"), F, "stdout", 0, 1)

    assert [type(m) for m in bench.tell(EXECUTOR, question, "executor:other")] == [Refused]
    assert [type(m) for m in bench.tell(EXECUTOR, question, "executor:c")] == [ReadFile]


def test_questions_are_bounded_and_forgotten_after_their_deadline(bench: Bench) -> None:
    question = ReadFile(ContainerId("c"), F, "stdout", 0, 1)
    for _ in range(1_000):
        bench.tell(M1, question)

    assert only(Refused, bench.tell(M1, question)).reason == "full"
    bench.now_us += 11_000_000
    only(ReadFile, bench.tell(M1, question))


def test_use_is_measured_for_a_question_and_then_remembered_for_a_moment(bench: Bench) -> None:
    container = start(bench, command("t", name="job"))
    question = Query(OperationId("q"), "usage")

    asked = only(MeasureContainers, bench.tell(M1, question))
    usage = Usage(container, 2, 30, 4_096, 5)
    answer = only(QueryResult, bench.port(ContainerUsage((usage,), asked.operation_id)))

    row = msgspec.json.decode(answer.rows[0])
    assert (row["task_id"], row["name"], row["rss_bytes"], row["cpu_time_ms"]) == ("t", "job", 4_096, 30)
    assert bench.tell(M1, question) == [answer]
    bench.now_us += 2_000_000
    only(MeasureContainers, bench.tell(M1, question))


def test_completed_tasks_are_listed_in_pages(bench: Bench) -> None:
    for name in ("a", "b", "c"):
        container = launch(bench, command(name))
        acknowledge_all(bench, bench.port(ContainerExited(container, 0)))

    first = only(QueryResult, bench.tell(M1, Query(OperationId(""), "completed", limit=2)))
    rest = only(QueryResult, bench.tell(M1, Query(OperationId(""), "completed", after=first.next)))
    found = only(QueryResult, bench.tell(M1, Query(OperationId(""), "completed", {"task_id": "b"})))

    assert [msgspec.json.decode(row)["task_id"] for row in first.rows + rest.rows] == ["a", "b", "c"]
    assert (rest.next, len(found.rows)) == ("", 1)


@pytest.mark.parametrize(
    ("query", "reason"),
    [(Query(OperationId(""), "secrets"), "invalid"), (Query(OperationId(""), "completed", {"x": "y"}), "invalid")],
)
def test_questions_that_make_no_sense_are_refused(bench: Bench, query: Query, reason: str) -> None:
    acknowledge_all(bench, bench.port(ContainerExited(launch(bench, command("a")), 0)))

    assert only(Refused, bench.tell(M1, query)).reason == reason


def test_garbage_is_collected_but_never_of_what_runs(bench: Bench) -> None:
    container = start(bench, command("t"))

    assert bench.fire("gc") == [CollectGarbage(7 * 24 * 3600 * 1000, (container,))]
    assert "gc" in bench.timers
