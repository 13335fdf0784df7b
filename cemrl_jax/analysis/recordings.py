"""Episodes of a run's checkpoints, recorded for the figures."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from cemrl_jax import config as config_lib
from cemrl_jax.agents.cemrl.agent import Agent
from cemrl_jax.agents.cemrl.build import agent_for
from cemrl_jax.agents.cemrl.types import LearnerState
from cemrl_jax.analysis import pretrained
from cemrl_jax.analysis.load import RunFiles
from cemrl_jax.config import Config, ConfigError
from cemrl_jax.envs import NonStationaryEnv, Schedule, Task
from cemrl_jax.envs.base import ELAPSED, SELECT
from cemrl_jax.envs.groups import Groups
from cemrl_jax.evaluation.record import Plan, Record, Recording, make_recorder
from cemrl_jax.training.checkpoint import CheckpointError, Checkpoints
from cemrl_jax.training.run import stored_pools
from cemrl_jax.training.storage import CHECKPOINTS


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to record.

    Attributes:
      checkpoint: "best", "latest" or an epoch.
      num_tasks: tasks of each pool at most.
      num_steps: length of an episode; None takes the run's.
      schedule: asked in place of the run's; None keeps that.
      intervals: steps between changes to try; None takes shares of the episode.
      change_at: steps of changes in the episode that is shown; None takes quarters.
      seed: of starts.
    """

    checkpoint: str = "best"
    num_tasks: int = 16
    num_steps: int | None = None
    schedule: Schedule | None = None
    intervals: tuple[int, ...] | None = None
    change_at: tuple[int, ...] | None = None
    seed: int = 0


@dataclasses.dataclass
class Study:
    """What was recorded of one run, on the host.

    Attributes:
      run: its files.
      config: its configuration.
      env: its environment.
      epoch: of the checkpoint.
      tasks: pool -> tasks that were recorded.
      groups: "fixed/<pool>", "changing", "shown", "every/<steps>" -> episodes `[E, L]`.
      earlier: epoch of each checkpoint -> "fixed/test" and "changing" of it.
    """

    run: RunFiles
    config: Config
    env: NonStationaryEnv
    epoch: int
    tasks: dict[str, Task]
    groups: dict[str, Recording]
    earlier: dict[int, dict[str, Recording]]

    @property
    def dt(self) -> float:
        """Duration of a step, s."""
        return float(self.env.robot.control_dt)


def study(run: RunFiles, settings: Settings) -> Study:
    """Records episodes of a run's checkpoints.

    Raises:
      ConfigError: the configuration cannot be read.
      CheckpointError: there is no checkpoint that can be read.
    """
    if run.config is None:
        raise ConfigError("the configuration cannot be read")
    config = run.config
    num_steps = settings.num_steps or config.rollout.num_steps
    env = config.env.make()
    if settings.schedule is not None:
        env = env.with_schedule(settings.schedule)
    agent, record = _program(_key(config, settings), config, env, num_steps)
    learners, epoch = _learners(run, agent, settings.checkpoint)
    pools = {
        name: _some(pool, settings.num_tasks)
        for name, pool in stored_pools(config, run.directory).items()
    }
    wanted = _wanted(env, pools, settings, num_steps)
    key = jax.random.key(settings.seed)
    recorded = {
        number: _split(record(learner, *_joined(wanted, num_steps), key), wanted)
        for number, learner in learners.items()
    }
    brief = ("fixed/test", "changing")
    earlier = {
        number: {name: groups[name] for name in brief}
        for number, groups in recorded.items()
    }
    return Study(run, config, env, epoch, pools, recorded[epoch], earlier)


def _key(config: Config, settings: Settings) -> str:
    """Names the program: runs that differ in their seed share it."""
    same = dataclasses.replace(config, seed=0, num_seeds=1, output_dir="-")
    return f"{config_lib.to_dict(same)} {settings.schedule} {settings.num_steps}"


_PROGRAMS: dict[str, tuple[Agent, Record]] = {}


def _program(
    key: str, config: Config, env: NonStationaryEnv, num_steps: int
) -> tuple[Agent, Record]:
    if key not in _PROGRAMS:
        agent = agent_for(config, env)
        _PROGRAMS[key] = (agent, make_recorder(env, agent, num_steps))
    return _PROGRAMS[key]


def _learners(
    run: RunFiles, agent: Agent, checkpoint: str
) -> tuple[dict[int, LearnerState], int]:
    """Returns the learner of each checkpoint by epoch, and the epoch asked for."""
    like = jax.eval_shape(agent.init, jax.random.key(0))
    if pretrained.is_packed(run.directory):
        epoch = pretrained.epoch(run.directory)
        return {epoch: pretrained.learner(run.directory, like)}, epoch
    with Checkpoints(run.directory / CHECKPOINTS, read_only=True) as saved:
        epoch, learners = saved.find(checkpoint), {}
        for number in saved.epochs():
            try:
                learners[number] = saved.learner(number, like)
            except CheckpointError as error:
                if number == epoch:
                    raise
                run.missing.append(str(error))
    return learners, epoch


def _some(pool: Task, count: int) -> Task:
    """Returns evenly spaced tasks of a pool, at most so many."""
    chosen = spaced(pool.kind.shape[0], count)
    return jax.tree.map(lambda leaf: leaf[chosen], pool)


def spaced(size: int, count: int) -> np.ndarray:
    """Returns evenly spaced numbers below a size, at most so many."""
    return np.unique(np.linspace(0, size - 1, min(count, size)).round().astype(int))


@dataclasses.dataclass(frozen=True)
class _Episodes:
    """Episodes to record: tasks `[E]` to start with, events `[E, L]`, follow."""

    tasks: Task
    events: np.ndarray
    follow: bool = False


def _wanted(
    env: NonStationaryEnv, pools: dict[str, Task], settings: Settings, num_steps: int
) -> dict[str, _Episodes]:
    """Returns the groups of episodes by name."""

    def planned(tasks: Task, every: int | None = None) -> _Episodes:
        events = np.zeros((tasks.kind.shape[0], num_steps), np.int32)
        if every:
            events[:, every::every] = ELAPSED
        return _Episodes(tasks, events)

    test = pools["test"]
    wanted = {f"fixed/{name}": planned(pool) for name, pool in pools.items()}
    wanted["changing"] = dataclasses.replace(planned(test), follow=True)
    shown, tasks = _shown(env, test, settings.change_at, num_steps)
    wanted["shown"] = _Episodes(
        jax.tree.map(lambda leaf: leaf[np.array(tasks[:1])], test), shown
    )
    few = _some(test, 8)
    for steps in settings.intervals or _intervals(num_steps):
        wanted[f"every/{steps}"] = planned(few, steps)
    return wanted


def _intervals(num_steps: int) -> tuple[int, ...]:
    """Returns intervals from a half to a thirty-second of an episode, 5 at least."""
    shares = {num_steps // 2**power for power in range(1, 6)}
    return tuple(sorted(steps for steps in shares if steps >= 5))


def different_tasks(env: NonStationaryEnv, pool: Task) -> list[int]:
    """Returns the numbers of four tasks that differ, as far as there are so many.

    In groups they are of the first one's model.
    """
    count = pool.kind.shape[0]
    own = env.same_model(pool, 0) if isinstance(env, Groups) else np.arange(count)
    pool, count = jax.tree.map(lambda leaf: leaf[own], pool), len(own)
    leaves = [pool.kind, pool.spec, *pool.overrides.values()]
    columns = [np.asarray(leaf).reshape(count, -1) for leaf in leaves]
    order = np.lexsort(np.concatenate(columns, 1).T[::-1])
    shares = np.array([0, 1, 1 / 3, 2 / 3])
    return own[order[(shares * (count - 1)).round().astype(int)]].tolist()


def _shown(
    env: NonStationaryEnv, pool: Task, change_at: Sequence[int] | None, num_steps: int
) -> tuple[np.ndarray, list[int]]:
    """Returns the events `[1, L]` of the episode that is drawn, and its tasks."""
    tasks = different_tasks(env, pool)
    steps = change_at or [n * num_steps // len(tasks) for n in range(1, len(tasks))]
    events = np.zeros((1, num_steps), np.int32)
    for count, step in enumerate(steps, start=1):
        if 0 < step < num_steps:
            events[0, step] = SELECT + tasks[count % len(tasks)]
    return events, tasks


def _joined(wanted: dict[str, _Episodes], num_steps: int) -> tuple[Task, Task, Plan]:
    """Returns all episodes as arguments of a recorder: tasks, pool, plan."""
    groups = list(wanted.values())
    tasks = jax.tree.map(
        lambda *leaves: jnp.concatenate(leaves), *[group.tasks for group in groups]
    )
    events = np.concatenate([group.events for group in groups])
    follow = np.repeat(
        [group.follow for group in groups], [len(group.events) for group in groups]
    )
    plan = Plan(events=jnp.array(events), follow=jnp.array(follow))
    return tasks, wanted["fixed/test"].tasks, plan


def _split(recording: Recording, wanted: dict[str, _Episodes]) -> dict[str, Recording]:
    """Returns the groups of a recording of all of them."""
    groups, first = {}, 0
    for name, group in wanted.items():
        rows = slice(first, first + len(group.events))
        groups[name] = jax.tree.map(lambda leaf, rows=rows: leaf[rows], recording)
        first = rows.stop
    return groups
