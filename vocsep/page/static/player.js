// The player: one song, one take of it or two side by side, its lanes, its buttons and its keys.

import { takePath } from "./api.js";
import { byId, clock, h, kept, say } from "./dom.js";
import { Lanes } from "./lanes.js";
import { fetchedPiece } from "./pieces.js";
import { Sound } from "./sound.js";

const STEMS = ["mixture", "vocals", "accompaniment"];
const OWN_STEMS = ["vocals", "accompaniment"];
const SKIP_SECONDS = 5;
const KEYS = [
  ["Space", "play and pause"], ["← →", "5 s back and forth; with Shift 1 s"], ["Home", "to the beginning"],
  ["1 2 3", "solo: mixture, vocals, accompaniment"], ["M", "mute the vocals"], ["[ ]", "the loop begins, ends here"],
  ["L", "no loop"], ["X", "the other take (A/B)"],
];

export class Player {
  constructor(chunkSeconds) {
    this.chunkSeconds = chunkSeconds;
    this.place = byId("player");
    this.sound = null;
    document.addEventListener("keydown", (event) => this.#onKey(event));
    const follow = () => {
      if (this.sound?.isPlaying) this.#showTime();
      requestAnimationFrame(follow);
    };
    requestAnimationFrame(follow);
  }

  /** What is open, as `song/take`; empty if nothing is. */
  get opened() {
    return this.song ? `${this.song.id}/${this.take.id}` : "";
  }

  /** Open a take of a song, together with another one if that is given. */
  async open(song, take, other = null, isBlind = false) {
    const start = this.song?.id === song.id && this.sound ? this.sound.seconds : 0;
    const wasPlaying = this.song?.id === song.id && this.sound?.isPlaying;
    this.close();
    const asking = new AbortController();
    Object.assign(this, { song, take, other, isBlind, asking, side: 0, from: null });
    // Blind, chance says which of the two is X.
    this.sides = other ? (isBlind && Math.random() < 0.5 ? [other, take] : [take, other]) : [take];
    const { sample_rate: sampleRate, channels, frames } = take.sound;
    const piece = (one, stem) => (number) =>
      fetchedPiece(`${takePath(song.id, one.id)}/samples/${stem}/${number}`, channels, sampleRate, asking.signal);
    this.tracks = [
      { stem: "mixture", side: null },
      ...this.sides.flatMap((one, side) => OWN_STEMS.map((stem) => ({ stem, side, take: one }))),
    ];
    this.sound = new Sound(
      this.tracks.map((track) => piece(track.take ?? take, track.stem)),
      { sampleRate, frames, chunkSeconds: this.chunkSeconds },
    );
    this.lanes = new Lanes(Object.fromEntries(STEMS.map((stem) => [stem, stem])), this.sound.duration, {
      level: () => this.#setLevels(),
      seek: (seconds) => this.seek(seconds),
      loop: (from, to) => this.setLoop(from, to),
    });
    this.#build();
    this.lanes.toggle("mixture", "mute"); // vocals and accompaniment are the mixture already
    this.sound.addEventListener("change", () => this.#changed());
    await this.sound.seek(Math.min(start, this.sound.duration));
    await this.#showSide();
    this.#changed();
    if (wasPlaying && !asking.signal.aborted) await this.sound.play();
  }

  /** Asks for nothing from then on: what was open may be gone. */
  close() {
    this.asking?.abort();
    this.sound?.close();
    this.lanes?.close();
    this.song = this.take = this.sound = null;
    this.place.replaceChildren(
      h("p", { className: "empty", textContent: "Separated songs play here: the mixture, the vocals and the accompaniment, in step." }),
    );
  }

  redraw() {
    this.lanes?.draw();
  }

  seek(seconds) {
    this.sound.seek(seconds);
    this.#showTime();
  }

  setLoop(from, to) {
    this.sound.setLoop(from, to);
    this.from = null;
    this.#changed();
  }

  async setSide(side) {
    if (!this.other) return;
    this.side = side;
    this.#setLevels();
    await this.#showSide();
    this.#changed();
    say(`now ${this.#sideName(side)}`);
  }

  #build() {
    const button = (text, label, onclick) => h("button", { type: "button", textContent: text, "aria-label": label, title: label, onclick });
    this.playButton = button("▶ Play", "play (space)", () => this.toggle());
    this.playButton.classList.add("primary", "play");
    this.clock = h("span", { className: "clock" });
    this.loopText = h("span", { className: "loop-text" });
    const choice = (text, name, isOn, change) => {
      const box = h("input", { type: "checkbox", checked: isOn, onchange: () => { kept.set(name, box.checked); change(box.checked); } });
      change(isOn);
      return h("label", { className: "check" }, box, ` ${text}`);
    };
    const parts = [
      h("h2", { className: "title", textContent: this.song.name, title: this.song.name }),
      h("p", { className: "facts", textContent: this.#facts() }),
      h(
        "div",
        { className: "bar", role: "toolbar", "aria-label": "Playing" },
        this.playButton,
        button("|◀", "to the beginning", () => this.seek(0)),
        this.clock,
        h(
          "span",
          { className: "group" },
          h("span", { className: "hint", textContent: "Loop" }),
          button("from here", "the loop begins here", () => this.#loopFrom()),
          button("to here", "the loop ends here", () => this.#loopTo()),
          button("off", "play on without a loop", () => this.setLoop(null, null)),
          this.loopText,
        ),
      ),
      this.#comparison(),
      this.lanes.element,
      h(
        "div",
        { className: "bar" },
        choice("spectrograms", "spectrograms", kept.get("spectrograms") ?? true, (isOn) => this.lanes.setSpectrograms(isOn)),
        choice("vocals mask", "mask", kept.get("mask") ?? false, (isOn) => this.lanes.setMask(isOn)),
      ),
      this.#downloads(),
      h(
        "details",
        { className: "keys" },
        h("summary", { textContent: "Keys" }),
        h("dl", {}, ...KEYS.flatMap(([key, what]) => [h("dt", {}, h("kbd", { textContent: key })), h("dd", { textContent: what })])),
      ),
    ];
    this.place.replaceChildren(...parts.filter(Boolean));
  }

  #facts() {
    const { take } = this;
    const speed = take.wall_seconds ? `, separated in ${take.wall_seconds.toFixed(1)} s` : "";
    const excerpt = take.options.start || take.options.stop ? ", an excerpt" : "";
    const model = this.isBlind ? "" : `${this.sides.map(takeName).join(" and ")}; `;
    return `${model}${clock(take.seconds)}${excerpt}${speed}`;
  }

  /** Another take of the same stretch of the song, to be compared with this one. */
  #comparison() {
    const alike = this.song.takes.filter(
      (one) => one.id !== this.take.id && one.sound
        && one.sound.frames === this.take.sound.frames && one.sound.sample_rate === this.take.sound.sample_rate
        && one.options.start === this.take.options.start,
    );
    if (!alike.length) return null;
    const select = h(
      "select",
      { "aria-label": "compare with" },
      h("option", { value: "", textContent: "nothing" }),
      ...alike.map((one) => h("option", { value: String(one.id), textContent: takeName(one), selected: one.id === this.other?.id })),
    );
    const blind = h("input", { type: "checkbox", checked: this.isBlind });
    const again = () => this.open(this.song, this.take, alike.find((one) => String(one.id) === select.value) ?? null, blind.checked);
    select.onchange = again;
    blind.onchange = again;
    const row = h(
      "div",
      { className: "bar compare", role: "group", "aria-label": "Compare two takes" },
      h("label", {}, "Compare with ", select),
      h("label", { className: "check" }, blind, " blind"),
    );
    if (!this.other) return row;
    this.match = h("input", { type: "checkbox", checked: true, onchange: () => this.#setLevels() });
    this.sideButtons = this.sides.map((one, side) =>
      h("button", { type: "button", className: "toggle side-button", textContent: this.#sideName(side), onclick: () => this.setSide(side) }),
    );
    row.append(
      h("label", { className: "check" }, this.match, " levels matched"),
      h("span", { className: "group" }, ...this.sideButtons),
    );
    if (this.isBlind) row.append(h("button", { type: "button", textContent: "Reveal", onclick: () => this.#reveal() }));
    return row;
  }

  #sideName(side) {
    if (this.isBlind) return "XY"[side];
    return `${"AB"[side]}: ${takeName(this.sides[side])}`;
  }

  #reveal() {
    this.isBlind = false;
    this.lanes.setBlind(false);
    this.sideButtons.forEach((button, side) => (button.textContent = `${"XY"[side]}: ${takeName(this.sides[side])}`));
    this.place.querySelector(".facts").textContent = this.#facts();
    this.#showSide();
  }

  async #showSide() {
    const { lanes, asking: { signal } } = this;
    const shown = this.sides[this.side];
    lanes.setBlind(this.isBlind);
    const address = takePath(this.song.id, shown.id);
    let peaks;
    try {
      const response = await fetch(`${address}/peaks`, { signal });
      if (!response.ok) return;
      peaks = await response.json();
    } catch {
      return; // closed, or the server is gone
    }
    if (signal.aborted || this.sides[this.side] !== shown) return;
    const pictures = Object.fromEntries(STEMS.map((stem) => [stem, `${address}/pictures/${stem}`]));
    lanes.show(peaks, pictures, shown.sound.hertz, `${address}/pictures/mask`);
  }

  #setLevels() {
    this.tracks.forEach((track, index) => {
      const isHeard = track.side === null || track.side === this.side;
      this.sound.setLevel(index, isHeard ? this.lanes.level(track.stem) * this.#matching(track) : 0);
    });
  }

  /** The louder of two takes is made as loud as the other, stem by stem. */
  #matching({ stem, side }) {
    if (side === null || !this.other || !this.match?.checked) return 1;
    const [own, other] = [this.sides[side], this.sides[1 - side]].map((one) => one.sound.rms[stem]);
    return own > other && other > 1e-4 ? other / own : 1;
  }

  #downloads() {
    const link = (text, path) => h("a", { href: path, download: "", className: "button", textContent: text });
    const row = h("div", { className: "bar downloads", role: "group", "aria-label": "Downloads" });
    const names = Object.keys(this.take.files);
    const { format } = this.take.options;
    const path = takePath(this.song.id, this.take.id);
    row.append(
      ...names.map((stem) => link(`↓ ${stem}.${format}`, `${path}/files/${stem}`)),
      ...(names.length > 1 ? [link("↓ all (zip)", `${path}/all.zip`)] : []),
    );
    if (this.take.note) row.append(h("span", { className: "hint", textContent: this.take.note }));
    return row;
  }

  toggle() {
    if (this.sound.isPlaying) this.sound.pause();
    else this.sound.play();
  }

  #loopFrom() {
    this.from = this.sound.seconds;
    this.#changed();
  }

  #loopTo() {
    const to = this.sound.seconds;
    const from = this.from ?? (this.sound.loop ? this.sound.loop.start / this.sound.sampleRate : 0);
    if (to > from) this.setLoop(from, to);
  }

  #changed() {
    if (!this.sound) return;
    const { isPlaying, loop, sampleRate } = this.sound;
    this.playButton.textContent = isPlaying ? "❚❚ Pause" : "▶ Play";
    this.playButton.setAttribute("aria-label", isPlaying ? "pause (space)" : "play (space)");
    const [start, stop] = loop ? [loop.start / sampleRate, loop.stop / sampleRate] : [null, null];
    this.lanes.setLoop(start, stop);
    this.loopText.textContent = this.from !== null ? `from ${clock(this.from, 1)} …` : loop ? `loop ${clock(start, 1)} to ${clock(stop, 1)}` : "";
    this.sideButtons?.forEach((button, side) => button.setAttribute("aria-pressed", String(Boolean(this.other) && side === this.side)));
    this.#showTime();
  }

  #showTime() {
    const seconds = this.sound.seconds;
    this.lanes.setTime(seconds);
    this.clock.textContent = `${clock(seconds, 1)} / ${clock(this.sound.duration, 1)}`;
  }

  #onKey(event) {
    if (!this.sound || event.ctrlKey || event.metaKey || event.altKey || byId("songs").hidden) return;
    const { target } = event;
    if (target.matches("input:not([type=checkbox]):not([type=range]), select, textarea")) return;
    if (event.key === " " && target.matches("button, a, summary, input[type=checkbox]") && !target.matches(".play")) return;
    if (event.key.startsWith("Arrow") && target.matches("input[type=range], [role=tab]")) return;
    const skip = event.shiftKey ? 1 : SKIP_SECONDS;
    const actions = {
      " ": () => this.toggle(),
      ArrowLeft: () => this.seek(this.sound.seconds - skip),
      ArrowRight: () => this.seek(this.sound.seconds + skip),
      Home: () => this.seek(0),
      End: () => this.seek(this.sound.duration),
      1: () => this.lanes.toggle("mixture", "solo"),
      2: () => this.lanes.toggle("vocals", "solo"),
      3: () => this.lanes.toggle("accompaniment", "solo"),
      m: () => this.lanes.toggle("vocals", "mute"),
      "[": () => this.#loopFrom(),
      "]": () => this.#loopTo(),
      l: () => this.setLoop(null, null),
      x: () => this.setSide(1 - this.side),
    };
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }
}

/** The model of a take, for people. */
function modelName(take) {
  return take.model ? (take.model === "bundled" ? "bundled model" : `model ${take.model}`) : `model ${take.options.model}`;
}

/** A take by what sets it apart from others. */
export function takeName(take) {
  const { format, wiener, start, stop } = take.options;
  const excerpt = start || stop ? `, ${clock(start)} to ${stop ? clock(stop) : "the end"}` : "";
  return `${modelName(take)}${wiener ? " + Wiener" : ""}, ${format}${excerpt}`;
}
