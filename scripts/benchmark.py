"""Measures throughput, start-up and the limits of the machine."""

from cemrl_jax.commands.benchmark import console

if __name__ == "__main__":
    console()
