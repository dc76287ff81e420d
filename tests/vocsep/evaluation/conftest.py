"""What all tests of evaluation share."""

from collections.abc import Iterator

import pytest
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads of linear algebra that wait for each other on busy cores take many times as long."""
    with threadpool_limits(1):
        yield
