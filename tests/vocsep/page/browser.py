"""A real browser: Chromium without windows, driven by Playwright, and what is heard in it, sample by sample."""

import base64
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

Samples = NDArray[np.float32]
CHROMIUM = Path("/usr/bin/chromium")
RATE = 44_100
WAIT_MS = 120_000
_ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--autoplay-policy=no-user-gesture-required",
)
# In the audio thread nothing is lost, however busy the machine is: frames follow each other without a gap.
_RECORDER = """
registerProcessor("recorder", class extends AudioWorkletProcessor {
  constructor({ processorOptions }) {
    super();
    this.left = processorOptions.frames;
    this.waits = processorOptions.afterSilence ? ["silence", "sound"] : ["sound"];
    this.silentBlocks = 0;
    this.blocks = [];
  }
  process(inputs) {
    if (this.left <= 0) return false;
    const isSilent = !inputs[0].length || inputs[0][0].every((sample) => sample === 0);
    // One block is no silence yet: the first ones come before all is connected.
    this.silentBlocks = isSilent ? this.silentBlocks + 1 : 0;
    if (this.waits[0] === "silence" && this.silentBlocks >= 8) this.waits.shift();
    if (this.waits[0] === "sound" && !isSilent) this.waits.shift();
    if (this.waits.length) return true;
    this.time ??= currentTime;
    this.blocks.push(inputs.map((channels) => (channels.length ? channels[0].slice() : new Float32Array(128))));
    this.left -= 128;
    if (this.left <= 0) this.port.postMessage({ blocks: this.blocks, time: this.time });
    return this.left > 0;
  }
});
"""
_PLAYER = "#player, [data-player]"
_RECORD = """
async ([frames, recorder, afterSilence]) => {
  const { sound } = document.querySelector("#player, [data-player]").vocsep;
  if (!sound.context) {
    await sound.play();
    sound.pause();
  }
  const { context, tracks, master } = sound;
  await context.audioWorklet.addModule(recorder);
  const processorOptions = { frames, afterSilence };
  const options = { numberOfInputs: tracks.length + 1, numberOfOutputs: 1, processorOptions };
  const node = new AudioWorkletNode(context, "recorder", options);
  window.recorded = new Promise((resolve) => { node.port.onmessage = ({ data }) => resolve(data); });
  node.connect(context.destination);
  master.connect(node, 0, tracks.length);
  // The first one, by which the recorder tells sound from silence, is connected when all others are.
  for (const index of [...tracks.keys()].reverse()) tracks[index].input.connect(node, 0, index);
}
"""
_RECORDED = """
async () => {
  const { blocks, time } = await window.recorded;
  const rows = blocks[0].map((_, index) => {
    const bytes = new Uint8Array(blocks.length * 512);
    blocks.forEach((block, number) => bytes.set(new Uint8Array(block[index].buffer, 0, 512), number * 512));
    let text = "";
    for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
    return btoa(text);
  });
  return [rows, time];
}
"""
# As on a busy machine: every 11th time that the audio thread is told something, 100 ms later than meant.
_HOLD_UP = """
() => {
  let calls = 0;
  const told = [
    [AudioParam, "setValueAtTime", "linearRampToValueAtTime", "setTargetAtTime", "setValueCurveAtTime"],
    [AudioBufferSourceNode, "start"],
    [AudioScheduledSourceNode, "stop"],
  ];
  for (const [{ prototype }, ...names] of told) {
    for (const name of names) {
      const call = prototype[name];
      prototype[name] = function (...values) {
        calls += 1;
        const until = calls % 11 === 0 ? performance.now() + 100 : 0;
        while (performance.now() < until);
        return call.apply(this, values);
      };
    }
  }
}
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser; skips where there is none."""
    if not CHROMIUM.exists():
        pytest.skip(f"no Chromium at {CHROMIUM}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """Visitors of the page at an address, and what they must not see: errors, and requests to elsewhere."""

    def __init__(self, browser: Browser, address: str, **options: Any) -> None:
        self.address = address
        self.problems: list[str] = []
        self.expected: list[str] = []
        self.context: BrowserContext = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        self.context.set_default_timeout(WAIT_MS)

    def tab(self, path: str = "/") -> Page:
        """A new tab with the page."""
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", lambda line: self.problems.append(line.text) if line.type in ("error", "warning") else None)
        page.on("request", lambda request: self._look(request.url))
        page.goto(self.address + path)
        page.locator("body[data-ready]").wait_for()
        return page

    def close(self) -> None:
        """End the visit, in which nothing went wrong."""
        self.context.close()
        assert self.problems == [], self.problems

    def _look(self, url: str) -> None:
        if not url.startswith((f"{self.address}/", "data:", "blob:")):
            self.problems.append(f"asked for {url}")


def of_sound(page: Page, expression: str) -> Any:
    """The value of an expression about `sound`, what the (first) player plays."""
    return page.evaluate(
        f"(() => {{ const {{ sound }} = document.querySelector('{_PLAYER}').vocsep; return {expression}; }})()"
    )


def now(page: Page) -> float:
    """Where the player is, in seconds."""
    seconds: float = of_sound(page, "sound.seconds")
    return seconds


def seek(page: Page, seconds: float) -> None:
    """Click on the waveform of the vocals."""
    box = page.locator(".lane.vocals .time").bounding_box()
    duration = of_sound(page, "sound.duration")
    assert box is not None
    page.mouse.click(box["x"] + box["width"] * seconds / duration, box["y"] + 20)


def hold_up(page: Page) -> None:
    """Let the page tell the audio thread things late now and then, as a busy machine does."""
    page.evaluate(_HOLD_UP)


def shown_time(page: Page) -> tuple[float, float, bool]:
    """Where the player shows that it is, and the audio clock, both at one moment, in seconds; and whether it plays."""
    shown, clock, is_playing = of_sound(
        page,
        """(() => {
          for (;;) {
            const [clock, shown] = [sound.context.currentTime, sound.seconds];
            if (sound.context.currentTime === clock) return [shown, clock, sound.isPlaying];
          }
        })()""",
    )
    return shown, clock, is_playing


def until(page: Page, expression: str) -> None:
    """Wait until an expression about `sound` is true (the page's policy forbids Playwright's own way, `eval`)."""
    deadline = time.monotonic() + WAIT_MS / 1000
    while not of_sound(page, expression):
        assert time.monotonic() < deadline, f"never: {expression}"
        page.wait_for_timeout(20)


def start_recording(page: Page, seconds: float, sample_rate: int, *, after_silence: bool = False) -> None:
    """Record all stems before their levels, and what is heard of them, from now or from the end of a silence on.

    The visit needs `bypass_csp=True`: the recorder is none of the page's scripts.
    """
    recorder = base64.b64encode(_RECORDER.encode()).decode()
    frames = round(seconds * sample_rate)
    page.evaluate(_RECORD, [frames, f"data:text/javascript;base64,{recorder}", after_silence])


def recorded(page: Page) -> tuple[Samples, float]:
    """The recording, once it is complete, and when it began, in seconds of the audio clock.

    `(stems + 1, samples)` of the left channel; the last is what is heard.
    """
    rows, time = page.evaluate(_RECORDED)
    return np.stack([np.frombuffer(base64.b64decode(row), "<f4") for row in rows]), time


def wait_until_sounding(page: Page) -> None:
    """Wait until what was begun can be heard."""
    until(page, "sound.runs.length && sound.context.currentTime > sound.runs[0].time + 0.05")


def place_of(excerpt: Samples, whole: Samples) -> tuple[int, float]:
    """Where a recording comes from: the sample at which it fits best, and the correlation there."""
    size = 1 << (len(whole) + len(excerpt)).bit_length()
    product = np.fft.irfft(np.fft.rfft(whole, size) * np.conj(np.fft.rfft(excerpt, size)), size)[
        : len(whole) - len(excerpt)
    ]
    sums = np.concatenate([[0.0], np.cumsum(np.square(whole, dtype=float))])
    energy = (sums[len(excerpt) :] - sums[: len(sums) - len(excerpt)])[: len(product)]
    scores = product / np.sqrt(np.maximum(energy, 1e-9) * np.square(excerpt, dtype=float).sum())
    return int(scores.argmax()), float(scores.max())


def encoded(waveform: Samples, format: str = "FLAC") -> bytes:
    """A file of samples at `RATE`."""
    content = io.BytesIO()
    soundfile.write(content, waveform.T, RATE, format=format)
    return content.getvalue()


def drop(page: Page, files: dict[str, bytes]) -> None:
    """Drop files on the page."""
    content = {name: base64.b64encode(data).decode() for name, data in files.items()}
    transfer = page.evaluate_handle(
        """(files) => {
          const transfer = new DataTransfer();
          for (const [name, text] of Object.entries(files)) {
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            transfer.items.add(new File([bytes], name));
          }
          return transfer;
        }""",
        content,
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
