"""The recordings themselves: a directory without any must not pass."""

import pytest
from recordings import DIRECTORY, FILES, cases


@pytest.mark.parametrize("file", FILES)
def test_directory_holds_cases_of_every_file(file):
    assert cases(file), f"no cases in {DIRECTORY}/{file}.json"
