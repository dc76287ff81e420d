// What is chosen for the next songs: model, stems, format, excerpt.

import { byId, clock, kept, parseClock } from "./dom.js";

const QUALITIES = {
  wav: [["24", "24 bit"], ["16", "16 bit"], ["32f", "32 bit float"]],
  flac: [["24", "24 bit"], ["16", "16 bit"]],
  mp3: [["", "best variable"], ["320", "320 kbit/s"], ["192", "192 kbit/s"], ["128", "128 kbit/s"]],
  m4a: [["256", "256 kbit/s"], ["320", "320 kbit/s"], ["160", "160 kbit/s"], ["96", "96 kbit/s"]],
  ogg: [["256", "about 256 kbit/s"], ["320", "about 320 kbit/s"], ["160", "about 160 kbit/s"], ["96", "about 96 kbit/s"]],
};
const WITH_DEPTH = ["wav", "flac"];

export class Options {
  constructor() {
    this.form = byId("options");
    this.fields = this.form.elements;
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("input", (event) => this.#changed(event.target.name));
    const before = kept.get("options") ?? {};
    for (const name of ["vocals", "accompaniment", "wiener", "accept_damaged"]) {
      if (name in before) this.fields[name].checked = before[name];
    }
    if (before.format in QUALITIES) this.fields.format.value = before.format;
    this.#setQualities(before.quality);
    this.model = before.model ?? "champion";
    this.#show();
  }

  setModels(models) {
    const inUse = models.find((model) => model.in_use);
    const best = new Option(`best (${inUse?.name === "bundled" ? "bundled" : `version ${inUse?.name}`})`, "champion");
    const others = models
      .filter((model) => !model.error)
      .map((model) => new Option(`${model.name === "bundled" ? "bundled" : `version ${model.name}`}${score(model)}`, model.name));
    this.fields.model.replaceChildren(best, ...others);
    this.fields.model.value = this.model;
    if (!this.fields.model.value) this.fields.model.value = "champion";
    this.#show();
  }

  /** The options as the server takes them; null, with the reason on the page, if they are none. */
  read() {
    const { fields } = this;
    const stems = ["vocals", "accompaniment"].filter((name) => fields[name].checked);
    const [start, stop] = [parseClock(fields.start.value), parseClock(fields.stop.value)];
    const error = !stems.length
      ? "choose a stem"
      : Number.isNaN(start) || Number.isNaN(stop)
        ? "the excerpt is not a time such as 1:30"
        : stop !== null && stop <= (start ?? 0)
          ? "the excerpt must end after it begins"
          : "";
    byId("options-error").textContent = error;
    if (error) {
      byId("settings").open = true;
      return null;
    }
    const format = fields.format.value;
    const quality = fields.quality.value || null;
    return {
      model: fields.model.value || "champion", stems, format, start: start ?? 0, stop,
      bit_depth: WITH_DEPTH.includes(format) ? quality : null,
      bit_rate: WITH_DEPTH.includes(format) || !quality ? null : Number(quality),
      wiener: fields.wiener.checked, accept_damaged: fields.accept_damaged.checked,
    };
  }

  #changed(name) {
    if (name === "format") this.#setQualities();
    if (name === "model") this.model = this.fields.model.value;
    const { fields } = this;
    kept.set("options", {
      model: this.model, format: fields.format.value, quality: fields.quality.value, vocals: fields.vocals.checked,
      accompaniment: fields.accompaniment.checked, wiener: fields.wiener.checked, accept_damaged: fields.accept_damaged.checked,
    });
    this.read();
    this.#show();
  }

  #setQualities(chosen) {
    const choices = QUALITIES[this.fields.format.value];
    this.fields.quality.replaceChildren(...choices.map(([value, text]) => new Option(text, value)));
    if (choices.some(([value]) => value === chosen)) this.fields.quality.value = chosen;
  }

  #show() {
    const { fields } = this;
    const [start, stop] = [parseClock(fields.start.value), parseClock(fields.stop.value)];
    const excerpt = start || stop ? `, ${clock(start ?? 0)} to ${stop ? clock(stop) : "end"}` : "";
    const model = fields.model.selectedOptions[0]?.textContent.replace(/,.*/, "") ?? "best";
    byId("settings-short").textContent = `${model}, ${fields.format.value}${excerpt}`;
  }
}

function score(model) {
  const test = model.test?.model?.vocals;
  if (typeof test === "number") return `, vocals ${test.toFixed(1)} dB`;
  return typeof model.valid_sdr_db === "number" ? `, validation ${model.valid_sdr_db.toFixed(1)} dB` : "";
}
