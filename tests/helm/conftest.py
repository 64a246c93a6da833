"""What the tests of the chart share."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from chart import CASES, Release, values_of


@pytest.fixture(scope="session", params=CASES, ids=lambda path: path.stem)
def case(request):
    return request.param


@pytest.fixture(scope="session")
def release(case):
    return Release(values_of(case))
