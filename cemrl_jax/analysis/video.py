"""Videos of episodes: the robot, and below it goal, z and reward over time."""

import dataclasses
import itertools
import pathlib
import subprocess
from collections.abc import Iterable
from typing import Any

import numpy as np
from rich.progress import track

from cemrl_jax.analysis import describe, response, style
from cemrl_jax.analysis.scene import Scene, find_backend, make_scene
from cemrl_jax.config import ConfigError
from cemrl_jax.envs import NonStationaryEnv
from cemrl_jax.evaluation.record import Recording

WIDTH, TILE_HEIGHT, PANEL_HEIGHT = 960, 432, 288
"""Pixels: of the video, of a single robot's picture, of the curves below."""
FASTEST = 30
"""Most frames in a second; of quicker robots some steps are left out."""


@dataclasses.dataclass(frozen=True)
class Show:
    """What there is to show.

    Attributes:
      env: the environment.
      recording: episodes `[E, L]` on the host.
      title: of the run and the checkpoint.
    """

    env: NonStationaryEnv
    recording: Recording
    title: str

    @property
    def model(self) -> Any:
        """The robot's MuJoCo model, None without physics engine."""
        return getattr(getattr(self.env.robot, "simulator", None), "model", None)

    @property
    def dt(self) -> float:
        """Duration of a step, s."""
        return float(self.env.robot.control_dt)

    @property
    def num_episodes(self) -> int:
        """E."""
        return len(self.recording.alive)

    def length(self, episode: int) -> int:
        """Returns the steps of an episode until a fall."""
        return int(np.asarray(self.recording.alive[episode]).sum())


def write(show: Show, path: pathlib.Path, backend: str | None = "find") -> str:
    """Writes an MP4 file.

    Args:
      show: what is shown; its first episode has curves.
      path: the file.
      backend: see `scene.make_scene`; "find" tries what there is.

    Returns:
      How it was drawn, in words.

    Raises:
      ConfigError: imageio-ffmpeg is missing.
    """
    if backend == "find":
        backend = find_backend() if show.model is not None else None
    columns = int(np.ceil(np.sqrt(show.num_episodes)))
    rows = -(-show.num_episodes // columns)
    width = WIDTH // columns // 2 * 2
    height = max(TILE_HEIGHT // rows, 180) // 2 * 2
    scene, words = make_scene(show.model, width, height, backend)
    stride = max(round(1 / show.dt / FASTEST), 1)
    steps = range(0, max(show.length(n) for n in range(show.num_episodes)), stride)
    panel, edges = curves(show)
    pictures = (
        np.concatenate(
            [
                _tiles(show, scene, step, columns, rows, (height, width)),
                _cursor(panel, edges, step * show.dt, show),
            ]
        )
        for step in track(steps, f"drawing {path.name}", transient=True)
    )
    encode(pictures, path, 1 / show.dt / stride)
    return words


def encode(pictures: Iterable[np.ndarray], path: pathlib.Path, rate: float) -> None:
    """Writes pictures `[H, W, 3]` uint8 as H.264, so many in a second.

    Raises:
      ConfigError: imageio-ffmpeg is missing.
    """
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise ConfigError(
            "videos need imageio-ffmpeg: pip install -e '.[analysis]'"
        ) from error
    pictures = iter(pictures)
    first = next(pictures)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-r", f"{rate:g}"]
    command += ["-s", f"{first.shape[1]}x{first.shape[0]}", "-i", "-", "-an"]
    command += ["-c:v", "libx264", "-crf", "20", "-pix_fmt", "yuv420p", str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    try:
        for picture in itertools.chain([first], pictures):
            process.stdin.write(np.ascontiguousarray(picture).tobytes())
    except BrokenPipeError:
        pass  # what ffmpeg says is below
    said = process.communicate()[1].decode().strip()
    if process.returncode:
        raise ConfigError(f"cannot write {path}: {said}")


def _tiles(
    show: Show,
    scene: Scene,
    step: int,
    columns: int,
    rows: int,
    size: tuple[int, int],
) -> np.ndarray:
    """Returns the pictures of all episodes at a step, side by side."""
    height, width = size
    canvas = np.full((rows * height, WIDTH, 3), 255, np.uint8)
    for episode in range(show.num_episodes):
        last = min(step, show.length(episode) - 1)
        place = describe.places(show.env, show.recording, episode)[last]
        picture = scene.draw(np.asarray(show.recording.qpos[episode, last]), place)
        row, column = divmod(episode, columns)
        tile = _written(picture, show, episode, last, fallen=last < step)
        canvas[row * height : (row + 1) * height, column * width :][
            :, : picture.shape[1]
        ] = tile
    return canvas


def _written(
    picture: np.ndarray, show: Show, episode: int, step: int, fallen: bool
) -> np.ndarray:
    """Returns a picture with the task, the time and the reward written on it."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    texts = describe.captions(show.env, show.recording, episode)
    number = max(n for n, (start, _) in enumerate(texts) if start <= step)
    start, words = texts[number]
    fresh = number > 0 and (step - start) * show.dt < 0.5
    label = f"{words}{'   task changed' if fresh else ''}"
    label = f"{label}   fallen" if fallen else label
    font = ImageFont.load_default(18)
    width = pen.textlength(label, font=font)
    colour = style.MEANING["goal"] if fresh else "#20303a"
    pen.rectangle((6, 6, 18 + width, 32), "#ffffff")
    pen.text((12, 8), label, colour, font=font)
    reward = float(show.recording.transitions.reward[episode, step])
    seconds = (step + 1) * show.dt
    small = f"{seconds:.1f} s   reward {reward:.2f}"
    width = pen.textlength(small, font=ImageFont.load_default(14))
    low = image.height - 28
    pen.rectangle((6, low, 18 + width, low + 22), "#ffffff")
    pen.text((12, low + 2), small, "#20303a", font=ImageFont.load_default(14))
    return np.asarray(image)


def curves(show: Show) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Returns the curves of the first episode and where their time axis is.

    Returns:
      A picture `[PANEL_HEIGHT, WIDTH, 3]`; left and right end of the axis, pixels, and
      the time at the right end, s.
    """
    plt = style.pyplot()
    dots = 96
    figure, grid = plt.subplots(
        3, 1, figsize=(WIDTH / dots, PANEL_HEIGHT / dots), dpi=dots, sharex=True
    )
    recording, end = show.recording, show.length(0)
    seconds = np.arange(end) * show.dt
    label, actual, goal = describe.track(show.env, recording, 0)
    grid[0].plot(seconds, actual[:end], color=style.MEANING["actual"], linewidth=1)
    if goal is not None:
        grid[0].step(seconds, goal[:end], where="post", color=style.MEANING["goal"])
    grid[0].set_ylabel(label.replace(" along x", "").replace(", ", ",\n"), fontsize=8)
    response.z_panel(grid[1], recording, seconds)
    grid[1].set_ylabel("z", fontsize=8)
    if grid[1].get_legend():
        grid[1].get_legend().remove()
    reward = np.asarray(recording.transitions.reward[0, :end])
    grid[2].plot(seconds, reward, color=style.MEANING["reward"], linewidth=1)
    grid[2].set_ylabel("reward", fontsize=8)
    grid[2].set(xlim=(0, end * show.dt))
    moments = np.flatnonzero(np.asarray(recording.changed[0, :end])) * show.dt
    for axes in grid:
        style.mark_changes(axes, moments)
        axes.tick_params(labelsize=7)
    figure.canvas.draw()
    picture = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
    box = grid[2].get_window_extent()
    plt.close(figure)
    return picture, (box.x0, box.x1, end * show.dt)


def _cursor(
    panel: np.ndarray, edges: tuple[float, float, float], time: float, show: Show
) -> np.ndarray:
    """Returns the curves with a line at a time and a bar that shows how far it is."""
    left, right, end = edges
    share = min(time / end, 1)
    picture = panel.copy()
    x = int(left + share * (right - left))
    picture[:, x : x + 2] = (213, 94, 0)
    picture[-5:, : int(share * WIDTH)] = (0, 114, 178)
    return picture
