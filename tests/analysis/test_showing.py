"""Videos, the viewer for browsers, and the window."""

import contextlib
import json
import re
import shutil
import subprocess
import sys

import jax
import mujoco
import numpy as np
import pytest
from helpers import make_agent, run_training, tiny_config, use_devices

from cemrl_jax.analysis import scene, viewer, window
from cemrl_jax.analysis.restore import restore
from cemrl_jax.commands import play
from cemrl_jax.config import ConfigError
from cemrl_jax.envs.robots import Ant, HalfCheetah, Point
from cemrl_jax.training.checkpoint import Checkpoints
from cemrl_jax.training.storage import FAILED

pytest.importorskip("matplotlib")
ffmpeg = pytest.importorskip("imageio_ffmpeg")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of one epoch."""
    folder = tmp_path_factory.mktemp("shown") / "run"
    with pytest.MonkeyPatch.context() as patch:
        use_devices(patch, 1)
        run_training(tiny_config(train__num_epochs=1), folder)
    return folder


def run_play(folder, monkeypatch, *arguments):
    arguments = ("--compile-cache=off", *arguments)
    monkeypatch.setattr(sys, "argv", ["play.py", f"--run={folder}", *arguments])
    play.main()


def frames_of(path):
    """The frames `[N, H, W, 3]` of a video."""
    command = [ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo"]
    command += ["-pix_fmt", "rgb24", "-loglevel", "error", "-"]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(data, np.uint8).reshape(-1, 720, 960, 3)


def test_a_video_has_a_frame_for_each_step_and_a_cursor_that_moves(
    folder, monkeypatch, tmp_path, capsys
):
    path = tmp_path / "episode.mp4"
    run_play(folder, monkeypatch, f"--video={path}", "--tiles=3")
    assert "drawn as a ball" in capsys.readouterr().out
    frames = frames_of(path)
    assert len(frames) == 20
    away = np.abs(frames[:, 460:690].astype(int) - (213, 94, 0)).sum(-1)
    columns = away.mean(1).argmin(-1)  # where the line is
    assert (np.diff(columns) > 20).all()


def test_where_ffmpeg_fails_it_says_why(folder, monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="cannot write"):
        run_play(folder, monkeypatch, f"--video={tmp_path}/nowhere/episode.mp4")


def test_weights_that_are_not_numbers_any_more_are_played_as_well(
    folder, monkeypatch, tmp_path, capsys
):
    run = shutil.copytree(folder, tmp_path / "run")
    restored = restore(run)
    spoilt = jax.tree.map(
        lambda leaf: leaf * np.nan if leaf.dtype == np.float32 else leaf,
        restored.learner,
    )
    with Checkpoints(run / FAILED) as saved:
        saved.save(2, spoilt, {"ring": None}, -np.inf)
    run_play(run, monkeypatch, "--checkpoint=failed")
    assert "the robot falls after 1 of 20 steps" in capsys.readouterr().out
    assert (run / "strip.png").stat().st_size > 5000


def data_of(page):
    text = page.read_text()
    assert "http" not in re.sub(r"https?://www\.w3\.org", "", text)
    return json.loads(text.split("const D = ")[1].split(";\n")[0])


def test_the_viewer_holds_the_episode(folder, monkeypatch, tmp_path):
    page = tmp_path / "episode.html"
    run_play(folder, monkeypatch, f"--html={page}", "--tasks=1,3")
    data = data_of(page)
    assert len(data["ends"]) == len(data["place"]) == 20
    assert [start for start, _ in data["tasks"]] == [0, 10]
    ways = np.diff([pose[0] for pose in data["ends"]]) / 1000 / data["dt"]
    velocity = np.array(data["series"][0]["lines"][0])
    np.testing.assert_allclose(ways, velocity[1:], atol=0.05)
    assert data["total"] == pytest.approx(sum(data["series"][-1]["lines"][0]), abs=0.01)


def test_a_browser_draws_the_viewer(folder, monkeypatch, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no browser")
    page, picture = tmp_path / "episode.html", tmp_path / "page.png"
    run_play(folder, monkeypatch, f"--html={page}")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    flags += " --disable-background-networking --disable-component-update"
    flags += f" --disable-sync --user-data-dir={tmp_path / 'profile'}"
    command = [chromium, *flags.split(), "--window-size=1000,900"]
    command += [f"--screenshot={picture}", f"file://{page}#step=5"]
    subprocess.run(command, check=True, capture_output=True, timeout=90)
    import matplotlib.pyplot as plt

    pixels = (plt.imread(picture)[..., :3] * 255).astype(int)
    ball = np.abs(pixels - (201, 166, 107)).sum(-1) < 12  # its colour in the template
    assert 200 < ball.sum() < 20000
    curve = np.abs(pixels - (0, 158, 115)).sum(-1) < 160  # z
    assert curve.sum() > 100


@pytest.mark.parametrize(("robot", "count"), [(HalfCheetah(), 8), (Ant(), 13)])
def test_capsules_have_the_ends_that_physics_gives_them(robot, count):
    model = robot.simulator.model
    radii, ends = viewer.capsules(model, np.array(model.qpos0)[None])
    assert len(radii) == count
    lengths = np.linalg.norm(ends[0, :, 3:] - ends[0, :, :3], axis=1)
    shown = model.geom_type != 0
    half = np.where(model.geom_type == 3, model.geom_size[:, 1], 0)[shown]
    np.testing.assert_allclose(lengths, 2 * half, atol=1e-6)
    assert ends[..., [2, 5]].min() - max(radii) > -0.1


def test_a_stick_figure_is_drawn_where_nothing_renders():
    model = HalfCheetah().simulator.model
    drawer, words = scene.make_scene(model, 320, 240, None)
    assert "install libegl1 or libosmesa6" in words
    picture = drawer.draw(np.array(model.qpos0), np.zeros(2))
    assert picture.shape == (240, 320, 3)
    colours = 255 * model.geom_rgba[1:, None, None, :3]  # the ground is the first
    body = (np.abs(picture - colours).sum(-1) < 5).any(0)
    assert 1000 < body.sum() < 20000


def test_mujoco_renders_the_robot_where_it_can():
    backend = scene.find_backend()
    if backend is None:
        pytest.skip("nothing renders here")
    model = HalfCheetah().simulator.model
    drawer, _ = scene.make_scene(model, 320, 240, backend)
    pose = np.array(model.qpos0)
    first = drawer.draw(pose, np.zeros(2)).astype(int)
    pose[4] += 0.7
    moved = (np.abs(drawer.draw(pose, np.zeros(2)).astype(int) - first) > 40).any(-1)
    assert 50 < moved.sum() < 20000
    drawer, _ = scene.make_scene(model, 320, 240, backend)  # frees the one before
    again = drawer.draw(np.array(model.qpos0), np.zeros(2)).astype(int)
    assert np.abs(again - first).max() <= 2


class FakeWindow(contextlib.nullcontext):
    """Runs three steps; somebody presses n before the second."""

    def __init__(self, data, press):
        super().__init__(self)
        self.data, self.press, self.poses = data, press, []

    def is_running(self):
        if len(self.poses) == 1:
            self.press(window.NEXT)
        return len(self.poses) < 3

    def lock(self):
        return contextlib.nullcontext()

    def sync(self):
        self.poses.append(float(self.data.qpos[0]))


@pytest.mark.slow
def test_a_key_changes_the_task_while_the_robot_runs(monkeypatch, capsys):
    config = tiny_config()
    env = config.env.make()
    agent = make_agent(config, env.obs_size, env.action_size)
    learner = agent.init(jax.random.key(0))
    pool = config.env.task.sample(jax.random.key(0), 4)

    class Body:
        """Gives the point robot a model of one joint to be shown with."""

        model = mujoco.MjModel.from_xml_string(  # pyright: ignore
            "<mujoco><worldbody><body><joint type='slide' axis='1 0 0'/>"
            "<geom size='.1'/></body></worldbody></mujoco>"
        )

    monkeypatch.setattr(Point, "simulator", Body, raising=False)
    seen = {}

    def launch(model, data, key_callback):
        seen["window"] = FakeWindow(data, key_callback)
        return seen["window"]

    monkeypatch.setattr(window.Session, "advance", _advance_of_point)
    window.play(env, agent, learner, pool, jax.random.key(1), launch)
    assert "task 1: " in capsys.readouterr().out
    assert len(set(seen["window"].poses)) == 3


def _advance_of_point(session):
    """`Session.advance` for a robot whose pose is its place."""
    session.state, session._window = session._step(
        session.state, session._window, session._task()
    )
    return np.array([float(session.state.physics.x)])
