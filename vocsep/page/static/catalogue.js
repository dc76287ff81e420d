// The models, with scores, facts and learning curves, and the reports of evaluations.

import * as api from "./api.js";
import { byId, h } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";

export function showModels(models) {
  const rows = models.map((model) => {
    const name = h("th", { scope: "row" }, model.name === "bundled" ? "bundled" : `version ${model.name}`);
    if (model.in_use) name.append(" ", h("span", { className: "badge", textContent: "in use" }));
    if (model.error) return h("tr", {}, name, h("td", { colSpan: 5, className: "error", textContent: model.error }));
    return h(
      "tr",
      {},
      name,
      ...[decibels(model.valid_sdr_db), decibels(model.test.model.vocals), decibels(model.test.model.accompaniment), model.network, model.created.slice(0, 10)].map(
        (text) => h("td", { textContent: text }),
      ),
    );
  });
  const heads = ["model", "validation", "test, vocals", "test, accompaniment", "network", "made"];
  byId("models").replaceChildren(
    h("h2", { textContent: "Models" }),
    h("p", { className: "hint", textContent: "SDR in dB, more is better; only scores on the same songs can be compared." }),
    h(
      "div",
      { className: "scroll", tabIndex: 0, role: "region", "aria-label": "table of models" },
      h("table", {}, h("thead", {}, h("tr", {}, ...heads.map((text) => h("th", { scope: "col", textContent: text })))), h("tbody", {}, ...rows)),
    ),
    ...models.filter((model) => !model.error).map(details),
  );
}

function details(model) {
  const facts = [
    ["data set", model.dataset], ["network", model.network], ["loss", model.loss],
    ["steps", model.steps], ["training", model.minutes ? `${Math.round(model.minutes)} minutes` : ""],
    ["spectrogram", model.n_fft ? `${model.sample_rate} Hz, ${model.n_fft} / ${model.hop_length}` : ""],
    ["validation SDR", decibels(model.valid_sdr_db) && `${decibels(model.valid_sdr_db)} (the mixture: ${decibels(model.valid_floor_sdr_db)})`],
    ["test songs", model.test_songs],
    ["... ideal mask", model.test.irm1.vocals === null ? "" : `${decibels(model.test.irm1.vocals)} vocals, ${decibels(model.test.irm1.accompaniment)} accompaniment`],
    ["... mixture", model.test.mixture.vocals === null ? "" : `${decibels(model.test.mixture.vocals)} vocals, ${decibels(model.test.mixture.accompaniment)} accompaniment`],
    ["license", model.licence],
  ].filter(([, value]) => value !== "" && value !== null);
  const curves = model.history.length > 1
    ? h("div", { className: "curves" }, curve(model.history, "valid_sdr_db", "validation SDR, dB"), curve(model.history, "train_loss", "training loss"))
    : null;
  return h(
    "details",
    { className: "card", open: model.in_use },
    h("summary", { textContent: model.name === "bundled" ? "bundled model" : `version ${model.name}` }),
    h("dl", {}, ...facts.flatMap(([name, value]) => [h("dt", { textContent: name }), h("dd", { textContent: String(value) })])),
    curves,
  );
}

/** One learning curve over the steps. */
function curve(history, name, title) {
  const [width, height, left, bottom, top] = [420, 200, 46, 24, 12];
  const steps = history.map((point) => point.step);
  const values = history.map((point) => point[name]);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const x = (step) => left + ((step - steps[0]) / (steps.at(-1) - steps[0] || 1)) * (width - left - 10);
  const y = (value) => height - bottom - ((value - low) / (high - low || 1)) * (height - bottom - top);
  const draw = (tag, attributes, text = "") => {
    const element = document.createElementNS(SVG, tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.textContent = text;
    return element;
  };
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}: from ${values[0].toPrecision(3)} to ${values.at(-1).toPrecision(3)}` });
  for (const value of [low, (low + high) / 2, high]) {
    svg.append(draw("line", { x1: left, x2: width - 10, y1: y(value), y2: y(value), class: "grid" }));
    svg.append(draw("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, value.toPrecision(3)));
  }
  for (const [step, anchor] of [[steps[0], "start"], [steps.at(-1), "end"]]) {
    svg.append(draw("text", { x: x(step), y: height - 6, "text-anchor": anchor }, String(step)));
  }
  svg.append(draw("polyline", { points: history.map((point) => `${x(point.step)},${y(point[name])}`).join(" "), class: "line" }));
  return h("figure", {}, h("figcaption", { textContent: `${title}, over steps` }), svg);
}

export async function showReports() {
  const place = byId("reports");
  const reports = await api.reports();
  if (!reports.length) {
    place.replaceChildren(h("h2", { textContent: "Reports" }), h("p", { className: "hint", textContent: "No evaluation yet: make eval writes one." }));
    return;
  }
  const frame = h("iframe", { title: "report of the evaluation" });
  frame.setAttribute("sandbox", "allow-scripts"); // which of them, the policy says that comes with the report
  const choose = (report) => {
    frame.src = `/reports/${encodeURIComponent(report.id)}`;
  };
  const select = h(
    "select",
    { onchange: () => choose(reports[select.selectedIndex]) },
    ...reports.map((report) => h("option", { value: report.id, textContent: reportName(report) })),
  );
  choose(reports[0]);
  place.replaceChildren(h("h2", { textContent: "Reports" }), h("label", {}, "Evaluation ", select), frame);
}

function reportName(report) {
  const { vocals } = report.scores;
  const score = typeof vocals === "number" ? `, vocals ${vocals.toFixed(2)} dB` : "";
  return `${report.id}${report.subject ? ` (${report.subject})` : ""}${score}`;
}

function decibels(value) {
  return typeof value === "number" ? `${value.toFixed(2)} dB` : "";
}
