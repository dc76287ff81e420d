// The list of songs: uploads on their way, what waits, what is being separated, what is done, and what went wrong.

import * as api from "./api.js";
import { byId, clock, duration, h, say } from "./dom.js";
import { takeName } from "./player.js";

export class Songs {
  /** `on` hears `open` and `removing` (a song and a take), `options` (gives those chosen) and `changed` (ask the server again). */
  constructor(on) {
    this.on = on;
    this.mostBytes = Infinity;
    this.list = byId("list");
    this.rows = new Map();
    this.uploads = [];
    this.sending = 0;
    this.states = new Map();
    const [drop, input] = [byId("drop"), byId("files")];
    input.addEventListener("change", () => {
      this.add(input.files);
      input.value = "";
    });
    for (const name of ["dragover", "drop"]) document.addEventListener(name, (event) => event.preventDefault());
    document.addEventListener("dragover", () => drop.classList.add("over"));
    document.addEventListener("dragleave", (event) => event.relatedTarget ?? drop.classList.remove("over"));
    document.addEventListener("drop", (event) => {
      drop.classList.remove("over");
      this.add(event.dataTransfer.files);
    });
  }

  /** Upload files, one after the other, with the options chosen now. */
  add(files) {
    if (!files.length) return;
    const options = this.on.options();
    if (!options) return;
    for (const file of files) this.uploads.push(this.#uploadRow(file, options));
    this.#sendNext();
  }

  /** Show what the server says. */
  show(songs) {
    const shown = new Set();
    for (const song of songs) {
      shown.add(song.id);
      let row = this.rows.get(song.id);
      if (!row) {
        row = this.#songRow(song);
        this.rows.set(song.id, row);
        const place = [...this.list.children].find((child) => child.dataset.created && Number(child.dataset.created) <= song.created);
        this.list.insertBefore(row.element, place ?? null);
      }
      this.#update(row, song);
    }
    for (const [id, row] of this.rows) {
      if (!shown.has(id)) {
        row.element.remove();
        this.rows.delete(id);
      }
    }
    byId("all").hidden = !songs.some((song) => song.takes.some((take) => take.state === "done"));
  }

  /** Mark the take that is open in the player. */
  mark(opened) {
    for (const element of this.list.querySelectorAll("[data-take]")) {
      element.classList.toggle("open", element.dataset.take === opened);
    }
  }

  #uploadRow(file, options) {
    const bar = h("progress", { max: 1, value: 0, "aria-label": `upload of ${file.name}` });
    const text = h("span", { className: "state", textContent: "to be sent" });
    const button = h("button", { type: "button", className: "plain", textContent: "✕", "aria-label": `stop the upload of ${file.name}` });
    const element = h(
      "li",
      { className: "song" },
      h("div", { className: "head" }, h("span", { className: "name", textContent: file.name, title: file.name }), button),
      h("div", { className: "take" }, text, bar),
    );
    const upload = { file, options, bar, text, button, element, stop: null };
    button.onclick = () => {
      this.uploads = this.uploads.filter((one) => one !== upload);
      element.remove();
      upload.stop?.();
    };
    this.list.prepend(element);
    return upload;
  }

  #sendNext() {
    const upload = this.uploads[0];
    if (!upload || this.sending) return;
    this.sending = 1;
    const onProgress = (share) => {
      upload.bar.value = share;
      upload.text.textContent = `sending, ${Math.round(100 * share)} %`;
    };
    const onEnd = (error) => {
      this.sending = 0;
      this.uploads = this.uploads.filter((one) => one !== upload);
      if (error && error !== "stopped") {
        upload.bar.remove();
        upload.text.className = "state error";
        upload.text.textContent = error;
        upload.button.setAttribute("aria-label", `remove ${upload.file.name}`);
        say(error);
      } else upload.element.remove();
      this.on.changed();
      this.#sendNext();
    };
    const refused = this.#refused(upload.file);
    if (refused) onEnd(refused);
    else upload.stop = api.upload(upload.file, upload.options, onProgress, onEnd);
  }

  /** Why the server would not take a file; it need not be asked then. */
  #refused({ name, size }) {
    if (!size) return `${name}: is empty`;
    const [own, most] = [size, this.mostBytes].map((bytes) => Math.round(bytes / 1e6).toLocaleString("en"));
    return size > this.mostBytes ? `${name}: has ${own} MB; at most ${most} MB are taken` : "";
  }

  #songRow(song) {
    const takes = h("ul", { className: "takes" });
    const again = h("button", {
      type: "button", className: "plain again", textContent: "again", title: "Separate once more, with the settings chosen now",
      "aria-label": `separate ${song.name} again with the settings chosen now`,
      onclick: () => this.#again(song.id),
    });
    const remove = h("button", {
      type: "button", className: "plain", textContent: "✕", title: "Remove", "aria-label": `remove ${song.name}`,
      onclick: () => this.#remove(song),
    });
    const element = h(
      "li",
      { className: "song", "data-created": String(song.created) },
      h("div", { className: "head" }, h("span", { className: "name", textContent: song.name, title: song.name }), again, remove),
      takes,
    );
    return { element, takes, again, rows: new Map() };
  }

  #update(row, song) {
    const shown = new Set();
    for (const take of song.takes) {
      shown.add(take.id);
      let one = row.rows.get(take.id);
      if (!one || one.state !== take.state) {
        const fresh = this.#takeRow(song, take);
        const hadFocus = one?.element.contains(document.activeElement);
        if (one) one.element.replaceWith(fresh.element);
        else row.takes.append(fresh.element);
        if (hadFocus) fresh.element.querySelector("button")?.focus();
        row.rows.set(take.id, (one = fresh));
        this.#tell(song, take);
      }
      one.song = song;
      if (take.state === "running") showProgress(one, take.progress);
    }
    for (const [id, one] of row.rows) {
      if (!shown.has(id)) {
        one.element.remove();
        row.rows.delete(id);
      }
    }
  }

  #tell(song, take) {
    const key = `${song.id}/${take.id}`;
    const before = this.states.get(key);
    this.states.set(key, take.state);
    if (before && before !== take.state && take.state === "done") {
      say(`${song.name} is separated`);
      this.on.separated(song, take);
    }
    if (before && take.state === "failed") say(take.error);
  }

  #takeRow(song, take) {
    const row = { state: take.state, song };
    const name = takeName(take);
    const text = h("span", { className: "state" });
    const parts = [text];
    if (take.state === "waiting") text.textContent = `waits (${name})`;
    if (take.state === "running") {
      row.text = text;
      row.bar = h("progress", { max: 1, "aria-label": `separation of ${song.name}` });
      text.textContent = "begins";
      parts.push(row.bar);
    }
    if (take.state === "failed") {
      text.className = "state error";
      text.textContent = take.error;
    }
    if (take.state === "waiting" || take.state === "running") {
      parts.push(h("button", {
        type: "button", className: "plain", textContent: "cancel", "aria-label": `cancel ${song.name}`,
        onclick: () => this.#remove(song, take),
      }));
    }
    if (take.state === "done") {
      const times = take.wall_seconds ? Math.round(take.seconds / take.wall_seconds) : 0;
      const speed = times ? `, ${times} × real time` : "";
      text.textContent = `${clock(take.seconds)}, ${name}${speed}`;
      parts.unshift(h("button", {
        type: "button", className: "listen", textContent: "▶ listen", "aria-label": `listen to ${song.name}, ${name}`,
        onclick: () => this.on.open(row.song, row.song.takes.find((one) => one.id === take.id)),
      }));
    }
    if (take.state === "done" || take.state === "failed") {
      parts.push(h("button", {
        type: "button", className: "plain remove", textContent: "✕", title: "Remove this take",
        "aria-label": `remove the take ${name} of ${song.name}`,
        onclick: () => this.#remove(song, take),
      }));
    }
    row.element = h("li", { className: `take ${take.state}`, "data-take": `${song.id}/${take.id}` }, ...parts);
    return row;
  }

  #remove(song, take = null) {
    this.on.removing(song, take);
    this.#do(take ? api.removeTake(song.id, take.id) : api.removeSong(song.id));
  }

  #again(song) {
    const options = this.on.options();
    if (options) this.#do(api.addTake(song, options));
  }

  async #do(request) {
    try {
      await request;
    } catch (error) {
      say(error.message);
      this.on.problem(error.message);
    }
    this.on.changed();
  }
}

function showProgress(row, progress) {
  if (!progress) return;
  const share = progress.total ? Math.min(1, progress.done / progress.total) : 0;
  row.bar.value = share;
  const speed = progress.speed ? `, ${Math.round(progress.speed)} × real time` : "";
  const left = progress.left !== null && progress.total ? `, ${duration(progress.left)} left` : "";
  row.text.textContent = `${Math.floor(100 * share)} %${speed}${left}`;
}
