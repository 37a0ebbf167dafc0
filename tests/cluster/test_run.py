"""`mesos-actor run`: a command on the cluster behaves at the terminal as it would here."""

from __future__ import annotations

import signal
import subprocess
import sys

from tests.cluster.real_cluster import LIMIT_S, Cluster, is_alive, until


def test_the_output_and_the_status_of_the_command_are_those_of_run(shared: Cluster) -> None:
    ended = shared.cli("run", "--cpus", "0.1", "--", "sh", "-c", "echo to out; echo to err >&2; exit 7")

    assert (ended.status, ended.out) == (7, "to out\n"), ended
    assert "to err\n" in ended.err


def test_a_command_that_ends_well_says_only_where_it_ran(shared: Cluster) -> None:
    ended = shared.cli("run", "--constraint", "rack==r2", "--", "python3", "-c", "print(6 * 7)")

    assert (ended.status, ended.out) == (0, "42\n"), ended
    assert len(ended.err.splitlines()) == 1
    assert ended.err.endswith(" on h2\n")


def test_a_command_that_dies_of_a_signal_gives_128_and_the_signal(shared: Cluster) -> None:
    ended = shared.cli("run", "--cpus", "0.1", "--shell", "--", "kill -SEGV $$")

    assert ended.status == 128 + signal.SIGSEGV, ended
    assert "SIGSEGV" in ended.err.splitlines()[-1]


def test_a_program_that_is_not_there_is_told_in_one_line(shared: Cluster) -> None:
    ended = shared.cli("run", "--", "/no/such/program")

    assert ended.status == 125, ended
    assert [line for line in ended.err.splitlines() if "no such program: '/no/such/program'" in line] != []
    assert "Traceback" not in ended.err


def test_instances_are_told_apart_by_their_index(shared: Cluster) -> None:
    line = "echo $GREETING $MESOS_ACTOR_INDEX"
    ended = shared.cli("run", "--cpus", "0.1", "--instances", "3", "--env", "GREETING=a b", "--shell", "--", line)

    assert ended.status == 0, ended
    lines = sorted(line.partition("] ")[2] for line in ended.out.splitlines())
    assert lines == ["a b 0", "a b 1", "a b 2"]


def test_one_failed_instance_of_several_gives_its_status(shared: Cluster) -> None:
    ended = shared.cli("run", "--cpus", "0.1", "--instances", "3", "--shell", "--", "exit $((MESOS_ACTOR_INDEX * 3))")

    assert ended.status in (3, 6), ended
    assert "exited with status" in ended.err.splitlines()[-1]


def test_a_port_of_the_agent_is_given_and_told(shared: Cluster) -> None:
    ended = shared.cli("run", "--ports", "1", "--constraint", "hostname==h2", "--shell", "--", "echo $PORT0")

    assert ended.status == 0, ended
    assert 32000 <= int(ended.out) <= 32019


def test_a_local_file_is_brought_to_the_sandbox(shared: Cluster) -> None:
    path = shared.file("greeting.txt", "hello from the file\n")
    ended = shared.cli("run", "--uri", path, "--", "cat", "greeting.txt")

    assert (ended.status, ended.out) == (0, "hello from the file\n"), ended


def test_a_time_limit_ends_the_task(shared: Cluster) -> None:
    ended = shared.cli("run", "--time-limit", "300ms", "--", "sleep", "600")

    assert ended.status != 0, ended
    assert "time limit" in ended.err.splitlines()[-1], ended


def test_two_thousand_instances_run_as_one_batch(shared: Cluster) -> None:
    ended = shared.cli("run", "--cpus", "0.01", "--mem", "1", "--instances", "2000", "--", "true", limit_s=60)

    assert ended.status == 0, ended
    assert "2000 tasks in " in ended.err


def test_ctrl_c_ends_the_task(shared: Cluster) -> None:
    run = shared.spawn("run", "--", "sh", "-c", "echo $$; exec sleep 86401")
    pid = int(until(run.out, "the task says its process id"))

    run.signal(signal.SIGINT)
    ended = run.ended()

    assert ended.status == 130, ended
    assert "interrupted" in ended.err
    assert not is_alive(pid)


def test_what_cannot_be_read_back_into_a_pipe_is_no_error(shared: Cluster) -> None:
    ended = shared.cli("run", "--", "sh", "-c", "printf 'no newline'; printf '\\377\\000' >&2")

    assert (ended.status, ended.out) == (0, "no newline"), ended


def test_a_large_output_comes_whole(shared: Cluster) -> None:
    ended = shared.cli("run", "--", "seq", "1", "200000")

    assert ended.status == 0, ended
    assert ended.out == "".join(f"{n}\n" for n in range(1, 200_001))


def test_run_without_a_cluster_gives_up_in_one_line(shared: Cluster) -> None:
    ended = shared.cli("run", "--masters", "127.0.0.1:1", "--timeout", "0.5", "--", "true")

    assert ended.status == 1, ended
    assert "no master answered within 0.5 s" in ended.err
    assert "Traceback" not in ended.err


def test_a_run_that_fits_nowhere_says_how_to_find_out_why(shared: Cluster) -> None:
    run = shared.spawn("run", "--cpus", "1000", "--", "true")
    line = until(lambda: [x for x in run.err().splitlines() if "mesos-actor why " in x], "the line about why")[0]
    rows = shared.json("why", line.split()[-1])
    run.signal(signal.SIGINT)

    assert [row["reason"] for row in rows if row["kind"] == "agent"] == ["too-small", "too-small"]
    assert run.ended().status == 130


def test_a_run_that_is_killed_takes_its_task_with_it(shared: Cluster) -> None:
    run = shared.spawn("run", "--", "sh", "-c", "echo $$; exec sleep 86402")
    pid = int(until(run.out, "the task says its process id"))

    run.kill()

    until(lambda: not is_alive(pid), "the task has ended")


def test_run_ends_when_nobody_reads_its_output(shared: Cluster) -> None:
    line = f"{sys.executable} -m mesos_actor run -- yes | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line], env=shared.environment(), capture_output=True, text=True, timeout=LIMIT_S, check=True
    )

    assert done.stdout == f"y\n{128 + signal.SIGPIPE}\n"
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert shared.rows("tasks", state="RUNNING") == []
