"""The page in a real browser: songs in, stems in step, loops, comparisons, keys, tabs, phones, errors."""

import io
import os
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, Page, expect

from tests.helpers import bundled_scores
from tests.vocsep.models.small_models import add_model
from tests.vocsep.page.browser import (
    RATE,
    WAIT_MS,
    Samples,
    Visit,
    drop,
    encoded,
    hold_up,
    now,
    of_sound,
    place_of,
    recorded,
    seek,
    shown_time,
    start_recording,
    until,
    wait_until_sounding,
)
from tests.vocsep.page.running_page import RunningPage, running_page
from vocsep.demo.dataset import synthesize_song
from vocsep.html.pages import player_script

SECONDS = 9.0
MOST_MB = 5
PICTURES = "VOCSEP_PAGE_PICTURES"


@pytest.fixture(scope="module")
def page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPage]:
    root = tmp_path_factory.mktemp("page")
    add_model(root / "models", channels=2)
    report = root / "reports" / "20260101-000000-model"
    report.mkdir(parents=True)
    (report / "report.html").write_text(
        f"<h1>Evaluation</h1><script>document.title = 'ran'</script><script type=\"module\">{player_script()}</script>"
    )
    options = ("--models", str(root / "models"), "--reports", str(root / "reports"), "--most-mb", str(MOST_MB))
    with running_page(root / "songs", *options) as running:
        yield running


@pytest.fixture(scope="module")
def mixture() -> Samples:
    """A demo song."""
    return synthesize_song(0, 0, SECONDS)["mixture"]


@pytest.fixture(scope="module")
def song(page: RunningPage, mixture: Samples) -> str:
    """It, separated."""
    song = page.upload("demo song.flac", encoded(mixture))
    assert page.ended(song)["state"] == "done"
    return song


@pytest.fixture(scope="module")
def sine(page: RunningPage) -> str:
    """A tone of 100 Hz, separated."""
    tone = 0.5 * np.sin(2 * np.pi * 100 * np.arange(round(6 * RATE)) / RATE)
    song = page.upload("tone.flac", encoded(np.stack([tone, tone]).astype(np.float32)))
    assert page.ended(song)["state"] == "done"
    return song


def recorded_from(tab: Page, seconds: float, length: float) -> tuple[Samples, float]:
    """What sounds after a click on a waveform, and at which time of the audio clock it begins."""
    start_recording(tab, length, RATE, after_silence=True)
    seek(tab, seconds)
    of_sound(tab, "sound.play()")
    return recorded(tab)


def test_a_dropped_song_plays_is_downloaded_and_survives_a_reload(
    visit: Callable[..., Visit], page: RunningPage, mixture: Samples
) -> None:
    tab = visit().tab()
    refused = {"bad.mp3": b"no sound" * 500, "empty.mp3": b"", "large.mp3": bytes((MOST_MB + 1) * 1_000_000)}
    drop(tab, {"../dropped <i>song</i>.flac": encoded(mixture[:, : 3 * RATE]), **refused})
    # Its name is shown as text, and the first song that is separated opens by itself.
    expect(tab.locator(".player .title")).to_have_text(
        "dropped <i>song<_i>.flac".replace("<_i>", "</i>").split("/")[-1]
    )
    for text in ("bad.mp3: ", "empty.mp3: is empty", "large.mp3: has 6 MB; at most 5 MB are taken"):
        expect(tab.locator(".song .state.error", has_text=text)).to_be_visible()
    expect(tab.locator(".lane.vocals canvas")).to_be_visible()
    expect(tab.locator("#said")).not_to_be_empty()
    tab.get_by_role("button", name="play (space)").click()
    until(tab, "sound.seconds > 0.3")
    tab.get_by_role("button", name="pause (space)").click()
    with tab.expect_download() as download:
        tab.get_by_role("link", name="all (zip)").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        stems = [soundfile.read(io.BytesIO(archive.read(name)), dtype="float32")[0] for name in archive.namelist()]
    assert len(stems) == 2
    np.testing.assert_allclose(sum(stems).T, mixture[:, : 3 * RATE], atol=1e-4)
    title = tab.locator(".player .title").inner_text()
    tab.reload()
    expect(tab.locator(".player .title")).to_have_text(title)
    expect(tab.locator(".song .state.error")).to_contain_text("bad.mp3: ")
    for name in (title, "bad.mp3"):
        tab.get_by_role("button", name=f"remove {name}").click()
        expect(tab.get_by_text(name, exact=True)).to_have_count(0)
    expect(tab.locator(".player .empty")).to_be_visible()


def test_all_stems_are_in_step_from_the_first_sample_on_and_after_seeks(
    visit: Callable[..., Visit], page: RunningPage, song: str, mixture: Samples
) -> None:
    tab = visit(bypass_csp=True).tab(f"/#songs/{song}/1")
    stems = [mixture[0]]
    for stem in ("vocals", "accompaniment"):
        content = page.ask("GET", f"/songs/{song}/1/files/{stem}").content
        stems.append(soundfile.read(io.BytesIO(content), dtype="float32")[0][:, 0])
    tab.locator(".play").click()
    wait_until_sounding(tab)
    for seconds in (1.0, 6.9, 2.5):  # the last two go over a border of pieces
        heard, begun = recorded_from(tab, seconds, 1.6)
        skipped = round(0.05 * RATE)  # the ramp at the beginning
        found = [place_of(row[skipped:], whole) for row, whole in zip(heard[:3], stems, strict=True)]
        assert min(score for _, score in found) > 0.999
        places = [(place - skipped) / RATE for place, _ in found]
        assert max(places) - min(places) < 0.005
        assert places[0] == pytest.approx(seconds, abs=0.03)  # a pixel is 13 ms
        # The mixture is the sum of both others, sample by sample.
        np.testing.assert_allclose(heard[1] + heard[2], heard[0], atol=1e-4)
        shown, clock, is_playing = shown_time(tab)
        if is_playing and shown < SECONDS:  # and what the clock shows is what sounds
            assert shown - (clock - begun) == pytest.approx(places[0], abs=0.005)


def test_a_loop_repeats_to_the_sample(visit: Callable[..., Visit], song: str) -> None:
    tab = visit(bypass_csp=True).tab(f"/#songs/{song}/1")
    box = tab.locator(".lane.mixture .time").bounding_box()
    assert box is not None
    at = [box["x"] + box["width"] * second / SECONDS for second in (3.5, 4.5)]  # over a border of pieces
    tab.mouse.move(at[0], box["y"] + 20)
    tab.mouse.down()
    tab.mouse.move(at[1], box["y"] + 20, steps=4)
    tab.mouse.up()
    expect(tab.locator(".loop-text")).to_contain_text("loop 0:03.")
    start, stop = of_sound(tab, "[sound.loop.start, sound.loop.stop]")
    assert abs(start / RATE - 3.5) < 0.05
    tab.locator(".play").click()
    seek(tab, 3.4)
    wait_until_sounding(tab)
    period = stop - start
    # Where the browser is held up, a run begins late, and what is recorded then does not tell how loops follow.
    deadline = time.monotonic() + WAIT_MS / 1000
    is_whole = False
    while not is_whole:
        assert time.monotonic() < deadline, "never two whole loops"
        start_recording(tab, 2.2 * period / RATE, RATE)
        heard, begin = recorded(tab)
        times = np.array(
            of_sound(tab, "sound.runs.filter((run) => run.frame === sound.loop.start).map((run) => run.time)")
        )
        inside = times[(times > begin - period / RATE) & (times < begin + heard.shape[1] / RATE)]
        is_whole = len(inside) >= 3 and bool((abs(np.diff(inside) * RATE - period) < 1e-3).all())
    np.testing.assert_allclose(heard[:3, period:], heard[:3, : heard.shape[1] - period], atol=1e-6)
    assert start / RATE <= now(tab) <= stop / RATE
    tab.keyboard.press("l")
    expect(tab.locator(".loop-text")).to_be_empty()


@pytest.mark.parametrize("is_held_up", [False, True])
def test_nothing_clicks(visit: Callable[..., Visit], sine: str, is_held_up: bool) -> None:
    tab = visit(bypass_csp=True).tab(f"/#songs/{sine}/1")
    if is_held_up:
        hold_up(tab)
    tab.locator(".play").click()
    wait_until_sounding(tab)
    tab.keyboard.press("1")
    tab.wait_for_timeout(200)
    start_recording(tab, 2.5, RATE)
    for key in ("1", "2", "3", "2", "3", "m", "m", "ArrowRight", "1", "ArrowLeft", "Home", "1", " ", " "):
        tab.keyboard.press(key)
        tab.wait_for_timeout(60)
    heard = recorded(tab)[0][-1]
    assert np.abs(heard).max() > 0.3
    # The tone changes by 0.5 * 2 pi 100 / 44100 = 0.007 a sample; a cut through it would jump by up to 0.5.
    assert np.abs(np.diff(heard)).max() < 0.02


def test_solo_mute_and_volume_let_through_what_they_say(visit: Callable[..., Visit], song: str) -> None:
    tab = visit(bypass_csp=True).tab(f"/#songs/{song}/1")
    steps: tuple[tuple[Callable[[], object], tuple[float, float, float]], ...] = (
        (lambda: None, (0, 1, 1)),
        (lambda: tab.get_by_role("button", name="solo vocals").click(), (0, 1, 0)),
        (lambda: tab.get_by_role("button", name="solo mixture").click(), (1, 1, 0)),
        (lambda: tab.keyboard.press("1"), (0, 1, 0)),
        (lambda: tab.keyboard.press("2"), (0, 1, 1)),
        (lambda: tab.get_by_role("button", name="mute vocals").click(), (0, 0, 1)),
        (lambda: tab.get_by_role("slider", name="volume of accompaniment").fill("0.5"), (0, 0, 0.25)),
    )
    for act, levels in steps:
        act()
        tab.wait_for_timeout(300)  # until the ramps have come to their end
        (*stems, heard), _ = recorded_from(tab, 2.0, 0.3)
        np.testing.assert_allclose(heard, np.tensordot(levels, stems, 1), atol=2e-3)


def test_two_models_are_compared_blind_with_levels_matched(
    visit: Callable[..., Visit], page: RunningPage, song: str
) -> None:
    tab = visit(bypass_csp=True).tab(f"/#songs/{song}/1")
    tab.locator("#settings summary").click()
    tab.locator("select[name=model]").select_option("bundled")
    tab.locator("select[name=format]").select_option("mp3")
    tab.locator("#list").get_by_role("button", name="separate demo song.flac again").click()
    take = page.ended(song, 2)
    assert (take["state"], take["model"], take["files"]["vocals"]) == ("done", "bundled", "vocals.mp3")
    compare = tab.get_by_label("compare with")
    compare.select_option(value="2")
    tab.locator(".side-button").first.wait_for()
    tab.get_by_label("blind").check()
    buttons = tab.locator(".side-button")
    expect(buttons).to_have_text(["X", "Y"])
    assert "version" not in tab.locator(".player .facts").inner_text()
    tab.keyboard.press("2")
    loudness = []
    for side in (0, 1):
        buttons.nth(side).click()
        expect(buttons.nth(side)).to_have_attribute("aria-pressed", "true")
        tab.wait_for_timeout(300)
        rows, _ = recorded_from(tab, 2.0, 1.0)
        own, other = rows[1 + 2 * side], rows[3 - 2 * side]
        gain = float(rows[-1] @ own / (own @ own))
        np.testing.assert_allclose(rows[-1], gain * own, atol=2e-3)
        assert not np.allclose(own, other, atol=1e-3)
        loudness.append(gain)
    rms = sorted(one["sound"]["rms"]["vocals"] for one in page.songs()[song]["takes"])
    assert sorted(loudness) == pytest.approx([rms[0] / rms[1], 1.0], rel=0.02)
    tab.get_by_role("button", name="Reveal").click()
    names = buttons.all_inner_texts()
    assert sorted("bundled" in name for name in names) == [False, True]
    tab.get_by_label("compare with").select_option("")
    page.change("DELETE", f"/api/songs/{song}/takes/2")
    expect(tab.locator(".side-button")).to_have_count(0)


def test_a_phone_in_the_dark_with_nothing_but_keys(visit: Callable[..., Visit], song: str) -> None:
    tab = visit(color_scheme="dark").tab(f"/#songs/{song}/1")
    tab.set_viewport_size({"width": 390, "height": 844})
    expect(tab.locator(".lane.vocals canvas")).to_be_visible()
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    lefts = {tab.locator(f".lane.{stem} .time").bounding_box()["x"] for stem in ("mixture", "vocals", "accompaniment")}  # type: ignore[index]
    assert len(lefts) == 1
    background = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    assert max(tab.evaluate(background)) < 60
    tab.locator("body").press("Tab")
    reached = []
    for _ in range(60):
        reached.append(
            tab.evaluate(
                "document.activeElement.getAttribute('aria-label') || document.activeElement.id "
                "|| document.activeElement.textContent"
            )
        )
        tab.keyboard.press("Tab")
    for name in (
        "files",
        "switch to light",
        "play (space)",
        "position in seconds",
        "mute vocals",
        "solo accompaniment",
        "volume of mixture",
        "remove demo song.flac",
        "↓ vocals.wav",
    ):
        assert name in reached
    tab.get_by_label("position in seconds").focus()
    tab.keyboard.press("ArrowRight")
    assert now(tab) == 5.0
    tab.keyboard.press("Shift+ArrowLeft")
    assert now(tab) == 4.0
    expect(tab.get_by_label("position in seconds")).to_have_attribute("aria-valuetext", "0:04 of 0:09")
    tab.keyboard.press("[")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("]")
    expect(tab.locator(".loop-text")).to_have_text("loop 0:04.0 to 0:09.0")
    tab.keyboard.press("Home")
    tab.keyboard.press(" ")
    wait_until_sounding(tab)
    tab.keyboard.press(" ")
    assert not of_sound(tab, "sound.isPlaying")
    tab.locator("#theme").press("Enter")
    assert min(tab.evaluate(background)) > 200
    unnamed = tab.evaluate("""[...document.querySelectorAll("button, input, select, a, canvas, progress, iframe")]
      .filter((one) => one.checkVisibility() && !(one.ariaLabel || one.labels?.length || one.textContent.trim()))
      .map((one) => one.outerHTML)""")
    assert unnamed == []


def test_models_and_reports_have_tabs(visit: Callable[..., Visit]) -> None:
    visited = visit()
    tab = visited.tab()
    tab.get_by_role("tab", name="Models").click()
    row = tab.locator("tr", has=tab.get_by_role("rowheader", name="bundled"))
    expect(row).to_contain_text(f"{bundled_scores()[1]:.2f} dB")
    tab.locator("summary", has_text="bundled model").click()
    expect(tab.get_by_role("img", name="validation SDR, dB")).to_be_visible()
    tab.get_by_role("tab", name="Models").press("ArrowRight")
    expect(tab.frame_locator("iframe").locator("h1")).to_have_text("Evaluation")
    expect(tab.frame_locator("iframe").locator("body[data-ready]")).to_be_visible()
    # Only the script of the players may run: the policy tells the console so.
    assert all("script-src" in problem for problem in visited.problems)
    assert tab.frames[1].title() != "ran"
    visited.problems.clear()


@pytest.mark.skipif(
    PICTURES not in os.environ, reason=f"{PICTURES} names no folder for the pictures of the documentation"
)
def test_pictures_of_the_documentation(browser: Browser, tmp_path: Path) -> None:
    folder = Path(os.environ[PICTURES]).absolute()
    whole = synthesize_song(0, 3, 40.0)["mixture"]
    with running_page(tmp_path / "songs") as page:
        song = page.upload("Glass Harbour.flac", encoded(whole))
        other = page.change("POST", f"/api/songs/{song}/takes", {"wiener": True}).json()["id"]
        page.ended(song, other)
        visit = Visit(browser, page.address)
        tab = visit.tab(f"/#songs/{song}/1")
        tab.get_by_label("compare with").select_option(str(other))
        tab.locator(".side-button").first.wait_for()
        tab.evaluate("document.getElementById('player').vocsep.setLoop(12, 19.5)")
        tab.evaluate("document.getElementById('player').vocsep.seek(14.2)")
        tab.get_by_label("vocals mask").check()
        tab.wait_for_timeout(500)
        tab.screenshot(path=folder / "page-light.png")
        tab.locator("#theme").click()
        tab.wait_for_timeout(300)
        tab.screenshot(path=folder / "page-dark.png")
        tab.get_by_role("tab", name="Models").click()
        tab.get_by_role("img", name="training loss").wait_for()
        tab.screenshot(path=folder / "page-models.png")
        tab.locator("#theme").click()
        phone = visit.tab(f"/#songs/{song}/1")
        phone.set_viewport_size({"width": 390, "height": 1300})
        phone.wait_for_timeout(500)
        phone.screenshot(path=folder / "page-phone.png")
        visit.close()
