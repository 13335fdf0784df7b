"""The host loop, the state of a run, checkpoints."""
