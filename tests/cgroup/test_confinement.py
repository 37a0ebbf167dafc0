"""Confined programs on a real kernel: what they see, how they end, and what they try in vain."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack
import pytest

from mesos_actor.isolation.cgroup import CgroupTree
from mesos_actor.isolation.confinement_plan import Confinement, Device, IdMap, User, Volume, fields_of
from mesos_actor.isolation.limits import Limits, writes_of

if TYPE_CHECKING:
    Kit = Any

pytestmark = pytest.mark.cgroup
ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65_534
APPLETS = tuple(
    "sh ls cat mount ps id hostname touch kill sleep mkdir echo nc readlink stat wc env seq true grep tail head".split()  # noqa: SIM905
)
SYSTEM = tuple(
    Volume(source=path, target=path, read_only=True)
    for path in ("/usr", "/lib", "/lib64", "/bin")
    if Path(path).exists()
)
"""The host's programs, so that Python runs inside."""
MIB = 1 << 20


class Launched:
    """One running container; `ended` waits for it."""

    def __init__(self, launcher: Launcher, pid: int, out: Path) -> None:
        self.launcher, self.pid, self.out = launcher, pid, out

    def ended(self) -> tuple[int, str]:
        code = self.launcher.ask({"wait": self.pid})["code"]
        return code, self.text()

    def text(self) -> str:
        return self.out.read_text()


class Launcher:
    """A small process that forks what is to be confined, like the agent's own."""

    def __init__(self, directory: Path) -> None:
        paths = [str(ROOT), str(Path(msgpack.__file__).parents[1])]
        script = str(Path(__file__).with_name("lean_launcher.py"))
        program = f"import sys, runpy; sys.path += {paths!r}; runpy.run_path({script!r})"
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.directory = directory
        self.count = 0

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(msgpack.packb(order))
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def order(self, plan: Confinement, argv: list[str], **more: Any) -> dict[str, Any]:
        self.count += 1
        out = self.directory / f"out.{self.count}"
        out.touch()
        out.chmod(0o666)
        self.out = out
        return {"argv": argv, "env": {"PATH": "/bin"}, "out": str(out), "fields": fields_of(plan), **more}

    def start(self, plan: Confinement, script: str | list[str], **more: Any) -> Launched:
        argv = ["/bin/sh", "-c", script] if isinstance(script, str) else script
        answer = self.ask(self.order(plan, argv, **more))
        assert "error" not in answer, answer
        return Launched(self, answer["pid"], self.out)

    def run(self, plan: Confinement, script: str | list[str], **more: Any) -> tuple[int, str]:
        return self.start(plan, script, **more).ended()

    def refusal(self, plan: Confinement, **more: Any) -> str:
        return str(self.ask(self.order(plan, ["/bin/true"], **more)).get("error"))


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    if os.environ.get("MESOS_ACTOR_IN_VM") != "1":
        pytest.skip("needs the machine of scripts/vm")
    directory = tmp_path_factory.mktemp("confined")
    for above in (directory, *directory.parents[:3]):
        above.chmod(0o755) if above.owner() == "root" and above != Path("/tmp") else None
    made = Launcher(directory)
    yield made
    for pipe in (made.process.stdin, made.process.stdout):
        assert pipe is not None
        pipe.close()
    made.process.wait(60)


@pytest.fixture
def image(launcher: Launcher) -> Path:
    """A root directory with a shell in it."""
    image = launcher.directory / f"image.{launcher.count}"
    (image / "bin").mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", image / "bin/busybox")
    for name in APPLETS:
        (image / "bin" / name).symlink_to("busybox")
    return image


def whole(image: Path, **changes: Any) -> Confinement:
    """Everything at once."""
    options: dict[str, Any] = {
        "pid": True,
        "ipc": True,
        "mount": True,
        "uts": True,
        "cgroup": True,
        "network": "loopback",
        "hostname": "inside",
        "root": str(image),
        "effective": (),
        "tmp_bytes": MIB,
    }
    return Confinement(**(options | changes))


def mounts_of(process: str) -> list[str]:
    return sorted(line.split(" ", 2)[2] for line in Path(f"/proc/{process}/mountinfo").read_text().splitlines())


def test_container_sees_itself_alone(launcher: Launcher, image: Path, tmp_path: Path) -> None:
    before = mounts_of("self")
    (tmp_path / "given").write_text("from the agent")
    plan = whole(image, sandbox=str(tmp_path), sandbox_target="/mnt/sandbox", read_only_root=True)
    script = """
    hostname; ps >/tmp/ps; wc -l </tmp/ps; echo $$; pwd; cat given; echo mine >made
    ls / /dev; stat -c %T,%t /dev/null; cat /proc/self/cgroup; touch /tmp/t /dev/shm/s && echo tmp; touch /x
    cat /sys/class/net/lo/operstate; ls /sys/class/net; kill -USR1 $$
    """

    code, text = launcher.run(plan, script)

    lines = text.split()
    assert code == -signal.SIGUSR1
    assert text.startswith("inside\n4\n2\n"), text  # a headline, the first process, the shell and ps
    assert "touch: /x: Read-only file system" in text, text
    assert {"tmp", "null", "ptmx", "from", "lo", "/mnt/sandbox", "0::/"} <= set(lines), text
    assert not {"sda", "kmsg", "outside-marker", "eth0"} & set(lines), text
    assert (tmp_path / "made").read_text() == "mine\n"
    assert mounts_of("self") == before
    assert socket.gethostname() != "inside"


@pytest.mark.parametrize(
    ("script", "code"), [("exit 7", 7), ("kill -9 $$", -9), ("kill -15 $$", -15), ("(sleep 1000 &) ; exit 0", 0)]
)
def test_end_is_the_commands_own(launcher: Launcher, image: Path, script: str, code: int) -> None:
    assert launcher.run(whole(image), script) == (code, "")


def test_signals_reach_the_command_and_not_twice(launcher: Launcher, image: Path, kit: Kit) -> None:
    """The launcher's own are not passed on, for it signals the family; everybody else's are."""
    script = "trap 'echo TERM' TERM; echo ready; while :; do sleep 0.2; done"
    launched = launcher.start(whole(image), script)
    kit.until(lambda: "ready" in launched.text(), "it runs")

    launcher.ask({"term": launched.pid})
    subprocess.run(["kill", "-TERM", str(launched.pid)], check=True)
    kit.until(lambda: "TERM" in launched.text(), "it heard")
    (init,) = Path(f"/proc/{launched.pid}/task/{launched.pid}/children").read_text().split()
    (command, *_) = Path(f"/proc/{init}/task/{init}/children").read_text().split()
    os.kill(int(init), signal.SIGTERM)  # as a launcher that signals a whole family does; dropped
    os.kill(launched.pid, signal.SIGKILL)

    assert launched.ended() == (-9, "ready\nTERM\n")  # one of three
    kit.until(lambda: not Path(f"/proc/{command}").exists(), "nobody is left")


def test_failures_are_told(launcher: Launcher, image: Path, tmp_path: Path) -> None:
    (image / "loop").symlink_to("/nowhere")
    (tmp_path / "file").touch()
    (tmp_path / "out").symlink_to("/etc")
    a_file = str(tmp_path / "file")

    def volume(**options: Any) -> Confinement:
        return whole(image, volumes=(Volume(**options),))

    assert (
        launcher.refusal(whole(Path("/no/image")))
        == "cannot use '/no/image' as the container's root: No such file or directory"
    )
    text = launcher.refusal(volume(source="/no/volume", target="/v"))
    assert text == "cannot open the volume '/no/volume': No such file or directory"
    text = launcher.refusal(volume(source="/etc", target="/loop/x"))
    assert text == "cannot make /loop/x in the container: 'loop' on the way is a symlink that leads nowhere"
    text = launcher.refusal(volume(source=a_file, target="/bin"))
    assert text == "cannot mount a file on /bin, which is a directory in the container"
    text = launcher.refusal(volume(source="out", within=str(tmp_path), target="/v"))
    assert text == f"cannot open the volume 'out' in {str(tmp_path)!r}: it leads out of {str(tmp_path)!r}"
    text = launcher.refusal(whole(image, cwd="/not/there"))
    assert text == "cannot enter the working directory '/not/there' in the container: No such file or directory"
    text = launcher.refusal(Confinement(mount=True, volumes=(Volume(source="/etc", target="/not/here"),)))
    assert text.startswith("/not/here does not exist on this host; make it")
    text = launcher.refusal(Confinement(uts=True), user=NOBODY)
    assert text.endswith("Operation not permitted; an agent that is not root needs a user namespace for that")
    answer = launcher.ask(launcher.order(Confinement(), ["/bin/true"]) | {"fields": {"teleport": True}})
    assert "cannot do teleport" in answer["error"]


def test_symlink_in_an_image_does_not_lead_a_volume_out(launcher: Launcher, image: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (image / "up").symlink_to("/../../../../../../.." + str(outside))
    (image / "var").mkdir()
    (image / "var/run").symlink_to("/run")
    (image / "run").mkdir()
    given = tmp_path / "given"
    given.mkdir()
    (given / "it").touch()
    plan = whole(
        image,
        volumes=(
            Volume(source=str(given), target="/var/run/volume", read_only=True),
            Volume(source="given/it", within=str(tmp_path), target="/etc/one-file"),
        ),
    )

    code, text = launcher.run(plan, "ls /run/volume; touch /run/volume/x; touch /etc/one-file && echo written")
    assert (code, text) == (0, "it\ntouch: /run/volume/x: Read-only file system\nwritten\n")
    assert "symlink that leads nowhere" in launcher.refusal(
        whole(image, volumes=(Volume(source=str(given), target="/up/x"),))
    )
    assert list(outside.iterdir()) == []


def test_hostile_program_stays_inside(launcher: Launcher, image: Path, tmp_path: Path) -> None:
    """As root, with what Docker would leave it of capabilities, and with those that Docker takes away."""
    marker = Path("/run/outside-marker")
    marker.touch()
    shutil.copy(Path(__file__).with_name("hostile.py"), image / "hostile.py")
    argv = [os.path.realpath(sys.executable), "-I", "-S", "/hostile.py", str(os.getpid())]
    volumes = SYSTEM
    if not argv[0].startswith("/usr/bin/"):
        library = str(Path(argv[0]).parents[1])
        volumes = (*SYSTEM, Volume(source=library, target=library, read_only=True))
    held = ("MKNOD", "SYS_CHROOT", "KILL", "DAC_OVERRIDE")
    plan = whole(image, volumes=volumes, read_only_root=True, effective=held)

    try:
        code, text = launcher.run(plan, argv)
    finally:
        marker.unlink()

    assert code == 0, text
    found = json.loads(text)
    assert found == {
        "mount": "EPERM",
        "fsopen": "EPERM",
        "unshare": "EPERM",
        "clone": "EPERM",
        "clone3": "ENOSYS",
        "pivot_root": "EPERM",
        "bpf": "EPERM",
        "keyctl": "EPERM",
        "init_module": "EPERM",
        "open_by_handle_at": "EPERM",
        "x32": "ENOSYS",
        "unknown": "ENOSYS",
        "ptrace outside": "ESRCH",
        "ptrace init": "EPERM",
        "init's memory": "EACCES",
        "outside's root": "ENOENT",
        "init's root": "EACCES",
        "hostname": "EPERM",
        "vsock": "EPERM",
        "terminal": "EPERM",
        "kernel's memory": "EACCES",
        "kernel's memory in /dev": "EACCES",
        "a disk made in /dev": "EACCES",
        "the whole of proc's sys": "EROFS",
        "kcore": 0,
        "the root": "EROFS",
        "a read-only volume": "EROFS",
        "chroot": "the container",
        "capabilities": ["000000000804002" + "2", "0000000008040022"],
    }


def test_process_outside_is_out_of_reach_even_where_it_is_seen(launcher: Launcher, kit: Kit) -> None:
    """No pid namespace, the same user: fewer capabilities are what is between them."""
    outside = launcher.start(Confinement(), "exec sleep 1000")
    script = f"cd /proc/{outside.pid} && for f in environ maps mem root/etc/passwd; do head -c 1 $f && echo GOT; done"
    confined = Confinement(mount=True, effective=())

    assert "GOT" not in launcher.run(confined, script)[1]
    assert "GOT" in launcher.run(Confinement(), script)[1]
    os.kill(outside.pid, 9)
    assert outside.ended()[0] == -9


def test_network_of_its_own_does_not_reach_the_hosts_loopback(launcher: Launcher, image: Path) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        threading.Thread(target=lambda: server.accept()[0].close(), daemon=True).start()
        script = f"nc -w 5 127.0.0.1 {port} </dev/null && echo reached; cat /sys/class/net/lo/carrier"

        assert launcher.run(whole(image, network="host"), script)[1].startswith("reached")
        assert (
            launcher.run(whole(image, network="loopback"), script)[1]
            == "nc: can't connect to remote host (127.0.0.1): Connection refused\n1\n"
        )
        text = launcher.run(whole(image, network="none"), script)[1]
        assert "reached" not in text
        assert "unreachable" in text


def test_privileges_are_as_declared(launcher: Launcher, image: Path) -> None:
    script = "id; ulimit -n; grep -E '^(Cap(Eff|Bnd|Amb)|NoNewPrivs|Seccomp):' /proc/self/status"
    plan = whole(
        image,
        user=User(7, 8, (9,)),
        effective=("NET_BIND_SERVICE",),
        bounding=("NET_BIND_SERVICE", "CHOWN"),
        rlimits={"nofile": (99, 100)},
    )

    assert launcher.run(plan, script) == (
        0,
        "uid=7 gid=8 groups=9\n99\nCapEff:\t0000000000000400\nCapBnd:\t0000000000000401\nCapAmb:\t0000000000000400\n"
        "NoNewPrivs:\t1\nSeccomp:\t2\n",
    )


def test_roots_user_namespace_maps_to_nobody_outside(launcher: Launcher, image: Path, tmp_path: Path) -> None:
    """The image and the sandbox lie where the mapped user has no way to."""
    for path in (image, *image.rglob("*"), tmp_path):
        os.chown(path, 200_000, 200_000, follow_symlinks=False)
    launcher.directory.chmod(0o711)
    ids = (IdMap(0, 200_000, 1_000),)
    plan = whole(image, user_ids=ids, group_ids=ids, sandbox=str(tmp_path), sandbox_target="/box", user=User(5, 6))

    code, text = launcher.run(
        plan, "id; echo x >/dev/null && ls -ln /dev/zero; cat /proc/self/uid_map; mkdir /tmp/x && echo tmp"
    )

    launcher.directory.chmod(0o755)
    assert code == 0, text
    assert text.startswith("uid=5 gid=6\n"), text
    assert "tmp" in text
    assert "200000" in text


def test_ordinary_user_confines_and_is_limited(
    launcher: Launcher, image: Path, tree: CgroupTree, tmp_path: Path, kit: Kit
) -> None:
    """Rootless: a cgroup handed over, a user namespace, and all the others within it."""
    cgroup = tree.create("rootless", writes_of(Limits(mem_request_bytes=32 * MIB, cpus_limit_milli=900, pids_limit=20)))
    for path in (image, *image.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    ids = (IdMap(0, NOBODY),)
    plan = whole(image, user_ids=ids, group_ids=ids, network="none")
    entered = {"user": NOBODY, "cgroup": cgroup.procs_path}

    code, text = launcher.run(
        plan, "id -u; hostname; ps | wc -l; seq 30 | while read n; do sleep 5 & done 2>&1 | head -1", **entered
    )
    assert text.startswith("0\ninside\n"), text
    assert "can't fork" in text, text
    code, text = launcher.run(plan, "head -c 209715200 /dev/zero | tail", **entered)
    assert code == -9, text
    usage = cgroup.usage()
    assert usage is not None
    assert usage.oom_group_kills == 1


def test_device_of_the_plan_is_there(launcher: Launcher, image: Path) -> None:
    plan = whole(
        image, devices=(Device(path="/dev/gpu/card0", major=1, minor=5, mode=0o600),), effective=("DAC_OVERRIDE",)
    )

    assert launcher.run(plan, "stat -c %t:%T:%a /dev/gpu/card0; head -c 2 /dev/gpu/card0 | wc -c")[1] == "1:5:600\n2\n"
