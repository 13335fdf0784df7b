"""Experiments: one small file each, with a `get_config()`."""
