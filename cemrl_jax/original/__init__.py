"""The original program's configurations and weights."""
