"""What a phase packs at its door computes the same, and comes out as it went in."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import OBS_SIZE, on_one_device, random_batch, tiny_agent

AGENTS: list[dict[str, Any]] = [
    {"encoder__merge": "add", "sac__critic_layer_norm": True, "elbo__state_size": 2},
    {"encoder__merge": "linear", "sac__temperature": "conditioned"},
    {"encoder__kind": "individual_y", "elbo__prior": "learnt"},
    {"encoder__kind": "trajectory", "sac__temperature": "fixed"},
]
SIZE = 16
every_agent = pytest.mark.parametrize(
    "changes", AGENTS, ids=lambda changes: "-".join(map(str, changes.values()))
)


def shaken(learner: Any) -> Any:
    """The learner with all its numbers changed, so that none hides behind a zero."""
    rng = np.random.default_rng(0)

    def shake(leaf: Any) -> Any:
        if leaf.dtype != jnp.float32:
            return leaf
        return leaf + np.abs(rng.normal(size=leaf.shape)).astype(np.float32) / 10

    return jax.tree.map(shake, learner).replace(normalizer=learner.normalizer)


@every_agent
def test_unpacking_undoes_packing(changes):
    agent, learner = tiny_agent(encoder__num_classes=2, **changes)
    learner = shaken(learner)
    again = jax.jit(lambda learner: agent.unpack(agent.pack(learner)))(learner)
    assert jax.tree.structure(again) == jax.tree.structure(learner)
    jax.tree.map(np.testing.assert_array_equal, again, learner)


@every_agent
def test_a_packed_update_is_the_update(changes):
    agent, learner = tiny_agent(encoder__num_classes=2, **changes)
    learner = shaken(learner)
    batch = random_batch(agent, learner, 0, SIZE)

    def update(pack: bool, learner: Any, batch: Any) -> Any:
        learner = agent.pack(learner) if pack else learner
        learner, metrics = agent.update(learner, batch, jax.random.key(0))
        return agent.unpack(learner) if pack else learner, metrics

    plain, packed = (
        on_one_device(functools.partial(update, pack))(learner, batch)
        for pack in (False, True)
    )
    close = functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-5)
    jax.tree.map(close, packed, plain)


def test_outputs_that_a_pair_of_networks_adds_stay_zero():
    """The reward's network is as wide as the state's; nobody trains the rest."""
    agent, learner = tiny_agent(elbo__state_size=OBS_SIZE)
    batch = random_batch(agent, learner, 0, SIZE)

    def update(learner: Any, batch: Any) -> Any:
        return agent.update(agent.pack(learner), batch, jax.random.key(0))[0]

    packed = on_one_device(update)(learner, batch)
    last = packed.world_model.params.tree["decoder"].layers[-1]
    np.testing.assert_array_equal(last.kernel[1, :, 1:], 0)
    np.testing.assert_array_equal(last.bias[1, 1:], 0)
    assert np.all(np.asarray(last.bias[1, :1]) != 0)
