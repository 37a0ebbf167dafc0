"""Which master is asked next, and how soon."""

from __future__ import annotations

import random

from mesos_actor.actors.core.leader_search import LeaderSearch
from mesos_actor.actors.ids import Address

A, B, C = (Address(f"tcp://10.0.0.{n}:5050/master") for n in (1, 2, 3))


def test_masters_are_asked_in_turn() -> None:
    search = LeaderSearch([A, B, C])

    asked = [search.current]
    for _ in range(3):
        search.advance()
        asked.append(search.current)

    assert asked == [A, B, C, A]


def test_a_hint_is_followed_at_once() -> None:
    search = LeaderSearch([A, B, C])

    assert search.follow(C)
    assert search.current == C
    assert not search.follow(Address(""))


def test_who_names_a_leader_that_was_just_lost_is_not_believed_for_a_round() -> None:
    search = LeaderSearch([A, B, C])
    search.follow(B)
    search.found()

    search.lost()
    search.advance()

    assert search.current == C
    assert not search.follow(B)
    search.advance()
    assert search.current == A
    assert not search.follow(B)
    search.advance()
    assert search.current == C  # the lost one is passed over once
    assert search.follow(B)


def test_a_lost_leader_that_stands_in_no_list_is_believed_after_a_round() -> None:
    search = LeaderSearch([A, B])
    search.follow(C)
    search.found()
    search.lost()

    believed = []
    for _ in range(3):
        search.advance()
        believed.append(search.follow(C))

    assert believed == [False, False, True]


def test_a_lost_leader_that_speaks_is_there() -> None:
    search = LeaderSearch([A, B])
    search.lost()
    search.advance()
    search.heard(B)
    assert not search.follow(A)

    search.heard(A)

    assert search.follow(A)


def test_a_master_that_others_say_leads_is_asked_again_before_the_next_one() -> None:
    search = LeaderSearch([A, B, C])
    search.follow(C)

    asked = []
    for _ in range(4):
        search.advance()
        asked.append(search.current)

    assert asked == [C, C, C, B]


def test_a_leader_whose_link_breaks_gets_no_more_time() -> None:
    search = LeaderSearch([A, B, C])
    search.follow(C)

    search.lost()
    search.advance()

    assert search.current == B


def test_a_leader_that_was_lost_and_is_still_named_is_asked_once_a_round() -> None:
    search = LeaderSearch([A, B, C])
    search.lost()
    search.advance()
    search.advance()
    search.advance()  # the round in which it is passed over is over
    assert search.current == B

    assert search.follow(A)
    search.advance()

    assert search.current == C


def test_a_leader_that_was_found_again_may_be_named_again() -> None:
    search = LeaderSearch([A, B])
    search.lost()
    search.advance()
    search.found()

    assert search.follow(A)


def test_while_nobody_leads_masters_that_answer_are_asked_again_soon() -> None:
    search, rng = LeaderSearch([A, B, C]), random.Random(1)

    first = [LeaderSearch([A, B, C]).retry_us(rng) for _ in range(50)]
    later = [search.retry_us(rng) for _ in range(20)]

    assert min(first) >= 50_000 and max(first) <= 200_000
    assert min(later[5:]) >= 500_000 and max(later) <= 2_000_000
    search.found()
    assert search.retry_us(rng) <= 200_000
