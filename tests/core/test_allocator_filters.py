"""What a framework declined, and for how long."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesos_actor.actors.core.agent_pool import AgentPool
from mesos_actor.actors.core.allocation import Allocation
from mesos_actor.actors.core.allocator import DrfAllocator
from mesos_actor.actors.core.filters import MAX_FILTERS_PER_AGENT, FilterBook
from mesos_actor.actors.core.nodes import Client, Group
from mesos_actor.actors.core.vectors import Kinds
from mesos_actor.actors.ids import AgentId, FrameworkId, Role
from mesos_actor.actors.resources import Attributes, Resources

F1, F2 = FrameworkId("f1"), FrameworkId("f2")
A1, A2 = AgentId("a1"), AgentId("a2")
ENG, OPS = Role("eng"), Role("ops")
SECOND_US = 1_000_000
WHOLE = Resources.parse("cpus:4;mem:4096;ports:[1-9]")


def cluster(*agents: AgentId) -> DrfAllocator:
    allocator = DrfAllocator()
    allocator.add_framework(F1, (ENG, OPS), (OPS,))
    for agent in agents or (A1,):
        allocator.add_agent(agent, WHOLE, Attributes(), {})
    return allocator


def run(allocator: DrfAllocator, now_us: int = 0) -> list[Allocation]:
    made = allocator.allocate(now_us, random.Random(1))
    allocator.check()
    return made


def decline(allocator: DrfAllocator, offer: Allocation, until_us: int) -> None:
    allocator.recover(offer.framework_id, offer.agent_id, offer.role, offer.resources, until_us)


def declined(*agents: AgentId) -> DrfAllocator:
    """F1 declined everything in the role `eng` until 5 s."""
    allocator = cluster(*agents)
    for offer in run(allocator):
        decline(allocator, offer, 5 * SECOND_US)
    assert run(allocator) == []
    return allocator


def test_what_was_declined_is_not_offered_again_until_the_filter_runs_out() -> None:
    allocator = declined()

    assert run(allocator, 5 * SECOND_US - 1) == []
    assert allocator.allocate_all(5 * SECOND_US - 1, random.Random(1)) == []
    assert allocator.next_expiry_us() == 5 * SECOND_US
    assert [Allocation(F1, A1, ENG, WHOLE)] == run(allocator, 5 * SECOND_US)
    assert allocator.next_expiry_us() is None


def test_others_are_offered_what_one_declined() -> None:
    allocator = declined()
    allocator.add_framework(F2, (ENG,), ())

    assert [Allocation(F2, A1, ENG, WHOLE)] == run(allocator)


def test_the_filter_is_of_one_role() -> None:
    allocator = declined()
    allocator.update_framework(F1, (ENG, OPS), ())

    assert [Allocation(F1, A1, OPS, WHOLE)] == run(allocator)


def test_the_filter_is_of_one_agent() -> None:
    allocator = declined()
    allocator.add_agent(A2, WHOLE, Attributes(), {})

    assert [Allocation(F1, A2, ENG, WHOLE)] == run(allocator)


def test_more_than_what_was_declined_is_offered() -> None:
    allocator = cluster()
    run(allocator)
    allocator.recover(F1, A1, ENG, Resources.parse("cpus:3;mem:64"), 5 * SECOND_US)
    assert run(allocator) == []

    allocator.recover(F1, A1, ENG, Resources.parse("ports:[1-2]"))
    assert [Allocation(F1, A1, ENG, Resources.parse("cpus:3;mem:64;ports:[1-2]"))] == run(allocator)


def test_less_than_what_was_declined_is_not() -> None:
    allocator = declined()
    allocator.add_used(A1, F2, OPS, Resources.parse("cpus:1;ports:[3-4]"))

    assert run(allocator) == []
    assert [(r.agent_id, r.reason) for r in allocator.explain(F1, 0) if r.role == ENG] == [("a1", "filtered")]
    assert "asked again in 4.0 s" in allocator.explain(F1, SECOND_US)[0].text


@pytest.mark.parametrize("deed", ["revive", "update_agent", "deactivate", "rejoin", "replace"])
def test_what_drops_filters(deed: str) -> None:
    allocator = declined()
    if deed == "revive":
        allocator.revive(F1, (ENG,))
    elif deed == "update_agent":
        allocator.update_agent(A1, WHOLE, Attributes())
    elif deed == "deactivate":
        allocator.set_framework_active(F1, False)
        allocator.set_framework_active(F1, True)
    elif deed == "rejoin":
        allocator.update_framework(F1, (OPS,), (OPS,))
        allocator.update_framework(F1, (ENG, OPS), (OPS,))
    elif deed == "replace":
        allocator.add_agent(A1, WHOLE, Attributes(), {})

    assert [Allocation(F1, A1, ENG, WHOLE)] == run(allocator)
    assert allocator.next_expiry_us() is None


def test_reviving_another_role_drops_nothing() -> None:
    allocator = declined()
    allocator.suppress(F1, (OPS,))
    allocator.revive(F1, (Role("unknown"),))

    assert run(allocator) == []


def test_the_longer_of_two_filters_for_the_same_counts() -> None:
    allocator = declined()
    run(allocator)
    allocator.revive(F1, (OPS,))
    (offer,) = run(allocator)
    decline(allocator, offer, 9 * SECOND_US)
    allocator.suppress(F1, (OPS,))

    assert [Allocation(F1, A1, ENG, WHOLE)] == run(allocator, 5 * SECOND_US)


def test_many_who_declined_everything_are_taken_out_of_a_big_run() -> None:
    agents = [AgentId(f"a{number}") for number in range(20)]
    allocator = declined(*agents)
    assert allocator.allocate_all(0, random.Random(1)) == []
    assert allocator.allocate_all(0, random.Random(1)) == []
    allocator.check()

    allocator.add_framework(F2, (ENG,), ())
    assert {F2} == {offer.framework_id for offer in run(allocator)}


@pytest.mark.parametrize("deed", ["wait", "revive", "give back"])
def test_those_taken_out_come_back_when_there_is_something_for_them(deed: str) -> None:
    """Three runs: that all of it is declined is found out, remembered, and forgotten again."""
    agents = [AgentId(f"a{number}") for number in range(20)]
    allocator = cluster(*agents)
    allocator.add_used(agents[3], F2, OPS, Resources.parse("cpus:1"))
    for offer in run(allocator):
        decline(allocator, offer, (5 if offer.agent_id in agents[3:12] else 9) * SECOND_US)
    for _ in range(2):
        assert allocator.allocate_all(0, random.Random(1)) == []

    if deed == "wait":
        made = run(allocator, 5 * SECOND_US)
    elif deed == "revive":
        allocator.revive(F1, (ENG,))
        made = run(allocator)
    else:
        allocator.recover(F2, agents[3], OPS, Resources.parse("cpus:1"))
        made = allocator.allocate_all(0, random.Random(1))

    expected = {"wait": agents[3:12], "revive": agents, "give back": [agents[3]]}[deed]
    assert set(expected) == {offer.agent_id for offer in made}


def test_a_half_of_the_agents_declined_is_no_reason_to_keep_back_the_other() -> None:
    agents = [AgentId(f"a{number}") for number in range(20)]
    allocator = declined(*agents)
    for agent in agents[:10]:
        allocator.update_agent(agent, WHOLE, Attributes())

    assert {*agents[:10]} == {offer.agent_id for offer in allocator.allocate_all(0, random.Random(1))}


def client(name: FrameworkId = F1, role: Role = ENG) -> Client:
    kinds = Kinds()
    return Client(name, role, Group("", None, kinds.zero), kinds.zero)


def test_the_oldest_filter_of_a_framework_goes_when_there_are_too_many() -> None:
    book = FilterBook(max_per_framework=3)
    one, other = client(), client(role=OPS)
    for number in range(3):
        book.add(one, AgentId(f"a{number}"), WHOLE, 100 - number)
    book.add(client(F2), A1, WHOLE, 1)
    book.add(other, A1, WHOLE, 100)

    assert list(one.filters) == ["a1", "a2"]
    assert len(book) == 4
    assert book.next_expiry_us() == 1


def test_too_many_filters_on_one_agent_push_out_the_oldest() -> None:
    book, one = FilterBook(), client()
    for number in range(MAX_FILTERS_PER_AGENT + 2):
        book.add(one, A1, Resources.parse(f"cpus:1;ports:[{number}-{number}]"), 100)

    assert MAX_FILTERS_PER_AGENT == len(one.filters[A1]) == len(book)
    book.check([one])


def test_a_filter_that_says_less_than_a_new_one_goes() -> None:
    book, one = FilterBook(), client()
    book.add(one, A1, Resources.parse("cpus:1"), 50)
    book.add(one, A1, Resources.parse("cpus:9"), 40)
    book.add(one, A1, WHOLE, 60)

    assert [50, 40, 60][1:] == [f.until_us for f in one.filters[A1]]
    book.check([one])


names = st.sampled_from([F1, F2])
agents = st.sampled_from([AgentId(f"a{number}") for number in range(6)])


@pytest.mark.slow
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), names, agents, st.integers(1, 50)),
            st.tuples(st.just("expire"), names, agents, st.integers(1, 50)),
            st.tuples(st.just("drop_agent"), names, agents, st.just(0)),
            st.tuples(st.just("drop_client"), names, agents, st.just(0)),
        ),
        max_size=80,
    )
)
def test_the_book_agrees_with_a_list(deeds: list[tuple[str, FrameworkId, AgentId, int]]) -> None:
    book, clients = FilterBook(max_per_framework=5), {name: client(name) for name in (F1, F2)}
    model: list[tuple[FrameworkId, AgentId, int]] = []
    for deed, name, agent, time_us in deeds:
        if deed == "add":
            dominated = [f for f in model if f[:2] == (name, agent) and f[2] <= time_us]
            model = [f for f in model if f not in dominated]
            here = [f for f in model if f[:2] == (name, agent)]
            if len(here) >= MAX_FILTERS_PER_AGENT:
                model.remove(here[0])
            mine = [f for f in model if f[0] == name]
            if len(mine) >= 5:
                model.remove(mine[0])
            model.append((name, agent, time_us))
            book.add(clients[name], agent, WHOLE, time_us)
        elif deed == "expire":
            gone = [f for f in model if f[2] <= time_us]
            model = [f for f in model if f not in gone]
            assert sorted(a for _, a, _ in gone) == sorted(book.expire(time_us))
        elif deed == "drop_agent":
            model = [f for f in model if f[1] != agent]
            book.drop_agent(clients.values(), agent)
        else:
            model = [f for f in model if f[0] != name]
            book.drop_client(clients[name])
        book.check(clients.values())

        found = [(n, a, f.until_us) for n, c in clients.items() for a, fs in c.filters.items() for f in fs]
        assert sorted(model) == sorted(found)
        assert min((f[2] for f in model), default=None) == book.next_expiry_us()


def test_a_filter_is_looked_at_once_for_each_version_of_an_agent() -> None:
    pool = AgentPool(A1, WHOLE, Attributes(), Kinds())
    book, one = FilterBook(), client()
    book.add(one, A1, WHOLE, 100)
    (made,) = one.filters[A1]

    assert made.blocks(pool.free, pool.version)
    assert made.seen == pool.version
    assert not made.blocks(WHOLE + Resources.parse("cpus:1"), pool.version + 1)
