"""Builds our agent for a recorded case and puts the original's weights into it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cemrl_jax.agents.cemrl.build import make_agent
from cemrl_jax.agents.cemrl.types import Batch
from cemrl_jax.config import Config, ElboConfig, EncoderConfig, SACConfig
from cemrl_jax.data import normalizer
from cemrl_jax.data.types import Transition
from cemrl_jax.envs.base import Task
from cemrl_jax.original.weights import (
    export_params,
    import_params,
    names,
    with_statistics,
)
from cemrl_jax.runtime.parallel import DEVICES

KINDS = {
    "trajectory": "trajectory",
    "transitionSharedY": "shared_y",
    "transitionIndividualY": "individual_y",
}
FIELDS = {
    "obs": "observations",
    "action": "actions",
    "reward": "rewards",
    "next_obs": "next_observations",
}


def make(meta, weights):
    """Returns the agent that a case describes."""
    get = meta.get
    log_alpha = get("log_alpha_init") or 0.0
    num_layers = sum(name.startswith("policy/fc") for name in weights) // 2
    config = Config(
        encoder=EncoderConfig(
            kind=KINDS[get("encoding_mode", "transitionSharedY")],
            merge=get("merge_mode") or "add",
            window_steps=get("time_steps", 1),
            num_classes=get("num_classes", 1),
            latent_size=meta["latent_dim"],
            width_factor=get("net_complex", 1.0),
        ),
        elbo=ElboConfig(
            learning_rate=get("lr", 3e-4),
            decoder_width_factor=get("net_complex_decoder", 1.0),
            state_size=get("state_reconstruction_clip", 1),
            state_difference=get("use_state_diff", False),
            kl_z_weight=get("alpha_kl_z", 0.0),
            kl_y_weight=get("beta_kl_y", 0.0),
            prior="learnt" if get("prior_mode") == "network" else "fixed",
            prior_std=get("prior_sigma", 1.0),
            component_constraint=get("component_constraint_learning", False),
        ),
        sac=SACConfig(
            batch_size=get("batch_size", 1),
            learning_rate=get("lr", 3e-4),
            hidden_size=get("sac_layer_size", 1),
            num_layers=max(num_layers, 1),
            discount=get("discount", 0.99),
            reward_scale=get("reward_scale", 1.0),
            target_rate=get("tau", 0.005),
            temperature="conditioned" if get("use_parametrized_alpha") else "learnt",
            initial_temperature=float(np.exp(log_alpha)),
            target_entropy_factor=get("target_entropy_factor", 1.0),
        ),
    )
    return make_agent(config, meta["obs_dim"], meta["action_dim"])


SHAPES = {}
"""Networks of an agent -> shapes of its learner, which take long to find out."""


def blank_learner(agent):
    """Returns a learner of zeros, with fresh optimisers and statistics."""
    networks = ("encoder", "decoder", "class_prior", "actor", "critic", "temperature")
    sizes = ("obs_size", "action_size", "window_steps", "latent_size")
    key = tuple(getattr(agent, name) for name in networks + sizes)
    if key not in SHAPES:
        SHAPES[key] = jax.eval_shape(agent.init, jax.random.key(0))
    shapes = SHAPES[key]
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return zeros.replace(normalizer=normalizer.init(agent.obs_size, agent.action_size))


def with_weights(agent, learner, weights):
    """Returns the learner with all networks that the weights are complete for."""
    new = {
        network: import_params(agent, network, weights)
        for network, arrays in names(agent).items()
        if all(name in weights for parts in arrays.values() for name in parts)
    }
    model = {
        name: new.pop(name) for name in ("encoder", "decoder", "prior") if name in new
    }
    params = learner.world_model.params | model
    changes = {"world_model": learner.world_model.replace(params=params)}
    if "target_critic" in new:
        changes["target_critic"] = new.pop("target_critic")
    for name, value in new.items():
        changes[name] = getattr(learner, name).replace(params=value)
    return learner.replace(**changes)


@functools.cache
def of(case):
    """Returns the agent of a case and its learner with the case's weights."""
    from recordings import weights

    arrays = weights(case)
    agent = make(case.meta, arrays)
    learner = with_weights(agent, blank_learner(agent), arrays)
    if case.meta.get("log_alpha_init") is not None:
        log_alpha = {"log_alpha": np.array([case.meta["log_alpha_init"]])}
        learner = with_weights(agent, learner, log_alpha)
    return agent, learner


def normalized_by(case, learner):
    """Returns the learner with the statistics of a case."""
    return with_statistics(learner, case)


def on_one_device(function, *args):
    """Calls what averages over devices."""
    return jax.vmap(
        function, in_axes=None, out_axes=None, axis_size=1, axis_name=DEVICES
    )(*args)


def run(function, *args):
    """Compiles and calls a function."""
    return jax.jit(function)(*args)


def first_loss_weights(agent):
    return run(lambda key: agent.init(key).loss_weights, jax.random.key(0))


def exported(agent, trees):
    """Returns the arrays of several networks `{name: params}` by original names."""
    arrays = {}
    for network, tree in jax.device_get(trees).items():
        arrays |= export_params(agent, network, tree)
    return arrays


def last_gradients(before, after):
    """Returns the gradients that Adam was given in the step between two states."""
    old, new = (
        jax.device_get(optax.tree_utils.tree_get(state.opt_state, "mu"))
        for state in (before, after)
    )
    return jax.tree.map(lambda a, b: (b - 0.9 * a) / 0.1, old, new)


def transitions(group, base_task=None):
    """Returns recorded arrays `[..., .]` as transitions."""
    fields = {ours: jnp.asarray(group[name]) for ours, name in FIELDS.items()}
    reward = fields.pop("reward")[..., 0]
    many = jnp.full(reward.shape, 10**6)
    base = jnp.zeros(reward.shape, jnp.int32) if base_task is None else base_task
    return Transition(
        **fields,
        reward=reward,
        terminated=jnp.zeros(reward.shape),
        step=many,
        task=Task(
            kind=base,
            base=base,
            spec=jnp.zeros(base.shape),
            number=base,
            overrides={},
        ),
    )


def batch_of_windows(group, prefix=""):
    """Returns recorded normalised windows `[B, T + 1, .]` as a batch."""
    rows = transitions(group.at(prefix))
    newest = jax.tree.map(lambda leaf: leaf[:, -1], rows)
    window = normalizer.features(jax.tree.map(lambda leaf: leaf[:, :-1], rows))
    current = newest
    if "base_task" in group:
        label = jnp.asarray(group["base_task"], jnp.int32)
        current = newest.replace(task=newest.task.replace(base=label))
    return Batch(window=window, current=current, scaled=newest)


def per_class(case, array):
    """Returns ours `[B, S, K, ...]` as recorded: `[K, B, ...]` or `[K, B, T, ...]`."""
    if case.meta["encoding_mode"] != "transitionIndividualY":
        return np.moveaxis(np.asarray(array)[:, 0], 1, 0)
    return np.moveaxis(np.asarray(array), 2, 0)


def per_class_last(case, array):
    """Returns ours `[B, S, K]` as recorded: `[B, K]` or `[B, T, K]`."""
    individual = case.meta["encoding_mode"] == "transitionIndividualY"
    return np.asarray(array) if individual else np.asarray(array)[:, 0]
