"""The child between vfork and exec: born in its cgroup, and otherwise as posix_spawn would have started it."""

from __future__ import annotations

import errno
import os
import platform
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mesos_actor.isolation import vfork

FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND
RESET = (signal.SIGPIPE, signal.SIGHUP, signal.SIGTERM)


@pytest.fixture
def cgroup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A directory to be named as the cgroup. Any kernel does for all but the cgroup, so the clone goes without."""
    if platform.machine() != "x86_64":
        pytest.skip("on x86-64 only")
    monkeypatch.setattr(vfork, "_FLAGS", vfork._FLAGS & ~vfork._CLONE_INTO_CGROUP)
    monkeypatch.chdir(tmp_path)
    yield str(tmp_path)


def start(cgroup: str, *argv: str, limits: dict[int, tuple[int, int]] | None = None) -> int:
    files = (("/dev/null", os.O_RDONLY), ("out", FLAGS), ("err", FLAGS))
    pid = vfork.start(argv[0], argv, {"A": "1", "B": "ü"}, cgroup, files, limits or {}, RESET)
    assert pid is not None
    return pid


def code_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_arguments_environment_files_and_status_are_the_commands(cgroup: str) -> None:
    pid = start(cgroup, "/bin/sh", "-c", 'echo "$A $B $1"; echo $2 >&2; cat; exit 7', "x", "two words", "three")

    assert code_of(pid) == 7
    assert Path("out").read_text() == "1 ü two words\n"
    assert Path("err").read_text() == "three\n"


def test_child_leads_a_session_with_default_signals_and_none_blocked(cgroup: str) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        pid = start(cgroup, "/bin/sh", "-c", "cat /proc/self/status; cat /proc/$$/stat")
        assert code_of(pid) == 0
    finally:
        signal.signal(signal.SIGHUP, before)

    *status, stat = Path("out").read_text().splitlines()
    masks = dict(line.split(":\t") for line in status if line.startswith("Sig"))
    assert int(masks["SigBlk"], 16) == 0
    assert int(masks["SigIgn"], 16) & (1 << (signal.SIGHUP - 1) | 1 << (signal.SIGPIPE - 1)) == 0
    assert [int(field) for field in stat.rpartition(")")[2].split()[2:4]] == [pid, pid]


def test_limits_are_kept_unlimited_ones_too(cgroup: str) -> None:
    import resource

    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    limits = {resource.RLIMIT_NOFILE: (64, 65), resource.RLIMIT_CORE: (hard, hard)}
    pid = start(cgroup, "/bin/sh", "-c", "ulimit -n; ulimit -Hn; ulimit -c", limits=limits)

    assert code_of(pid) == 0
    expected = "unlimited" if hard == resource.RLIM_INFINITY else str(hard // 512)
    assert Path("out").read_text().split() == ["64", "65", expected]


def children() -> set[int]:
    """Of this process, those that have ended and were not waited for too; other tests may have left some."""
    return {child.pid for child in psutil.Process().children()}


@pytest.mark.parametrize(
    ("program", "number"), [("/no/such", errno.ENOENT), ("/etc/passwd", errno.EACCES), ("/", errno.EACCES)]
)
def test_call_that_fails_is_told_and_leaves_no_child(cgroup: str, program: str, number: int) -> None:
    before = children()

    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        start(cgroup, program)

    assert caught.value.errno == number
    assert children() <= before


def test_file_that_cannot_be_opened_is_told(cgroup: str) -> None:
    Path("out").mkdir()

    with pytest.raises(IsADirectoryError):
        start(cgroup, "/bin/true")


def test_null_byte_is_refused_before_anything_is_done(cgroup: str) -> None:
    with pytest.raises(ValueError, match="null byte"):
        start(cgroup, "/bin/true", "a\0b")


def test_our_own_descriptors_handlers_and_memory_are_as_before(cgroup: str) -> None:
    def handler(*_: object) -> None:
        return

    before = signal.signal(signal.SIGTERM, handler)
    try:
        descriptors = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208
        for _ in range(20):
            assert code_of(start(cgroup, "/bin/true")) == 0
        assert signal.getsignal(signal.SIGTERM) is handler
        assert sorted(os.listdir("/proc/self/fd")) == descriptors  # noqa: PTH208
    finally:
        signal.signal(signal.SIGTERM, before)


def test_directory_that_is_no_cgroup_is_left_to_the_fork(tmp_path: Path) -> None:
    files = (("/dev/null", os.O_RDONLY),) * 3

    assert vfork.start("/bin/true", ["true"], {}, str(tmp_path), files, {}, RESET) is None


def test_cgroup_that_is_gone_is_refused(tmp_path: Path) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("on x86-64 only")
    with pytest.raises(vfork.CgroupRefused, match="No such file"):
        vfork.start("/bin/true", ["true"], {}, f"{tmp_path}/none", (), {}, RESET)
