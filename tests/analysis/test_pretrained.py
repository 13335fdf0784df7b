"""The agents that come with the program."""

import pytest
from helpers import ROOT

from cemrl_jax.analysis import load, recordings
from cemrl_jax.commands import evaluate

AGENTS = sorted(path.name for path in (ROOT / "pretrained").iterdir())


@pytest.mark.parametrize("name", AGENTS)
def test_a_packed_agent_is_complete_and_small(name):
    run = load.read_run(ROOT / "pretrained" / name)
    assert not [text for text in run.missing if "run.json" not in text]
    assert sum(path.stat().st_size for path in run.directory.iterdir()) < 500_000


def test_the_packed_point_robot_still_does_what_it_has_learnt():
    folder = ROOT / "pretrained" / "point-vel"
    _, evaluation = evaluate.evaluate(folder, "best", 1, 0)
    reached = evaluation.metrics["test/fixed_deterministic_return"]
    assert reached > -15  # it logged -10.4; an untrained one has about -50


def test_the_packed_agent_tells_its_tasks_apart():
    from cemrl_jax.analysis import encodings

    run = load.read_run(ROOT / "pretrained" / "point-dir")
    study = recordings.study(run, recordings.Settings(num_tasks=4))
    read = encodings.readability(study, study.groups["changing"])
    assert read["class accuracy"] > 0.95
