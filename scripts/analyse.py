"""Writes a report of trained runs."""

from cemrl_jax.commands.analyse import console

if __name__ == "__main__":
    console()
