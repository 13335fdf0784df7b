"""The page of what was learnt, from runs with known numbers."""

import csv
import json
import pathlib
from typing import Any

import pytest
from helpers import preset

from cemrl_jax import config as config_lib
from cemrl_jax.analysis import load
from cemrl_jax.analysis.learning import experiments, pictures
from cemrl_jax.analysis.learning import page as learning

HEADLINE = "test/fixed_deterministic_return"


def a_run(folder: pathlib.Path, returns: list[float], **changes: Any) -> None:
    """A run of quickstart with an evaluation an epoch, of so many hours each."""
    config = preset("quickstart")
    config.seed = changes.get("seed", 0)
    config.sac.context = changes.get("context", "inferred")
    config.sac.discount = changes.get("discount", 0.99)
    config.name = changes.get("name", "quickstart")
    config.checkpoint.keep = changes.get("keep", 2)
    folder.mkdir(parents=True)
    if "begin" in changes:
        starts = {"starts": [{"date": changes["begin"]}]}
        (folder / "run.json").write_text(json.dumps(starts))
    config_lib.save(config, folder / "config.json")
    rows = [
        {
            "epoch": number,
            "env_steps": 1000 * number,
            "updates": 10 * number,
            "seconds/train": 3600.0 * changes.get("hours", 1) * (number > 0),
            HEADLINE: value,
            "inference/class_accuracy": 0.5 if number % 2 == 0 else "",
            "inference/task_r2": 0.25 if number % 2 == 0 else "",
        }
        for number, value in enumerate(returns)
    ]
    with (folder / "progress.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (folder / "compile.json").write_text('{"train": 360.0}')


@pytest.fixture
def page(tmp_path):
    for seed, end in enumerate((-10.0, -20.0, -30.0)):
        a_run(tmp_path / "runs" / str(seed), [-300.0, end, end - 1], seed=seed)
    a_run(tmp_path / "runs" / "oracle", [-300.0, -9.0], context="oracle")
    runs = load.find_runs([tmp_path / "runs"])
    learning.write(experiments.collect(runs), tmp_path, [preset("quickstart")])
    return tmp_path


def cells(page: pathlib.Path, table: int) -> list[str]:
    lines = (page / learning.PAGE).read_text().split("\n")
    rows = [line for line in lines if line.startswith("| quickstart")]
    return [cell.strip() for cell in rows[table].strip("|").split("|")]


def test_a_file_holds_every_evaluation_of_every_seed(page):
    found = json.loads((page / learning.RESULTS / "quickstart.json").read_text())
    assert (found["name"], found["context"]) == ("quickstart", "inferred")
    assert found["preset"] == "cheetah_stationary_vel"
    assert [run["seed"] for run in found["runs"]] == [0, 1, 2]
    assert found["runs"][1]["differs"] == {}
    assert found["runs"][1]["evaluations"] == {
        "epoch": [0, 1, 2],
        "env_steps": [0, 1000, 2000],
        "updates": [0, 10, 20],
        "hours": [0, 1, 2],
        HEADLINE: [-300, -20, -21],
        "inference/class_accuracy": [0.5, None, 0.5],
        "inference/task_r2": [0.25, None, 0.25],
    }


def test_the_table_has_all_seeds_at_their_end_and_the_bounds(page):
    own = cells(page, 0)
    assert own[1].startswith("-2")  # the authors'
    assert own[1].endswith("h)")
    assert own[2:5] == ["3", "2 of 80", "-21.0 [-31.0, -11.0]"]
    assert own[5:7] == ["-31.0", "2.10"]
    assert own[8:] == ["-9.0", ""]
    assert cells(page, 1)[-2:] == ["50.0%", "25.0%"]


def test_the_authors_level_is_reached_when_all_seeds_together_reach_it(page):
    found = json.loads((page / learning.RESULTS / "quickstart.json").read_text())
    assert experiments.reached(found, -200.0) == 1.0
    assert experiments.reached(found, -20.0) == 1.0  # -10, -20 and -30
    assert experiments.reached(found, -15.0) is None


def groups(folder: pathlib.Path) -> dict[str, list[int]]:
    """Returns the seeds of each experiment by its name."""
    found = experiments.collect(load.find_runs([folder]))
    return {one["name"]: [run["seed"] for run in one["runs"]] for one in found}


def test_runs_of_other_settings_are_no_seeds_of_the_same_experiment(tmp_path):
    ends = [-300.0, -10.0]
    a_run(tmp_path / "a", ends, seed=1, discount=0.9, begin="2026-11-30T07:00")
    a_run(tmp_path / "b", ends, seed=0, begin="2026-11-30T05:00")
    a_run(tmp_path / "c", ends, seed=2, begin="2026-11-30T06:00", keep=9)
    assert groups(tmp_path) == {"quickstart": [0, 2], "quickstart-2": [1]}
    a_run(tmp_path / "d", ends, name="quickstart-2")
    assert groups(tmp_path)["quickstart-3"] == [1]  # the name is another's
    found = experiments.collect(load.find_runs([tmp_path]))
    learning.write(found, tmp_path, [preset("quickstart")])
    names = {path.name for path in (tmp_path / learning.RESULTS).glob("*.json")}
    assert names == {f"quickstart{end}.json" for end in ("", "_2", "_3")}


def test_a_seed_that_was_run_again_is_an_experiment_of_its_own(tmp_path):
    for number, seed in enumerate((0, 1, 0)):
        a_run(tmp_path / str(number), [-300.0, -10.0], seed=seed)
    assert groups(tmp_path) == {"quickstart": [0, 1], "quickstart-2": [0]}
    found = experiments.collect(load.find_runs([tmp_path]))
    assert experiments.by_preset(found, [preset("quickstart")]) == (found, [])


def test_a_field_that_was_not_there_yet_has_its_default(tmp_path):
    for seed in (0, 1):
        a_run(tmp_path / str(seed), [-300.0, -10.0], seed=seed)
    path = tmp_path / "0" / "config.json"
    config = json.loads(path.read_text())
    assert config["sac"].pop("reward_scale") == 1.0
    path.write_text(json.dumps(config))
    assert groups(tmp_path) == {"quickstart": [0, 1]}
    config["sac"]["reward_scale"] = 2.0
    path.write_text(json.dumps(config))
    assert groups(tmp_path) == {"quickstart": [0], "quickstart-2": [1]}


def test_an_experiment_is_of_a_preset_when_all_of_its_runs_are(page):
    found = json.loads((page / learning.RESULTS / "quickstart.json").read_text())
    now = preset("quickstart")
    assert experiments.by_preset([found], [now]) == ([found], [])
    found["runs"][1]["differs"] = {"sac": found["config"]["sac"] | {"discount": 0.5}}
    assert experiments.by_preset([found], [now]) == ([], [found])


def reached(folder: pathlib.Path, level: float) -> float | None:
    (found,) = experiments.collect(load.find_runs([folder]))
    return experiments.reached(found, level)


def test_a_seed_that_ends_sooner_still_counts_when_the_slowest_is_there(tmp_path):
    a_run(tmp_path / "fast", [-300.0, -50.0, -10.0], seed=0)
    a_run(tmp_path / "slow", [-300.0, -50.0, -10.0], seed=1, hours=2)
    assert reached(tmp_path, -20.0) == 4.0  # the fast one ends after 2 hours
    assert reached(tmp_path, -9.0) is None


def test_a_seed_that_was_stopped_early_does_not_count_after_its_end(tmp_path):
    a_run(tmp_path / "stopped", [-300.0, -50.0, -10.0], seed=0)
    a_run(tmp_path / "slow", [-300.0, -50.0, -10.0, -10.0], seed=1, hours=2)
    assert reached(tmp_path, -20.0) is None
    assert reached(tmp_path, -60.0) == 2.0  # both are there, at -10 and at -50


def test_what_the_untrained_policy_had_is_no_result(page):
    found = json.loads((page / learning.RESULTS / "quickstart.json").read_text())
    for run in found["runs"]:
        run["evaluations"][HEADLINE][1:] = [None, None]
    assert not len(experiments.last(found, HEADLINE))
    assert len(experiments.last(found, "inference/class_accuracy")) == 3
    assert "| 0 of 3 |" in learning.tables([found])[0]


def test_files_alone_make_the_page_and_what_is_around_it_stays(page):
    path = page / learning.PAGE
    path.write_text("before\n" + path.read_text().split("\n", 1)[1] + "after\n")
    whole = path.read_text()
    learning.write([], page, [preset("quickstart")])
    assert path.read_text() == whole
    for name in (learning.PICTURE, learning.TRIED):
        assert (page / learning.RESULTS / f"{name}.png").stat().st_size > 1000


def test_presets_as_they_are_come_first_and_what_else_was_tried_is_folded_away(page):
    path = page / learning.RESULTS / "quickstart.json"
    found = json.loads(path.read_text())
    found["name"] = "quickstart-tried"
    (path.parent / "quickstart_tried.json").write_text(experiments.dumps(found))
    learning.write([], page, [preset("quickstart")])
    first, rest = (page / learning.PAGE).read_text().split("<details>")
    assert "| quickstart |" in first
    assert "quickstart-tried" not in first
    assert "| quickstart-tried |" in rest
    assert "| quickstart |" not in rest


def test_a_run_is_of_a_preset_whose_settings_it_has(page):
    folder = page / learning.RESULTS
    both = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    assert len(both) == 2  # z, and the oracle
    now = preset("quickstart")
    now.checkpoint.interval, now.seed = 3, 7
    assert experiments.by_preset(both, [now]) == (both, [])
    del both[0]["config"]["sac"]["normalize_obs"]  # an option that came later
    both[0]["config"]["sac"]["gone"] = 3
    assert experiments.by_preset(both, [now]) == (both, [])
    now.encoder.window_steps = 9
    assert experiments.by_preset(both, [now]) == ([], both)
    assert experiments.by_preset(both, []) == ([], both)


def test_the_overview_has_a_panel_for_each_preset_and_one_legend(page):
    folder = page / learning.RESULTS
    both = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    alone = both[0] | {"name": "another", "preset": None}
    figure = pictures.overview([alone, *both])
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title for title in titles if title] == ["quickstart", "another"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["authors", pictures.WORDS["inferred"], pictures.WORDS["oracle"]]


def test_experiments_on_the_same_tasks_are_compared_in_one_panel(page):
    found = json.loads((page / learning.RESULTS / "quickstart.json").read_text())
    told = json.loads((page / learning.RESULTS / "quickstart_oracle.json").read_text())
    figure = pictures.picture([found, found | {"name": "again"}, told])
    steps, hours = figure.axes
    legend = [text.get_text() for text in hours.get_legend().get_texts()]
    assert legend == ["authors", "quickstart", "again", "quickstart, oracle"]
    first, other, bound = steps.get_lines()[-3:]
    assert first.get_color() == bound.get_color() != other.get_color()
    assert first.get_linestyle() == other.get_linestyle() != bound.get_linestyle()
    assert list(first.get_ydata()) == [-300.0, -20.0, -21.0]


def test_a_panel_is_of_one_robot_and_one_choice_of_tasks(page):
    found = json.loads((page / learning.RESULTS / "quickstart.json").read_text())

    def arm(*names: str, robot: str = "sawyer") -> experiments.Experiment:
        task = {"name": "metaworld", "names": names}
        env = found["config"]["env"] | {"task": task, "robot": {"name": robot}}
        return found | {"preset": None, "config": found["config"] | {"env": env}}

    both = arm("drawer-open", "drawer-close")
    other = arm("reach", robot="other")
    groups = pictures.rivals([arm("reach"), both, other, arm("reach")])
    assert {title: len(own) for title, own in groups.items()} == {
        "other, metaworld, reach": 1,
        "sawyer, metaworld, drawer-open, drawer-close": 1,
        "sawyer, metaworld, reach": 2,
    }
