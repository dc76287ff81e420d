"""Songs that go while somebody listens to them, in a real browser."""

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Error, Route, expect

from tests.vocsep.page.browser import WAIT_MS, Samples, Visit, encoded, until
from tests.vocsep.page.running_page import RunningPage, running_page
from vocsep.demo.dataset import synthesize_song


@pytest.fixture(scope="module")
def page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPage]:
    with running_page(tmp_path_factory.mktemp("page") / "songs") as running:
        yield running


@pytest.fixture(scope="module")
def mixture() -> Samples:
    """A second of a demo song."""
    return synthesize_song(0, 0, 1.0)["mixture"]


def test_two_tabs_show_the_same(visit: Callable[..., Visit], page: RunningPage, mixture: Samples) -> None:
    both = visit()
    first, second = both.tab(), both.tab()
    song = page.upload("for both.flac", encoded(mixture))
    for tab in (first, second):
        expect(tab.get_by_role("button", name="listen to for both.flac")).to_be_visible()
    second.get_by_role("button", name="listen to for both.flac").click()
    until(second, "[...document.querySelectorAll('.lane img')].every((one) => one.naturalWidth)")
    first.get_by_role("button", name="remove for both.flac").click()
    expect(second.locator(".song", has_text="for both.flac")).to_have_count(0)
    assert song not in page.songs()


@pytest.mark.parametrize("late", ["peaks", "samples/vocals/0", "pictures/vocals", "the end of an answer"])
def test_nothing_is_asked_of_a_song_that_was_removed_while_it_opened(
    visit: Callable[..., Visit], page: RunningPage, mixture: Samples, late: str
) -> None:
    song = page.upload("short.flac", encoded(mixture))
    page.ended(song)
    one = visit()
    if late == "the end of an answer":
        one.context.add_init_script(
            "const json = Response.prototype.json;"
            "Response.prototype.json = async function () {"
            "  const told = await json.call(this);"
            "  if (this.url.endsWith('/peaks')) await new Promise((end) => { window.end = end; });"
            "  return told;"
            "};"
        )
    held: list[Route] = []
    one.context.route(f"**/songs/{song}/1/{late}", lambda route: held.append(route))
    tab = one.tab()
    tab.get_by_role("button", name="listen to short.flac").click()
    if late == "samples/vocals/0":
        tab.get_by_role("button", name="play (space)").click()
    deadline = time.monotonic() + WAIT_MS / 1000
    while not held and not tab.evaluate("Boolean(window.end)"):
        assert time.monotonic() < deadline
        tab.wait_for_timeout(20)
    tab.get_by_role("button", name="remove short.flac").click()
    expect(tab.get_by_text("short.flac", exact=True)).to_have_count(0)
    tab.evaluate("window.end?.()")
    for route in held:
        with contextlib.suppress(Error):  # it was given up
            route.continue_()
    tab.wait_for_timeout(500)
