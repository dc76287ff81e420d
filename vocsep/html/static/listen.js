// Players in a self-contained file: what they play and show is in the file, next to each of them.

import { clock, h } from "./dom.js";
import { Lanes } from "./lanes.js";
import { Sound } from "./sound.js";

const SKIP_SECONDS = 5;
const KEYS = [
  ["Space", "play and pause"], ["← →", "5 s back and forth; with Shift 1 s"], ["Home", "to the beginning"],
  ["1 to 9", "hear that lane alone"], ["[ ]", "the loop begins, ends here"], ["L", "no loop"],
];

/** A piece of mp3 in base64, without the margins on both its sides. */
async function decodedPiece(text, frames, { sampleRate, channels, margin }) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const whole = await new OfflineAudioContext(channels, 1, sampleRate).decodeAudioData(bytes.buffer);
  const piece = new AudioBuffer({ length: frames, numberOfChannels: channels, sampleRate });
  for (let channel = 0; channel < channels; channel += 1) {
    piece.copyToChannel(whole.getChannelData(channel).subarray(margin, margin + frames), channel);
  }
  return piece;
}

class FilePlayer {
  constructor(place, onPlay) {
    this.place = place;
    const song = JSON.parse(place.querySelector("script").textContent);
    const { tracks, sampleRate, frames, pieceSeconds, hertz } = song;
    const pieceFrames = pieceSeconds * sampleRate;
    this.names = tracks.map((track) => track.name);
    const byName = (what) => Object.fromEntries(tracks.map((track) => [track.name, what(track)]));
    const load = (track) => (number) =>
      decodedPiece(track.pieces[number], Math.min(pieceFrames, frames - number * pieceFrames), song);
    this.sound = new Sound(tracks.map(load), { sampleRate, frames, chunkSeconds: pieceSeconds });
    const on = { level: () => this.#setLevels(), seek: (seconds) => this.seek(seconds), loop: (from, to) => this.sound.setLoop(from, to) };
    this.lanes = new Lanes(byName((track) => track.kind), this.sound.duration, on, true);
    this.lanes.setSpectrograms(true);
    this.playButton = h("button", { type: "button", className: "primary play", onclick: () => this.toggle() });
    const toBegin = h("button", { type: "button", textContent: "|◀", "aria-label": "to the beginning", title: "to the beginning", onclick: () => this.seek(0) });
    this.noLoop = h("button", { type: "button", textContent: "no loop", onclick: () => this.sound.setLoop(null, null) });
    this.clock = h("span", { className: "clock" });
    const keys = KEYS.flatMap(([key, what]) => [h("dt", {}, h("kbd", { textContent: key })), h("dd", { textContent: what })]);
    place.replaceChildren(
      h("div", { className: "bar", role: "toolbar", "aria-label": "Playing" }, this.playButton, toBegin, this.clock, this.noLoop),
      this.lanes.element,
      h("p", { className: "hint", textContent: "S: hear this lane alone, with Shift together with the others. Click a lane to seek, drag to select a loop." }),
      h("details", { className: "keys" }, h("summary", { textContent: "Keys" }), h("dl", {}, ...keys)),
    );
    this.lanes.only(this.names[0]);
    this.lanes.show(byName((track) => track.peaks), byName((track) => track.picture), hertz);
    this.sound.addEventListener("change", () => {
      if (this.sound.isPlaying) onPlay(this);
      this.#changed();
    });
    this.#changed();
  }

  toggle() {
    if (this.sound.isPlaying) this.sound.pause();
    else this.sound.play();
  }

  seek(seconds) {
    this.sound.seek(seconds);
    this.showTime();
  }

  showTime() {
    this.lanes.setTime(this.sound.seconds);
    this.clock.textContent = `${clock(this.sound.seconds, 1)} / ${clock(this.sound.duration, 1)}`;
  }

  /** What a key does; null if nothing. */
  action({ key, shiftKey }) {
    const skip = shiftKey ? 1 : SKIP_SECONDS;
    const name = /^[1-9]$/.test(key) ? this.names[Number(key) - 1] : undefined;
    if (name !== undefined) return () => this.lanes.only(name);
    const actions = {
      " ": () => this.toggle(),
      ArrowLeft: () => this.seek(this.sound.seconds - skip),
      ArrowRight: () => this.seek(this.sound.seconds + skip),
      Home: () => this.seek(0),
      "[": () => (this.from = this.sound.seconds),
      "]": () => this.sound.setLoop(this.from ?? 0, this.sound.seconds),
      l: () => this.sound.setLoop(null, null),
    };
    return actions[key] ?? null;
  }

  #setLevels() {
    this.names.forEach((name, index) => this.sound.setLevel(index, this.lanes.level(name)));
  }

  #changed() {
    const { isPlaying, loop, sampleRate } = this.sound;
    this.playButton.textContent = isPlaying ? "❚❚ Pause" : "▶ Play";
    this.playButton.setAttribute("aria-label", isPlaying ? "pause (space)" : "play (space)");
    this.noLoop.hidden = !loop;
    this.lanes.setLoop(...(loop ? [loop.start / sampleRate, loop.stop / sampleRate] : [null, null]));
    this.showTime();
  }
}

const players = [];
let current = null; // which one the keys are for: the one last touched

function choose(player) {
  current = player;
  for (const other of players) if (other !== player) other.sound.pause();
}

for (const place of document.querySelectorAll("[data-player]")) {
  const player = new FilePlayer(place, choose);
  place.vocsep = player;
  place.addEventListener("pointerdown", () => (current = player));
  place.addEventListener("focusin", () => (current = player));
  players.push(player);
  current ??= player;
}

document.addEventListener("keydown", (event) => {
  const { target, key } = event;
  if (!current || event.ctrlKey || event.metaKey || event.altKey) return;
  if (key === " " && target.matches("button, a, summary") && !target.matches(".play")) return;
  if ((key.startsWith("Arrow") || key === "Home") && target.matches("input[type=range]")) return;
  const action = current.action(event);
  if (!action) return;
  event.preventDefault();
  action();
});

function follow() {
  for (const player of players) if (player.sound.isPlaying) player.showTime();
  requestAnimationFrame(follow);
}
requestAnimationFrame(follow);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => players.forEach((player) => player.lanes.draw()));
document.body.dataset.ready = "";
