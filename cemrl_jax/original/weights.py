"""Weights of the original implementation: its names to our parameters, and back.

The original's arrays are called `network/layer/kernel`, `[in, out]`, and
`network/layer/bias`. Its networks are `encoder`, `decoder`, `prior_pz`, `policy`,
`qf1`, `qf2`, `target_qf1`, `target_qf2` and `alpha_net`; the layers of an MLP are
`fc0`, `fc1`, ... and `out`. `from_torch` makes these names from those of its files.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from cemrl_jax.agents.cemrl.agent import Agent
from cemrl_jax.agents.cemrl.encoders import SharedY
from cemrl_jax.agents.cemrl.networks import LearntPrior
from cemrl_jax.agents.cemrl.types import LearnerState
from cemrl_jax.config import ConfigError
from cemrl_jax.data.types import Params

Names = dict[str, tuple[str, ...]]
"""Path of a layer or array of ours -> the names of those that it is made of."""

STATISTICS = {
    "obs": "observations",
    "action": "actions",
    "reward": "rewards",
    "next_obs": "next_observations",
}
"""Field of the normalizer -> its name in `stats_*_mean` and `stats_*_std`."""

STACKED = ("critic", "target_critic")
"""Networks of ours that are a pair on a leading axis."""

_NOT_ALWAYS_USED = ("prior_pz/", "alpha_net/", "log_alpha")
_TORCH_NAMES = {
    r"^encoder/shared_encoder/": "encoder/shared/",
    r"^encoder/class_encoder/linear/": "encoder/class_head/",
    r"^encoder/gauss_encoder_list/": "encoder/gauss_head_",
    r"^encoder/pre_class_encoder/(?=weight|bias)": "encoder/pre_class/linear/",
    r"^encoder/pre_class_encoder/": "encoder/pre_class/",
    r"^decoder/net_(state|reward)_decoder/": r"decoder/\1/",
    r"^policy/last_fc_log_std/": "policy/log_std/",
    r"^policy/last_fc/": "policy/mean/",
    r"/last_fc/": "/out/",
    r"/weight$": "/kernel",
}


def names(agent: Agent) -> dict[str, Names]:
    """Returns what our parameters are called in the original, by network of ours.

    An array of ours that has several names is made of several arrays: the Gaussian
    head of one per class, side by side, and the critic of one per Q-function, stacked.
    """
    actor, critic = len(agent.actor.hidden), len(agent.critic.hidden)
    pair = lambda one, two: {  # noqa: E731
        layer: name + two[layer] for layer, name in one.items()
    }
    q_function = lambda name: _mlp("VmapMLP_0/", name, critic)  # noqa: E731
    prior: Names = {"Dense_0": ("prior_pz/linear",)}
    networks: dict[str, Names] = {
        "encoder": _encoder(agent),
        "decoder": _mlp("state/", "decoder/state", 2)
        | _mlp("reward/", "decoder/reward", 2),
        "prior": prior if isinstance(agent.class_prior, LearntPrior) else {},
        "actor": _mlp("", "policy", actor, ("mean", "log_std")),
        "critic": pair(q_function("qf1"), q_function("qf2")),
        "target_critic": pair(q_function("target_qf1"), q_function("target_qf2")),
        "temperature": _mlp("MLP_0/", "alpha_net", 1),
    }
    arrays = {network: _arrays(layers) for network, layers in networks.items()}
    if not agent.temperature.conditioned:
        arrays["temperature"] = {"log_alpha": ("log_alpha",)}
    return arrays


def export_params(agent: Agent, network: str, params: Params) -> dict[str, Any]:
    """Returns the parameters of a network of ours under the original's names."""
    ours: dict[str, Any] = flatten_dict(params.get("params", {}), sep="/")
    arrays = {}
    for path, parts in names(agent)[network].items():
        value = ours[path]
        width = value.shape[-1] // len(parts) if value.shape else 0
        for number, name in enumerate(parts):
            columns = slice(number * width, (number + 1) * width)
            if len(parts) == 1:
                arrays[name] = value
            else:
                arrays[name] = value[number if network in STACKED else (..., columns)]
    return arrays


def import_params(
    agent: Agent, network: str, arrays: Mapping[str, np.ndarray]
) -> Params:
    """Returns the parameters of a network of ours from arrays of the original."""
    params = {}
    for path, parts in names(agent)[network].items():
        values = [np.asarray(arrays[name], np.float32) for name in parts]
        if network in STACKED:
            params[path] = np.stack(values)
        elif path == "log_alpha":
            params[path] = values[0].reshape(())
        else:
            params[path] = np.concatenate(values, -1)
    tree = unflatten_dict(jax.tree.map(jnp.asarray, params), sep="/")
    return {"params": tree} if params else {}


def import_weights(
    agent: Agent, learner: LearnerState, arrays: Mapping[str, np.ndarray]
) -> LearnerState:
    """Returns a fresh learner with the weights of the original.

    Optimisers and counters stay fresh. So does the temperature where it is one number
    and `log_alpha` is missing, which the original does not save. Without statistics
    nothing is normalised until the first transitions are collected.

    Args:
      agent: built for the configuration that the weights were trained with.
      learner: a fresh one.
      arrays: by the names of this module, and for the normalizer all or none of
        `stats_X_mean` and `stats_X_std` with X in `STATISTICS`. The networks that only
        some configurations have may be there in any case.

    Raises:
      ConfigError: an array is missing, unknown, of the wrong shape or not finite.
    """
    own = {
        "actor": learner.actor.params,
        "critic": learner.critic.params,
        "target_critic": learner.target_critic,
        "temperature": learner.temperature.params,
        **learner.world_model.params,
    }
    expected: dict[str, Array] = {}
    for network, params in own.items():
        expected |= export_params(agent, network, params)
    if "log_alpha" in expected:
        arrays = {"log_alpha": np.asarray(expected["log_alpha"]), **arrays}
    statistics = any(name.startswith("stats_") for name in arrays)
    if statistics:
        expected |= _statistics(learner)
    _check(expected, arrays)
    new = {network: import_params(agent, network, arrays) for network in own}
    model = {network: new[network] for network in learner.world_model.params}
    learner = learner.replace(
        world_model=learner.world_model.replace(params=model),
        actor=learner.actor.replace(params=new["actor"]),
        critic=learner.critic.replace(params=new["critic"]),
        temperature=learner.temperature.replace(params=new["temperature"]),
        target_critic=new["target_critic"],
    )
    return with_statistics(learner, arrays) if statistics else learner


def with_statistics(
    learner: LearnerState, arrays: Mapping[str, np.ndarray]
) -> LearnerState:
    """Returns the learner with the original's statistics, `stats_X_mean` and `_std`.

    They count as those of one transition: training on replaces them by its own.
    """
    normalizer: Any = learner.normalizer
    mean, std = (
        {
            field: jnp.asarray(arrays[f"stats_{name}_{kind}"], jnp.float32).reshape(
                normalizer.mean[field].shape
            )
            for field, name in STATISTICS.items()
        }
        for kind in ("mean", "std")
    )
    std = jax.tree.map(lambda leaf: leaf + 1e-9, std)  # as the original divides
    normalizer = normalizer.replace(
        mean=mean,
        std=std,
        summed_variance=jax.tree.map(jnp.square, std),
        count=normalizer.count + 1,
    )
    return learner.replace(normalizer=normalizer)


def from_torch(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns arrays of the original's state dictionaries under this module's names.

    Args:
      arrays: called `network/` and then as in the state dictionary; kernels are
        `[out, in]`. Names of this module stay, with their arrays, as they are.
    """
    result = {}
    for name, array in arrays.items():
        is_torch = name.endswith((".weight", ".bias"))
        new = name.replace(".", "/") if is_torch else name
        for pattern, replacement in _TORCH_NAMES.items() if is_torch else ():
            new = re.sub(pattern, replacement, new)
        result[new] = np.transpose(array) if name.endswith(".weight") else array
    return result


def unused(agent: Agent, arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Returns the names of arrays that `import_weights` does not need."""
    used = {
        part
        for network in names(agent).values()
        for parts in network.values()
        for part in parts
    }
    return sorted(n for n in arrays if n not in used and not n.startswith("stats_"))


def _mlp(ours: str, theirs: str, num_hidden: int, ends: tuple = ("out",)) -> Names:
    layers = [*(f"fc{number}" for number in range(num_hidden)), *ends]
    return {
        f"{ours}Dense_{number}": (f"{theirs}/{layer}",)
        for number, layer in enumerate(layers)
    }


def _encoder(agent: Agent) -> Names:
    heads = tuple(f"encoder/gauss_head_{k}" for k in range(agent.num_classes))
    layers: Names = {
        **_mlp("shared/MLP_0/", "encoder/shared", 2),
        "class_head/Dense_0": ("encoder/class_head",),
        "gaussian_head/Dense_0": heads,
    }
    merge = agent.encoder.merge if isinstance(agent.encoder, SharedY) else ""
    if merge == "linear":
        layers["pre_class/Dense_0"] = ("encoder/pre_class/linear",)
    if merge == "mlp":
        layers |= _mlp("pre_class/MLP_0/", "encoder/pre_class", 1)
    return layers


def _arrays(layers: Names) -> Names:
    return {
        f"{ours}/{leaf}": tuple(f"{layer}/{leaf}" for layer in theirs)
        for ours, theirs in layers.items()
        for leaf in ("kernel", "bias")
    }


def _statistics(learner: LearnerState) -> dict[str, Array]:
    mean: Any = learner.normalizer.mean
    return {
        f"stats_{name}_{kind}": jnp.atleast_1d(mean[field])
        for field, name in STATISTICS.items()
        for kind in ("mean", "std")
    }


def _check(
    expected: Mapping[str, Array], arrays: Mapping[str, np.ndarray | Array]
) -> None:
    problems = [f"missing array {name}" for name in expected if name not in arrays]
    for name, array in arrays.items():
        if name not in expected:
            if not name.startswith(_NOT_ALWAYS_USED):
                problems.append(f"unknown array {name}")
            continue
        shape = expected[name].shape
        if array.shape != shape and (array.size, shape) != (1, ()):
            problems.append(
                f"{name} has shape {array.shape}; the configuration wants {shape}"
            )
        elif not np.isfinite(array).all():
            problems.append(f"{name} is not finite")
    if problems:
        raise ConfigError("\n".join(problems))
