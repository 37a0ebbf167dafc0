"""The launcher itself: who may talk to it, what it does with rubbish, when it ends, what it costs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from mesos_actor.isolation.launcher import LAUNCHES_A_TURN
from mesos_actor.isolation.launcher_client import _command
from mesos_actor.isolation.launcher_wire import OUTPUT_NAME, SOCKET_NAME, VERSION, pack

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


class Link:
    """A blocking agent's end, for tests."""

    def __init__(self, directory: Path) -> None:
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(10)
            self.socket.connect(f"/proc/self/fd/{descriptor}/{SOCKET_NAME}")
        finally:
            os.close(descriptor)
        self._unpacker = msgpack.Unpacker(raw=False)

    def say(self, **message: Any) -> None:
        self.socket.sendall(pack(message))

    def hear(self) -> dict[str, Any]:
        """The next message; {} when the launcher has hung up."""
        while True:
            for message in self._unpacker:
                assert isinstance(message, dict)
                return message
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                return {}
            self._unpacker.feed(data)

    def hear_kind(self, kind: str) -> dict[str, Any]:
        while (message := self.hear()) and message["k"] != kind:
            pass
        return message

    def greet(self) -> list[dict[str, Any]]:
        """Say hello; what the launcher holds."""
        assert self.first_word() == "welcome"
        return self.listing()

    def first_word(self) -> str:
        """Say hello; "welcome" or "refused"."""
        self.say(k="hello", version=VERSION)
        return str(self.hear()["k"])

    def listing(self) -> list[dict[str, Any]]:
        held: list[dict[str, Any]] = []
        while True:
            message = self.hear_kind("listed")
            held += message["containers"]
            if not message["more"]:
                return held

    def launch(self, container_id: str, *argv: str, cwd: Path) -> None:
        self.say(k="launch", id=container_id, argv=list(argv), env={"MESOS_CONTAINER_ID": container_id}, cwd=str(cwd))

    def close(self) -> None:
        self.socket.close()


class Host:
    """A directory with a launcher in it, started as our own child so that its end can be waited for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.launchers: list[subprocess.Popen[bytes]] = []
        self.links: list[Link] = []

    def start(self, idle_s: float = 30) -> subprocess.Popen[bytes]:
        self.directory.mkdir(parents=True, exist_ok=True)
        command = _command(self.directory, idle_s)
        tail = command[command.index("-c", 6) - 5 :]  # without the part that detaches it
        with (self.directory / OUTPUT_NAME).open("ab") as output:
            launcher = subprocess.Popen(tail, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self.launchers.append(launcher)
        return launcher

    def link(self) -> Link:
        descriptor = os.open(self.directory, os.O_RDONLY)
        try:
            _until(lambda: _answers(descriptor))
        finally:
            os.close(descriptor)
        link = Link(self.directory)
        self.links.append(link)
        return link

    def close(self) -> None:
        for link in self.links:
            link.close()
        for launcher in self.launchers:
            launcher.kill()
            launcher.wait()


def _answers(descriptor: int) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(f"/proc/self/fd/{descriptor}/{SOCKET_NAME}") == 0


def _until(condition: Callable[[], bool]) -> None:
    import time

    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path / "launcher")
    yield made
    made.close()


def test_directory_path_longer_than_a_socket_name_may_be(host: Host) -> None:
    host.directory = host.directory / ("x" * 200)
    host.start()

    assert host.link().greet() == []


def test_second_launcher_leaves_the_directory_to_the_first(host: Host) -> None:
    host.start()
    link = host.link()
    second = host.start()

    assert second.wait(10) == 3
    assert link.greet() == []


def test_second_agent_is_refused_while_the_first_is_there(host: Host) -> None:
    host.start()
    first = host.link()
    first.greet()
    second = host.link()

    assert second.hear() == {"k": "refused", "text": "another agent is connected to this launcher"}
    assert second.hear() == {}
    first.close()
    assert host.link().greet() == []


def test_agent_of_another_version_is_told_so(host: Host) -> None:
    launcher = host.start()
    link = host.link()
    link.say(k="hello", version=VERSION + 1)

    assert "speaks version" in link.hear()["text"]
    assert launcher.wait(10) == 0


@pytest.mark.parametrize("rubbish", [b"\xc1" * 100, b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff" + b"x" * 9999])
def test_rubbish_costs_the_connection_and_nothing_else(host: Host, tmp_path: Path, rubbish: bytes) -> None:
    host.start()
    link = host.link()
    link.greet()
    link.launch("a.1", "sleep", "100", cwd=tmp_path)
    pid = link.hear_kind("started")["pid"]
    link.socket.sendall(rubbish)
    link.close()
    again = host.link()

    assert [(c["id"], c["pid"], c["ended"]) for c in again.greet()] == [("a.1", pid, False)]
    again.say(k="kill", id="a.1", grace_ms=0)
    assert again.hear_kind("exited")["code"] == -9


@pytest.mark.parametrize(
    "message",
    [
        {"k": "nonsense"},
        {"no": "kind"},
        {"k": "launch"},
        {"k": "launch", "id": 7},
        {"k": "launch", "id": ""},
        {"k": "kill", "id": "a"},
        {"k": "kill", "id": "a", "grace_ms": "soon"},
        {"k": "forget", "ids": 3},
        {"k": "hello"},
    ],
)
def test_command_that_makes_no_sense_is_refused_and_the_next_one_works(host: Host, message: dict[str, Any]) -> None:
    host.start()
    link = host.link()
    link.greet()
    link.say(**message)
    link.say(k="ping")

    assert link.hear()["k"] == "bad"
    assert link.hear() == {"k": "pong"}


def test_bad_launch_fails_that_launch(host: Host) -> None:
    host.start()
    link = host.link()
    link.greet()
    link.say(k="launch", id="a.1", argv=[], env={}, cwd="/")

    assert link.hear()["k"] == "failed"


def test_it_ends_when_idle_and_keeps_what_was_not_taken_over(host: Host, tmp_path: Path) -> None:
    first = host.start(idle_s=0.05)
    link = host.link()
    link.greet()
    link.launch("a.1", "false", cwd=tmp_path)
    assert link.hear_kind("exited")["code"] == 1
    link.close()
    assert first.wait(10) == 0
    host.start()

    assert [(c["id"], c["ended"], c["code"]) for c in host.link().greet()] == [("a.1", True, 1)]


def test_it_stays_while_something_runs_and_ends_after(host: Host, tmp_path: Path) -> None:
    launcher = host.start(idle_s=0.01)
    link = host.link()
    link.greet()
    link.launch("a.1", "sh", "-c", "while ! test -e go; do sleep 0.01; done", cwd=tmp_path)
    link.hear_kind("started")
    link.close()
    with pytest.raises(subprocess.TimeoutExpired):
        launcher.wait(0.15)
    (tmp_path / "go").touch()

    assert launcher.wait(10) == 0


def test_told_to_stop_it_ends_when_nothing_runs(host: Host, tmp_path: Path) -> None:
    launcher = host.start()
    link = host.link()
    link.greet()
    link.launch("a.1", "sleep", "100", cwd=tmp_path)
    link.hear_kind("started")
    link.say(k="shutdown")
    link.launch("a.2", "true", cwd=tmp_path)
    assert link.hear_kind("failed")["text"] == "the launcher was told to stop"
    link.say(k="kill", id="a.1", grace_ms=0)

    assert link.hear_kind("exited")["code"] == -9
    assert launcher.wait(10) == 0


def test_last_words_of_an_agent_count_even_if_it_does_not_wait_for_answers(host: Host, tmp_path: Path) -> None:
    launcher = host.start()
    for number in range(20):
        link = host.link()
        link.greet()
        link.launch(f"a.{number}", "sleep", "100", cwd=tmp_path)
        link.say(k="ping")
        assert link.hear_kind("pong")
        link.say(k="kill", id=f"a.{number}", grace_ms=0)
        link.say(k="shutdown" if number == 19 else "ping")
        link.close()

    assert launcher.wait(10) == 0


def test_a_new_agent_is_told_of_launches_that_the_last_one_asked_for_and_did_not_live_to_see(
    host: Host, tmp_path: Path
) -> None:
    host.start()
    link = host.link()
    link.greet()
    wanted = {f"a.{number}" for number in range(10 * LAUNCHES_A_TURN)}
    for container_id in wanted:
        link.launch(container_id, "sleep", "100", cwd=tmp_path)
    link.close()

    while (again := host.link()).first_word() == "refused":
        pass  # what the last one said is still being read
    listed = again.listing()

    assert {entry["id"] for entry in listed} == wanted
    assert all(entry["pid"] for entry in listed)


def test_damaged_log_is_named_and_nothing_is_started(host: Host) -> None:
    host.directory.mkdir()
    (host.directory / "exits.log").write_text("this is not a log of exits at all")

    assert host.start().wait(10) == 1
    assert "cannot work in" in (host.directory / OUTPUT_NAME).read_text()


def test_nothing_of_ours_is_handed_on_to_tasks(host: Host, tmp_path: Path) -> None:
    host.start()
    link = host.link()
    link.greet()
    link.launch("a.1", "/bin/sh", "-c", "readlink /proc/$$/fd/*", cwd=tmp_path)
    link.hear_kind("exited")

    assert (tmp_path / "stdout").read_text().split() == ["/dev/null", f"{tmp_path}/stdout", f"{tmp_path}/stderr"]


def test_it_imports_nothing_big() -> None:
    program = (
        "import sys, mesos_actor.isolation.launcher\n"
        "print(sorted({'msgspec', 'zmq', 'psutil', 'asyncio', 'ctypes', 'pathlib', 'subprocess', 'threading',"
        "'logging', 'dataclasses', 'json', 'tempfile', 'inspect'} & set(sys.modules)))"
    )
    paths = _command(Path("/"), 0)[-3]
    assert paths.startswith("import sys; sys.path += ")
    setup = paths.partition("; from")[0]

    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"{setup}\n{program}"], capture_output=True, text=True, check=True
    )

    assert result.stdout.strip() == "[]"
