"""What the registry's commands change; and, as a law, that repeating one changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesos_actor.actors.core import registry
from mesos_actor.actors.core.registry import Applied, NotApplied, RegistryState, apply, key_of
from mesos_actor.actors.ids import Address, AgentId, ClusterId, FrameworkId, OperationId, Role
from mesos_actor.actors.messages.registry import (
    AdmitAgent,
    AdmitFramework,
    AgentRecord,
    ClusterRecord,
    CollectRecords,
    FoundCluster,
    MarkGone,
    MarkUnreachable,
    MemberRecord,
    RemoveAgent,
    RemoveFramework,
    ReplaceMember,
    SetWeight,
    UpdateAgent,
    UpdateFramework,
    WeightRecord,
)
from mesos_actor.actors.messages.values import AgentInfo, FrameworkInfo
from mesos_actor.actors.resources import Resources

INFO, OTHER = (AgentInfo(name, Address(f"tcp://{name}:1/agent"), Resources.parse("cpus:1")) for name in ("a", "b"))
FRAMEWORK, CHANGED = FrameworkInfo("f"), FrameworkInfo("g")
FOUND = FoundCluster(ClusterId("c"), (("h1:5050", "a"), ("h2:5050", "b")), "key", 5)
S0, S1, F0 = AgentId("c-S0"), AgentId("c-S1"), FrameworkId("c-0000")


def state(**limits: int) -> RegistryState:
    new = RegistryState(**limits)
    apply(new, FOUND)
    return new


def done(outcome: Applied | NotApplied) -> Any:
    """The first record of what was applied."""
    assert isinstance(outcome, Applied)
    return outcome.records[0]


def denied(outcome: Applied | NotApplied) -> tuple[str, str]:
    assert isinstance(outcome, NotApplied)
    return outcome.reason, outcome.text


def test_nothing_is_applied_before_the_cluster_is_founded() -> None:
    new = RegistryState()

    assert denied(apply(new, SetWeight(Role("a"), 1))) == ("not-founded", "The cluster has not been founded yet")
    assert new.records() == ()


def test_the_founding_names_the_cluster_its_key_and_its_disks_and_is_harmless_twice() -> None:
    new = state()
    before = new.records()

    again = apply(new, FoundCluster(ClusterId("other"), (("h1:5050", "a"), ("h2:5050", "b")), "key", 5))

    assert (ClusterRecord(ClusterId("c"), key_fingerprint="key"), MemberRecord("h1:5050", "a", 5)) == before[:2]
    assert before == new.records()
    assert isinstance(again, Applied) and again.removed == ()


def test_a_restored_registry_is_founded_with_other_disks_under_its_own_name() -> None:
    new = state()
    done(apply(new, AdmitAgent(INFO, "r", 1)))

    again = apply(new, FoundCluster(ClusterId("other"), (("h1:5050", "z"),), "key2", 9))

    assert isinstance(again, Applied)
    assert again.removed == ("member/h2:5050",)
    assert new.cluster == ClusterRecord(ClusterId("c"), next_agent=1, key_fingerprint="key2")
    assert {"h1:5050": MemberRecord("h1:5050", "z", 9)} == new.members
    assert list(new.agents) == [S0]


def test_a_member_gets_another_disk() -> None:
    new = state()

    assert MemberRecord("h2:5050", "fresh", 7) == done(apply(new, ReplaceMember("h2:5050", "fresh", 7)))
    assert MemberRecord("h2:5050", "fresh", 7) == done(apply(new, ReplaceMember("h2:5050", "fresh", 8)))
    assert denied(apply(new, ReplaceMember("h9:5050", "x", 7))) == (
        "unknown-member",
        "h9:5050 is not a master of this cluster",
    )


def test_ids_are_never_given_twice() -> None:
    s = state()

    assert done(apply(s, AdmitAgent(INFO, "r0", 1))).agent_id == S0
    apply(s, RemoveAgent(S0))
    assert done(apply(s, AdmitAgent(INFO, "r0", 2))).agent_id == S1
    assert done(apply(s, AdmitFramework(FRAMEWORK, OperationId(""), 1))).framework_id == F0
    assert done(apply(s, AdmitFramework(FRAMEWORK, OperationId(""), 1))).framework_id == "c-0001"


def test_a_registration_admits_once_and_brings_its_info_up_to_date() -> None:
    s = state()
    apply(s, AdmitAgent(INFO, "r", 1))
    apply(s, MarkUnreachable(S0, 2))

    assert AgentRecord(S0, OTHER, "r", "admitted", 3) == done(apply(s, AdmitAgent(OTHER, "r", 3)))


def test_an_agent_goes_away_and_comes_back() -> None:
    s = state()
    apply(s, AdmitAgent(INFO, "r", 1))

    assert AgentRecord(S0, INFO, "r", "unreachable", 2) == done(apply(s, MarkUnreachable(S0, 2)))
    assert AgentRecord(S0, OTHER, "r", "admitted", 3) == done(apply(s, UpdateAgent(S0, OTHER, 3)))
    assert done(apply(s, UpdateAgent(S0, INFO, 9))).since_us == 3


def test_gone_is_for_ever() -> None:
    s = state()
    apply(s, AdmitAgent(INFO, "r", 1))
    assert AgentRecord(S0, INFO, "r", "gone", 2) == done(apply(s, MarkGone(S0, 2)))

    gone = ("gone", "Agent has been marked gone")
    for command in (AdmitAgent(INFO, "r", 3), UpdateAgent(S0, INFO, 3), MarkUnreachable(S0, 3), RemoveAgent(S0)):
        assert gone == denied(apply(s, command))
    apply(s, CollectRecords(10**18))
    assert list(s.agents) == [S0]


@pytest.mark.parametrize("command", [UpdateAgent(S0, INFO, 1), MarkUnreachable(S0, 1), MarkGone(S0, 1)])
def test_unknown_agents(command: Any) -> None:
    assert denied(apply(state(), command)) == ("unknown-agent", "Agent c-S0 is not known")


def test_removing_an_unknown_agent_is_a_repeat() -> None:
    assert Applied((), ("agent/c-S0",)) == apply(state(), RemoveAgent(S0))


def test_an_operation_admits_one_framework() -> None:
    s = state()
    first = apply(s, AdmitFramework(FRAMEWORK, OperationId("o"), 1))

    assert done(first) == done(apply(s, AdmitFramework(CHANGED, OperationId("o"), 2)))
    apply(s, RemoveFramework(F0, 3, "finished"))
    assert denied(apply(s, AdmitFramework(FRAMEWORK, OperationId("o"), 4)))[0] == "removed"


def test_a_frameworks_deadline_and_end() -> None:
    s = state()
    apply(s, AdmitFramework(FRAMEWORK, OperationId(""), 1))

    assert (lambda r: (r.info, r.deadline_us))(done(apply(s, UpdateFramework(F0, CHANGED, 7)))) == (CHANGED, 7)
    ended = done(apply(s, RemoveFramework(F0, 8, "failed: é" + "x" * 2_000)))
    assert (ended.removed, ended.deadline_us, ended.since_us, len(ended.outcome.encode())) == (True, 0, 8, 1_024)
    assert ended == done(apply(s, RemoveFramework(F0, 9)))
    assert denied(apply(s, UpdateFramework(F0, FRAMEWORK)))[0] == "removed"


@pytest.mark.parametrize("command", [UpdateFramework(F0, FRAMEWORK), RemoveFramework(F0, 1)])
def test_unknown_frameworks(command: Any) -> None:
    assert denied(apply(state(), command)) == ("unknown-framework", "Framework c-0000 is not known")


@pytest.mark.parametrize(
    ("role", "weight", "text"),
    [
        ("a/", 1, "Role 'a/' cannot start or end with a slash"),
        ("a", 0, "weight_milli 0 must be from 1 to 1000000000 thousandths"),
        ("a", 10**10, "weight_milli 10000000000 must be from 1 to 1000000000 thousandths"),
    ],
)
def test_bad_weights(role: str, weight: int, text: str) -> None:
    assert ("invalid", text) == denied(apply(state(), SetWeight(Role(role), weight)))


def test_a_full_registry_forgets_the_longest_unreachable_or_refuses() -> None:
    s = state(max_agents=2)
    apply(s, AdmitAgent(INFO, "r0", 1))
    apply(s, AdmitAgent(INFO, "r1", 1))
    assert denied(apply(s, AdmitAgent(INFO, "r2", 2)))[0] == "full"
    apply(s, MarkUnreachable(S1, 3))
    apply(s, MarkUnreachable(S0, 4))

    outcome = apply(s, AdmitAgent(INFO, "r2", 5))

    assert isinstance(outcome, Applied)
    assert outcome.removed == ("agent/c-S1",)
    assert denied(apply(s, UpdateAgent(S1, INFO, 6)))[0] == "unknown-agent"


def test_a_full_registry_refuses_frameworks_and_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MAX_WEIGHTS", 1)
    s = state(max_frameworks=1)
    apply(s, AdmitFramework(FRAMEWORK, OperationId(""), 1))
    apply(s, SetWeight(Role("a"), 1))

    assert denied(apply(s, AdmitFramework(FRAMEWORK, OperationId(""), 1)))[0] == "full"
    assert denied(apply(s, SetWeight(Role("b"), 1)))[0] == "full"
    assert WeightRecord(Role("a"), 2) == done(apply(s, SetWeight(Role("a"), 2)))
    apply(s, RemoveFramework(F0, 2))
    done(apply(s, AdmitFramework(FRAMEWORK, OperationId(""), 1)))


def test_only_so_many_removed_frameworks_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MAX_REMOVED_FRAMEWORKS", 1)
    s = state()
    for n in range(2):
        apply(s, AdmitFramework(FRAMEWORK, OperationId(f"o{n}"), 1))
    apply(s, RemoveFramework(F0, 2))

    outcome = apply(s, RemoveFramework(FrameworkId("c-0001"), 3))

    assert isinstance(outcome, Applied)
    assert outcome.removed == ("framework/c-0000",)


def test_collecting_forgets_what_is_old_and_out() -> None:
    s = state()
    for n in range(3):
        apply(s, AdmitAgent(INFO, f"r{n}", 1))
        apply(s, AdmitFramework(FRAMEWORK, OperationId(f"o{n}"), 1))
    apply(s, MarkUnreachable(S0, 5))
    apply(s, MarkUnreachable(S1, 6))
    apply(s, RemoveFramework(F0, 5))

    assert Applied((), ("agent/c-S0", "framework/c-0000")) == apply(s, CollectRecords(6))
    assert (len(s.agents), len(s.frameworks)) == (2, 2)


AGENTS = st.sampled_from([AgentId(f"c-S{n}") for n in range(3)])
FRAMEWORKS = st.sampled_from([FrameworkId(f"c-000{n}") for n in range(3)])
TIMES = st.integers(0, 9)
COMMANDS = st.one_of(
    st.builds(AdmitAgent, st.sampled_from([INFO, OTHER]), st.sampled_from("rst"), TIMES),
    st.builds(UpdateAgent, AGENTS, st.sampled_from([INFO, OTHER]), TIMES),
    st.builds(MarkUnreachable, AGENTS, TIMES),
    st.builds(MarkGone, AGENTS, TIMES),
    st.builds(RemoveAgent, AGENTS),
    st.builds(AdmitFramework, st.just(FRAMEWORK), st.sampled_from([OperationId(o) for o in ("o", "p")]), TIMES),
    st.builds(UpdateFramework, FRAMEWORKS, st.sampled_from([FRAMEWORK, CHANGED]), TIMES),
    st.builds(RemoveFramework, FRAMEWORKS, TIMES),
    st.builds(SetWeight, st.sampled_from([Role("a"), Role("/")]), st.integers(-1, 2)),
    st.builds(CollectRecords, TIMES),
    st.builds(ReplaceMember, st.sampled_from(["h1:5050", "h3:5050"]), st.sampled_from("ab"), TIMES),
)


@settings(max_examples=25)
@given(st.lists(COMMANDS, max_size=15), st.lists(COMMANDS, max_size=15))
def test_a_replica_that_begins_with_anothers_records_goes_on_as_that_one_does(
    before: list[Any], after: list[Any]
) -> None:
    first = RegistryState(max_agents=2, max_frameworks=2)
    for command in (FOUND, *before):
        apply(first, command)
    second = RegistryState.load({key_of(record): record for record in first.records()}, 2, 2)

    for command in after:
        assert apply(first, command) == apply(second, command)

    assert first.records() == second.records()


@settings(max_examples=25)
@given(st.lists(COMMANDS, max_size=30))
def test_what_is_kept_is_the_state_and_a_repeat_changes_nothing(commands: list[Any]) -> None:
    s = RegistryState(max_agents=2, max_frameworks=2)
    kept: dict[str, Any] = {key_of(record): record for record in apply(s, FOUND).records}  # type: ignore[union-attr]
    for command in commands:
        for _ in range(2):
            before = s.records()
            outcome = apply(s, command)
            if isinstance(outcome, NotApplied):
                assert before == s.records()
            else:
                kept.update({key_of(record): record for record in outcome.records})
                for key in outcome.removed:
                    kept.pop(key, None)
            assert sorted(map(repr, kept.values())) == sorted(map(repr, s.records()))
        after = s.records()
        apply(s, command)
        assert after == s.records()
    again = RegistryState.load(kept, 2, 2)
    assert (s.records(), s.live_frameworks, s.by_registration, s.by_operation) == (
        again.records(),
        again.live_frameworks,
        again.by_registration,
        again.by_operation,
    )


def test_a_full_state_admits_nothing_new_and_forgets_all_the_same() -> None:
    """A snapshot must hold it: past its bound every master would end."""
    new = state()
    new.max_bytes = 4_000
    admitted = 0
    while isinstance(apply(new, AdmitAgent(INFO, f"r{admitted}", 1)), Applied):
        admitted += 1
    assert 5 < admitted < 200
    before = new.size_bytes
    assert before >= 4_000
    for command in (AdmitFramework(FRAMEWORK, OperationId("o"), 1), SetWeight(Role("r"), 5), UpdateAgent(S0, OTHER, 1)):
        reason, text = denied(apply(new, command))
        assert (reason, text.split(";")[0]) == ("full", f"The registry holds {before} bytes, the most that it may")
    for number in range(admitted):
        done_or_gone = apply(new, RemoveAgent(AgentId(f"c-S{number}")))
        assert isinstance(done_or_gone, Applied)
    assert RegistryState.load({key_of(one): one for one in new.records()}).size_bytes == new.size_bytes < before
    assert isinstance(apply(new, SetWeight(Role("r"), 5)), Applied)
    kept = {key_of(one): one for one in new.records()}
    assert RegistryState.load(kept, size_bytes=new.size_bytes).size_bytes == new.size_bytes
