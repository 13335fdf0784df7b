"""Hundreds of small programs are compiled here; some care for the time that takes."""

import gc

import pytest


@pytest.fixture(autouse=True, scope="session")
def rare_garbage_collection():
    """Collects less often: each time it looks through all objects of JAX."""
    thresholds = gc.get_threshold()
    gc.set_threshold(200_000, 20, 100)
    yield
    gc.set_threshold(*thresholds)
