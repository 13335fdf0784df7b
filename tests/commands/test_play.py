"""`scripts/play.py` and the strip that it draws."""
# mujoco comes without type stubs:
# pyright: reportAttributeAccessIssue=false

import sys

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from helpers import (
    FallingPoint,
    make_agent,
    run_training,
    tiny_config,
    use_devices,
)

from cemrl_jax.analysis import describe, strip, video
from cemrl_jax.commands import play
from cemrl_jax.config import ConfigError
from cemrl_jax.envs.robots import Ant, HalfCheetah, Point
from cemrl_jax.envs.robots.locomotion import kind_of
from cemrl_jax.envs.tasks import Velocity


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A run of one epoch."""
    directory = tmp_path_factory.mktemp("played") / "run"
    with pytest.MonkeyPatch.context() as patch:
        use_devices(patch, 1)
        run_training(tiny_config(train__num_epochs=1), directory)
    return directory


def run_play(directory, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["play.py", f"--run={directory}", *arguments])
    play.main()


def test_the_strip_of_a_run_is_a_picture(directory, monkeypatch, capsys):
    plt = pytest.importorskip("matplotlib.pyplot")
    arguments = ("--frames=3", "--compile-cache=off")
    run_play(directory, monkeypatch, *arguments)
    assert f"pictures in {directory / 'strip.png'}" in capsys.readouterr().out
    picture = plt.imread(directory / "strip.png")
    assert picture.shape[:2] == (460, 600)
    assert len(np.unique(picture.reshape(-1, 4), axis=0)) > 10


@pytest.mark.usefixtures("own_programs")
def test_what_broke_a_run_is_drawn(monkeypatch, tmp_path, capsys):
    plt = pytest.importorskip("matplotlib.pyplot")
    use_devices(monkeypatch, 2)
    reward = Point.reward

    def breaking(self, before, after, action, task):
        fast = jnp.abs(after.velocity) > 0.3
        return jnp.where(fast, jnp.nan, reward(self, before, after, action, task))

    monkeypatch.setattr(Point, "reward", breaking)
    with pytest.raises(FloatingPointError, match="steps broke an environment"):
        run_training(tiny_config(), tmp_path / "run")
    arguments = ("--checkpoint=failed", "--compile-cache=off")
    run_play(tmp_path / "run", monkeypatch, *arguments)
    file = tmp_path / "run" / "failed" / "breakdown.npz"
    assert f"the newest broken step: from {file}" in capsys.readouterr().out
    assert plt.imread(file.with_suffix(".png")).shape[:2] == (460, 500)


@pytest.mark.parametrize("text", ["1,4", "one", "-1"])
def test_tasks_that_are_not_there_are_refused(text, directory, monkeypatch):
    with pytest.raises(ConfigError, match="must list numbers from 0 to 3"):
        run_play(directory, monkeypatch, f"--tasks={text}", "--compile-cache=off")


def test_an_episode_has_the_tasks_in_turn():
    episode = played(tiny_config(), [2, 0, 1], 31)
    assert episode.starts == (0, 10, 20)
    assert [episode.part(step) for step in (0, 9, 10, 30)] == [0, 0, 1, 2]
    specs = np.asarray(Velocity().sample(jax.random.key(0), 4).spec)
    assert episode.goal is not None
    np.testing.assert_array_equal(episode.goal[[9, 10, 30]], specs[[2, 0, 1]])
    assert episode.label == "velocity along x, m/s"
    way = 0.05 * episode.actual[1:]
    np.testing.assert_allclose(np.diff(episode.qpos[:, 0]), way, atol=1e-5)
    np.testing.assert_allclose(
        episode.reward, -np.abs(episode.actual - episode.goal), atol=1e-5
    )


def played(config, tasks, num_steps):
    env = config.env.make()
    agent = make_agent(config, env.obs_size, env.action_size)
    learner, pool = (
        agent.init(jax.random.key(0)),
        Velocity().sample(jax.random.key(0), 4),
    )
    recording = play.play(
        env, agent, learner, pool, tasks, jax.random.key(0), num_steps
    )
    return play.strip_episode(video.Show(env, recording, ""))


def test_an_episode_ends_with_a_fall():
    config = tiny_config(env__robot=FallingPoint(limit=0.5, drift=0.11))
    assert len(played(config, [0], 30).reward) <= 10


def test_four_tasks_that_differ_are_played_by_default():
    pool = Velocity().sample(jax.random.key(0), 30)
    numbers = play.task_numbers(None, tiny_config().env.make(), pool)
    ranks = np.argsort(np.argsort(pool.spec))[np.array(numbers)]
    np.testing.assert_array_equal(ranks, [0, 29, 10, 19])


@pytest.mark.parametrize(("robot", "count"), [(HalfCheetah(), 8), (Ant(), 13)])
def test_a_body_is_drawn_where_the_physics_has_it(robot, count):
    model = robot.simulator.model
    qpos = np.array(model.qpos0)
    qpos[0] = 3.0
    shapes = strip.silhouettes(model, qpos, axis=0)
    assert len(shapes) == count
    outlines = np.concatenate([shape.outline for shape in shapes])
    leg = 0.08  # the radius that the ends of the longest legs have around them
    assert np.all(np.abs(outlines[:, 0] - 3) < 1.2 + leg)
    assert outlines[:, 1].min() > -0.05
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_kinematics(model, data)
    middles = [np.ptp(s.outline, 0) / 2 + s.outline.min(0) for s in shapes]
    there = data.geom_xpos[1:, [0, 2]]  # the ground is the first
    in_order = lambda points: sorted(map(tuple, np.round(points, 2)))  # noqa: E731
    np.testing.assert_allclose(in_order(middles), in_order(there), atol=0.011)


@pytest.mark.parametrize(
    ("reward", "spec", "words"),
    [
        ("velocity", [1.5], "1.5 m/s"),
        ("direction", [-1.0], "backward"),
        ("flipping", [1.0], "flip forward"),
        ("jumping", [0.0], "jump"),
        ("goal", [2.0, 1.0], "to 2 m"),
    ],
)
def test_a_task_in_words(reward, spec, words):
    assert describe.words(kind_of(reward), np.array(spec)) == words
