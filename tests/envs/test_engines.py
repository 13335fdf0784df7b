"""The engines as such: devices, threads, batches, what is refused."""

import dataclasses
import os
import shutil
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import HAS_METAWORLD, ROOT, preset, read_rows, tiny_config
from worlds import NUM_ENVS, world

from cemrl_jax import config as config_lib
from cemrl_jax.benchmark import startup
from cemrl_jax.config import ConfigError
from cemrl_jax.envs import engines
from cemrl_jax.envs.engines import mujoco as c_engine
from cemrl_jax.envs.engines import mujoco_ffi
from cemrl_jax.envs.robots import HalfCheetah

SOURCE = HalfCheetah().source
HAS_COMPILER = shutil.which("c++") is not None and sys.platform == "linux"
needs_compiler = pytest.mark.skipif(not HAS_COMPILER, reason="no C++ compiler")
C_ENGINES = ["mujoco", pytest.param("mujoco_ffi", marks=needs_compiler)]


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """Where the engine that is built here lies, so that none of the user's is used."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        if HAS_COMPILER:
            mujoco_ffi.build()
        yield folder


@pytest.fixture(params=C_ENGINES)
def simulator(request):
    return engines.load(request.param, SOURCE)


def perturbed(simulator, key):
    return simulator.start(*engines.perturbed_start(simulator, key, 0.1))


def walk(simulator, num_envs, num_steps=10, overrides=None):
    """The states of robots `[E]` after some random steps."""
    keys = jax.random.split(jax.random.key(0), num_envs)
    start = jax.vmap(
        lambda key: simulator.start(*engines.perturbed_start(simulator, key, 0.1))
    )
    action = jax.random.uniform(
        jax.random.key(1), (num_steps, num_envs, 6), minval=-1, maxval=1
    )

    @jax.jit
    def run(keys, action, overrides):
        def step(state, action):
            return jax.vmap(simulator.step)(state, action, overrides), None

        return jax.lax.scan(step, start(keys), action)[0]

    return jax.device_get(run(keys, action, overrides or {}))


def test_results_do_not_depend_on_the_number_of_threads(simulator):
    one = dataclasses.replace(simulator, num_threads=1)
    four = dataclasses.replace(simulator, num_threads=4)
    jax.tree.map(np.testing.assert_array_equal, walk(one, 13), walk(four, 13))


@needs_compiler
@pytest.mark.parametrize(
    "name",
    [
        "half_cheetah",  # with a model of its own for each
        "ant",
        "humanoid",
        pytest.param(
            "sawyer",  # moved by a mocap body
            marks=pytest.mark.skipif(not HAS_METAWORLD, reason="no metaworld"),
        ),
    ],
)
def test_without_python_in_between_c_mujoco_does_the_same_to_the_last_digit(name):
    ends = []
    for engine in ("mujoco", "mujoco_ffi"):
        case = world(name, engine)
        state = start = case.reset(
            jax.random.split(jax.random.key(0), NUM_ENVS), case.tasks
        )
        for number in range(12):
            state = case.step(state, case.actions(jax.random.key(number)), case.pool)
        ends.append((start.physics, state.physics, state.reward))
    jax.tree.map(np.testing.assert_array_equal, *ends)


def test_a_robot_does_not_depend_on_its_place_among_others(simulator):
    many, few = walk(simulator, 9), walk(simulator, 9)
    jax.tree.map(np.testing.assert_array_equal, many, few)
    keys = jax.random.split(jax.random.key(0), 9)
    start = jax.vmap(
        lambda key: simulator.start(*engines.perturbed_start(simulator, key, 0.1))
    )
    alone = jax.jit(start)(keys[4:5])
    together = jax.jit(start)(keys)
    np.testing.assert_array_equal(alone.qpos[0], together.qpos[4])


def test_overrides_of_one_call_do_not_stay_for_the_next(simulator):
    before = walk(simulator, 5)
    mass = np.asarray(simulator.model.body_mass, np.float32)
    heavy = walk(simulator, 5, overrides={"body_mass": jnp.tile(2 * mass, (5, 1))})
    assert (heavy.qpos != before.qpos).any()
    jax.tree.map(np.testing.assert_array_equal, walk(simulator, 5), before)


def test_centres_of_mass_are_of_the_masses_in_force(simulator):
    """MuJoCo divides by masses of subtrees that it does not compute anew."""
    readings = ("xipos", "subtree_com", "cinert", "cvel")
    source = dataclasses.replace(SOURCE, readings=readings)
    overrides = {"body_mass": jnp.array(simulator.model.body_mass * 1.5, jnp.float32)}
    overrides["body_mass"] = overrides["body_mass"].at[3].multiply(2)
    qpos, qvel = jnp.linspace(-0.2, 0.2, 9).at[0].set(20), jnp.linspace(1, 2, 9)
    states = []
    for engine in (
        engines.load("mjx", source),
        type(simulator)(simulator.model, source),
    ):
        state = engine.start(qpos, qvel)
        states.append(jax.jit(engine.read)(state, overrides).readings)
        state = jax.jit(engine.step)(state, jnp.zeros(6), overrides)
        states.append(state.readings)
    for expected, found in zip(states[:2], states[2:]):
        for name in readings:
            np.testing.assert_allclose(
                found[name], expected[name], rtol=1e-4, atol=1e-4, err_msg=name
            )
    mass, places = overrides["body_mass"], states[2]["xipos"]
    centre = (mass[:, None] * places).sum(0) / mass.sum()
    np.testing.assert_allclose(states[2]["subtree_com"][0], centre, rtol=1e-5)


def test_an_axis_for_seeds_is_one_call_of_the_engine(monkeypatch):
    calls = []
    advance = c_engine.BatchSimulator._advance

    def counted(self, call, packed, overrides):
        calls.append(packed.shape[:-1])
        return advance(self, call, packed, overrides)

    monkeypatch.setattr(c_engine.BatchSimulator, "_advance", counted)
    simulator = c_engine.load(SOURCE)
    state = jax.vmap(jax.vmap(simulator.start))(
        jnp.zeros((3, 4, 9)), jnp.zeros((3, 4, 9))
    )
    jax.jit(jax.vmap(jax.vmap(lambda x: simulator.step(x, jnp.ones(6), {}))))(state)
    assert calls == [(3, 4), (3, 4)]


@pytest.mark.parametrize("engine", [*C_ENGINES, "mjx"])
def test_programs_with_other_axis_names_can_share_a_robot(engine):
    """Its constants are made in the first trace, and must not carry its mesh."""
    engines.load.cache_clear()
    simulator = engines.load(engine, SOURCE)
    zeros = jnp.zeros((2, 9))
    for axis in ("first", "second"):
        start = jax.pmap(simulator.start, axis_name=axis, devices=jax.devices()[:2])
        state = start(zeros, zeros)
        step = lambda x: simulator.step(x, jnp.ones(6), {})  # noqa: E731
        state = jax.pmap(step, axis_name=axis, devices=jax.devices()[:2])(state)
        assert np.isfinite(state.qpos).all()


def test_eight_devices_step_and_average_in_turn(simulator):
    def run(qpos):
        def step(state, _):
            state = jax.vmap(lambda x: simulator.step(x, jnp.ones(6), {}))(state)
            return state, jax.lax.pmean(state.qpos.mean(), "devices")

        start = jax.vmap(simulator.start)(qpos, jnp.zeros_like(qpos))
        return jax.lax.scan(step, start, length=20)[1]

    means = jax.pmap(run, axis_name="devices")(jnp.zeros((8, 4, 9)))
    assert np.isfinite(means).all()
    np.testing.assert_array_equal(means, np.broadcast_to(means[:1], (8, 20)))


MANY = """
import os, sys
import jax
import jax.numpy as jnp
from cemrl_jax.envs.robots import HalfCheetah

if hasattr(os, "sched_setaffinity"):  # Linux
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
simulator = HalfCheetah().on_engine(sys.argv[1]).simulator

def run(qpos):
    def step(state, _):
        state = jax.vmap(lambda x: simulator.step(x, jnp.ones(6), {}))(state)
        return state, jax.lax.pmean(state.qpos.mean(), "devices")
    start = jax.vmap(simulator.start)(qpos, jnp.zeros_like(qpos))
    return jax.lax.scan(step, start, length=50)[1]

means = jax.pmap(run, axis_name="devices")(jnp.zeros((8, 128, 9)))
print(bool(jnp.isfinite(means).all()))
"""

FORKED = """
import os
import numpy as np
from cemrl_jax.envs.engines import mujoco
from cemrl_jax.envs.robots import HalfCheetah

simulator = HalfCheetah().on_engine("mujoco").simulator
call = mujoco._Call(5, ("qpos", "qvel", "qacc_warmstart", "ctrl"), ("qpos",))
rows = np.full((4, 9 + 9 + 9 + 6), 0.1, np.float32)
before = mujoco._OWNER.run(simulator._advance, call, rows, {})
child = os.fork()
if child == 0:  # has no threads of its parent
    after = mujoco._OWNER.run(simulator._advance, call, rows, {})
    os._exit(0 if (after == before).all() else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_steps_with_threads_of_its_own():
    done = run_script(FORKED)
    assert done.stdout == "0\n", done.stderr
    assert done.returncode == 0


def test_first_calls_that_come_at_once_are_served_by_one_thread(monkeypatch):
    """Making the thread takes long here, so that all find that there is none."""
    make = c_engine.concurrent.futures.ThreadPoolExecutor

    def slowly(*args):
        time.sleep(0.2)
        return make(*args)

    with make(4) as callers:
        owner = c_engine._Owner()
        monkeypatch.setattr(c_engine.concurrent.futures, "ThreadPoolExecutor", slowly)
        threads = list(callers.map(lambda _: owner.run(threading.get_ident), range(4)))
    assert len(set(threads)) == 1


def run_script(script, *args, timeout=120):
    flags = "--xla_force_host_platform_device_count=8"
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *args],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


@pytest.mark.slow
@pytest.mark.parametrize("engine", C_ENGINES)
def test_a_thousand_robots_on_eight_devices_do_not_wait_for_each_other(engine):
    done = run_script(MANY, engine, timeout=240)  # takes ten seconds
    assert done.stdout == "True\n", done.stderr
    assert done.returncode == 0, done.stderr  # it leaves cleanly, too


FAILING = """
import jax, jax.numpy as jnp
from cemrl_jax.envs.engines import mujoco
from cemrl_jax.envs.robots import HalfCheetah
simulator = HalfCheetah().on_engine("mujoco").simulator
def fail(*args):
    raise RuntimeError("the engine has a bad day")
mujoco.BatchSimulator._advance = fail
print(jax.jit(simulator.start)(jnp.zeros(9), jnp.zeros(9)).qpos)
"""


def test_an_error_of_the_engine_ends_the_program_with_its_message():
    done = run_script(FAILING)
    assert done.returncode != 0
    assert "the engine has a bad day" in done.stderr


@needs_compiler
def test_an_error_of_mujoco_itself_ends_the_program_with_its_message():
    class Small(type(SOURCE)):
        def compile(self, edit=lambda spec: None):
            def edit_both(spec):
                edit(spec)
                spec.memory = 1000  # compiles, but has no room for contacts

            return super().compile(edit_both)

    small = mujoco_ffi.load(Small(**vars(SOURCE)))
    low = jnp.zeros(9).at[1].set(-0.4)
    state = c_engine.load(SOURCE).start(low, jnp.zeros(9))
    with pytest.raises(RuntimeError, match="simulation 0: mj_stackAlloc: out of mem"):
        jax.jit(lambda state: small.step(state, jnp.ones(6), {}))(state)


@needs_compiler
def test_a_field_that_mujoco_does_not_have_is_named():
    advance = mujoco_ffi.load(SOURCE).advance
    with pytest.raises(RuntimeError, match="qpos has another size in MuJoCo"):
        advance(1, {"qpos": jnp.zeros(8)}, {}, {"qpos": 9})
    with pytest.raises(RuntimeError, match="speed has another size in MuJoCo"):
        advance(1, {"qpos": jnp.zeros(9)}, {}, {"speed": 9})


CACHED = """
import sys
import jax
import jax.numpy as jnp
from cemrl_jax.envs.robots import HalfCheetah

events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
simulator = HalfCheetah().on_engine("mujoco_ffi").simulator
state = jax.jit(simulator.start)(jnp.zeros(9), jnp.zeros(9))
events.clear()
after = jax.jit(lambda x: simulator.step(x, jnp.ones(6), {}))(state)
print("/jax/compilation_cache/cache_hits" in events, after.qpos.tolist())
"""


@needs_compiler
def test_a_program_of_another_process_comes_from_the_compile_cache(tmp_path):
    first, again = (run_script(CACHED, str(tmp_path)) for _ in range(2))
    assert first.stdout.startswith("False"), first.stderr
    assert again.stdout == first.stdout.replace("False", "True"), again.stderr


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["mjx", C_ENGINES[1]])
def test_a_start_recalls_the_programs_of_the_one_before(tmp_path, engine):
    config = startup.short_run(preset("quickstart"), tmp_path)
    config.env.engine = engine
    config.rollout.num_envs = 8
    config_lib.save(config, tmp_path / "config.json")
    script = [sys.executable, "scripts/train.py"]
    flags = [f"--config={tmp_path}/config.json", f"--compile-cache={tmp_path}/cache"]
    first, again = (
        subprocess.run(
            [*script, *flags, f"--config.output_dir={tmp_path}/{number}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=600,
        ).stdout
        for number in range(2)
    )
    assert first.count("compiling") == 4
    assert "compiling" not in again
    one, two = (next(tmp_path.glob(f"{number}/*/*")) for number in range(2))
    assert read_rows(one) == read_rows(two) != []


def test_a_broken_state_stays_broken_and_its_neighbours_sound(simulator):
    qpos = jnp.zeros((3, 9)).at[1, 2].set(jnp.nan)
    state = jax.vmap(simulator.start)(qpos, jnp.zeros((3, 9)))
    after = jax.vmap(lambda x: simulator.step(x, jnp.ones(6), {}))(state)
    np.testing.assert_array_equal(np.isfinite(after.qpos).all(1), [True, False, True])
    assert not (ROOT / "MUJOCO_LOG.TXT").exists()


def test_c_mujoco_runs_on_cpu_devices_only(monkeypatch):
    here = "mujoco_ffi" if HAS_COMPILER else "mujoco"
    assert engines.resolve("auto") == here
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert engines.resolve("auto") == "mjx"
    for engine in engines.C_ENGINES:
        message = rf"env\.engine='{engine}' .* use 'mjx' or"
        with pytest.raises(ConfigError, match=message):
            tiny_config(env__engine=engine).validate(1)


def test_an_engine_that_is_not_built_is_refused_with_the_way_to_build_it(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert engines.resolve("auto") == "mujoco"
    with pytest.raises(ConfigError, match=r"run scripts/build_engine\.py, or use 'muj"):
        tiny_config(env__engine="mujoco_ffi").validate(1)


def test_a_compiler_that_is_missing_or_fails_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(RuntimeError, match=r"install one \(g\+\+ or clang\) or name"):
        mujoco_ffi.build()
    if sys.platform == "linux":
        monkeypatch.setenv("CXX", "false")
        with pytest.raises(RuntimeError, match="false could not build"):
            mujoco_ffi.build()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_unknown_engine_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"env\.engine='bullet' must be one of auto"):
        tiny_config(env__engine="bullet").validate(1)
