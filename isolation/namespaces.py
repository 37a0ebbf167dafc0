"""The launcher's child leaves the host's namespaces, and, with a pid namespace, becomes three processes.

    waiter    what the launcher forked, outside the pid namespace. It lives as long as the container, passes signals on
              to the command and ends exactly as the command did, by the same signal if by one.
    init      process 1 inside: reaps whatever is orphaned, and when the command ends it ends, upon which the kernel
              kills everybody else in the namespace.
    command   what goes on to exec.

The command itself is not process 1, because the kernel drops every signal that process 1 has no handler for: a plain
`sleep` could not be asked to end. The waiter does not pass on what the launcher sent, for the launcher signals the
whole family itself and the command would get it twice. Both keep CAP_KILL and no other privilege, and cannot be traced.
If the waiter dies, the kernel kills init, and so everybody.

Standard library only. Raises SpawnError. Kernel documents: namespaces(7), pid_namespaces(7), user_namespaces(7).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import select
import signal
import socket
import struct
from collections.abc import Callable, Sequence
from typing import NoReturn

from mesos_actor.isolation import linux_calls
from mesos_actor.isolation.spawn import SpawnError

KINDS = {
    "user": linux_calls.CLONE_NEWUSER,
    "mount": linux_calls.CLONE_NEWNS,
    "pid": linux_calls.CLONE_NEWPID,
    "ipc": linux_calls.CLONE_NEWIPC,
    "uts": linux_calls.CLONE_NEWUTS,
    "net": linux_calls.CLONE_NEWNET,
    "cgroup": linux_calls.CLONE_NEWCGROUP,
}
PASSED_ON = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTERM,
    signal.SIGCONT,
    signal.SIGWINCH,
)
_SETUP_FAILED = 127
_CAP_KILL = 1 << 5
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1
_MAX_DESCRIPTORS = 1 << 30
_CREDENTIALS = struct.Struct("3i")
_STATUS = struct.Struct("i")
_HERE = b"the command is here"


def separate(kinds: Sequence[str], joined: dict[str, str], maps: dict[str, list[list[int]]]) -> None:
    """Join the namespaces of `joined` (kind -> path), then make new ones of `kinds`; the user namespace first, with
    `maps` of "uid" and "gid" as [inside, outside, count]."""
    for kind, path in joined.items():
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            linux_calls.setns(descriptor, KINDS[kind])
            os.close(descriptor)
        except OSError as error:
            raise SpawnError("spawn", f"cannot join the {kind} namespace {path}: {error.strerror}") from None
    if "user" in kinds:
        _enter_user_namespace(maps)
    flags = 0
    for kind in kinds:
        flags |= KINDS[kind] if kind != "user" else 0
    if not flags:
        return
    try:
        linux_calls.unshare(flags)
    except OSError as error:
        listed = ", ".join(kind for kind in kinds if kind != "user")
        raise SpawnError("spawn", f"cannot make namespaces ({listed}): {error.strerror}{_advice(error)}") from None


def _advice(error: OSError) -> str:
    if isinstance(error, PermissionError) and os.geteuid() != 0:
        return "; an agent that is not root needs a user namespace for that"
    return ""


def _enter_user_namespace(maps: dict[str, list[list[int]]]) -> None:
    """Maps of root's are written by a child that stays outside, which has the privilege; an ordinary user may map its
    own ids only, and writes them itself."""
    privileged = os.geteuid() == 0
    told, tell = os.pipe2(os.O_CLOEXEC)
    helper = _write_maps_from_outside(told, tell, maps) if privileged else 0
    try:
        linux_calls.unshare(linux_calls.CLONE_NEWUSER)
    except OSError as error:
        text = f"cannot make a user namespace: {error.strerror}"
        if error.errno in (1, 28):  # EPERM, ENOSPC
            text += "; see user.max_user_namespaces and kernel.unprivileged_userns_clone of this host's sysctl"
        raise SpawnError("spawn", text) from None
    try:
        if privileged:
            os.write(tell, b"x")
            if os.waitpid(helper, 0)[1] != 0:
                raise OSError(1, "the host refused the maps")
        else:
            _write_maps("self", maps, setgroups="deny")
    except OSError as error:
        text = f"cannot map the ids of the user namespace {maps}: {error.strerror}"
        raise SpawnError("spawn", text) from None
    finally:
        os.close(told)
        os.close(tell)
    if all(any(start == 0 for start, _, _ in maps[name]) for name in ("uid", "gid")):
        _become_root_inside(privileged)


def _become_root_inside(privileged: bool) -> None:
    """Files made from here on belong to somebody who is mapped; root's maps need not map the root outside."""
    try:
        if privileged:
            os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    except OSError as error:
        raise SpawnError("spawn", f"cannot become root of the user namespace: {error.strerror}") from None


def _write_maps_from_outside(told: int, tell: int, maps: dict[str, list[list[int]]]) -> int:
    inside = os.getpid()
    helper = os.fork()
    if helper:
        return helper
    status = 1
    try:
        os.close(tell)
        if os.read(told, 1):
            _write_maps(str(inside), maps, setgroups="")
            status = 0
    except OSError:
        status = 1
    finally:
        os._exit(status)


def _write_maps(process: str, maps: dict[str, list[list[int]]], setgroups: str) -> None:
    if setgroups:
        _write(f"/proc/{process}/setgroups", setgroups)
    for name in ("uid", "gid"):
        _write(f"/proc/{process}/{name}_map", "".join(f"{a} {b} {c}\n" for a, b, c in maps[name]))


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def set_hostname(name: str) -> None:
    """Of this uts namespace."""
    try:
        socket.sethostname(name)
    except OSError as error:
        raise SpawnError("spawn", f"cannot set the hostname {name!r}: {error.strerror}") from None


def loopback_up() -> None:
    """Bring up `lo` of this network namespace; the kernel gives it 127.0.0.1 and ::1."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
            request = struct.pack("16sH14x", b"lo", 0)
            flags = struct.unpack_from("16sH", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[1]
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))
    except OSError as error:
        raise SpawnError("spawn", f"cannot bring up the loopback device: {error.strerror}") from None


# -- the pid namespace ---------------------------------------------------------------


class Family:
    """The way from this process to init inside a pid namespace that `separate` made, and on to the command."""

    def __init__(self) -> None:
        self._waiters_end, self._inits_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._waiters_end.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        #: The last message from inside.
        self._told = b""

    def become_init(self) -> None:
        """Return in the new process 1. The caller stays behind as the waiter and never returns."""
        launcher = os.getppid()
        signal.pthread_sigmask(signal.SIG_BLOCK, (*PASSED_ON, signal.SIGCHLD))
        try:
            init = os.fork()
        except OSError as error:
            raise SpawnError("spawn", f"cannot fork into the pid namespace: {error.strerror}") from None
        if init:
            self._wait(init, launcher)
        self._waiters_end.close()
        linux_calls.prctl(linux_calls.PR_SET_PDEATHSIG, signal.SIGKILL)
        poll = select.poll()
        poll.register(self._inits_end, 0)
        if poll.poll(0):
            os._exit(_SETUP_FAILED)  # the waiter was dead before that; nobody would end us
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def become_command(self, confine_init: Callable[[], None]) -> None:
        """Return in a new process that leads a session of its own. The caller stays behind as init, confines itself by
        `confine_init` and never returns."""
        try:
            command = os.fork()
        except OSError as error:
            raise SpawnError("spawn", f"cannot fork in the pid namespace: {error.strerror}") from None
        if command:
            self._reap(command, confine_init)
        self._inits_end.send(_HERE)  # with it goes our process id, as the waiter sees it
        self._inits_end.close()
        os.setsid()

    def _reap(self, command: int, confine_init: Callable[[], None]) -> NoReturn:
        exit_code = _SETUP_FAILED
        try:
            _stand_aside("mesos-init", self._inits_end)
            confine_init()
            while True:
                pid, status = os.waitpid(-1, 0)
                if pid == command:
                    break
            self._inits_end.send(_STATUS.pack(status))
            exit_code = 0
        finally:
            os._exit(exit_code)  # and the kernel kills everybody in this namespace

    def _wait(self, init: int, launcher: int) -> NoReturn:
        status = _SETUP_FAILED << 8
        try:
            self._inits_end.close()
            _stand_aside("mesos-waiter", self._waiters_end)
            command = self._command()
            while True:
                info = signal.sigwaitinfo((*PASSED_ON, signal.SIGCHLD))
                if info.si_signo == signal.SIGCHLD:
                    pid, init_status = os.waitpid(init, os.WNOHANG)
                    if pid:
                        status = self._status(init_status)
                        break
                elif info.si_pid != launcher and command is not None:
                    with contextlib.suppress(OSError):  # it has just ended
                        signal.pidfd_send_signal(command, info.si_signo)
        finally:
            _end_as(status)

    def _command(self) -> int | None:
        """A pidfd of the command, once it is there; None when the set-up failed."""
        try:
            self._told, ancillary, _, _ = self._waiters_end.recvmsg(64, socket.CMSG_SPACE(_CREDENTIALS.size))
            for _, kind, data in ancillary:
                if self._told == _HERE and kind == socket.SCM_CREDENTIALS:
                    return os.pidfd_open(_CREDENTIALS.unpack(data)[0])
        except OSError:
            return None
        return None

    def _status(self, init_status: int) -> int:
        """The command's wait status as init told it, or init's own when it was killed before it could."""
        if self._told == _HERE:
            with contextlib.suppress(OSError):
                self._told = self._waiters_end.recv(64, socket.MSG_DONTWAIT)
        if len(self._told) == _STATUS.size:
            return int(_STATUS.unpack(self._told)[0])
        return init_status


def _stand_aside(name: str, kept: socket.socket) -> None:
    """Hold nothing open but `kept`, and no privilege but to signal; out of reach of the command."""
    nothing = os.open("/dev/null", os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    kept_number = kept.fileno()
    os.closerange(3, kept_number)
    os.closerange(kept_number + 1, _MAX_DESCRIPTORS)
    os.chdir("/")
    linux_calls.set_name(name)
    linux_calls.prctl(linux_calls.PR_SET_DUMPABLE, 0)
    linux_calls.prctl(linux_calls.PR_SET_NO_NEW_PRIVS, 1)
    try:
        linux_calls.set_capabilities(_CAP_KILL, _CAP_KILL, 0)
    except PermissionError:  # there was none to begin with
        linux_calls.set_capabilities(0, 0, 0)


def _end_as(status: int) -> NoReturn:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the core, if any, is the command's
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.kill(os.getpid(), number)
        os._exit(128 + number)
    os._exit(os.waitstatus_to_exitcode(status))
