"""Starting one program: posix_spawn where that can do it, a fork of the small launcher where it cannot.

posix_spawn costs the same whatever the size of the caller (it is a vfork inside) but can neither change the user nor
set limits nor start in a cgroup; for the latter two there is vfork.py. Standard library only: the launcher imports
this.
"""

# ruff: noqa: PTH110, PTH116
from __future__ import annotations

import contextlib
import errno
import importlib
import os
import resource
import signal
import stat
from collections.abc import Callable
from typing import Any, NoReturn

_RESET = [signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD]
"""What Python or whoever started us may have set to be ignored; an exec would hand that on."""

_OUTPUT_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
_FULL = (errno.ENOSPC, errno.EDQUOT)
DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
"""Where programs are looked for when the container has no PATH."""


class SpawnError(Exception):
    """The program did not start. `reason` is one of ContainerFailed's."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


class Program:
    """What to start. `out` and `err` are opened for appending, relative to `cwd`. `user` empty: as we are.

    `limits` maps names of resource.RLIMIT_* without the prefix, in lower case, to (soft, hard). `cgroup` is the path of
    a cgroup.procs that the child writes itself to before it does anything else; `confine` is what confinement.enter
    makes of the child then. Both empty: neither.
    """

    __slots__ = ("argv", "cgroup", "confine", "cwd", "env", "err", "limits", "out", "user")

    def __init__(self, fields: dict[str, Any]) -> None:
        """Raises ValueError naming the field that cannot be used."""
        argv, env = fields.get("argv"), fields.get("env")
        if not isinstance(argv, list) or not argv or not all(isinstance(item, str) for item in argv):
            raise ValueError(f"argv: expected a list of at least one string, got {argv!r}")
        if not isinstance(env, dict) or not all(isinstance(n, str) and isinstance(v, str) for n, v in env.items()):
            raise ValueError("env: expected a map of strings to strings")
        self.argv: list[str] = argv
        self.env: dict[str, str] = env
        self.cwd = _text(fields, "cwd")
        self.out = _text(fields, "out", "stdout")
        self.err = _text(fields, "err", "stderr")
        self.user = _text(fields, "user", "")
        limits = fields.get("limits") or {}
        self.limits = {_limit_number(name): (int(soft), int(hard)) for name, (soft, hard) in limits.items()}
        self.cgroup = _text(fields, "cgroup", "")
        if self.cgroup and not (self.cgroup.startswith("/") and self.cgroup.endswith("/cgroup.procs")):
            raise ValueError(f"cgroup: expected the absolute path of a cgroup.procs, got {self.cgroup!r}")
        self.confine: dict[str, Any] = fields.get("confine") or {}
        if not isinstance(self.confine, dict):
            raise ValueError(f"confine: expected a map, got {self.confine!r}")

    @property
    def cgroup_directory(self) -> str:
        """The directory of `cgroup`; empty without one."""
        return self.cgroup.removesuffix("/cgroup.procs")


def _text(fields: dict[str, Any], name: str, default: str | None = None) -> str:
    value = fields.get(name, default)
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected a string, got {value!r}")
    return value


def _limit_number(name: str) -> int:
    number = getattr(resource, f"RLIMIT_{name.upper()}", None)
    if not isinstance(number, int):
        raise ValueError(f"limits: there is no resource limit called {name!r}")
    return number


def resolve(name: str, path: str) -> str:
    """The file that execvp would start for `name` under the container's PATH; a name with a slash is itself.

    Raises SpawnError that says what was found instead.
    """
    if "/" in name:
        return name
    if not name:
        raise SpawnError("spawn", "the command's program name is empty")
    refused = ""
    for directory in path.split(":"):
        candidate = f"{directory or '.'}/{name}"
        try:
            mode = os.stat(candidate).st_mode
        except OSError:
            continue
        if stat.S_ISREG(mode) and os.access(candidate, os.X_OK):
            return candidate
        refused = refused or candidate
    if refused:
        raise SpawnError("spawn", f"cannot execute {refused!r}: not an executable file")
    raise SpawnError("spawn", f"no such program: {name!r} is in no directory of PATH={path}")


def spawn(program: Program) -> int:
    """Start `program` in a session of its own and return its pid. Changes our working directory to its `cwd`.

    Raises SpawnError.
    """
    try:
        os.chdir(program.cwd)
    except (OSError, ValueError) as error:
        raise SpawnError("sandbox", f"cannot enter the sandbox {program.cwd!r}: {_words(error)}") from None
    path = program.env.get("PATH") or DEFAULT_PATH
    if program.confine or not _is_own_user(program.user) or (program.limits and not program.cgroup):
        return _fork(program, path)
    begin = _vfork if program.cgroup else _posix_spawn
    file = resolve(program.argv[0], path)
    try:
        try:
            pid = begin(file, program.argv, program)
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
            pid = begin("/bin/sh", ["/bin/sh", file, *program.argv[1:]], program)  # as execvp does
    except (OSError, ValueError) as error:
        raise _explained(error, file, program) from None
    return _fork(program, path) if pid is None else pid


def _posix_spawn(file: str, argv: list[str], program: Program) -> int:
    return os.posix_spawn(
        file,
        argv,
        program.env,
        file_actions=(
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, program.out, _OUTPUT_FLAGS, 0o644),
            (os.POSIX_SPAWN_OPEN, 2, program.err, _OUTPUT_FLAGS, 0o644),
        ),
        setsid=True,
        setsigmask=(),
        setsigdef=_RESET,
    )


def _vfork(file: str, argv: list[str], program: Program) -> int | None:
    """As _posix_spawn, into a cgroup and under limits; None where this host cannot."""
    from mesos_actor.isolation import vfork  # a module most launchers never need

    files = (("/dev/null", os.O_RDONLY), (program.out, _OUTPUT_FLAGS), (program.err, _OUTPUT_FLAGS))
    try:
        return vfork.start(file, argv, program.env, program.cgroup_directory, files, program.limits, _RESET)
    except vfork.CgroupRefused as error:
        raise SpawnError("spawn", f"cannot enter the cgroup by {program.cgroup}: {_words(error)}") from None


def _words(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _explained(error: Exception, file: str, program: Program) -> SpawnError:
    """Which of the steps between fork and exec went wrong: posix_spawn gives one errno for all of them."""
    if isinstance(error, ValueError):
        return SpawnError("spawn", f"cannot execute {file!r}: {error}")
    number = error.errno if isinstance(error, OSError) else None
    if number in _FULL:
        return SpawnError("full", f"no space for {program.out} and {program.err} in {program.cwd}: {_words(error)}")
    if number == errno.EPERM and (raised := _raised(program)):
        return SpawnError("spawn", f"cannot set the resource limits {raised}: above what this host lets us set")
    if number == errno.E2BIG:
        return SpawnError("spawn", f"cannot execute {file!r}: the arguments and the environment are too long")
    for name in (program.out, program.err):
        with contextlib.suppress(OSError):
            if not stat.S_ISREG(os.lstat(name).st_mode):
                return SpawnError("sandbox", f"{name} in {program.cwd} is not a regular file")
    if number == errno.ENOENT:
        if os.path.exists(file):
            return SpawnError("spawn", f"cannot execute {file!r}: the interpreter that it names does not exist")
        return SpawnError("spawn", f"no such program: {file!r}")
    if number == errno.EACCES and not os.access(".", os.W_OK):
        return SpawnError("sandbox", f"cannot create {program.out} in {program.cwd}: {_words(error)}")
    return SpawnError("spawn", f"cannot execute {file!r}: {_words(error)}")


def _raised(program: Program) -> str:
    """The limits whose hard one is above ours, for a text: raising these needs a privilege, and nofile has a bound."""
    found = []
    for number, (_, hard) in program.limits.items():
        most = resource.getrlimit(number)[1]
        if most != resource.RLIM_INFINITY and (hard == resource.RLIM_INFINITY or hard > most):
            name = next(name for name in dir(resource) if name[:7] == "RLIMIT_" and getattr(resource, name) == number)
            found.append(f"{name[7:].lower()} to {hard} (ours is {most})")
    return ", ".join(found)


def _is_own_user(user: str) -> bool:
    return not user or user == str(os.geteuid()) or _user(user)[0] == os.geteuid()


def _user(user: str) -> tuple[int, int, str]:
    """Numeric user and group, and the name, of a user given by name or number. Raises SpawnError."""
    import pwd  # a module most launchers never need

    try:
        entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        raise SpawnError("spawn", f"user: there is no user {user!r} on this host") from None
    return entry.pw_uid, entry.pw_gid, entry.pw_name


def _fork(program: Program, path: str) -> int:
    """Start `program` as another user, under limits, in a cgroup, or confined. The child tells why it could not through
    a pipe that a successful exec closes."""
    if program.confine:
        _confinement()  # loaded before the fork: every child would load it again
    identity = None if _is_own_user(program.user) else _user(program.user)
    if identity is not None and os.geteuid() != 0:
        raise SpawnError("spawn", f"user: only an agent run by root can start a command as {program.user!r}")
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _become(program, path, identity, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read(4096)
    if told:
        os.waitpid(pid, 0)
        reason, _, text = told.decode(errors="replace").partition("\0")
        raise SpawnError(reason, text)
    return pid


def _confinement() -> Callable[[dict[str, Any]], None]:
    """What confines a process. A module of its own that most launchers never need."""
    try:
        module = importlib.import_module("mesos_actor.isolation.confinement")
    except ImportError as error:
        raise SpawnError("spawn", f"confine: this launcher cannot confine a command: {error}") from None
    enter: Callable[[dict[str, Any]], None] = module.enter
    return enter


def _confine(fields: dict[str, Any], identity: tuple[int, int, str] | None) -> None:
    """Confine this process. It becomes its user last, for others may not mount; the streams are that user's."""
    if identity is not None:
        groups = os.getgrouplist(identity[2], identity[1])
        fields = {"user": [identity[0], identity[1], groups], **fields}
    user = fields.get("user")
    if user is not None and os.geteuid() == 0 and not fields.get("uid_map"):
        for descriptor in (1, 2):
            os.fchown(descriptor, user[0], user[1])
    _confinement()(fields)


def _enter_cgroup(path: str) -> None:
    """Move this process, of which nothing of the command's has run yet. Raises SpawnError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        os.write(descriptor, b"0")
        os.close(descriptor)
    except OSError as error:
        raise SpawnError("spawn", f"cannot enter the cgroup by {path}: {_words(error)}") from None


def _limit(program: Program) -> None:
    """Set the resource limits of this process. Raises SpawnError."""
    try:
        for limited, limit in program.limits.items():
            resource.setrlimit(limited, limit)
    except (OSError, ValueError) as error:
        raised = _raised(program) or str(dict(program.limits))
        raise SpawnError("spawn", f"cannot set the resource limits {raised}: {_words(error)}") from None


def _become(program: Program, path: str, identity: tuple[int, int, str] | None, writer: int) -> NoReturn:
    """The forked child: everything up to the exec. Never returns."""
    try:
        if program.cgroup:
            _enter_cgroup(program.cgroup)
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in _RESET:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        own = os.geteuid()
        if identity is not None and not program.confine:
            os.initgroups(identity[2], identity[1])
            os.setresgid(identity[1], identity[1], identity[1])
            os.seteuid(identity[0])  # the streams are that user's
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(os.open(program.out, _OUTPUT_FLAGS, 0o644), 1)
        os.dup2(os.open(program.err, _OUTPUT_FLAGS, 0o644), 2)
        os.seteuid(own)
        _limit(program)  # not before: with few files no stream could be opened; nor later: some only root may raise
        if identity is not None and not program.confine:
            os.setresuid(identity[0], identity[0], identity[0])
        if program.confine:
            _confine(program.confine, identity)
        file = resolve(program.argv[0], path)
        try:
            os.execve(file, program.argv, program.env)
        except OSError as error:
            if error.errno == errno.ENOEXEC:
                os.execve("/bin/sh", ["/bin/sh", file, *program.argv[1:]], program.env)
            raise _explained(error, file, program) from None
    except SpawnError as error:
        told = f"{error.reason}\0{error.text}"
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent must hear of it and this process must end
        told = f"spawn\0cannot start {program.argv[0]!r}: {_words(error)}"
    os.write(writer, told.encode(errors="replace")[:4096])
    os._exit(127)
