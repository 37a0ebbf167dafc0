"""Containers with roots, volumes and namespaces of their own, by the whole linux containerizer on a real kernel."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesos_actor.actors.ids import ContainerId, FrameworkId
from mesos_actor.actors.messages.containers import (
    ContainerExited,
    ContainerFailed,
    ContainersRecovered,
    ContainerStarted,
    ForgetContainer,
    KillContainer,
    LaunchContainer,
    RecoverContainers,
)
from mesos_actor.actors.messages.values import Command, ContainerSpec, Volume
from mesos_actor.actors.resources import Resources
from mesos_actor.isolation.linux import LinuxContainerizer, tree_name
from tests.isolation.benches import RealBench
from tests.isolation.image_files import archive, link, member, write_layout

pytestmark = pytest.mark.cgroup
BUSYBOX = "/usr/bin/busybox"
TOOLS = ("sh", "id", "ls", "cat", "mount", "sleep", "env", "touch", "hostname", "ps", "mknod", "chroot")


class RootBench(RealBench):
    """With one image, and one directory that may be a volume."""

    def __init__(self, work_dir: Path) -> None:
        self.serial = 0
        self.files = work_dir.parent / "files"
        self.files.mkdir(parents=True)
        (self.files / "data").mkdir()
        (self.files / "data" / "note").write_text("from the host")
        (self.files / "secret").symlink_to("/etc")
        base = archive(
            member("bin"),
            member("bin/busybox", Path(BUSYBOX).read_bytes(), mode=0o755),
            *(link(f"bin/{tool}", "busybox") for tool in TOOLS),
            member("etc"),
            member("etc/passwd", b"root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n"),
            member("etc/group", b"root:x:0:\nann:x:1000:\nstaff:x:50:ann\n"),
            member("tmp", mode=0o1777),
            member("gone", b"of the lower layer"),
        )
        top = archive(member(".wh.gone", b""), member("marker", b"image", mode=0o644))
        layout = write_layout(
            work_dir.parent / "image",
            [base, top],
            Env=["A=image", "B=image", "PATH=/bin"],
            Cmd=["/bin/sh", "-c", "echo of the image"],
            WorkingDir="/data/here",
            User="ann",
        )
        self.image = f"oci:{layout}:v1"

        def make(path: Path) -> LinuxContainerizer:
            return LinuxContainerizer(path, launcher_idle_s=5, exit_repeat_us=400_000, volume_roots=(str(self.files),))

        super().__init__(work_dir, make)

    def run(self, script: str, spec: ContainerSpec, user: str = "", env: dict[str, str] | None = None) -> ContainerId:
        self.serial += 1
        name = ContainerId(f"c.{self.serial:012}")
        argv = ("/bin/sh", "-c", script) if script else ()
        command = Command(argv, user=user, env=env or {}, container=spec)
        self.send(LaunchContainer(name, FrameworkId("c1-0001"), command, Resources.of(cpus=0.1, mem=64)))
        return name

    def said(self, script: str, spec: ContainerSpec, user: str = "", env: dict[str, str] | None = None) -> str:
        """What it wrote, when it ended well; forgotten then."""
        name = self.run(script, spec, user, env)
        exited = self.expect(ContainerExited, name)
        out, err = ((self.sandbox(name) / stream).read_text() for stream in ("stdout", "stderr"))
        assert exited.exit_status == 0, (exited, out, err)
        self.send(ForgetContainer(name))
        return out

    def refused(self, spec: ContainerSpec, user: str = "") -> str:
        return self.expect(ContainerFailed, self.run("true", spec, user)).text

    def roots(self) -> list[str]:
        return sorted(path.name for path in (self.work_dir / "roots").iterdir())


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RootBench]:
    made = RootBench(tmp_path_factory.mktemp("roots") / "agent")
    yield made
    made.send(RecoverContainers(()))
    made.until(lambda: made.roots() == [], f"nothing is left: {made.roots()}")
    tree = Path("/sys/fs/cgroup") / tree_name(made.work_dir)
    made.until(lambda: not any(path.is_dir() for path in tree.iterdir()), "no cgroup is left")
    made.close()
    tree.rmdir()


@pytest.fixture
def bench(_only_in_the_machine: None, request: pytest.FixtureRequest) -> Iterator[RootBench]:
    made: RootBench = request.getfixturevalue("machine")
    yield made
    print("launcher:", (made.work_dir / "launcher" / "launcher.log").read_text())
    shutil.rmtree(made.work_dir / "sandboxes", ignore_errors=True)


def test_image_says_what_runs_where_and_as_whom(bench: RootBench) -> None:
    assert bench.said("", ContainerSpec(image=bench.image)) == "of the image\n"
    script = (
        "id; pwd; echo $A $B $HOME $MESOS_SANDBOX; ls /; cat /marker; echo; echo x > $MESOS_SANDBOX/made; ls -d $PWD"
    )
    found = bench.said(script, ContainerSpec(image=bench.image), env={"B": "task"}).splitlines()

    assert found[0] == "uid=1000(ann) gid=1000(ann) groups=50(staff)"
    assert found[1:3] == ["/data/here", "image task /home/ann /mnt/mesos/sandbox"]
    assert "gone" not in found
    assert {"bin", "dev", "etc", "marker", "proc", "sys", "tmp"} <= set(found)
    assert found[-1] == "/data/here"


def test_what_is_written_to_the_root_is_its_own_and_goes(bench: RootBench) -> None:
    spec = ContainerSpec(image=bench.image)
    assert "made" in bench.said("touch /made; ls /", spec, user="root").split()
    assert "made" not in bench.said("ls /", spec, user="root").split()
    bench.until(lambda: bench.roots() == [], f"what they wrote is gone: {bench.roots()}")
    assert str(bench.work_dir / "roots") not in Path("/proc/mounts").read_text()


def test_container_sees_no_process_no_mount_and_no_right_of_the_host(bench: RootBench) -> None:
    for spec in (ContainerSpec(), ContainerSpec(image=bench.image)):
        script = (
            "export PATH=/bin:/usr/bin; ls /proc | grep -c '^[0-9]'; "
            "mount -t tmpfs x /tmp 2>/dev/null && echo mounted; "
            "mknod /tmp/disk b 8 0 2>/dev/null && cat /tmp/disk >/dev/null 2>&1 && echo read; "
            "kill -0 1 2>/dev/null; cat /proc/self/status | grep -E 'NoNewPrivs|Seccomp:'"
        )
        found = bench.said(script.replace("grep", "busybox grep"), spec, user="root").split()
        assert int(found[0]) < 8
        assert found[1:] == ["NoNewPrivs:", "1", "Seccomp:", "2"], found


def test_volumes_are_those_that_the_operator_allows(bench: RootBench) -> None:
    data = str(bench.files / "data")
    for read_only, expected in ((False, "from the host\nwritten\n"), (True, "from the host\n")):
        spec = ContainerSpec(image=bench.image, volumes=(Volume(data, "/in/here", read_only),))
        script = "cat /in/here/note; echo; touch /in/here/new 2>/dev/null && echo written; true"
        assert bench.said(script, spec, user="root").replace("\n\n", "\n") == expected
    assert (bench.files / "data" / "new").exists()
    allowed = str(bench.files)
    assert f"'/etc' is not allowed on this agent, which allows what is in: {allowed}" in bench.refused(
        ContainerSpec(image=bench.image, volumes=(Volume("/etc", "/in"),))
    )
    link = ContainerSpec(image=bench.image, volumes=(Volume(str(bench.files / "secret"), "/in"),))
    assert "secret" in bench.refused(link)


def test_network_and_root_are_as_asked_for(bench: RootBench) -> None:
    none = ContainerSpec(image=bench.image, network="none", read_only_root=True)
    script = "cat /proc/net/dev | busybox grep -c :; touch /x 2>/dev/null || echo read-only; touch $MESOS_SANDBOX/y"
    assert bench.said(script, none, user="root").split() == ["1", "read-only"]


def test_what_cannot_be_is_refused_and_leaves_nothing(bench: RootBench) -> None:
    assert "no-such-layout" in bench.refused(ContainerSpec(image="oci:/no-such-layout:v1"))
    assert "passwd has no user 'nobody-here'" in bench.refused(ContainerSpec(image=bench.image), user="nobody-here")
    assert "needs Docker Engine" in bench.refused(ContainerSpec(image="x", type="docker"))
    bench.until(lambda: bench.roots() == [], f"nothing is left: {bench.roots()}")


def test_container_survives_its_agent_and_leftovers_go(bench: RootBench) -> None:
    name = bench.run("echo up; sleep 1000", ContainerSpec(image=bench.image))
    bench.expect(ContainerStarted, name)
    (bench.work_dir / "roots" / "left.000000000000").mkdir()
    bench.restart_agent()
    bench.send(RecoverContainers((name,)))
    (found,) = bench.expect(ContainersRecovered).containers
    assert found.running
    bench.until(lambda: bench.roots() == [name], f"only what lives is left: {bench.roots()}")
    bench.send(KillContainer(name, 0))
    assert bench.expect(ContainerExited, name).signal == 9
    bench.send(ForgetContainer(name))
    bench.until(lambda: bench.roots() == [], f"nothing is left: {bench.roots()}")
