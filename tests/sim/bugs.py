"""Bugs, planted on purpose: each breaks one thing that must always hold, so that a test sees its invariant fire.

A bug is a function that changes a class for the length of a test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import msgspec
import pytest

from mesos_actor.actors import master_frameworks
from mesos_actor.actors.actor import Context
from mesos_actor.actors.agent_executors import Executors
from mesos_actor.actors.agent_recovery import Recovery
from mesos_actor.actors.agent_registration import Registration
from mesos_actor.actors.agent_reports import Reports
from mesos_actor.actors.agent_tasks import Tasks
from mesos_actor.actors.core import rejoin as rejoining
from mesos_actor.actors.core.allocation import Allocation
from mesos_actor.actors.core.allocator import DrfAllocator
from mesos_actor.actors.core.deliveries import Deliveries
from mesos_actor.actors.core.roster import Roster
from mesos_actor.actors.core.workload import HostedFramework, Run
from mesos_actor.actors.frameworks.batch_state import BatchState
from mesos_actor.actors.ids import ContainerId
from mesos_actor.actors.master import Master
from mesos_actor.actors.master_agents import MasterAgents
from mesos_actor.actors.messages.containers import ContainersRecovered, LaunchContainer
from mesos_actor.actors.messages.raft import ReadRegistry
from mesos_actor.actors.messages.scheduler import Kill, Update
from mesos_actor.actors.scheduling import FrameworkActor
from mesos_actor.actors.task import Reason, TaskState
from mesos_actor.raft.desk import Desk
from mesos_actor.raft.engine import Engine
from mesos_actor.raft.journal import Journal
from mesos_actor.raft.memory_files import MemoryFiles
from mesos_actor.transport.sim.agents import SimAgent

Bug = Callable[[pytest.MonkeyPatch], None]


def accepted_resources_are_offered_again(patch: pytest.MonkeyPatch) -> None:
    """The allocator takes what was accepted for given back."""

    def accepted(self: DrfAllocator, framework: Any, agent: Any, role: Any, resources: Any) -> None:
        self.recover(framework, agent, role, resources)

    patch.setattr(DrfAllocator, "accepted", accepted)


def a_kill_frees_at_once(patch: pytest.MonkeyPatch) -> None:
    """The master takes a task that it wants killed for ended."""
    kill = Master.handlers[Kill]

    def on_kill(self: Master, ctx: Context, sender: Any, message: Kill) -> None:
        kill(self, ctx, sender, message)
        task = self.roster.frameworks[message.framework_id].tasks.get(message.task_id)
        if task is None:
            return
        self.roster.change(task, TaskState.KILLED, ctx.now_us, Reason.NONE, "")
        self.want_allocation(ctx)

    patch.setitem(cast(Any, Master.handlers), Kill, on_kill)


def a_missing_task_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A task that a returning agent does not name is dropped from the tables, and nobody is told."""
    find = rejoining._find_missing

    def find_missing(roster: Roster, agent: Any, tasks: Any, executors: Any, result: Any) -> None:
        find(roster, agent, tasks, executors, result)
        gone, result.missing = result.missing, []
        for framework_id, task_id in gone:
            task = roster.frameworks[framework_id].tasks[task_id]
            roster.release(agent.agent_id, task, framework_id)
            task.state = TaskState.GONE
            roster.forget_task(task)

    patch.setattr(rejoining, "_find_missing", find_missing)


def the_driver_forgets_what_it_has_heard(patch: pytest.MonkeyPatch) -> None:
    """A repeat of an update is taken for news."""
    is_new = Deliveries.is_new

    def is_always_new(self: Deliveries, update_id: str) -> bool:
        is_new(self, update_id)
        return True

    patch.setattr(Deliveries, "is_new", is_always_new)


def orders_that_got_lost_are_not_asked_about(patch: pytest.MonkeyPatch) -> None:
    """A driver that comes back to a leader forgets the tasks of which it has heard nothing so far."""
    resume = FrameworkActor._resume

    def forget_and_resume(self: FrameworkActor, ctx: Context, returning: bool) -> None:
        for task_id in [task_id for task_id, known in self.tasks.items() if known.state is TaskState.STAGING]:
            del self.tasks[task_id]
        resume(self, ctx, returning)

    patch.setattr(FrameworkActor, "_resume", forget_and_resume)


def an_end_told_once_is_kept_from_the_absent(patch: pytest.MonkeyPatch) -> None:
    """(As it was until the simulation found it.) What an agent says once while its framework is away is not among what
    that is told when it asks."""
    update = Master.handlers[Update]

    def on_update(self: Master, ctx: Context, sender: Any, message: Update) -> None:
        framework = self.roster.frameworks.get(message.framework_id)
        away = framework is not None and not framework.connected and not message.status.update_id
        task = framework.tasks.get(message.status.task_id) if framework is not None and away else None
        told = None if task is None else task.forwarded
        update(self, ctx, sender, message)
        if task is not None and told is not None:
            task.forwarded = told

    patch.setitem(cast(Any, Master.handlers), Update, on_update)


def tasks_are_not_recovered(patch: pytest.MonkeyPatch) -> None:
    """An agent that starts again reads its streams and its frameworks, but not its tasks."""

    def load_task(self: Recovery, ctx: Context, record: Any) -> None:
        key = (record.framework_id, record.task.task_id)
        self._reports.streams.streams.pop(key, None)

    patch.setattr(Recovery, "_load_task", load_task)


def an_ended_task_stays_on_disk(patch: pytest.MonkeyPatch) -> None:
    """The agent forgets a task whose end was acknowledged, but its record stays: after a restart it is a task again."""

    def forget(self: Reports, ctx: Context, framework: HostedFramework, run: Run) -> None:
        self._forget_stream(ctx, run.stream)
        self._workload.remove_run(framework, run)

    patch.setattr(Reports, "forget", forget)


def unstarted_tasks_are_launched_anew(patch: pytest.MonkeyPatch) -> None:
    """An agent that starts again launches every task of which it knows no end, under a new container."""
    recover = Recovery.on_recovered

    def on_recovered(self: Recovery, ctx: Context, message: ContainersRecovered) -> bool:
        for run in list(self._workload.runs()):
            if run.task.command is not None and not run.stream.terminal:
                name = ContainerId(f"{run.container_id}-again")
                launch = LaunchContainer(
                    name, run.framework_id, run.task.command, run.task.resources, {"MESOS_TASK_ID": run.task.task_id}
                )
                ctx.send("/containerizer", launch)  # type: ignore[arg-type]
        return recover(self, ctx, message)

    patch.setattr(Recovery, "on_recovered", on_recovered)


def agents_that_speak_count_as_silent(patch: pytest.MonkeyPatch) -> None:
    """An agent that has registered stays on the list of those that are still expected to."""
    connect = Roster.connect_agent

    def connect_agent(self: Roster, entry: Any, where: Any) -> None:
        connect(self, entry, where)
        self.silent[entry.agent_id] = None

    patch.setattr(Roster, "connect_agent", connect_agent)


def every_order_is_ignored(patch: pytest.MonkeyPatch) -> None:
    """The agent launches nothing, and says nothing of it: not against any invariant, but nothing ever ends."""
    patch.setattr(Tasks, "on_run", lambda self, ctx, message: None)
    patch.setattr(Tasks, "on_missing", lambda self, ctx, missing: None)


def old_leaders_are_obeyed(patch: pytest.MonkeyPatch) -> None:
    """An agent takes orders of an older leader's term like any other."""
    obeys = Registration.obeys

    def obeys_all(self: Registration, ctx: Context, sender: Any, term: Any = None) -> bool:
        return (term is not None and term < self.term) or obeys(self, ctx, sender, term)

    patch.setattr(Registration, "stale", lambda self, ctx, term: False)
    patch.setattr(Registration, "obeys", obeys_all)


def late_registrations_are_believed(patch: pytest.MonkeyPatch) -> None:
    """What an agent told for another term counts."""
    patch.setattr(MasterAgents, "_is_first", lambda self, message: True)


def groups_are_opened_twice(patch: pytest.MonkeyPatch) -> None:
    """A batch that comes back makes its open groups ready once more."""
    begin = BatchState.__init__

    def begin_twice(self: BatchState, spec: Any, kept: Any = None) -> None:
        begin(self, spec, kept)
        for group in self.groups.values() if kept else ():
            group.ready.extend(tuple(group.ready))

    patch.setattr(BatchState, "__init__", begin_twice)


def executors_are_left_running(patch: pytest.MonkeyPatch) -> None:
    """The end of a container does not end the process in it."""
    patch.setattr(SimAgent, "end", lambda self, container_id: None)


def tasks_of_a_dead_executor_go_on(patch: pytest.MonkeyPatch) -> None:
    """The agent forgets an executor that has ended, and not its tasks."""
    bury = Executors.bury

    def bury_alone(self: Executors, ctx: Context, executor: Any, outcome: Any, exited: Any = None) -> None:
        runs, executor.runs = executor.runs, {}
        bury(self, ctx, executor, outcome, exited)
        executor.runs = runs

    patch.setattr(Executors, "bury", bury_alone)


def the_second_framework_is_passed_over(patch: pytest.MonkeyPatch) -> None:
    """The allocator never offers anything to whoever came second."""
    allocate, allocate_all = DrfAllocator.allocate, DrfAllocator.allocate_all

    def without_second(self: DrfAllocator, found: list[Allocation]) -> list[Allocation]:
        for one in [one for one in found if one.framework_id.endswith("-0001")]:
            self.recover(one.framework_id, one.agent_id, one.role, one.resources)
        return [one for one in found if not one.framework_id.endswith("-0001")]

    patch.setattr(DrfAllocator, "allocate", lambda self, now, rng: without_second(self, allocate(self, now, rng)))
    patch.setattr(
        DrfAllocator, "allocate_all", lambda self, now, rng: without_second(self, allocate_all(self, now, rng))
    )


def votes_are_given_twice(patch: pytest.MonkeyPatch) -> None:
    """A replica forgets at once whom it has voted for."""
    consider = Engine.consider

    def consider_anew(self: Engine, *args: Any) -> None:
        self._put("votedForNodeId", None)
        consider(self, *args)

    def set_current_term(self: Journal, term: int, voted_for: str | None) -> None:
        self._current_term, self._vote = max(self._current_term, term), voted_for

    patch.setattr(Engine, "consider", consider_anew)
    patch.setattr(Journal, "setCurrentTerm", set_current_term)


def syncs_do_nothing(patch: pytest.MonkeyPatch) -> None:
    """What the registry's disk calls safe is not, but for the first files."""
    sync = MemoryFiles.sync

    def sync_at_first(self: MemoryFiles) -> None:
        if self.syncs < 6:
            sync(self)

    patch.setattr(MemoryFiles, "sync", sync_at_first)


def reads_are_answered_at_once(patch: pytest.MonkeyPatch) -> None:
    """Any master gives the registry away as it has it, without asking whether somebody knows better."""
    read = Desk.read

    def read_at_once(self: Desk, sender: Any, message: ReadRegistry, leader: Any, now_s: float) -> None:
        read(self, sender, msgspec.structs.replace(message, stale=True), leader, now_s)

    patch.setattr(Desk, "read", read_at_once)


def a_batch_does_not_count_what_came_back(patch: pytest.MonkeyPatch) -> None:
    """(As it was until the simulation found it.) An instance that must be run again is not declared anew."""

    def again(self: BatchState, instance: tuple[str, int]) -> None:
        self.groups[instance[0]].ready.append(instance[1])

    patch.setattr(BatchState, "_again", again)


def a_returning_framework_gets_no_time(patch: pytest.MonkeyPatch) -> None:
    """(As it was until the simulation found it.) A framework whose time is over by a new leader's clock is removed at
    once."""
    patch.setattr(master_frameworks, "RETURN_US", 0)
