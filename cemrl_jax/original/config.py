"""Configurations of the original program, as far as they mean something here.

The original merges a JSON file over its defaults; so does `convert`.
"""

import math
from collections.abc import Callable
from typing import Any

from cemrl_jax.config import (
    Config,
    ConfigError,
    ElboConfig,
    EncoderConfig,
    EnvConfig,
    EvaluationConfig,
    ReplayConfig,
    RolloutConfig,
    SACConfig,
    TrainConfig,
)
from cemrl_jax.envs.base import Robot, Schedule, TaskDistribution
from cemrl_jax.envs.robots import Ant, HalfCheetah, Hopper, Humanoid, Walker2d
from cemrl_jax.envs.schedules import Location, Stationary, Timed
from cemrl_jax.envs.tasks import Direction, MultiTask, PlanarAngle, Velocity

Values = dict[str, Any]

DEFAULTS: Values = {
    "env_name": "cheetah-non-stationary-vel",
    "env_params.n_train_tasks": 100,
    "env_params.n_eval_tasks": 30,
    "env_params.change_mode": "location",
    "env_params.change_prob": 1.0,
    "env_params.change_steps": 100,
    "env_params.positive_change_point_basis": 10,
    "env_params.negative_change_point_basis": -10,
    "env_params.change_point_interval": 1,
    "env_params.termination_possible": False,
    "env_params.task_min_velocity": 0.0,
    "env_params.task_max_velocity": 3.0,
    "env_params.task_variants": ["velocity"],
    "env_params.state_reconstruction_clip": 8,
    "algo_params.use_parametrized_alpha": False,
    "algo_params.encoding_mode": "transitionIndividualY",
    "algo_params.merge_mode": "add",
    "algo_params.seed": 0,
    "algo_params.batch_size_reconstruction": 256,
    "algo_params.batch_size_policy": 256,
    "algo_params.time_steps": 30,
    "algo_params.latent_size": 1,
    "algo_params.sac_layer_size": 300,
    "algo_params.max_replay_buffer_size": 10_000_000,
    "algo_params.num_train_epochs": 250,
    "algo_params.num_reconstruction_steps": 5000,
    "algo_params.num_policy_steps": 3000,
    "algo_params.num_train_tasks_per_episode": 100,
    "algo_params.num_transitions_initial": 200,
    "algo_params.num_transitions_per_episode": 200,
    "algo_params.num_eval_trajectories": 3,
    "algo_params.max_path_length": 200,
    "algo_params.target_entropy_factor": 1.0,
    "algo_params.permute_samples": False,
    "algo_params.use_data_normalization": True,
    "reconstruction_params.use_state_diff": False,
    "reconstruction_params.component_constraint_learning": False,
    "reconstruction_params.prior_mode": "fixedOnY",
    "reconstruction_params.prior_sigma": 0.5,
    "reconstruction_params.num_classes": 1,
    "reconstruction_params.lr_encoder": 3e-4,
    "reconstruction_params.lr_decoder": 3e-4,
    "reconstruction_params.alpha_kl_z": 1e-3,
    "reconstruction_params.beta_kl_y": 1e-3,
    "reconstruction_params.net_complex_enc_dec": 10.0,
    "reconstruction_params.train_val_percent": 0.8,
    "reconstruction_params.eval_interval": 50,
    "reconstruction_params.early_stopping_threshold": 500,
}
"""The original's defaults of what `convert` reads; its files give the rest."""

_COMBINATION = "the combination trainer did not work in the original"
_SHOWCASE = "scripts/play.py and scripts/evaluate.py show policies"
_MACHINE = "devices and processes are JAX's business"
_SAMPLING = "updates draw from the whole replay, all transitions alike"
DROPPED = {
    "path_to_weights": "scripts/train.py --init-from starts from weights",
    "train_or_showcase": _SHOWCASE,
    "showcase_itr": _SHOWCASE,
    "env_params.use_normalized_env": "actions always live in [-1, 1]",
    "env_params.scripted_policy": "it had no effect",
    "algo_params.use_relabeler": "z is computed from the window in every update",
    "algo_params.batch_size_relabel": "z is computed from the window in every update",
    "algo_params.use_combination_trainer": _COMBINATION,
    "algo_params.batch_size_combination": _COMBINATION,
    "reconstruction_params.factor_qf_loss": _COMBINATION,
    "algo_params.use_fixed_seeding": "a run is always seeded",
    "algo_params.sac_alpha": "only a fixed temperature used it, which crashed",
    "algo_params.data_usage_reconstruction": _SAMPLING,
    "algo_params.data_usage_sac": _SAMPLING,
    "algo_params.num_last_samples": _SAMPLING,
    "algo_params.snapshot_gap": "checkpoint.interval says when to save",
    "algo_params.encoding_save_epochs": "checkpoint.interval says when to save",
    "algo_params.showcase_every": _SHOWCASE,
    "algo_params.num_showcase_deterministic": _SHOWCASE,
    "algo_params.num_showcase_non_deterministic": _SHOWCASE,
    "reconstruction_params.temp_folder": "best weights stay in memory",
    "util_params.base_log_dir": "output_dir says where runs go",
    "util_params.debug": "it had no effect",
    "util_params.plot": "a run writes progress.csv and TensorBoard events",
    "util_params.use_gpu": _MACHINE,
    "util_params.gpu_id": _MACHINE,
    "util_params.use_multiprocessing": _MACHINE,
    "util_params.num_workers": _MACHINE,
}
"""Key of the original -> why it is not needed here."""

FAR = 10_000
"""Change points at least so far away (m) are never reached."""

_ENCODERS = {
    "transitionSharedY": "shared_y",
    "transitionIndividualY": "individual_y",
    "trajectory": "trajectory",
}
_PRIORS = {"fixedOnY": "fixed", "network": "learnt"}
_ORDERLESS = ("add", "add_softmax", "multiply")


def is_original(data: dict[str, Any]) -> bool:
    """Returns whether a JSON object is a configuration of the original."""
    return "algo_params" in data or "env_name" in data


def convert(data: dict[str, Any]) -> tuple[Config, list[tuple[str, str]]]:
    """Translates a configuration of the original.

    Args:
      data: the JSON file; what is missing has the original's default.

    Returns:
      The configuration, and each key that was dropped with the reason.

    Raises:
      ConfigError: the environment, or a value, has no counterpart.
    """
    given = _flat(data)
    _check(given)
    values = {**DEFAULTS, **{key: given[key] for key in DEFAULTS if key in given}}
    dropped = [
        (key, DROPPED.get(key, "unknown to the original's main program"))
        for key in given
        if key not in DEFAULTS
    ]
    algo, env_config = _group(values, "algo_params"), _environment(values)
    rollout = _rollout(algo, env_config.num_train_tasks)
    collect = rollout.num_envs * rollout.num_steps
    epochs = algo["num_train_epochs"]
    config = Config(
        name=values["env_name"],
        seed=algo["seed"],
        env=env_config,
        rollout=rollout,
        replay=ReplayConfig(
            min(
                (rollout.num_initial + epochs) * collect, algo["max_replay_buffer_size"]
            )
        ),
        encoder=_encoder(values),
        elbo=_elbo(values),
        sac=SACConfig(
            batch_size=algo["batch_size_policy"],
            hidden_size=algo["sac_layer_size"],
            temperature="conditioned" if algo["use_parametrized_alpha"] else "learnt",
            target_entropy_factor=float(algo["target_entropy_factor"]),
        ),
        train=_train(values),
        evaluation=EvaluationConfig(num_episodes=algo["num_eval_trajectories"]),
    )
    return config, dropped + _losses(values)


def _flat(data: dict[str, Any]) -> Values:
    """Returns nested groups as `group.key`."""
    result = {}
    for key, value in data.items():
        if isinstance(value, dict):
            result |= {f"{key}.{name}": entry for name, entry in value.items()}
        else:
            result[key] = value
    return result


def _check(given: Values) -> None:
    """Raises `ConfigError` on a value that is not like the original's default."""
    for key, default in DEFAULTS.items():
        value = given.get(key, default)
        kind = (int, float) if type(default) is float else type(default)
        if not isinstance(value, kind) or isinstance(value, bool) != isinstance(
            default, bool
        ):
            raise ConfigError(f"{key}={value!r} must be like {default!r}")
        if key in _COUNTS and value < 1:
            raise ConfigError(f"{key}={value} must be at least 1")
    share = given.get("reconstruction_params.train_val_percent", 0.8)
    if not 0 < share < 1:
        raise ConfigError(
            f"reconstruction_params.train_val_percent={share} must be between 0 and 1"
        )


_COUNTS = (
    "algo_params.max_path_length",
    "algo_params.num_transitions_per_episode",
    "algo_params.num_train_tasks_per_episode",
)


def _group(values: Values, name: str) -> Values:
    """Returns the entries of a group by their own names."""
    prefix = name + "."
    return {
        key.removeprefix(prefix): value
        for key, value in values.items()
        if key.startswith(prefix)
    }


def _environment(values: Values) -> EnvConfig:
    env, name = _group(values, "env_params"), values["env_name"]
    body, _, rest = name.partition("-")
    robot = _ROBOTS.get(body)
    family = next((key for key in _TASKS if rest.endswith(key)), None)
    if robot is None or family is None:
        raise ConfigError(
            f"env_name={name!r} must begin with one of {', '.join(_ROBOTS)} and end"
            f" with one of {', '.join(_TASKS)}"
        )
    return EnvConfig(
        robot(env, family),
        _TASKS[family](env, body),
        _schedule(env, values["algo_params.max_path_length"]),
        num_train_tasks=abs(env["n_train_tasks"]),
        num_test_tasks=abs(env["n_eval_tasks"]),
    )


_ROBOTS: dict[str, Callable[[Values, str], Robot]] = {
    "ant": lambda env, family: Ant(
        can_fall=env["termination_possible"], torso_last=family == "vel"
    ),
    "cheetah": lambda env, family: HalfCheetah(can_fall=env["termination_possible"]),
    "hopper": lambda env, family: Hopper(
        can_fall=env["termination_possible"],
        alive_bonus=float(env["task_max_velocity"]),
    ),
    "humanoid": lambda env, family: Humanoid(),  # falls whatever the file says
    "walker2d": lambda env, family: Walker2d(can_fall=env["termination_possible"]),
}
"""First word of `env_name` -> the robot, from its parameters and the family."""


def _direction(env: Values, body: str) -> TaskDistribution:
    if body == "humanoid":
        return PlanarAngle()
    starts = {2: (-1.0, 1.0), 1: (1.0,), -1: (-1.0,)}
    count = env["n_train_tasks"]
    if count not in starts:
        raise ConfigError(f"env_params.n_train_tasks={count} must be 2, 1 or -1")
    return Direction(starts[count])


_TASKS: dict[str, Callable[[Values, str], TaskDistribution]] = {
    "vel": lambda env, body: Velocity(
        float(env["task_min_velocity"]), float(env["task_max_velocity"])
    ),
    "dir": _direction,
    "multi-task": lambda env, body: MultiTask(tuple(env["task_variants"])),
}
"""Last words of `env_name` -> the task distribution."""


def _schedule(env: Values, num_steps: int) -> Schedule:
    if env["change_mode"] == "time":
        if env["change_steps"] >= num_steps:
            return Stationary()
        return Timed(env["change_steps"], float(env["change_prob"]))
    if env["change_mode"] != "location":
        raise ConfigError(
            f"env_params.change_mode={env['change_mode']!r} must be location or time"
        )
    ahead, behind = (
        env["positive_change_point_basis"],
        env["negative_change_point_basis"],
    )
    if ahead != -behind:
        raise ConfigError(
            f"env_params.negative_change_point_basis={behind} must be minus"
            f" positive_change_point_basis={ahead}"
        )
    if ahead >= FAR:
        return Stationary()
    return Location(float(ahead), float(env["change_point_interval"]))


def _rollout(algo: Values, num_tasks: int) -> RolloutConfig:
    """Turns counts per task into environments and initial collects, rounded up."""
    transitions = algo["num_transitions_per_episode"]
    num_steps = min(algo["max_path_length"], transitions)
    paths = math.ceil(transitions / num_steps)
    num_envs = paths * min(algo["num_train_tasks_per_episode"], num_tasks)
    initial = algo["num_transitions_initial"] * num_tasks
    return RolloutConfig(
        num_envs, num_steps, math.ceil(initial / (num_envs * num_steps))
    )


def _encoder(values: Values) -> EncoderConfig:
    algo = _group(values, "algo_params")
    return EncoderConfig(
        kind=_ENCODERS.get(algo["encoding_mode"]) or algo["encoding_mode"],
        merge=algo["merge_mode"],
        window_steps=algo["time_steps"],
        num_classes=values["reconstruction_params.num_classes"],
        latent_size=algo["latent_size"],
        width_factor=float(values["reconstruction_params.net_complex_enc_dec"]),
    )


def _elbo(values: Values) -> ElboConfig:
    model = _group(values, "reconstruction_params")
    return ElboConfig(
        learning_rate=model["lr_encoder"],
        decoder_width_factor=float(model["net_complex_enc_dec"]),
        state_size=values["env_params.state_reconstruction_clip"],
        state_difference=model["use_state_diff"],
        kl_z_weight=float(model["alpha_kl_z"]),
        kl_y_weight=float(model["beta_kl_y"]),
        prior=_PRIORS.get(model["prior_mode"]) or model["prior_mode"],
        prior_std=float(model["prior_sigma"]),
        component_constraint=model["component_constraint_learning"],
    )


def _train(values: Values) -> TrainConfig:
    algo = _group(values, "algo_params")
    model = _group(values, "reconstruction_params")
    return TrainConfig(
        num_epochs=algo["num_train_epochs"],
        schedule="alternating",
        num_updates=algo["num_policy_steps"],
        num_world_model_steps=algo["num_reconstruction_steps"],
        validation_interval=model["eval_interval"],
        validation_fold=max(2, round(1 / (1 - model["train_val_percent"]))),
        early_stopping_steps=model["early_stopping_threshold"],
    )


def _losses(values: Values) -> list[tuple[str, str]]:
    """Returns the keys that are understood but whose value cannot be followed."""
    algo = _group(values, "algo_params")
    model = _group(values, "reconstruction_params")
    losses = []
    if algo["permute_samples"]:
        shared = algo["encoding_mode"] == "transitionSharedY"
        same = shared and algo["merge_mode"] in _ORDERLESS
        reason = "this encoder does not see the order of a window"
        order = "windows keep their order here: ANOTHER encoder input"
        losses.append(("algo_params.permute_samples", reason if same else order))
    if not algo["use_data_normalization"]:
        losses.append(
            ("algo_params.use_data_normalization", "the encoder's input always is")
        )
    if algo["batch_size_reconstruction"] != algo["batch_size_policy"]:
        reason = f"batch_size_policy={algo['batch_size_policy']} serves both"
        losses.append(("algo_params.batch_size_reconstruction", reason))
    if model["lr_decoder"] != model["lr_encoder"]:
        reason = f"lr_encoder={model['lr_encoder']} serves both"
        losses.append(("reconstruction_params.lr_decoder", reason))
    if (
        values["env_name"].startswith("humanoid")
        and not (values["env_params.termination_possible"])
    ):
        reason = "the original's humanoid falls whatever it says"
        losses.append(("env_params.termination_possible", reason))
    return losses
