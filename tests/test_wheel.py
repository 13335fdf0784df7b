"""What an installed wheel offers: one package, its commands, the presets by name."""

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest
from helpers import ROOT

SETTINGS = (
    "--config.train.num_epochs=1",
    "--config.train.num_updates=5",
    "--config.tensorboard=False",
)


def run(*command: object, cwd: pathlib.Path, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "XLA_FLAGS": "", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_wheel_trains_the_debug_preset_from_another_folder(tmp_path):
    """In a venv of its own; the libraries come from this one's."""
    source = tmp_path / "source"
    run("git", "clone", "-q", ROOT, source, cwd=tmp_path)
    pip = (sys.executable, "-m", "pip")
    run(*pip, "wheel", "-q", "--no-deps", "-w", tmp_path, source, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if "dist-info" not in top} == {"cemrl_jax"}
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--no-deps", wheel, cwd=tmp_path)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    # plain paths, so that this checkout's editable install is not seen
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (site / "libraries.pth").write_text("\n".join(libraries) + "\n")
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "envs").mkdir(parents=True)  # somebody's own packages
    (elsewhere / "envs" / "__init__.py").write_text("raise ImportError('not ours')\n")
    where = "import cemrl_jax; print(cemrl_jax.__file__)"
    assert str(site) in run(python, "-c", where, cwd=elsewhere)
    train = tmp_path / "venv" / "bin" / "cemrl-train"
    out = run(train, "--config=debug", *SETTINGS, cwd=elsewhere)
    assert "results in output/point-vel/" in out
    assert list((elsewhere / "output" / "point-vel").glob("*/checkpoints/1"))
