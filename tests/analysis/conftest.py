"""What all tests of figures share."""

import sys

import pytest


@pytest.fixture(autouse=True)
def no_open_figures():
    """Closes the figures of a test: matplotlib warns of more than twenty."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
