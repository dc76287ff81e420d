"""The browser, and its visits of a file's `page`, for all tests of the page."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.vocsep.page.browser import WAIT_MS, Visit, chromium
from tests.vocsep.page.running_page import RunningPage

expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def visit(browser: Browser, page: RunningPage) -> Iterator[Callable[..., Visit]]:
    visits: list[Visit] = []

    def begin(**options: Any) -> Visit:
        visits.append(Visit(browser, page.address, **options))
        return visits[-1]

    yield begin
    for one in visits:
        one.close()
