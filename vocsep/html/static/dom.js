// Elements and words: the little that all parts of the page need.

/** An element with properties, `aria-*`/`data-*` attributes, `on*` listeners and children. Text is never HTML. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "role" || name === "for") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Seconds as 3:07, or 1:02:03. */
export function clock(seconds, digits = 0) {
  const unit = 10 ** digits;
  const whole = Math.floor(Math.max(0, seconds) * unit + 1e-6);
  const left = whole % (60 * unit);
  const minutes = Math.floor(whole / (60 * unit));
  const tail = (left / unit).toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
  return minutes < 60 ? `${minutes}:${tail}` : `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${tail}`;
}

/** Seconds in words, as for what is left. */
export function duration(seconds) {
  return seconds < 99.5 ? `${Math.ceil(seconds)} s` : `${Math.round(seconds / 60)} min`;
}

/** The seconds that `1:30`, `90` or `1:02:03.5` mean; null for nothing, NaN for what is no time. */
export function parseClock(text) {
  if (!text.trim()) return null;
  const parts = text.trim().replace(",", ".").split(":");
  if (parts.length > 3 || parts.some((part) => !/^\d+(\.\d+)?$/.test(part))) return NaN;
  return parts.reduce((sum, part) => sum * 60 + Number(part), 0);
}

/** Say something to those who do not see the page. */
export function say(text) {
  byId("said").textContent = text;
}

/** What was chosen before, in this browser; a browser that keeps nothing is no fault. */
export const kept = {
  get(name) {
    try {
      return JSON.parse(localStorage.getItem(`vocsep.${name}`));
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      localStorage.setItem(`vocsep.${name}`, JSON.stringify(value));
    } catch {
      // Private windows keep nothing.
    }
  },
};
