"""What was delivered already, by run and number."""

from __future__ import annotations

from mesos_actor.actors.core.deliveries import Deliveries


def test_an_update_is_new_once_and_never_after_a_later_one() -> None:
    deliveries = Deliveries()

    assert [deliveries.is_new(f"r:{n}") for n in (1, 1, 0, 2, 1)] == [True, False, False, True, False]


def test_an_acknowledgement_covers_what_went_before() -> None:
    deliveries = Deliveries()
    for number in range(3):
        deliveries.is_new(f"r:{number}")

    deliveries.acknowledge("r:1")
    deliveries.acknowledge("r:7")  # never met
    deliveries.acknowledge("other:1")

    assert [deliveries.is_acknowledged(f"r:{n}") for n in range(3)] == [True, True, False]


def test_an_update_waits_for_the_one_that_it_names() -> None:
    deliveries = Deliveries()

    assert deliveries.follows("")
    assert not deliveries.follows("r:0")
    deliveries.is_new("r:1")
    assert deliveries.follows("r:0")
    assert deliveries.follows("r:1")
    assert not deliveries.follows("r:2")


def test_ids_of_another_form_are_runs_of_their_own() -> None:
    deliveries = Deliveries()

    new = [deliveries.is_new(name) for name in ("plain", "plain", "r:x", "r:1", "r:" + "9" * 30, "")]

    assert new == [True, False, True, True, True, True]


def test_the_run_met_first_is_forgotten_first() -> None:
    deliveries = Deliveries(limit=2)

    for run in "abc":
        deliveries.is_new(f"{run}:0")

    assert (len(deliveries), deliveries.is_new("c:0"), deliveries.is_new("a:0")) == (2, False, True)
