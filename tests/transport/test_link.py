"""The link: whatever the wire does, an epoch is delivered in order, at most once, and never twice entered."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mesos_actor.transport.link import EpochMint, Incoming, Outgoing, Verdict


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 6)), max_size=40))
def test_whatever_arrives_epochs_rise_and_sequences_rise_within_them(wire: list[tuple[int, int]]) -> None:
    incoming = Incoming()
    delivered: list[tuple[int, int]] = []
    told: list[int] = []
    for epoch, sequence in wire:
        verdict = incoming.judge(epoch, sequence)
        if verdict is Verdict.NEW_EPOCH:
            told.append(epoch)
        if verdict is not Verdict.LATE:
            delivered.append((epoch, sequence))

    assert sorted(set(delivered)) == delivered
    assert sorted({epoch for epoch, _ in delivered}) == told


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_losing_doubling_and_reordering_lose_but_never_mix(lengths: list[int], data: st.DataObject) -> None:
    mint = EpochMint()
    sent: list[tuple[int, int]] = []
    for length in lengths:
        outgoing = Outgoing(mint.next(0))
        sent += [(outgoing.epoch, outgoing.stamp()) for _ in range(length)]
    copies = data.draw(st.lists(st.sampled_from(sent), max_size=2 * len(sent)))
    wire = data.draw(st.permutations(sent + copies))[: data.draw(st.integers(0, len(sent) + len(copies)))]

    incoming = Incoming()
    delivered = [frame for frame in wire if incoming.judge(*frame) is not Verdict.LATE]

    assert set(delivered) <= set(sent)
    assert sorted(set(delivered)) == delivered


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 9), max_size=6))
def test_a_faithful_wire_loses_nothing(lengths: list[int]) -> None:
    mint, incoming = EpochMint(), Incoming()
    for length in lengths:
        outgoing = Outgoing(mint.next(1_000))
        verdicts = [incoming.judge(outgoing.epoch, outgoing.stamp()) for _ in range(length)]

        assert [Verdict.NEW_EPOCH, *[Verdict.DELIVER] * (length - 1)] == verdicts


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 10**16), min_size=1, max_size=20))
def test_epochs_rise_even_when_the_clock_does_not(clock: list[int]) -> None:
    mint = EpochMint()
    epochs = [mint.next(now_us) for now_us in clock]

    assert sorted(set(epochs)) == epochs
    assert all(epoch >= now_us for epoch, now_us in zip(epochs, clock, strict=True))
