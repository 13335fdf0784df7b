"""Shows an episode of a trained run whose task changes."""

from cemrl_jax.commands.play import console

if __name__ == "__main__":
    console()
