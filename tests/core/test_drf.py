"""The tree of roles: order, virtual leaves, exact shares."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesos_actor.actors.core.drf import RoleTree
from mesos_actor.actors.core.nodes import Client
from mesos_actor.actors.core.vectors import MAX_SCALAR_KINDS, Kinds, Vector
from mesos_actor.actors.ids import FrameworkId, Role
from mesos_actor.actors.resources import Resources


def tree_of(*names: tuple[str, str], totals: Vector = (900, 700, 0)) -> tuple[RoleTree, list[Client]]:
    """A tree with these (role, framework), all competing."""
    tree = RoleTree(Kinds())
    tree.refresh(totals)
    clients = [tree.add_client(FrameworkId(name), Role(role)) for role, name in names]
    for client in clients:
        tree.enter(client)
    return tree, clients


def order(tree: RoleTree) -> list[str]:
    return [f"{client.role}:{client.name}" for client in tree.walk()]


def test_equal_shares_of_different_kinds_are_equal() -> None:
    tree, (f1, f2) = tree_of(("a", "f1"), ("a", "f2"))
    tree.charge(f1, (300, 0, 0))
    tree.charge(f2, (0, 233, 0))
    assert order(tree) == ["a:f2", "a:f1"]

    tree.refresh((900, 699, 0))
    assert order(tree) == ["a:f1", "a:f2"]


def test_a_weight_is_divided_by_exactly() -> None:
    tree, (f1, f2) = tree_of(("a", "f1"), ("b", "f2"), totals=(10**15, 1, 1))
    tree.set_weight("a", 3_000_000)
    tree.set_weight("b", 2_999_999)
    tree.charge(f1, (3_000_000, 0, 0))
    tree.charge(f2, (2_999_999, 0, 0))
    assert order(tree) == ["a:f1", "b:f2"]

    tree.charge(f1, (1, 0, 0))
    assert order(tree) == ["b:f2", "a:f1"]


def test_a_weight_set_before_its_role_exists_counts() -> None:
    tree = RoleTree(Kinds())
    tree.set_weight("a/b", 5_000)
    tree.add_client(FrameworkId("f"), Role("a/b"))

    assert [tree.roles["a"].weight_milli, tree.roles["a/b"].weight_milli] == [1_000, 5_000]


def test_a_role_gets_and_loses_its_virtual_leaf() -> None:
    tree, (f1, f2) = tree_of(("a", "f1"), ("a", "f2"))
    tree.charge(f1, (9, 0, 0), 1)
    child = tree.add_client(FrameworkId("f3"), Role("a/b"))
    tree.enter(child)
    assert order(tree) == ["a/b:f3", "a:f2", "a:f1"]
    assert (tree.roles["a"].own.amounts, tree.roles["a"].own.picks) == ((9, 0, 0), 1)

    tree.charge(child, (10, 0, 0))
    assert order(tree) == ["a:f2", "a:f1", "a/b:f3"]
    assert tree.roles["a"].amounts == (19, 0, 0)

    tree.discharge(child, (10, 0, 0))
    tree.remove_client(child)
    assert order(tree) == ["a:f2", "a:f1"]
    assert tree.roles["a"].own is tree.roles["a"]
    assert f2.parent is tree.roles["a"]


def test_roles_go_with_the_last_below_them() -> None:
    tree, (client,) = tree_of(("a/b/c", "f1"))
    assert sorted(tree.roles) == ["a", "a/b", "a/b/c"]

    tree.remove_client(client)
    assert tree.roles == {}
    assert tree.first() is None


def test_who_does_not_compete_is_not_met() -> None:
    tree, (f1, f2, f3) = tree_of(("a", "f1"), ("a/b", "f2"), ("c", "f3"))
    tree.leave(f1)
    tree.leave(f1)
    assert order(tree) == ["a/b:f2", "c:f3"]

    tree.leave(f2)
    tree.charge(f2, (1, 1, 1))
    assert f3 is tree.first()

    tree.enter(f2)
    tree.enter(f2)
    assert order(tree) == ["c:f3", "a/b:f2"]


def test_walking_some_roles_keeps_the_order_of_all() -> None:
    tree, clients = tree_of(("a/x", "f1"), ("a/y", "f2"), ("b", "f3"), ("c/x", "f4"), ("c", "f5"))
    for client, amount in zip(clients, (5, 3, 9, 1, 2), strict=True):
        tree.charge(client, (amount, 0, 0))

    assert order(tree) == ["c/x:f4", "c:f5", "a/y:f2", "a/x:f1", "b:f3"]
    found = tree.walk_roles(["b", "a/x", "c/x", "c", "unknown"])
    assert [f"{client.role}:{client.name}" for client in found] == ["c/x:f4", "c:f5", "a/x:f1", "b:f3"]


def test_twice_in_a_role_is_our_bug() -> None:
    tree, _ = tree_of(("a", "f1"))

    with pytest.raises(AssertionError, match="twice"):
        tree.add_client(FrameworkId("f1"), Role("a"))


def test_going_while_holding_something_is_our_bug() -> None:
    tree, (client,) = tree_of(("a", "f1"))
    tree.charge(client, (1, 0, 0))

    with pytest.raises(AssertionError, match="still holds"):
        tree.remove_client(client)


def test_kinds_beyond_the_bound_count_for_nothing() -> None:
    kinds = Kinds()
    many = Resources.parse(";".join(f"kind{number:03d}:1" for number in range(MAX_SCALAR_KINDS)))

    assert kinds.learn(many)
    assert not kinds.learn(many)
    assert MAX_SCALAR_KINDS == len(kinds.zero) == len(kinds.vector(many))
    assert sum(kinds.vector(many)) == (MAX_SCALAR_KINDS - 3) * 1_000


@given(
    st.lists(st.integers(1, 10**15), min_size=1, max_size=5),
    st.data(),
)
def test_the_written_out_sums_agree_with_the_general_ones(totals: list[int], data: st.DataObject) -> None:
    """Three kinds take a path of their own."""
    kinds = Kinds()
    kinds.learn(Resources.parse(";".join(f"kind{number}:1" for number in range(len(totals) - 3)) or "cpus:1"))
    wide = (tuple(totals) + kinds.zero)[: len(kinds.zero)]
    amounts = data.draw(st.lists(st.tuples(*(st.integers(0, amount) for amount in wide)), min_size=2, max_size=2))
    tree, two = RoleTree(kinds), []
    tree.refresh(wide)
    for name, vector in zip("xy", amounts, strict=True):
        two.append(tree.add_client(FrameworkId(name), Role(name)))
        tree.enter(two[-1])
        tree.charge(two[-1], vector)

    assert amounts == [client.amounts for client in two]
    for client in two:
        assert client.entry == tree.entry_of(client)
        assert client.parent is not None and client.parent.entry == tree.entry_of(client.parent)
