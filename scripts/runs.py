"""Lists, compares and exports trained runs."""

from cemrl_jax.commands.runs import console

if __name__ == "__main__":
    console()
