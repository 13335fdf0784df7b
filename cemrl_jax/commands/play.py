"""Shows episodes of a trained run whose task changes: pictures, video, browser."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cemrl_jax import config as config_lib
from cemrl_jax.agents.cemrl.agent import Agent
from cemrl_jax.agents.cemrl.types import LearnerState
from cemrl_jax.analysis import describe, strip, video, viewer
from cemrl_jax.analysis.recordings import different_tasks
from cemrl_jax.analysis.restore import restore
from cemrl_jax.commands import command_line
from cemrl_jax.commands.analyse import read_schedule
from cemrl_jax.config import ConfigError
from cemrl_jax.envs import NonStationaryEnv, Task
from cemrl_jax.envs.base import SELECT
from cemrl_jax.envs.groups import Groups
from cemrl_jax.evaluation.record import Plan, Recording, make_recorder
from cemrl_jax.runtime import compile_cache
from cemrl_jax.training import storage
from cemrl_jax.training.run import stored_pools

EXAMPLES = """\
examples:
  python scripts/play.py --run=output/cheetah-non-stationary-vel/<run>
  python scripts/play.py --run=<run> --video=episode.mp4 --tiles=4
  python scripts/play.py --run=<run> --html=episode.html --tasks=0,5,2 --steps=100
  python scripts/play.py --run=<run> --video=a.mp4 --schedule=timed,min_steps=20

The task changes at equal distances of time, whatever the run's schedule is, or as
--schedule says. Without --video, --html or --window a strip of pictures is drawn.
"""


def main() -> None:
    """Reads the command line, plays and draws."""
    args = _parser().parse_args()
    compile_cache.use(args.compile_cache)
    directory = pathlib.Path(args.run)
    config = config_lib.load(directory / "config.json")
    pool = stored_pools(config, directory)["test"]
    restored = restore(directory, args.checkpoint)
    tasks = task_numbers(args.tasks, restored.env, pool)
    env, pool, tasks = of_one_model(restored.env, pool, tasks)
    num_steps = args.steps or config.rollout.num_steps
    if num_steps < len(tasks) or min(args.frames, args.tiles) < 1:
        raise ConfigError(
            f"--steps={num_steps} must be at least the {len(tasks)} tasks,"
            f" --frames={args.frames} and --tiles={args.tiles} at least 1"
        )
    schedule = read_schedule(args.schedule)
    key = jax.random.key(args.seed)
    breakdown = directory / storage.FAILED / storage.BREAKDOWN_FILE
    if args.checkpoint == storage.FAILED and breakdown.exists():
        print(draw_breakdown(env, breakdown))
    if args.window:
        from cemrl_jax.analysis import window

        window.play(env, restored.agent, restored.learner, pool, key)
        return
    if schedule is not None:
        env = env.with_schedule(schedule)
    recording = play(
        env,
        restored.agent,
        restored.learner,
        pool,
        tasks,
        key,
        num_steps,
        num_episodes=args.tiles,
        follow=schedule is not None,
    )
    show = video.Show(env, recording, f"{directory.name}, epoch {restored.epoch}")
    if show.length(0) < num_steps:
        print(f"the robot falls after {show.length(0)} of {num_steps} steps")
    reward = np.asarray(recording.transitions.reward[0, : show.length(0)])
    print(f"return {reward.sum():.1f}; {draw(show, args, directory)}")


def _parser() -> Any:
    parser = command_line.parser("Shows episodes whose task changes.", EXAMPLES)
    parser.add_argument("--run", required=True, metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--checkpoint",
        default="best",
        help="best, latest, an epoch, or failed: the weights at which a run's numbers"
        " were no longer finite (default: best)",
    )
    parser.add_argument(
        "--tasks",
        metavar="N,N",
        help="numbers of test tasks, in order (default: four that differ)",
    )
    parser.add_argument(
        "--schedule", help="change tasks by a schedule: NAME or NAME,field=value,..."
    )
    parser.add_argument(
        "--steps", type=int, help="length of the episode (default: the run's)"
    )
    parser.add_argument("--video", metavar="FILE", help="write an MP4 file")
    parser.add_argument("--html", metavar="FILE", help="write a viewer for a browser")
    parser.add_argument(
        "--window",
        action="store_true",
        help="open MuJoCo's window, where a display is: n and b change the task",
    )
    parser.add_argument(
        "--tiles", type=int, default=1, help="robots side by side in the video"
    )
    parser.add_argument("--frames", type=int, default=8, help="pictures (default: 8)")
    parser.add_argument("--seed", type=int, default=0, help="of the start")
    parser.add_argument(
        "--output", metavar="FILE", help="PNG file (default: RUN/strip.png)"
    )
    return parser


def draw(show: video.Show, args: Any, directory: pathlib.Path) -> str:
    """Writes what was asked for and returns where it is."""
    said = []
    if args.html:
        viewer.write(show, pathlib.Path(args.html))
        said.append(f"viewer in {args.html}")
    if args.video:
        words = video.write(show, pathlib.Path(args.video))
        said.append(f"video in {args.video} ({words})")
    if args.output or not said:
        output = pathlib.Path(args.output or directory / "strip.png")
        strip.draw(strip_episode(show), show.model, args.frames, output)
        said.append(f"pictures in {output}")
    return "; ".join(said)


def task_numbers(text: str | None, env: NonStationaryEnv, pool: Task) -> list[int]:
    """Returns the test tasks to play, by number.

    Raises:
      ConfigError: they are not numbers of test tasks.
    """
    count = pool.kind.shape[0]
    if text is None:
        return different_tasks(env, pool)
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = [-1]
    if any(not 0 <= number < count for number in numbers):
        raise ConfigError(f"--tasks={text} must list numbers from 0 to {count - 1}")
    return numbers


def of_one_model(
    env: NonStationaryEnv, pool: Task, tasks: list[int]
) -> tuple[NonStationaryEnv, Task, list[int]]:
    """Returns what an episode of these tasks runs in, its pool, and their places.

    In groups that is the environment of their model and the tasks that have it.

    Raises:
      ConfigError: they have several models.
    """
    if not isinstance(env, Groups):
        return env, pool, tasks
    own = env.same_model(pool, tasks[0])
    if not np.isin(tasks, own).all():
        named = ",".join(map(str, tasks))
        raise ConfigError(
            f"--tasks={named} must be of one physical model: in an episode"
            f" task {tasks[0]} changes to one of {', '.join(map(str, own))} only"
        )
    model = env.models[int(env.model_of(pool.base)[tasks[0]])]
    pool = jax.tree.map(lambda leaf: leaf[own], pool)
    return model, pool, np.searchsorted(own, tasks).tolist()


def play(
    env: NonStationaryEnv,
    agent: Agent,
    learner: LearnerState,
    pool: Task,
    tasks: list[int],
    key: Array,
    num_steps: int,
    *,
    num_episodes: int = 1,
    follow: bool = False,
) -> Recording:
    """Returns episodes of tasks in turn, each for as long, on the host.

    Args:
      env: the environment.
      agent: applies the learner.
      learner: the parameters.
      pool: tasks `[N]`.
      tasks: numbers of tasks in the pool; each episode starts with another of them.
      key: of the starts; the key is consumed.
      num_steps: length of an episode.
      num_episodes: episodes `[E]`.
      follow: ask the environment's schedule instead, from the first tasks on.
    """
    events = np.zeros((num_episodes, num_steps), np.int32)
    turn = np.arange(num_episodes)
    for count in range(1, len(tasks)):
        step = count * num_steps // len(tasks)
        events[:, step] = SELECT + np.take(tasks, (turn + count) % len(tasks))
    plan = Plan(events=jnp.asarray(events), follow=jnp.full(num_episodes, follow, bool))
    first = np.take(tasks, turn % len(tasks))
    start = jax.tree.map(lambda leaf: leaf[first], pool)
    return make_recorder(env, agent, num_steps)(learner, start, pool, plan, key)


def draw_breakdown(env: NonStationaryEnv, path: pathlib.Path) -> str:
    """Draws what a step that broke an environment began with, beside its file."""
    with np.load(path) as file:
        values = dict(file)
    pose = values["qpos"] if "qpos" in values else np.atleast_1d(values["x"])
    picture = path.with_suffix(".png")
    action = np.array2string(values["action"], precision=3)
    model = getattr(getattr(env.robot, "simulator", None), "model", None)
    strip.draw_pose(pose, model, "before the step that broke it", picture)
    return f"the newest broken step: from {path}, drawn in {picture}, action {action}"


def strip_episode(show: video.Show) -> strip.Episode:
    """Returns the first episode as the strip draws it, until a fall at most."""
    recording, end = show.recording, show.length(0)
    label, actual, goal = describe.track(show.env, recording, 0)
    texts = describe.captions(show.env, recording, 0, end)
    return strip.Episode(
        control_dt=show.dt,
        qpos=np.asarray(recording.qpos[0, :end]),
        label=label,
        actual=actual[:end],
        goal=None if goal is None else goal[:end],
        reward=np.asarray(recording.transitions.reward[0, :end]),
        starts=tuple(start for start, _ in texts),
        captions=tuple(words for _, words in texts),
    )


def console() -> None:
    """Runs the command; the entry point of the script and of `cemrl-play`."""
    command_line.run(main)
