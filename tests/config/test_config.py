import copy
import dataclasses
import json

import pytest
from helpers import PRESETS, preset, tiny_config

from cemrl_jax import config as config_lib
from cemrl_jax.config import Config, ConfigError
from cemrl_jax.envs.robots import Point
from cemrl_jax.envs.schedules import Location, Stationary, Timed
from cemrl_jax.envs.tasks import Cripple, Direction, Dynamics, Velocity


def problems_of(config: Config, num_devices: int = 8) -> list[str]:
    with pytest.raises(ConfigError) as error:
        config.validate(num_devices)
    return str(error.value).split("\n")


# ---------------------------------------------------------------- presets


@pytest.mark.parametrize("name", PRESETS)
def test_preset_comes_back_equal_from_json(name, tmp_path):
    config = preset(name)
    config_lib.save(config, tmp_path / "config.json")
    assert config_lib.load(tmp_path / "config.json") == config


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_valid_on_one_device(name):
    preset(name).validate(1)


def test_two_calls_of_get_config_share_nothing():
    first, second = preset("debug"), preset("debug")
    first.env.robot = Point(gain=0.1)
    first.sac.batch_size = 1
    assert second == preset("debug")


def test_json_names_the_objects_of_the_environment():
    data = json.loads(json.dumps(config_lib.to_dict(preset("debug"))))
    assert data["env"]["robot"] == {"name": "point", "max_speed": 3.0, "gain": 0.5}
    assert data["env"]["schedule"]["name"] == "timed"
    assert data["env"]["task"] == {"name": "velocity", "low": -2.0, "high": 2.0}


def test_json_keeps_tuples():
    config = tiny_config(env__task=Direction(starts=(1.0,)))
    data = json.loads(json.dumps(config_lib.to_dict(config)))
    assert config_lib.from_dict(data).env.task == Direction(starts=(1.0,))


@dataclasses.dataclass
class Sideways(Velocity):
    """A task distribution from outside the package."""


def test_json_of_a_class_outside_the_tables_names_module_and_class():
    config = tiny_config(env__task=Sideways(low=0.5))
    data = config_lib.to_dict(config)
    assert data["env"]["task"]["name"].endswith(":Sideways")
    assert config_lib.from_dict(data).env.task == Sideways(low=0.5)


def test_missing_json_fields_get_their_defaults():
    assert config_lib.from_dict({"seed": 4}) == Config(seed=4)


# ---------------------------------------------------------------- bad JSON


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"sed": 1}, "unknown field sed; did you mean seed?"),
        (
            {"sac": {"learning_rat": 1.0}},
            "unknown field sac.learning_rat; did you mean sac.learning_rate?",
        ),
        ({"sac": 3}, "sac=3 must be an object"),
        (
            {"env": {"robot": {"name": "pont"}}},
            "env.robot='pont' must be one of .*; did you mean point?",
        ),
        (
            {"env": {"schedule": {"name": "time"}}},
            "env.schedule='time' must be one of .*; did you mean timed?",
        ),
        ({"env": {"task": {"low": 1.0}}}, "env.task='' must be one of velocity"),
        ({"env": {"task": {"name": "nowhere:X"}}}, "cannot be imported"),
        (
            {"env": {"task": {"name": "velocity", "hig": 1.0}}},
            "unknown field env.task.hig; did you mean env.task.high?",
        ),
    ],
)
def test_json_problem_is_named(data, message):
    with pytest.raises(ConfigError, match=message):
        config_lib.from_dict(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not valid JSON"), ("[]", "must hold a JSON object")],
)
def test_broken_json_file_is_named(text, message, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        config_lib.load(path)
    assert str(path) in str(error.value)


def test_missing_json_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*none\.json: No such file"):
        config_lib.load(tmp_path / "none.json")


def test_get_field_names_the_nearest_field_of_another_branch():
    with pytest.raises(ConfigError, match=r"did you mean sac\.learning_rate\?"):
        config_lib.get_field(Config(), "sac.learnin_rate")


def test_get_field_names_what_there_is_where_nothing_is_near():
    with pytest.raises(ConfigError, match="field threshold; known there: spacing, jit"):
        config_lib.get_field(Location(), "threshold")


# ---------------------------------------------------------------- rules


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("seed", -1, "seed=-1 must be 0 or more"),
        ("name", "", "name= must be not empty"),
        ("rollout__num_steps", -5, "rollout.num_steps=-5 must be at least 1"),
        ("rollout__num_envs", 0, "rollout.num_envs=0 must be at least 1"),
        (
            "env__num_train_tasks",
            70_000,
            "env.num_train_tasks=70000 must be at most 65536, what the replay has"
            " bits for",
        ),
        ("train__num_epochs", -1, "train.num_epochs=-1 must be at least 1"),
        ("train__num_updates", 0, "train.num_updates=0 must be at least 1"),
        ("train__validation_fold", 1, "train.validation_fold=1 must be at least 2"),
        ("encoder__window_steps", 0, "encoder.window_steps=0 must be at least 1"),
        ("encoder__width_factor", 0.0, "encoder.width_factor=0.0 must be above 0"),
        (
            "encoder__width_factor",
            0.1,
            "encoder.width_factor=0.1 leaves no unit of a layer: it must be at least"
            " 0.17, one over the 6 inputs",
        ),
        (
            "elbo__decoder_width_factor",
            0.2,
            "elbo.decoder_width_factor=0.2 leaves no unit of a layer: it must be at"
            " least 0.25, one over the 4 inputs",
        ),
        (
            "train__updates_per_step",
            float("inf"),
            "train.updates_per_step=inf must be finite",
        ),
        ("sac__learning_rate", float("nan"), "sac.learning_rate=nan must be finite"),
        ("sac__learning_rate", -1e-4, "sac.learning_rate=-0.0001 must be above 0"),
        ("sac__discount", 1.5, "sac.discount=1.5 must be between 0 and 1"),
        ("sac__target_rate", 0.0, "sac.target_rate=0.0 must be above 0 and at most 1"),
        ("elbo__kl_z_weight", -1.0, "elbo.kl_z_weight=-1.0 must be 0 or more"),
        (
            "encoder__kind",
            "shared",
            "encoder.kind='shared' must be one of shared_y, individual_y, trajectory;"
            " did you mean shared_y?",
        ),
        (
            "encoder__merge",
            "mean",
            "encoder.merge='mean' must be one of add, add_softmax, multiply, linear,"
            " mlp",
        ),
        (
            "elbo__prior",
            "fix",
            "elbo.prior='fix' must be one of fixed, learnt; did you mean fixed?",
        ),
        (
            "sac__context",
            "orakle",
            "sac.context='orakle' must be one of inferred, oracle, blind;"
            " did you mean oracle?",
        ),
        (
            "sac__temperature",
            "learned",
            "sac.temperature='learned' must be one of learnt, conditioned, fixed;"
            " did you mean learnt?",
        ),
        (
            "train__schedule",
            "fuse",
            "train.schedule='fuse' must be one of fused, alternating; did you mean"
            " fused?",
        ),
        (
            "sac__batch_size",
            20,
            "sac.batch_size=20 must be a multiple of the 8 devices",
        ),
        (
            "rollout__num_envs",
            12,
            "rollout.num_envs=12 must be a multiple of the 8 devices",
        ),
        (
            "replay__capacity",
            319,
            "replay.capacity=319 must hold at least one collect, rollout.num_envs *"
            " rollout.num_steps = 320; or set replay.num_collects",
        ),
        (
            "elbo__state_size",
            3,
            "elbo.state_size=3 must not exceed the 2 entries of an observation",
        ),
        (
            "encoder__obs_size",
            3,
            "encoder.obs_size=3 must be 0, or from elbo.state_size=2 to the 2 entries"
            " of an observation",
        ),
        (
            "env__robot",
            Point(gain=0.0),
            "env.robot.gain=0.0 must be above 0 and at most 1",
        ),
        (
            "env__schedule",
            Timed(min_steps=-1),
            "env.schedule.min_steps=-1 must not be negative",
        ),
        (
            "env__schedule",
            Location(spacing=0.0),
            "env.schedule.spacing=0.0 must be positive (metres)",
        ),
        (
            "env__task",
            Velocity(3.0, 1.0),
            "env.task.low=3.0 must not exceed high=1.0 (m/s)",
        ),
        ("sac__batch_size", 16.0, "sac.batch_size=16.0 must be an int"),
        ("sac__batch_size", True, "sac.batch_size=True must be an int"),
        ("sac__batch_size", "16", "sac.batch_size='16' must be an int"),
        ("sac__discount", "x", "sac.discount='x' must be a float"),
        ("tensorboard", 1, "tensorboard=1 must be a bool"),
        ("output_dir", None, "output_dir=None must be a str"),
        ("env__task", "velocity", "env.task='velocity' must be an object of its kind"),
    ],
)
def test_rule_names_field_value_and_rule(path, value, problem):
    assert problems_of(tiny_config(**{path: value})) == [problem]


def test_an_episode_may_be_as_long_as_the_replay_has_bits_for():
    config = tiny_config(rollout__num_steps=65_536, replay__capacity=2_000_000)
    config.validate(num_devices=8)
    config.rollout.num_steps += 1
    assert problems_of(config) == [
        "rollout.num_steps=65537 must be at most 65536, what the replay has bits for"
    ]


def test_all_problems_are_reported_at_once():
    config = tiny_config(
        rollout__num_steps=-1,
        sac__batch_size=17,
        encoder__kind="nothing",
        env__schedule=Timed(probability=2.0),
    )
    fields = [problem.split("=")[0] for problem in problems_of(config)]
    assert fields == [
        "encoder.kind",
        "rollout.num_steps",
        "sac.batch_size",
        "env.schedule.probability",
    ]


def test_all_wrong_types_are_reported_at_once():
    config = tiny_config(sac__batch_size="x", elbo__prior=1, env__num_test_tasks=1.5)
    fields = [problem.split("=")[0] for problem in problems_of(config)]
    assert fields == ["env.num_test_tasks", "elbo.prior", "sac.batch_size"]


@pytest.mark.parametrize(
    ("task", "field", "value", "problem"),
    [
        (Direction(), "starts", ("on",), "must hold float only, not 'on'"),
        (Dynamics(("gain",), (1.5,)), "bases", (float("inf"),), "must be finite"),
        (Cripple(), "joints", (0.5,), "must hold int only, not 0.5"),
    ],
)
def test_entries_of_tuples_are_checked(task, field, value, problem):
    config = tiny_config(env__task=dataclasses.replace(task, **{field: value}))
    assert problems_of(config) == [f"env.task.{field}={value} {problem}"]


def test_an_int_in_a_tuple_becomes_a_float_where_floats_are_due():
    task = Direction(starts=(1,))
    tiny_config(env__task=task).validate(1)
    assert type(task.starts[0]) is float


def test_an_int_becomes_a_float_where_a_float_is_due():
    config = tiny_config(sac__discount=1)
    config.validate(8)
    assert type(config.sac.discount) is float


def test_component_constraint_needs_a_class_for_each_base_task():
    config = tiny_config(
        env__task=Direction(), elbo__component_constraint=True, encoder__num_classes=1
    )
    assert problems_of(config) == [
        "encoder.num_classes=1 must be at least 2, the number of base tasks, with"
        " elbo.component_constraint"
    ]
    config.encoder.num_classes = 2
    config.validate(8)


def test_widths_count_what_the_networks_see():
    config = preset("fast_cheetah_stationary_vel")
    config.encoder.obs_size, config.encoder.width_factor = 8, 0.04
    assert problems_of(config) == [
        "encoder.width_factor=0.04 leaves no unit of a layer: it must be at least"
        " 0.043, one over the 23 inputs"
    ]
    config.encoder.kind, config.elbo.windows_per_segment = "trajectory", 1
    config.validate(1)  # 10 steps of them


@pytest.mark.parametrize("steps", [2, 50])
def test_steps_that_no_validation_would_see_are_refused(steps):
    config = tiny_config(train__schedule="alternating")
    config.train.num_world_model_steps, config.train.validation_interval = steps, 50
    assert problems_of(config) == [
        f"train.num_world_model_steps={steps} must be above"
        " train.validation_interval=50: only the first step would be validated, and"
        " the others dropped. Or set train.early_stopping_steps=0"
    ]
    config.train.early_stopping_steps = 0
    config.validate(1)


def test_alternating_needs_an_episode_of_at_least_one_fold():
    config = tiny_config(train__schedule="alternating", train__validation_fold=21)
    assert problems_of(config) == [
        "train.validation_fold=21 must not exceed rollout.num_steps=20"
    ]


def test_validate_leaves_a_valid_configuration_as_it_was():
    config = tiny_config()
    before = copy.deepcopy(config)
    config.validate(8)
    assert config == before


# ---------------------------------------------------------------- derived


@pytest.mark.parametrize(
    ("capacity", "num_epochs", "length"),
    [(320, 9, 20), (1000, 9, 60), (1000, 1, 40), (100_000, 9, 200)],
)
def test_replay_length_is_whole_episodes_and_no_more_than_needed(
    capacity, num_epochs, length
):
    config = tiny_config(replay__capacity=capacity, train__num_epochs=num_epochs)
    assert config.rollout.num_initial == 1
    assert config.replay_length == length


@pytest.mark.parametrize("name", PRESETS)
def test_every_field_is_explained(name):
    docs = config_lib.field_docs(preset(name))
    assert list(docs) == config_lib.field_paths(preset(name))
    assert all(docs.values())


# ---------------------------------------------------------------- scaling


@pytest.mark.parametrize("num_envs", [16, 160])
def test_collects_and_updates_per_step_grow_with_the_environments(num_envs):
    config = tiny_config(
        rollout__num_envs=num_envs,
        replay__num_collects=3,
        train__num_epochs=9,
        train__updates_per_step=0.25,
    )
    config.validate(8)
    assert config.replay_length == 3 * 20
    assert config.num_updates == num_envs * 5


def test_without_them_capacity_and_number_of_updates_count():
    config = tiny_config(train__num_updates=7, train__num_epochs=9)
    assert config.num_updates == 7
    assert config.replay_length == 1000 // 320 * 20


def test_collects_may_exceed_the_capacity_but_not_the_run():
    config = tiny_config(replay__num_collects=50, replay__capacity=1)
    config.validate(8)
    assert config.replay_length == (1 + 2) * 20


def test_too_few_updates_per_step_are_refused_with_the_way_out():
    assert problems_of(tiny_config(train__updates_per_step=0.001)) == [
        "train.updates_per_step=0.001 gives no update for the 320 steps of an epoch:"
        " set it to 0.0031 or more, or to 0 for train.num_updates"
    ]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"encoder__kind": "trajectory"},
            "elbo.windows_per_segment=2 must be 1 with encoder.kind='trajectory', which"
            " has nothing that windows could share: it does not embed single"
            " transitions",
        ),
        (
            {"elbo__windows_per_segment": 32, "sac__batch_size": 256},
            "elbo.windows_per_segment=32 must not exceed rollout.num_steps=20",
        ),
        (
            {"sac__batch_size": 24},
            "elbo.windows_per_segment=2 must divide the 3 transitions that"
            " sac.batch_size=24 gives each device",
        ),
    ],
)
def test_segments_that_cannot_be_drawn_are_refused(changes, problem):
    config = tiny_config(**{"elbo__windows_per_segment": 2} | changes)
    assert problems_of(config) == [problem]


def test_decoding_others_of_a_task_needs_tasks_that_stay():
    config = tiny_config(elbo__decode="task")
    config.env.schedule = Stationary()
    config.validate(8)
    config.env.schedule = Timed()
    assert problems_of(config) == [
        "elbo.decode='task' must be 'current' or 'episode' with env.schedule="
        f"{Timed()}: it finds episodes by the task that they begin with, so tasks must"
        " stay",
    ]
    config.elbo.decode = "episode"
    config.validate(8)


# ---------------------------------------------------------------- warnings


@pytest.mark.parametrize("name", PRESETS)
def test_presets_set_nothing_in_vain(name):
    assert preset(name).warnings() == []


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"elbo__prior": "learnt", "elbo__prior_std": 0.7}, "elbo.prior_std=0.7",
         "elbo.prior='learnt' learns its own"),
        ({"sac__temperature": "conditioned", "sac__initial_temperature": 0.2},
         "sac.initial_temperature=0.2",
         "sac.temperature='conditioned' starts from a network"),
        ({"sac__temperature": "fixed", "sac__target_entropy_factor": 3.0},
         "sac.target_entropy_factor=3.0",
         "sac.temperature='fixed' aims at no entropy"),
        ({"encoder__kind": "individual_y", "encoder__merge": "linear"},
         "encoder.merge='linear'", "only encoder.kind='shared_y' merges classes"),
        ({"train__validation_fold": 7}, "train.validation_fold=7",
         "only train.schedule='alternating' with train.early_stopping_steps above 0"
         " validates"),
        ({"train__early_stopping_steps": 0}, "train.early_stopping_steps=0",
         "train.schedule='fused' has no phase of its own for the world model"),
        ({"train__schedule": "alternating", "elbo__loss_weight_memory": 9},
         "elbo.loss_weight_memory=9",
         "train.schedule='alternating' weighs the errors at each validation"),
        ({"sac__independent_transitions": True}, "sac.independent_transitions=True",
         "its transitions are independent already (it is for train.schedule='fused'"
         " with elbo.windows_per_segment above 1)"),
        ({"train__updates_per_step": 0.5}, "train.num_updates=100",
         "train.updates_per_step is set"),
        ({"replay__num_collects": 2}, "replay.capacity=20000",
         "replay.num_collects is set"),
    ],
)  # fmt: skip
def test_what_is_set_in_vain_is_said_with_the_reason(changes, field, reason):
    config = preset("debug")
    for path, value in changes.items():
        part, name = path.split("__")
        setattr(getattr(config, part), name, value)
    config.validate(1)
    assert config.warnings() == [f"{field} has no effect because {reason}"]


def test_defaults_are_never_warned_of():
    config = preset("debug")
    config.elbo.prior, config.sac.temperature = "learnt", "conditioned"
    config.encoder.kind = "trajectory"
    assert config.warnings() == []
