"""Starts confined programs as the launcher does: a small process that forks. Run by test_confinement.py.

Reads msgpack maps from its standard input: {argv, env, out, fields, cgroup, user} starts, and is answered by a line of
JSON with the pid or the error's text; {wait} by a line with the exit code, negative for a signal; {term}
sends TERM as the launcher.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any, NoReturn

import msgpack

from mesos_actor.isolation import confinement, linux_calls
from mesos_actor.isolation.spawn import SpawnError


def start(order: dict[str, Any]) -> dict[str, Any]:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        become(order, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read(4096)
    if told:
        os.waitpid(pid, 0)
        return {"error": told.decode()}
    return {"pid": pid}


def become(order: dict[str, Any], writer: int) -> NoReturn:
    try:
        os.setsid()
        if order.get("cgroup"):
            with open(order["cgroup"], "w") as procs:
                procs.write("0")
        if order.get("user"):
            os.setgroups([])
            os.setresgid(*[order["user"]] * 3)
            os.setresuid(*[order["user"]] * 3)
            linux_calls.prctl(linux_calls.PR_SET_DUMPABLE, 1)  # as a process that never was root is
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        out = os.open(order["out"], os.O_WRONLY | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        confinement.enter(order["fields"])
        os.execve(order["argv"][0], order["argv"], order["env"])
    except SpawnError as error:
        os.write(writer, error.text.encode())
    except BaseException as error:  # noqa: BLE001 - told to the test
        os.write(writer, repr(error).encode())
    os._exit(127)


def main() -> None:
    unpacker = msgpack.Unpacker(raw=False)
    while data := os.read(0, 65536):
        unpacker.feed(data)
        for order in unpacker:
            if "term" in order:
                os.kill(order["term"], signal.SIGTERM)
                answer: dict[str, Any] = {}
            elif "wait" in order:
                answer = {"code": os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])}
            else:
                answer = start(order)
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


main()
