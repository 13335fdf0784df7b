"""`scripts/analyse.py`: a report of whatever is in the folders of runs."""

import html
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT, preset, run_training, tiny_config, use_devices

from cemrl_jax import config as config_lib
from cemrl_jax.analysis import curves, load, recordings, response, style
from cemrl_jax.commands import analyse
from cemrl_jax.config import ConfigError
from cemrl_jax.envs.schedules import Timed
from cemrl_jax.envs.tasks import Dynamics, MultiTask

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of seeds 0 and 2, the same but for the name, with changes and classes."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        use_devices(patch, 1)
        config = tiny_config(
            rollout__num_steps=40,
            env__schedule__min_steps=10,
            env__task=MultiTask(("velocity", "direction")),
            encoder__num_classes=2,
            encoder__latent_size=3,
        )
        run_training(config, folder / "tiny" / "seed-0")
    shutil.copytree(folder / "tiny" / "seed-0", folder / "tiny" / "seed-2")
    config.seed = 2
    config_lib.save(config, folder / "tiny" / "seed-2" / "config.json")
    columns = folder / "tiny" / "seed-2" / "progress.csv"
    columns.write_text(columns.read_text().replace("-", "-1"))
    return folder / "tiny"


def report(monkeypatch, output, *runs, more=()):
    arguments = ["--compile-cache=off", "--tasks=4", f"--output={output}", *more]
    monkeypatch.setattr(sys, "argv", ["analyse.py", *map(str, runs), *arguments])
    analyse.main()
    return html.unescape((output / "report.html").read_text())


def without_failures(text):
    assert "could not be made" not in text
    assert "cannot be shown" not in text
    return True


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory):
    """The folder of a report of both runs, and its text."""
    output = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        return output, report(patch, output, folder, more=["--format=svg"])


def test_a_report_holds_every_figure_and_needs_no_other_file(made):
    output, text = made
    assert without_failures(text)
    names = "learning_curves cases time losses encodings encodings_pca classes reading"
    names += " response recovery change_intervals returns_by_task"
    for name in names.split():
        assert (output / f"{name}.svg").stat().st_size > 5000, name
    assert text.count("data:image/svg+xml;base64,") == len(names.split())
    links = re.findall(r'(?:src|href)="([^"]{1,40})', text)
    assert all(link.startswith(("data:", "#")) for link in links)


def test_a_missing_seed_is_named(made):
    assert "seed 1 is missing between 0 and 2" in made[1]


@pytest.mark.parametrize(
    ("seeds", "missing"),
    [
        ((0, 2), [1]),
        ((0, 1, 4, 5), [2, 3]),
        ((0, 3), [1, 2]),
        ((0, 4), []),  # three are more than there are
        ((0, 20261), []),
        ((0, 1, 10**12), []),
        ((7,), []),
        ((), []),
    ],
)
def test_gaps_are_named_while_they_are_no_more_than_the_runs(seeds, missing, tmp_path):
    runs = [load.RunFiles(tmp_path, raw={"seed": seed}) for seed in seeds]
    notes = load.missing_seeds(runs)
    assert [int(note.split()[1]) for note in notes] == missing


def test_the_axes_of_the_curves_are_named(folder):
    made = curves.learning(load.find_runs([folder]))
    assert made
    names = [axes.get_xlabel() for axes in made.figure.axes]
    assert names[0::3] == ["environment steps"] * 2
    assert names[1::3] == ["updates"] * 2
    assert set(names[2::3]) <= {"hours", "minutes", "seconds"}


def test_what_an_interval_of_few_runs_is_stands_below_the_curves(made):
    assert "of 2 runs that is the range from lowest to highest" in made[1]


def test_hours_go_to_the_end_of_the_slowest_run_however_few_its_points():
    fast = np.array([0.0, 0.5, 1.0, 2.0]), np.array([-300.0, -100.0, -50.0, -10.0])
    slow = np.array([0.0, 2.0, 4.0]), np.array([-300.0, -50.0, -20.0])
    epochs = [np.array([0, 1, 2, 4]), np.array([0, 2, 4])]
    places, values = curves.merged([fast, slow], epochs, "hours")
    assert (places[0], places[-1], len(places)) == (0.0, 4.0, 4)
    assert values[-1].tolist() == [-10.0, -20.0]
    stopped = [np.array([0, 1, 2, 3]), np.array([0, 2, 4])]
    assert curves.merged([fast, slow], stopped, "hours")[1][-1].tolist() == [-20.0]
    places, values = curves.merged([fast, slow], epochs, "updates")
    assert values[places.tolist().index(4.0)].tolist() == [-20.0]


def test_the_table_of_curves_has_the_mean_of_both_runs(made, folder):
    output, _ = made
    lines = (output / "learning_curves.csv").read_text().splitlines()[1:]
    last = [line.split(",") for line in lines if line.startswith("fixed,env_steps")][-1]
    runs = load.find_runs([folder])
    metric = "test/fixed_deterministic_return"
    expected = np.mean([run.evaluations(metric)[1][-1] for run in runs])
    assert float(last[3]) == pytest.approx(expected)
    assert last[6] == "2.0"


def test_a_browser_shows_the_report(made, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no browser")
    picture = tmp_path / "page.png"
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    flags += " --disable-background-networking --disable-component-update"
    flags += f" --disable-sync --user-data-dir={tmp_path / 'profile'}"
    command = [chromium, *flags.split(), "--window-size=1000,2400"]
    page = f"file://{made[0] / 'report.html'}"
    command += [f"--screenshot={picture}", page]
    subprocess.run(command, check=True, capture_output=True, timeout=90)
    import matplotlib.pyplot as plt

    pixels = plt.imread(picture)[..., :3]
    assert pixels.shape[:2] == (2400, 1000)
    colours = np.unique((pixels * 15).astype(int).reshape(-1, 3), axis=0)
    assert len(colours) > 50  # figures, not only text


def test_a_truncated_run_has_a_report_that_says_what_is_missing(
    folder, monkeypatch, tmp_path
):
    run = tmp_path / "runs" / "cut"
    shutil.copytree(folder / "seed-0", run)
    data = (run / "progress.csv").read_text()
    (run / "progress.csv").write_text(data[: len(data) * 3 // 4])
    (run / "tasks.npz").write_bytes(b"no archive")
    shutil.rmtree(run / "checkpoints")
    broken = tmp_path / "runs" / "broken"
    broken.mkdir()
    (broken / "config.json").write_text('{"name": "x", "gone": 1}')
    text = report(monkeypatch, tmp_path / "report", tmp_path / "runs")
    assert "ended after 1 of 2 epochs" in text
    assert "tasks.npz cannot be read" in text
    assert "no checkpoint: nothing of the policy can be shown" in text
    assert "unknown field gone" in text
    assert "could not be made" not in text


@pytest.mark.slow
@pytest.mark.parametrize("context", ["inferred", "oracle"])
def test_tasks_that_change_the_dynamics_have_a_report(context, monkeypatch, tmp_path):
    use_devices(monkeypatch, 1)
    task = Dynamics(parameters=("gain",), bases=(1.2,), log_limit=2.0)
    config = tiny_config(env__task=task, train__num_epochs=1, sac__context=context)
    run_training(config, tmp_path / "run")
    more = ["--format=svg", "--intervals=10", "--change-at=5,12"]
    text = report(monkeypatch, tmp_path / "report", tmp_path / "run", more=more)
    assert without_failures(text)
    header = (tmp_path / "report" / "encodings.csv").read_text().splitlines()[0]
    assert header.startswith('pool,base,"gain, mean multiplier",z1')


MULTI_TASK = "cheetah_stationary_multi_task"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("quickstart", "cheetah_stationary_vel"),
        ("ant_non_stationary_dir", "ant_non_stationary_dir"),
        ("fast_" + MULTI_TASK, MULTI_TASK),
        (f"fast_{MULTI_TASK}_spare", MULTI_TASK + "_spare_class"),
        (MULTI_TASK + "_two_classes", MULTI_TASK + "_two_classes"),
        (MULTI_TASK + "_mlp", MULTI_TASK + "_mlp"),
        ("cheetah_non_stationary_mass", None),
    ],
)
def test_the_authors_runs_are_found_by_what_was_trained(name, expected, tmp_path):
    config_lib.save(preset(name), tmp_path / "config.json")
    (run,) = load.find_runs([tmp_path])
    assert load.preset_of(run) == expected


def test_the_authors_runs_count_under_their_protocol():
    ant = "ant_non_stationary_dir"
    last = [run["test_return"][-1] for run in load.author_curves()[ant]]
    assert last == [28078.5, 26292.6, 29493.3]
    assert curves.authors_of(ant, "direction", "changing")
    assert not curves.authors_of(ant, "direction", "fixed")


def test_a_schedule_on_the_command_line_has_fields():
    schedule = analyse.read_schedule("timed,min_steps=20,probability=0.5")
    assert isinstance(schedule, Timed)
    assert (schedule.min_steps, schedule.probability) == (20, 0.5)
    with pytest.raises(ConfigError, match="min_steps=-1 must not be negative"):
        analyse.read_schedule("timed,min_steps=-1")
    with pytest.raises(ConfigError, match="unknown field speed"):
        analyse.read_schedule("timed,speed=2")


def test_planned_changes_are_where_they_were_asked_for(folder):
    settings = recordings.Settings(num_tasks=4, change_at=(7, 30), intervals=(8,))
    study = recordings.study(load.read_run(folder / "seed-0"), settings)
    changed = study.groups["shown"].changed[0]
    np.testing.assert_array_equal(np.flatnonzero(changed), [7, 30])
    every = study.groups["every/8"].changed
    assert set(np.flatnonzero(every.any(0))) <= {8, 16, 24, 32}
    assert not study.groups["fixed/test"].changed.any()


def test_what_changes_is_compared_with_the_same_tasks_where_they_stay(
    monkeypatch,
):
    run = load.read_run(ROOT / "pretrained" / "point-vel")
    more = {"test": run.pools["train"], "train": run.pools["train"]}
    monkeypatch.setattr(recordings, "stored_pools", lambda *_: more)
    study = recordings.study(run, recordings.Settings(intervals=(8,)))
    begun = np.asarray(study.groups["every/8"].number[:, 0])
    still = np.asarray(response.staying(study, "every/8").number)
    assert len(study.groups["fixed/test"].number) > len(begun) == 8
    np.testing.assert_array_equal(still, np.broadcast_to(begun[:, None], still.shape))
    part = response.intervals(study)
    assert part is not None
    assert part.table is not None
    same = np.isin(np.asarray(study.groups["fixed/test"].number[:, 0]), begun)
    reward = np.asarray(study.groups["fixed/test"].transitions.reward)[same]
    alive = np.asarray(study.groups["fixed/test"].alive)[same]
    never = next(row for row in part.table.rows if row[0] == "never")
    assert never[1] == pytest.approx(reward[alive].mean())


def test_fifteen_tasks_have_fifteen_colours():
    assert style.series(0) == style.SERIES[0]
    assert len({style.series(number) for number in range(15)}) == 15
