"""The data that environments exchange and the protocols that their parts follow.

Everything here describes ONE environment; `cemrl_jax.data.rollout` vectorises.
"""

from typing import Any, Protocol

from flax import struct
from jax import Array

# What a schedule reports at the start of a step.
NO_EVENT = 0
FORWARD = 1  # a change point in positive direction was passed
BACKWARD = -1  # a change point in negative direction was passed
ELAPSED = 2  # the time for a change has come, wherever the robot is
SELECT = 3  # and above: the task with number `event - SELECT` of the pool is next


class Task(struct.PyTreeNode):
    """What the agent must do until the next change.

    Attributes:
      kind: `[]` int32, which of the robot's rewards counts.
      base: `[]` int32, label of the base task (0..K-1), what a class should mean.
      spec: `[]` or `[S]` float32, the task's parameter: m/s for velocity, +-1 for
        direction, rad for an angle, m for a goal. One shape in a distribution.
      number: `[]` int32 place in its pool, -1 for a task that is in none.
      overrides: fields of the robot's physical model by name; `{}` if only the reward
        varies.
    """

    kind: Array
    base: Array
    spec: Array
    number: Array
    overrides: dict[str, Array]


class EnvState(struct.PyTreeNode):
    """One environment between two steps.

    Attributes:
      physics: the robot's state, of a type that only the robot knows.
      obs: `[obs_size]` float32 observation.
      reward: `[]` float32 reward of the step that led here.
      terminated: `[]` bool, the robot has fallen or broken. A time limit never sets it.
      broken: `[]` bool, the physics of the step or its reward was not finite or beyond
        MuJoCo's own limits. Everything else is then from before the step.
      success: `[]` bool, the step that led here solved the task; None in a world whose
        tasks are never solved, only done better or worse.
      step: `[]` int32 steps since the episode began.
      task: the task in force.
      schedule: state of the schedule.
      key: randomness of the changes still to come.
    """

    physics: Any
    obs: Array
    reward: Array
    terminated: Array
    broken: Array
    success: Array | None
    step: Array
    task: Task
    schedule: Any
    key: Array


class Robot(Protocol):
    """A body with stationary physics. It receives tasks and knows no schedule.

    A robot that never terminates may say so with `can_fall`, which is then False: what
    it has experienced takes less memory.
    """

    @property
    def action_size(self) -> int:
        """Number of actuators; actions live in [-1, 1]."""
        ...

    @property
    def control_dt(self) -> float:
        """Duration of a control step, s."""
        ...

    def reset(self, key: Array) -> Any:
        """Returns the physics at the start of an episode."""
        ...

    def step(self, physics: Any, action: Array, overrides: dict[str, Array]) -> Any:
        """Advances one control step under `action` `[action_size]`.

        `overrides` replace fields of the physical model (see `Task.overrides`).
        """
        ...

    def reward(self, before: Any, after: Any, action: Array, task: Task) -> Array:
        """Returns the reward `[]` of a control step for doing `task`."""
        ...

    def observe(self, physics: Any) -> Array:
        """Returns the observation `[obs_size]`."""
        ...

    def x_position(self, physics: Any) -> Array:
        """Returns where the robot is for schedules that depend on place, m."""
        ...

    def terminated(self, physics: Any) -> Array:
        """Returns whether the robot has fallen, `[]` bool."""
        ...


class World(Protocol):
    """A robot among things: what it sees, earns and achieves depends on the task.

    In place of a `Robot`, which becomes one by `worlds.RobotWorld`. A world may also
    have `can_fall`, see `Robot`, and `suited(distribution)`: returns the world for a
    family of tasks, or raises a `ValueError`; `NonStationaryEnv` calls it.
    """

    @property
    def action_size(self) -> int:
        """See `Robot.action_size`."""
        ...

    @property
    def obs_size(self) -> int:
        """Size of an observation."""
        ...

    @property
    def control_dt(self) -> float:
        """See `Robot.control_dt`."""
        ...

    @property
    def is_solvable(self) -> bool:
        """Whether steps tell if they solved the task, see `EnvState.success`."""
        ...

    def reset(self, key: Array, task: Task) -> Any:
        """Returns the physics at the start of an episode of `task`."""
        ...

    def step(self, physics: Any, action: Array, task: Task) -> Any:
        """Advances one control step under `action` `[action_size]`."""
        ...

    def observe(self, physics: Any, task: Task) -> Array:
        """Returns the observation `[obs_size]`."""
        ...

    def judge(
        self, before: Any, after: Any, action: Array, task: Task
    ) -> tuple[Array, Array | None]:
        """Returns the reward `[]` of a control step, and whether it solved `task`.

        The second is `[]` bool, or None in a world that is not solvable.
        """
        ...

    def x_position(self, physics: Any) -> Array:
        """See `Robot.x_position`."""
        ...

    def terminated(self, physics: Any) -> Array:
        """See `Robot.terminated`."""
        ...


class TaskDistribution(Protocol):
    """Makes tasks and says what an event does to one.

    A distribution may also have

    * `num_base_tasks`: how many base tasks there are, 1 if it is not there;
    * `base_names`: their names, for success rates;
    * `num_train_bases`: how many of them, the first, are in pools of `sample`;
    * `extrapolate(key, num_tasks)`: a pool from outside the range of `sample`, or a
      `ValueError` if nothing is outside;
    * `parts` and `test_parts`, where tasks need several physical models: see
      `make_groups`;
    * `bind(robot)`: returns the distribution for a robot, for tasks that change the
      robot's model; `NonStationaryEnv` calls it.
    """

    def sample(self, key: Array, num_tasks: int) -> Task:
        """Draws a pool of tasks; every leaf gets a leading axis `[num_tasks]`."""
        ...

    def change(self, key: Array, pool: Task, task: Task, event: Array) -> Task:
        """Returns the task that follows `task` after a non-zero `event`."""
        ...


class Schedule(Protocol):
    """Decides when the task changes within an episode."""

    def init(self, key: Array) -> Any:
        """Returns the schedule's state at the start of an episode."""
        ...

    def update(self, key: Array, state: Any, x: Array) -> tuple[Array, Any]:
        """Returns the event before a step taken at position `x` (m), and the state.

        The event is one of `NO_EVENT`, `FORWARD`, `BACKWARD`, `ELAPSED`, or `SELECT`
        plus the number of a task in the pool.
        """
        ...
