"""Builds the engine that C MuJoCo has without Python in between."""

from cemrl_jax.commands.build_engine import console

if __name__ == "__main__":
    console()
