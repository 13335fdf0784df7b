"""Trains CEMRL: collects, learns, evaluates and saves until the epochs are done."""

from cemrl_jax.commands.train import console

if __name__ == "__main__":
    console()
