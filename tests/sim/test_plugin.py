"""The pytest plugin, in pytest runs of their own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import mesos_actor.testing  # noqa: F401 once for all: the runs in here put sys.modules back when they end

pytest_plugins = ["pytester"]

MINE = '''
import pytest
from mesos_actor import Framework, Resources, TaskState, command_task
from mesos_actor.testing import Chances


class Mine(Framework):
    """Runs jobs, and forgets those whose agent is lost."""

    def __init__(self, jobs):
        self.todo = [f"job-{n}" for n in range(jobs)]
        self.left = jobs

    @property
    def done(self):
        return self.left == 0

    def on_offers(self, offers):
        for offer in offers:
            tasks, free = [], offer.resources
            while self.todo and (share := free.take(Resources.of(cpus=1, mem=32))) is not None:
                free -= share
                tasks.append(command_task(self.todo.pop(), ["sleep", "1"], share))
            self.accept(offer, tasks, refuse_s=1)

    def on_update(self, status):
        self.left -= status.state is TaskState.FINISHED
'''

TESTS = (
    MINE
    + """

def test_ends(sim):
    fw = sim.spawn(Mine(jobs=20))
    sim.faults.drop("master-0", fw, nth=40)
    sim.faults.crash("agent-1", at_s=40, restart_after_s=30)
    sim.until(lambda: fw.done, within_s=300)


@pytest.mark.sim(masters=1, chances=Chances(drop=0, double=0, delay=0.3, disk_death=0))
def test_survives_power_cuts(sim):
    fw = sim.spawn(Mine(jobs=20))
    sim.faults.crash("agent-1", at_s=1.5, machine=True)
    sim.until(lambda: fw.done, within_s=100)
"""
)


def test_seeds_and_the_fixture(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)

    pytester.runpytest("-k", "ends", "--sim-runs", "5", "--sim-seed", "7").assert_outcomes(passed=5)


@pytest.mark.slow
def test_a_failure_is_told_shrunk_written_down_and_replayed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_mine=TESTS)

    result = pytester.runpytest("-k", "power")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*Captured simulation call*", "1 of * faults was needed:", "  agent1 loses power at 1.5 s and never returns"]
    )
    (path,) = (pytester.path / ".sim-failures").iterdir()
    replay = json.loads(path.read_text())
    assert [fault["fault"] for fault in replay["faults"]] == ["crash"]
    assert replay["test"] == "test_mine.py::test_survives_power_cuts"
    again = pytester.runpytest("--sim-replay", str(path), "--sim-trace")
    again.assert_outcomes(failed=1, deselected=1)
    again.stdout.fnmatch_lines(["the last * events:"])
    picture = pytester.path / "story.svg"
    command = [sys.executable, "-m", "mesos_actor", "replay", str(path), "--mermaid", "--svg", str(picture)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 1 and "sequenceDiagram" in shown.stdout, shown
    assert picture.read_text().startswith("<svg")
    refused = subprocess.run([*command[:5], "--diff", "calm"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "which pytest plays" in refused.stderr


@pytest.mark.slow
def test_one_of_several_runs_is_played_again_by_the_command_that_is_told(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)
    told = pytester.runpytest("-k", "power", "--sim-runs", "2").stdout.str()
    (command, *_) = [line.removeprefix("again: pytest ") for line in told.splitlines() if line.startswith("again: ")]
    test, option, file = command.split()

    assert test.endswith(("[seed1]'", "[seed0]'"))
    pytester.runpytest(test.strip("'"), option, file).assert_outcomes(failed=1)


def test_faults_for_hosts_that_never_were_are_no_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_nothing(sim):
            sim.faults.crash("agent-9", at_s=1)
            sim.run(2)

        def test_something(sim):
            sim.faults.crash("agent-3", at_s=1)
            sim.add_agent()
            sim.run(2)
        """
    )
    result = pytester.runpytest()

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*ConfigError: faults for hosts that never were: agent9; there were agent0, *"])


def test_under_hypothesis_the_smallest_example_is_told(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_drawn="""
from hypothesis import given, settings
from mesos_actor.testing import SIM_SETTINGS, cluster, fault_plans, workloads


@settings(SIM_SETTINGS, max_examples=50, database=None, derandomize=True)
@given(plan=fault_plans(masters=1, kinds=("crash", "delay")), work=workloads(max_steps=1))
def test_nothing_ever_crashes(plan, work):
    sim = cluster(plan=plan)
    sim.play(work)
    sim.run(35)
    assert not any(event.kind == "crash" for event in sim.world.history())
"""
    )

    result = pytester.runpytest()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*Captured simulation call*", "1 fault was needed:", "again: pytest *"])
    (path,) = (pytester.path / ".sim-failures").iterdir()
    pytester.runpytest("--sim-replay", str(path)).assert_outcomes(failed=1)


def test_a_story_that_cannot_be_told_ends_nothing_else(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        from mesos_actor.testing import Chances

        @pytest.mark.sim(chances=Chances(delay=0.5))
        @pytest.mark.parametrize("other", [pytest.skip, pytest.fail])
        def test_is_another_without_faults(sim, other):
            sim.run(1)
            if not sim.world.plan.met:
                other("nothing went wrong")
            raise ValueError("it broke")

        @pytest.mark.sim(chances=Chances(delay=0.5))
        def test_fails_by_word(sim):
            print("printed while it is made smaller")
            sim.run(1)
            pytest.fail("said so")

        def test_after():
            pass
        """
    )

    result = pytester.runpytest("--sim-svg", str(pytester.path / "no" / "where.svg"))

    result.assert_outcomes(failed=3, passed=1)
    text = result.stdout.str()
    assert text.count("Captured simulation call") == 3
    assert text.count("could not be told: FileNotFoundError") == 3
    result.stdout.fnmatch_lines(["*Captured simulation call*", "*said so*", "No fault was needed.", "again: pytest *"])
    assert not any(line.startswith("printed while") for line in text.partition("FAILURES")[0].splitlines())


def test_a_state_machine_that_fails_is_told_too_and_its_steps_are_the_way_back(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_machine="""
from hypothesis import settings
from mesos_actor.testing import SIM_SETTINGS, ClusterMachine


class Machine(ClusterMachine):
    MASTERS, AGENTS = 1, 1

    def teardown(self):
        super().teardown()
        assert not hasattr(self, "sim") or not self.sim.frameworks


TestMachine = Machine.TestCase
TestMachine.settings = settings(SIM_SETTINGS, max_examples=20, database=None, derandomize=True)
"""
    )

    result = pytester.runpytest()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*state.submit(*", "*Captured simulation call*", "No fault was needed.", "again: by the steps of the *"]
    )
    assert not (pytester.path / ".sim-failures").exists()


@pytest.mark.cluster
@pytest.mark.slow
def test_a_real_cluster_that_fails_a_test_has_last_words(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_real(cluster):
            cluster.agents[1].crash()
            cluster.until(lambda: False, within_s=0.1)
        """
    )

    result = pytester.runpytest()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            *("*Captured cluster call*", "mesos-actor tasks", "*", "master, which runs: */cluster/master.log"),
            *("*", "agent0, which runs: */cluster/agent0.log", "*", "agent1, which has ended: */cluster/agent1.log"),
        ]
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--sim-runs", "0"), "at least 1"),
        (("--sim-replay", "nowhere.json"), "cannot be read"),
    ],
)
def test_bad_options_are_refused(pytester: pytest.Pytester, options: tuple[str, ...], told: str) -> None:
    pytester.makepyfile("def test_it(): pass")

    result = pytester.runpytest(*options)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert told in result.stderr.str()


def test_it_costs_nothing_where_no_test_asks_for_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import sys

def test_it():
    loaded = [name for name in sys.modules if name.startswith(("mesos_actor.", "zmq", "msgspec", "hypothesis."))]
    ours = {"mesos_actor.transport", "mesos_actor.transport.sim", "mesos_actor.transport.sim.plugin"}
    assert {name for name in loaded if name.startswith("mesos_actor.")} <= ours | {"mesos_actor._version"}
"""
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:hypothesispytest", "-p", "no:cacheprovider"]

    ended = subprocess.run(command, cwd=pytester.path, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stdout


def test_the_plugin_is_an_entry_point() -> None:
    from importlib.metadata import entry_points

    found = [point.value for point in entry_points(group="pytest11") if point.name == "mesos_actor"]

    assert found == ["mesos_actor.transport.sim.plugin"]
