"""Any message, from anybody, to any mailbox: nobody fails, the tables agree, and the cluster still does its work."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.scene import STRANGERS, plausible, scene

PER_SCENE = 25
"""Messages put into one cluster before it is judged."""

fuzzing = settings(
    max_examples=settings().max_examples // 3,
    phases=[phase for phase in Phase if phase is not Phase.explain],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


@pytest.mark.slow
@fuzzing
@given(data=st.data(), seed=st.integers(0, 3))
def test_messages_of_strangers_without_the_clusters_key_harm_nobody(data: st.DataObject, seed: int) -> None:
    it = scene(seed)
    outsiders = [it.strangers[who] for who in STRANGERS if who not in ("cluster", "anonymous", "framework0")]
    for _ in range(data.draw(st.integers(1, PER_SCENE))):
        sender = data.draw(st.sampled_from(outsiders))
        it.put(sender, data.draw(NAMES), data.draw(st.sampled_from(it.mailboxes)), data.draw(plausible(it.known)))
        it.sim.run(data.draw(PAUSES))

    it.judge(everybody_lives=True)


@pytest.mark.slow
@fuzzing
@given(data=st.data(), seed=st.integers(0, 3))
def test_messages_of_anybody_make_nobody_fail(data: st.DataObject, seed: int) -> None:
    """Members of the cluster gone mad and holders of its key may do damage, as an agent that tells lies about its tasks
    does, but no actor raises because of them."""
    it = scene(seed, invariants=False)
    for _ in range(data.draw(st.integers(1, PER_SCENE))):
        host, actor = data.draw(st.sampled_from(it.senders()))
        it.put(host, actor, data.draw(st.sampled_from(it.mailboxes)), data.draw(plausible(it.known)))
        it.sim.run(data.draw(PAUSES))

    it.judge(everybody_lives=False)


NAMES = st.sampled_from(["stranger", "master", "agent", "framework", "registry", "containerizer", "", "a/b", "\x00"])
PAUSES = st.sampled_from([0.0, 0.0, 0.002, 0.5, 6.0])
