"""What a row of the log says about whether a run may go on."""

from collections.abc import Mapping

from cemrl_jax.runtime.parallel import MAX_SKIPPED

SKIPPED = "train/skipped_"
IN_A_ROW = "train/skipped_in_a_row"


def skipping_problem(row: Mapping[str, float], last_good: str) -> str:
    """Returns why a run must stop whose gradients are not finite, "" if it need not.

    Args:
      row: metrics of an epoch, with those of `skipped_steps`.
      last_good: what the last good checkpoint is called.
    """
    if row.get(IN_A_ROW, 0) < MAX_SKIPPED:
        return ""
    counts = {
        name.removeprefix(SKIPPED): int(count)
        for name, count in row.items()
        if name.startswith(SKIPPED) and name != IN_A_ROW and count
    }
    parts = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    return (
        f"{MAX_SKIPPED} gradients in a row were not finite (skipped since the start:"
        f" {parts}); go on from {last_good} with a lower sac.learning_rate or"
        " elbo.learning_rate"
    )
