"""When to ask again."""

from __future__ import annotations

from mesos_actor.actors.core.repeats import Repeats

SECOND = 1_000_000


def test_the_pause_doubles_up_to_the_longest() -> None:
    repeats: Repeats[str] = Repeats(2 * SECOND, 5 * SECOND)
    repeats.expect("a", 0)

    asked = [now for now in range(20) if repeats.due(now * SECOND)]

    assert asked == [2, 6, 11, 16]


def test_what_is_settled_is_not_asked_for_again() -> None:
    repeats: Repeats[str] = Repeats(SECOND, SECOND)
    for key in "abc":
        repeats.expect(key, 0)

    repeats.settle("b")
    repeats.settle("never asked for")

    assert repeats.due(SECOND) == ["a", "c"]
    repeats.clear()
    assert (repeats.due(10 * SECOND), len(repeats)) == ([], 0)


def test_asking_anew_begins_with_the_first_pause() -> None:
    repeats: Repeats[str] = Repeats(SECOND, 8 * SECOND)
    repeats.expect("a", 0)
    assert repeats.due(SECOND) == ["a"]

    repeats.expect("a", SECOND)

    assert repeats.due(2 * SECOND) == ["a"]
