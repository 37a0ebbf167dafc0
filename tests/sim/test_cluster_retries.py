"""Every kind of message may be lost, while its link stands and nobody is told: everything still comes to its end.

What can be lost is collected from a calm run, so a message that is new is lost here too, without anybody adding it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mesos_actor.actors.messages import MESSAGES, agents, clients, containers, executors, registry, scheduler
from mesos_actor.testing import Key, Plan
from tests.sim.calm_run import begin, crossings, kind_of

FIRST = 3
"""So many of the first of each kind are lost, each in a run of its own, and the last."""
BOUND_S = 150
"""Virtual time in which the day must be over, whichever one message was lost. Without any loss it takes 18 s."""

NOT_IN_A_CALM_RUN = {
    "LeaveAgent": "an agent that leaves for good; nothing sends it yet",
    "ShutdownExecutor": "nothing sends it yet",
    "Refused": "an answer to what is not allowed, and to repeats",
    "ReconcileExecutor": "asked when something was lost; lost itself in the test of losses in a row",
    "Heartbeat": "asked when the master was silent for long; unanswered, it is given up (test_framework_doubts.py)",
    "Posted": "stays in its process",
}


def _cases() -> Iterator[tuple[str, Key, bool]]:
    """(class, which one, whether it is the first of its kind between two kinds of hosts)."""
    for kind, keys in sorted(crossings().items()):
        seen: set[tuple[str, str]] = set()
        chosen: dict[Key, bool] = {}
        for key in keys:
            between = (kind_of(key[0]), kind_of(key[1]))
            if between not in seen:
                seen.add(between)
                chosen[key] = True
        for key in [*keys[:FIRST], keys[-1]]:
            chosen.setdefault(key, False)
        yield from ((kind, key, first) for key, first in chosen.items())


def _parameters() -> list[object]:
    return [
        pytest.param(key, id=f"{kind}-{key[0]}-{key[1]}-{key[2]}", marks=[] if first else [pytest.mark.slow])
        for kind, key, first in _cases()
    ]


@pytest.mark.parametrize("key", _parameters())
def test_one_lost_message_changes_nothing_in_the_end(key: Key) -> None:
    day = begin(Plan({key: ()}))

    day.finish(BOUND_S)

    assert day.sim.world.network.counts["lost"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize("key", [pytest.param(key, id=f"{kind}-{key}") for kind, key, first in _cases() if first])
def test_four_messages_lost_in_a_row_change_nothing_in_the_end(key: Key) -> None:
    source, destination, n = key
    day = begin(Plan({(source, destination, n + more): () for more in range(4)}))

    day.finish(1_200)


def test_every_message_that_crosses_links_is_lost_here_or_has_a_reason_not_to_be() -> None:
    local = {name for module in (containers, registry) for name in vars(module) if name in MESSAGES}
    crossing = {name for module in (agents, clients, executors, scheduler) for name in vars(module) if name in MESSAGES}
    calm = set(crossings())

    assert crossing - calm == set(NOT_IN_A_CALM_RUN)
    assert calm - crossing == {"ReadFile", "FileData"}
    assert local & calm == {"ReadFile", "FileData"}
