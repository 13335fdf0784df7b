"""Compiler options: known to the installed compiler, given to those that need them."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from cemrl_jax.configs import ml1_reach, ml10
from cemrl_jax.runtime.programs import (
    FEW_PIECES,
    ONCE,
    QUICKLY,
    Program,
    compile_lowered,
)
from cemrl_jax.training.programs import compiler_options


@pytest.mark.parametrize("options", [QUICKLY, ONCE, FEW_PIECES])
def test_the_compiler_knows_the_options(options):
    lowered = jax.jit(lambda x: jnp.sin(x).sum() + 1).lower(jnp.zeros(3))
    result, _ = Program.timed(lambda: compile_lowered(lowered, options))(jnp.zeros(3))
    assert result == 1


@pytest.mark.parametrize(
    ("preset", "engine", "expected"),
    [
        (ml10, "mjx", FEW_PIECES),
        (ml10, "mujoco_ffi", QUICKLY),
        (ml1_reach, "mjx", None),
    ],
)
def test_what_runs_several_models_compiles_to_few_pieces(preset, engine, expected):
    config = preset.get_config()
    env = dataclasses.replace(config.env, engine=engine)
    options = compiler_options(dataclasses.replace(config, env=env))
    assert options.get("collect") == options.get("evaluate") == expected
