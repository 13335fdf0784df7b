"""Reads the recorded numbers of the original; their README says what they are."""

import dataclasses
import functools
import json
import os
import pathlib
import zlib

import numpy as np

COMMITTED = pathlib.Path(__file__).parent.parent / "fixtures" / "reference"
DIRECTORY = pathlib.Path(os.environ.get("CEMRL_REFERENCE_DATA") or COMMITTED)

FILES = {
    "encoders": "input",
    "elbo": "returned_loss",
    "recon_trace": "step_points",
    "sac": "eps_obs",
    "replay": "chosen_points",
    "context": "given/encoder_inputs",
    "envs": "qpos_before",
}
"""Recorded file -> an array that every case has that the tests look at."""


@dataclasses.dataclass(frozen=True)
class Group:
    """The arrays of a file whose names begin with a prefix."""

    file: str
    prefix: str

    def __getitem__(self, name):
        return archive(self.file)[self.prefix + name]

    def __contains__(self, name):
        return self.prefix + name in names(self.file)

    def at(self, prefix):
        return Group(self.file, f"{self.prefix}{prefix}")

    def under(self, prefix):
        start = self.prefix + prefix
        return {
            name.removeprefix(start): archive(self.file)[name]
            for name in names(self.file)
            if name.startswith(start)
        }


@dataclasses.dataclass(frozen=True)
class Case(Group):
    """What was recorded of one setting; `meta` describes it."""

    name: str
    meta: dict = dataclasses.field(compare=False)

    def __str__(self):
        return self.name

    @functools.cached_property
    def steps(self):
        """The consecutive steps of the case; itself if there is only one."""
        numbered = []
        while any(
            name.startswith(f"{self.prefix}step{len(numbered)}/")
            for name in names(self.file)
        ):
            numbered.append(self.at(f"step{len(numbered)}/"))
        return numbered or [self]


@functools.cache
def archive(file):
    return np.load(DIRECTORY / f"{file}.npz")


@functools.cache
def names(file):
    return frozenset(archive(file).files)


@functools.cache
def description(file):
    return json.loads((DIRECTORY / f"{file}.json").read_text())


def cases(file, having=None):
    """Returns the cases of a file that have an array, or had it in a step."""
    having = having or FILES[file]
    found = [
        Case(file, f"{name}/", name, meta)
        for name, meta in sorted(description(file)["cases"].items())
        if meta.get("ok", True)
    ]
    return [case for case in found if any(having in step for step in case.steps)]


def slow_ones(found):
    """Returns the cases each of whose settings other cases have as well.

    The fast suite has each setting, the slow one all combinations. The last cases come
    first: those of the original's size are the first.
    """
    seen, slow = set(), set()
    for case in reversed(found):
        settings = set(case.name.split("_"))
        if settings <= seen:
            slow.add(case)
        seen |= settings
    return slow


def weights(case):
    """Returns the weights that a case starts with, by the original's names."""
    owner = Group(case.file, f"{case.meta.get('weights_id') or case.name}/")
    stored = owner.under("params/") or owner.under("encoder_params/")
    return stored or {
        name: seeded_weight(case.meta["case_seed"], name, tuple(shape))
        for name, shape in case.meta["param_shapes"].items()
    }


def seeded_weight(case_seed, name, shape):
    """Makes the weights that are given by a seed; the recipe is in the README."""
    random = np.random.RandomState(zlib.crc32(f"{case_seed}:{name}".encode()))
    *_, layer, kind = name.split("/")
    if kind == "bias":
        return random.uniform(-0.2, 0.2, shape).astype(np.float32)
    gain = 6.0 if layer.startswith("fc") else 3.0
    gain = {"mean": 0.75, "log_std": 0.12}.get(layer, gain)
    bound = np.sqrt(gain / shape[0])
    return random.uniform(-bound, bound, shape).astype(np.float32)


def initialisation():
    """Returns what was measured of fresh networks; not every directory has it."""
    path = DIRECTORY / "init.json"
    path = path if path.exists() else COMMITTED / "init.json"
    return json.loads(path.read_text())["measured_over_200_initialisations"]
