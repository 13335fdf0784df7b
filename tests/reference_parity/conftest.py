"""Hundreds of small programs are compiled here; some care for time and memory."""

import gc

import jax
import pytest


@pytest.fixture(autouse=True, scope="session")
def rare_garbage_collection():
    """Collects less often: each time it looks through all objects of JAX."""
    thresholds = gc.get_threshold()
    gc.set_threshold(200_000, 20, 100)
    yield
    gc.set_threshold(*thresholds)


@pytest.fixture(autouse=True, scope="module")
def drop_programs():
    """Unoptimised ones are many mappings of memory; Linux gives a process 65,530."""
    yield
    jax.clear_caches()
