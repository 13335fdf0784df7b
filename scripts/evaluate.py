"""Evaluates a trained run."""

from cemrl_jax.commands.evaluate import console

if __name__ == "__main__":
    console()
