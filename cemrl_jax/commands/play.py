"""Draws an episode of a trained run whose task changes, as a strip of pictures."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cemrl_jax import config as config_lib
from cemrl_jax.agents.algorithms import make_algorithm
from cemrl_jax.agents.base import Policy
from cemrl_jax.analysis import strip
from cemrl_jax.commands import command_line
from cemrl_jax.config import ConfigError
from cemrl_jax.data.rollout import transition
from cemrl_jax.envs import NonStationaryEnv, Task
from cemrl_jax.envs.schedules import Sequence
from cemrl_jax.training.checkpoint import Checkpoints
from cemrl_jax.training.run import stored_pools

EXAMPLES = """\
examples:
  python scripts/play.py --run=output/cheetah-non-stationary-vel/<run>
  python scripts/play.py --run=output/point-vel/<run> --tasks=0,5,2 --steps=100

The task changes at equal distances of time, whatever the run's schedule is.
"""


def main() -> None:
    """Reads the command line, plays and draws."""
    parser = command_line.parser("Draws an episode whose task changes.", EXAMPLES)
    parser.add_argument("--run", required=True, metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--checkpoint", default="best", help="best, latest or an epoch (default: best)"
    )
    parser.add_argument(
        "--tasks",
        metavar="N,N",
        help="numbers of test tasks, in order (default: four that differ)",
    )
    parser.add_argument(
        "--steps", type=int, help="length of the episode (default: the run's)"
    )
    parser.add_argument("--frames", type=int, default=8, help="pictures (default: 8)")
    parser.add_argument("--seed", type=int, default=0, help="of the start")
    parser.add_argument(
        "--output", metavar="FILE", help="PNG file (default: RUN/strip.png)"
    )
    args = parser.parse_args()
    command_line.use_compile_cache(args.compile_cache)
    directory = pathlib.Path(args.run)
    config = config_lib.load(directory / "config.json")
    pool = stored_pools(config, directory)["test"]
    tasks = task_numbers(args.tasks, pool)
    num_steps = args.steps or config.rollout.num_steps
    if num_steps < len(tasks) or args.frames < 1:
        raise ConfigError(
            f"--steps={num_steps} must be at least the {len(tasks)} tasks,"
            f" --frames={args.frames} at least 1"
        )
    env, key = config.env.make(), jax.random.key(args.seed)
    policy = trained_policy(config, directory, args.checkpoint)
    episode = play(env, policy, pool, tasks, key, num_steps)
    output = pathlib.Path(args.output or directory / "strip.png")
    simulator = getattr(env.robot, "simulator", None)
    strip.draw(episode, getattr(simulator, "model", None), args.frames, output)
    if len(episode.x) < num_steps:
        print(f"the robot falls after {len(episode.x)} of {num_steps} steps")
    print(f"return {episode.reward.sum():.1f}; pictures in {output}")


def task_numbers(text: str | None, pool: Task) -> list[int]:
    """Returns the test tasks to play, by number.

    Raises:
      ConfigError: they are not numbers of test tasks.
    """
    count = pool.kind.shape[0]
    if text is None:
        spec = np.asarray(pool.spec).reshape(count, -1)
        order = np.lexsort([*spec.T[::-1], np.asarray(pool.kind)])
        shares = np.array([0, 1, 1 / 3, 2 / 3])
        return order[(shares * (count - 1)).round().astype(int)].tolist()
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = [-1]
    if any(not 0 <= number < count for number in numbers):
        raise ConfigError(f"--tasks={text} must list numbers from 0 to {count - 1}")
    return numbers


def trained_policy(
    config: config_lib.Config, directory: pathlib.Path, checkpoint: str
) -> Policy:
    """Returns the policy of a checkpoint, acting on its mean."""
    env = config.env.make()
    algorithm = make_algorithm(config, env)
    like = jax.eval_shape(algorithm.init, jax.random.key(config.seed))
    with Checkpoints(directory / "checkpoints", read_only=True) as saved:
        learner = saved.learner(command_line.find_epoch(saved, checkpoint), like)
    return algorithm.policy(learner, deterministic=True)


def play(
    env: NonStationaryEnv,
    policy: Policy,
    pool: Task,
    tasks: list[int],
    key: Array,
    num_steps: int,
) -> strip.Episode:
    """Returns an episode of tasks in turn, each for as long, until a fall at most.

    Args:
      env: the environment; its schedule does not count.
      policy: acts.
      pool: tasks `[N]`.
      tasks: numbers of tasks in the pool.
      key: of the start; the key is consumed.
      num_steps: length of the episode.
    """
    changes = tuple(n * num_steps // len(tasks) for n in range(1, len(tasks)))
    env = dataclasses.replace(env, schedule=Sequence(changes, tuple(tasks[1:])))
    record = jax.jit(lambda key: rolled(env, policy, pool, tasks[0], key, num_steps))
    steps = jax.device_get(record(key))
    fallen = steps.pop("terminated")
    end = int(fallen.argmax()) + 1 if fallen.any() else num_steps
    steps = {name: values[:end] for name, values in steps.items()}
    starts = tuple(step for step in (0, *changes) if step < end)
    captions = [strip.words(steps["kind"][s], steps["spec"][s]) for s in starts]
    if pool.overrides:  # the words do not tell such tasks apart
        captions = [f"{words}, task {n}" for words, n in zip(captions, tasks)]
    return strip.Episode(
        control_dt=float(env.robot.control_dt),
        starts=starts,
        captions=tuple(captions),
        **steps,
    )


def rolled(
    env: NonStationaryEnv,
    policy: Policy,
    pool: Task,
    first: int,
    key: Array,
    num_steps: int,
) -> dict[str, Array]:
    """Returns what to draw of each step of an episode, `[L, ...]` by name."""

    def step(carry: tuple, _: None) -> tuple[tuple, dict[str, Array]]:
        before, window = carry
        action = policy.act(window, before.obs[None], key, None)[0]
        after = env.step(before, action, pool)
        data = jax.tree.map(lambda x: x[None], transition(before, action, after))
        x = env.robot.x_position(after.physics)
        way = x - env.robot.x_position(before.physics)
        drawn = {
            "qpos": getattr(after.physics, "qpos", x[None]),
            "x": x,
            "velocity": way / env.robot.control_dt,
            "kind": after.task.kind,
            "spec": jnp.atleast_1d(after.task.spec),
            "reward": after.reward,
            "terminated": after.terminated,
        }
        return (after, policy.observe(window, data)), drawn

    task = jax.tree.map(lambda leaf: leaf[first], pool)
    start = (env.reset(key, task), policy.start(1))
    return jax.lax.scan(step, start, length=num_steps)[1]


def console() -> None:
    """Runs the command; the entry point of the script and of `cemrl-play`."""
    command_line.run(main)
