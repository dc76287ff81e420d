// A lane per stem: its controls, its waveform, and below it its spectrogram with the mask; all on one axis of time.

import { clock, h } from "./dom.js";

const HERTZ = [100, 200, 500, 1000, 2000, 5000, 10000];
const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 3600];

/**
 * Lanes of `stems`, which are names and their kinds (`mixture`, `vocals`, `accompaniment`); `on` hears `level` (a stem's
 * controls changed), `seek` and `loop` (seconds). If `isExclusive`, only what is solo sounds, by itself unless Shift adds it.
 */
export class Lanes {
  constructor(stems, duration, on, isExclusive = false) {
    this.duration = duration;
    this.on = on;
    this.isExclusive = isExclusive;
    const names = Object.keys(stems);
    this.controls = Object.fromEntries(names.map((stem) => [stem, { mute: false, solo: false, volume: 1 }]));
    this.peaks = {};
    this.top = 1;
    this.lanes = Object.fromEntries(names.map((stem) => [stem, this.#lane(stem, stems[stem])]));
    this.ruler = h("div", { className: "ruler", "aria-hidden": "true" });
    this.seeker = this.#seeker();
    this.element = h(
      "div",
      { className: "lanes" },
      h("div", { className: "lane ruler-lane" }, h("div", { className: "controls" }), h("div", { className: "time" }, this.ruler, this.seeker)),
      ...Object.values(this.lanes).map((lane) => lane.element),
    );
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.ruler);
  }

  close() {
    this.observer.disconnect();
    // Else pictures that are gone from the page are loaded all the same.
    for (const { picture, mask } of Object.values(this.lanes)) for (const one of [picture, mask]) one?.removeAttribute("src");
  }

  /** Show peaks (`[lowest, highest]` in thousandths) and pictures (addresses), both by stem, and the address of the mask. */
  show(peaks, pictures, hertz, mask = null) {
    this.peaks = peaks;
    this.top = Math.max(50, ...(peaks.mixture ?? []).flat().map(Math.abs));
    for (const [stem, lane] of Object.entries(this.lanes)) {
      lane.picture.src = pictures[stem];
      if (mask) lane.mask.src = mask;
      lane.scale.replaceChildren(...scaleMarks(hertz));
    }
    this.draw();
  }

  setMask(isOn) {
    this.element.classList.toggle("with-mask", isOn);
  }

  setSpectrograms(isOn) {
    this.element.classList.toggle("with-spectrograms", isOn);
  }

  setBlind(isBlind) {
    this.element.classList.toggle("blind", isBlind);
  }

  /** Put the one cursor, on all lanes, at a time. */
  setTime(seconds) {
    this.element.style.setProperty("--position", this.duration ? seconds / this.duration : 0);
    const rounded = Math.round(seconds * 10) / 10;
    if (this.shown === rounded) return;
    this.shown = rounded;
    this.seeker.setAttribute("aria-valuenow", String(rounded));
    this.seeker.setAttribute("aria-valuetext", `${clock(seconds)} of ${clock(this.duration)}`);
  }

  setLoop(start, stop) {
    const isOn = start !== null;
    this.element.classList.toggle("looping", isOn);
    this.element.style.setProperty("--loop-start", isOn ? start / this.duration : 0);
    this.element.style.setProperty("--loop-stop", isOn ? stop / this.duration : 0);
  }

  /** What a stem's controls let through: 0 to 1. */
  level(stem) {
    const { mute, solo, volume } = this.controls[stem];
    if (this.isExclusive) return solo && !mute ? volume : 0;
    const isAnySolo = Object.values(this.controls).some((one) => one.solo);
    return (isAnySolo ? solo : !mute) ? volume : 0;
  }

  /** Solo one stem alone. */
  only(stem) {
    for (const [name, control] of Object.entries(this.controls)) {
      control.solo = name === stem;
      this.lanes[name].solo.setAttribute("aria-pressed", String(control.solo));
    }
    this.#levels();
  }

  toggle(stem, what) {
    const control = this.controls[stem];
    if (!control) return;
    control[what] = !control[what];
    this.lanes[stem][what].setAttribute("aria-pressed", String(control[what]));
    this.#levels();
  }

  draw() {
    for (const [stem, lane] of Object.entries(this.lanes)) drawPeaks(lane.canvas, this.peaks[stem] ?? [], this.top);
    const width = this.ruler.clientWidth;
    const step = STEPS.find((one) => (one / this.duration) * width > 56) ?? 3600;
    const marks = [];
    for (let at = 0; at < this.duration - step * 0.3; at += step) {
      const mark = h("span", { textContent: clock(at, step < 1 ? 1 : 0) });
      mark.style.setProperty("left", `${(at / this.duration) * 100}%`);
      marks.push(mark);
    }
    this.ruler.replaceChildren(...marks);
  }

  #levels() {
    for (const [stem, lane] of Object.entries(this.lanes)) lane.element.classList.toggle("silent", this.level(stem) === 0);
    this.on.level();
  }

  #lane(stem, kind) {
    const control = this.controls[stem];
    const button = (what, letter) =>
      h(
        "button",
        {
          type: "button",
          className: `toggle ${what}`,
          textContent: letter,
          title: `${what} ${stem}`,
          "aria-label": `${what} ${stem}`,
          "aria-pressed": "false",
          onclick: (event) => (this.isExclusive && what === "solo" && !event.shiftKey ? this.only(stem) : this.toggle(stem, what)),
        },
      );
    const [mute, solo] = [button("mute", "M"), button("solo", "S")];
    const volume = h("input", {
      type: "range", min: "0", max: "1", step: "0.01", value: "1", "aria-label": `volume of ${stem}`,
      oninput: () => {
        control.volume = Number(volume.value) ** 2;
        this.#levels();
      },
    });
    const canvas = h("canvas", { role: "img", "aria-label": `waveform of ${stem}` });
    const picture = h("img", { alt: `spectrogram of ${stem}`, draggable: false });
    const mask = h("img", { alt: "", className: "mask", draggable: false });
    const scale = h("div", { className: "scale", "aria-hidden": "true" });
    const time = h(
      "div",
      { className: "time" },
      h("div", { className: "wave" }, canvas),
      h("div", { className: "spectrogram" }, picture, mask, scale),
      h("div", { className: "loop" }),
      h("div", { className: "cursor" }),
    );
    this.#listen(time);
    const controls = h("div", { className: "controls" }, h("span", { className: "stem", textContent: stem }), h("span", { className: "buttons" }, mute, solo), volume);
    const element = h("div", { className: `lane ${kind}`, role: "group", "aria-label": stem }, controls, time);
    return { element, canvas, picture, mask, scale, mute, solo };
  }

  #seeker() {
    const seeker = h("div", {
      className: "seeker", role: "slider", tabIndex: 0, "aria-label": "position in seconds",
      "aria-valuemin": "0", "aria-valuemax": String(Math.round(this.duration * 10) / 10), "aria-valuenow": "0",
    });
    const knob = h("div", { className: "knob" });
    seeker.append(knob);
    this.#listen(seeker);
    return seeker;
  }

  /** A click seeks; a drag chooses a loop. */
  #listen(area) {
    let start = null;
    const at = (event) => {
      const box = area.getBoundingClientRect();
      return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) * this.duration;
    };
    area.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      start = { x: event.clientX, time: at(event), isDrag: false };
      area.setPointerCapture(event.pointerId);
    });
    area.addEventListener("pointermove", (event) => {
      if (!start || (!start.isDrag && Math.abs(event.clientX - start.x) < 6)) return;
      start.isDrag = true;
      this.setLoop(Math.min(start.time, at(event)), Math.max(start.time, at(event)));
    });
    area.addEventListener("pointerup", (event) => {
      if (!start) return;
      const { time, isDrag } = start;
      start = null;
      if (isDrag) this.on.loop(Math.min(time, at(event)), Math.max(time, at(event)));
      else this.on.seek(time);
    });
    area.addEventListener("pointercancel", () => (start = null));
  }
}

function drawPeaks(canvas, peaks, top) {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
  if (!width || !height) return;
  Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d");
  pen.fillStyle = getComputedStyle(canvas).color;
  const middle = height / 2;
  for (let x = 0; x < width; x += 1) {
    const first = Math.floor((x * peaks.length) / width);
    const last = Math.max(first + 1, Math.floor(((x + 1) * peaks.length) / width));
    let [low, high] = [0, 0];
    for (const [lowest, highest] of peaks.slice(first, last)) {
      low = Math.min(low, lowest);
      high = Math.max(high, highest);
    }
    const begin = middle - (high / top) * (middle - 1);
    pen.fillRect(x, begin, 1, Math.max(ratio, ((high - low) / top) * (middle - 1)));
  }
}

function scaleMarks([low, high]) {
  return HERTZ.filter((hertz) => hertz > low * 1.2 && hertz < high * 0.9).map((hertz) => {
    const mark = h("span", { textContent: hertz < 1000 ? String(hertz) : `${hertz / 1000}k` });
    mark.style.setProperty("bottom", `${(100 * Math.log(hertz / low)) / Math.log(high / low)}%`);
    return mark;
  });
}
