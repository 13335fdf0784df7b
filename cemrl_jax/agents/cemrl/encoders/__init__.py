"""Encoders: one file each, one line in `ENCODERS`.

An encoder is a linen module built as `Encoder(num_classes, latent_size, width_factor)`
(and `merge`, where it has merges) with two methods. `embed` looks at one transition and
does not depend on the window around it, so that acting can embed each transition once;
`infer` turns a window of embeddings into a `Posterior`.
"""

from cemrl_jax.agents.cemrl.encoders.individual_y import IndividualY
from cemrl_jax.agents.cemrl.encoders.shared_y import MERGES, SharedY
from cemrl_jax.agents.cemrl.encoders.trajectory import Trajectory

ENCODERS = {"shared_y": SharedY, "individual_y": IndividualY, "trajectory": Trajectory}
"""Name -> encoder, for configurations."""

__all__ = ["ENCODERS", "MERGES", "IndividualY", "SharedY", "Trajectory"]
