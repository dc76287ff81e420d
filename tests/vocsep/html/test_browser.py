"""A report in a real browser, opened as a file: players in step, keys, seeks, phones, the dark."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from storage.files import read_json
from tests.vocsep.evaluation.evaluation_songs import add_model, made, made_up, target_of, write_stems
from tests.vocsep.evaluation.report_pages import played
from tests.vocsep.page.browser import (
    WAIT_MS,
    Visit,
    chromium,
    of_sound,
    place_of,
    recorded,
    shown_time,
    start_recording,
    until,
    wait_until_sounding,
)
from vocsep.datasets.layouts import open_dataset
from vocsep.demo.dataset import synthesize_song
from vocsep.evaluation.examples import make_example
from vocsep.evaluation.report.writing import write_report
from vocsep.evaluation.subjects import ModelSubject, Subject

RATE = 44_100
SECONDS = 9.0
LANES = 7
LEVELS = "sound.tracks.map((track) => track.level)"

expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report with two demo songs to listen to, and two models."""
    root = tmp_path_factory.mktemp("report")
    subjects: dict[str, Subject] = {}
    for seed, row in enumerate(("model", "bundled")):
        add_model(root / "models", seed=seed)
        subjects[row] = ModelSubject(root / "models", str(seed + 1))
    for number in range(2):
        parts = synthesize_song(number, 0, SECONDS)
        stems = {"vocals": parts["vocals"], "accompaniment": parts["drums"] + parts["bass"] + parts["other"]}
        write_stems(root / "demo" / "test" / f"Song {number}", stems, RATE)
    folder = made(root / "reports" / "one")
    songs = open_dataset(root / "demo", "folder").split("test")
    examples = [make_example(song, subjects, folder / "examples") for song in songs]
    scores = [made_up(song.name, [float(number)] * 9, others={"bundled": 1.0}) for number, song in enumerate(songs)]
    shown = dict(zip(("best", "worst"), examples, strict=True))
    write_report(folder, target_of(root, others=["bundled"]), scores, {}, shown)
    return folder


def seek(tab: Page, seconds: float) -> None:
    """Click on the first waveform."""
    area = tab.locator("[data-player]").first.locator(".lane.mixture .time")
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box is not None
    tab.mouse.click(box["x"] + box["width"] * seconds / SECONDS, box["y"] + 10)


def test_a_report_that_is_opened_as_a_file_plays_everything_in_step(browser: Browser, report: Path) -> None:
    visit = Visit(browser, f"file://{report}", bypass_csp=True)
    tab = visit.tab("/report.html")
    player = read_json(sorted((report / "examples").iterdir())[0])
    names = [track["name"] for track in player["tracks"]]
    assert len(names) == LANES
    first = tab.locator("[data-player]").first
    for place in (first, tab.locator("[data-player]").nth(1)):
        assert place.locator(".lane .stem").all_inner_texts() == names
        assert tab.evaluate(
            "(images) => Promise.all(images.map((one) => one.decode())).then(() => images.length)",
            [image.element_handle() for image in place.locator(".spectrogram img:not(.mask)").all()],
        ) == len(names)
    # What is heard is one lane, whichever; keys and buttons switch.
    alone = np.eye(LANES).tolist()
    assert of_sound(tab, LEVELS) == alone[0]
    tab.keyboard.press("3")
    assert of_sound(tab, LEVELS) == alone[2]
    first.get_by_role("button", name=f"solo {names[5]}").click()
    assert of_sound(tab, LEVELS) == alone[5]
    first.get_by_role("button", name=f"solo {names[1]}").click(modifiers=["Shift"])
    assert of_sound(tab, LEVELS) == np.add(alone[5], alone[1]).tolist()
    first.get_by_role("button", name=f"mute {names[5]}").click()
    assert of_sound(tab, LEVELS) == alone[1]
    # All lanes sound at one place of the song, which is where the cursor is.
    seek(tab, 1.0)
    first.locator(".play").click()
    wait_until_sounding(tab)
    for seconds in (1.0, 6.2):
        start_recording(tab, 1.6, RATE, after_silence=True)
        seek(tab, seconds)
        of_sound(tab, "sound.play()")
        heard, begun = recorded(tab)
        skipped = round(0.05 * RATE)  # the ramp at the beginning
        found = [place_of(row[skipped:], played(player, name)[0]) for row, name in zip(heard, names, strict=False)]
        assert min(score for _, score in found) > 0.99, found
        places = [(place - skipped) / RATE for place, _ in found]
        assert max(places) - min(places) < 0.005
        assert places[0] == pytest.approx(seconds, abs=0.03)
        np.testing.assert_allclose(heard[-1], heard[1], atol=1e-4)  # the lane that is to be heard, and no other
        shown, clock, is_playing = shown_time(tab)
        if is_playing and shown < SECONDS:  # and what the clock shows is what sounds
            assert shown - (clock - begun) == pytest.approx(places[0], abs=0.005)
    # Another player takes over, with the keys.
    second = tab.locator("[data-player]").nth(1)
    of_sound(tab, "sound.play()")
    second.locator(".play").click()
    until(tab, "!sound.isPlaying")
    tab.keyboard.press(" ")
    expect(second.locator(".play")).to_have_text("▶ Play")
    tab.keyboard.press("Home")
    tab.keyboard.press("ArrowRight")
    expect(second.get_by_label("position in seconds")).to_have_attribute("aria-valuenow", "5")
    for key in ("Home", "[", "Shift+ArrowRight", "]"):
        tab.keyboard.press(key)
    assert second.evaluate("({ vocsep }) => vocsep.sound.loop") == {"start": 0, "stop": RATE}
    second.get_by_role("button", name="no loop").click()
    assert second.evaluate("({ vocsep }) => vocsep.sound.loop") is None
    visit.close()


def test_lanes_stay_in_step_on_a_machine_that_is_held_up_while_they_start(browser: Browser, report: Path) -> None:
    visit = Visit(browser, f"file://{report}", bypass_csp=True)
    tab = visit.tab("/report.html")
    tab.evaluate("""() => {
      const start = AudioBufferSourceNode.prototype.start;
      let calls = 0;
      AudioBufferSourceNode.prototype.start = function (...given) {
        calls += 1;
        const until = performance.now() + (calls === 3 ? 400 : 0);
        while (performance.now() < until);
        return start.apply(this, given);
      };
    }""")
    tab.keyboard.press(" ")
    wait_until_sounding(tab)
    tab.wait_for_timeout(500)
    start_recording(tab, 1.0, RATE)
    heard, _ = recorded(tab)
    player = read_json(sorted((report / "examples").iterdir())[0])
    found = [
        place_of(row, played(player, track["name"])[0]) for row, track in zip(heard, player["tracks"], strict=False)
    ]
    assert min(score for _, score in found) > 0.99, found
    assert max(place for place, _ in found) - min(place for place, _ in found) < 0.005 * RATE, found
    visit.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_fits_a_screen_and_a_phone_in_light_and_dark(browser: Browser, report: Path, scheme: str) -> None:
    visit = Visit(browser, f"file://{report}", color_scheme=scheme)
    tab = visit.tab("/report.html")
    table = tab.get_by_role("region", name="table of rows")
    assert table.evaluate("(place) => place.scrollWidth <= place.clientWidth")
    brightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    colors = tab.evaluate(brightness)
    assert max(colors) < 60 if scheme == "dark" else min(colors) > 200
    tab.set_viewport_size({"width": 390, "height": 844})
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    lefts = {round(place.bounding_box()["x"]) for place in tab.locator(".lane .time").all()}  # type: ignore[index]
    assert len(lefts) == 1
    unnamed = tab.evaluate("""[...document.querySelectorAll("button, input, canvas, img, [role=slider], [tabindex]")]
      .filter((one) => !(one.ariaLabel || one.textContent.trim() || one.alt || one.className === "mask"))
      .map((one) => one.outerHTML.slice(0, 100))""")
    assert unnamed == []
    visit.close()
