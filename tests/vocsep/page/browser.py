"""A real browser: Chromium without windows, driven by Playwright, and what is heard in it, sample by sample."""

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
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
    this.blocks = [];
  }
  process(inputs) {
    if (this.left <= 0) return false;
    this.blocks.push(inputs.map((channels) => (channels.length ? channels[0].slice() : new Float32Array(128))));
    this.left -= 128;
    if (this.left <= 0) this.port.postMessage(this.blocks);
    return this.left > 0;
  }
});
"""
_RECORD = """
async (frames) => {
  const { sound } = document.getElementById("player").vocsep;
  const { context, tracks, master } = sound;
  await context.audioWorklet.addModule("/static/recorder.js");
  const options = { numberOfInputs: tracks.length + 1, numberOfOutputs: 1, processorOptions: { frames } };
  const node = new AudioWorkletNode(context, "recorder", options);
  window.recorded = new Promise((resolve) => { node.port.onmessage = ({ data }) => resolve(data); });
  tracks.forEach((track, index) => track.input.connect(node, 0, index));
  master.connect(node, 0, tracks.length);
  node.connect(context.destination);
}
"""
_RECORDED = """
async () => {
  const blocks = await window.recorded;
  return blocks[0].map((_, index) => {
    const bytes = new Uint8Array(blocks.length * 512);
    blocks.forEach((block, number) => bytes.set(new Uint8Array(block[index].buffer, 0, 512), number * 512));
    let text = "";
    for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
    return btoa(text);
  });
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
    """Visitors of the page at an address, and whatever they must not see: errors, and requests to elsewhere."""

    def __init__(self, browser: Browser, address: str, **options: Any) -> None:
        self.address = address
        self.problems: list[str] = []
        self.expected: list[str] = []
        self.context: BrowserContext = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        self.context.set_default_timeout(WAIT_MS)
        self.context.route(
            "**/static/recorder.js", lambda route: route.fulfill(body=_RECORDER, content_type="text/javascript")
        )

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
        assert self.problems == []

    def _look(self, url: str) -> None:
        if not url.startswith((f"{self.address}/", "data:", "blob:")):
            self.problems.append(f"asked for {url}")


def of_sound(page: Page, expression: str) -> Any:
    """The value of an expression about `sound`, what the player plays."""
    return page.evaluate(
        f"(() => {{ const {{ sound }} = document.getElementById('player').vocsep; return {expression}; }})()"
    )


def until(page: Page, expression: str) -> None:
    """Wait until an expression about `sound` is true; the page's policy forbids Playwright's own way, which is `eval`."""
    deadline = time.monotonic() + WAIT_MS / 1000
    while not of_sound(page, expression):
        assert time.monotonic() < deadline, f"never: {expression}"
        page.wait_for_timeout(20)


def start_recording(page: Page, seconds: float, sample_rate: int) -> None:
    """Record all stems before their levels, and what is heard of them, from now on."""
    page.evaluate(_RECORD, round(seconds * sample_rate))


def recorded(page: Page) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The recording, once it is complete: `(stems + 1, samples)` of the left channel, the last is what is heard."""
    rows = page.evaluate(_RECORDED)
    return np.stack([np.frombuffer(base64.b64decode(row), "<f4") for row in rows])


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
