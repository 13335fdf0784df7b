"""Turns weights of the original PyTorch CEMRL into a run."""

from cemrl_jax.commands.import_weights import console

if __name__ == "__main__":
    console()
