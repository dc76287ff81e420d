// The page as a whole: tabs, light and dark, and asking the server how things are.

import * as api from "./api.js";
import { showModels, showReports } from "./catalogue.js";
import { byId, kept } from "./dom.js";
import { Options } from "./options.js";
import { Player } from "./player.js";
import { Songs } from "./songs.js";

const BUSY_MS = 400;
const IDLE_MS = 3000;
const REFUSED_MS = 10000;
const TABS = ["songs", "models", "reports"];

const options = new Options();
let player = null;
let timer = 0;
let wanted = ""; // the take that the address names, until it can be opened

const songs = new Songs({
  options: () => options.read(),
  changed: () => refresh(),
  problem: (text) => showProblem(text, "refused"),
  open: (song, take) => {
    open(song, take);
    if (matchMedia("(max-width: 800px)").matches) byId("player").scrollIntoView();
  },
  // Closed first, it asks for nothing that is gone.
  removing: (song, take) => {
    if (player.opened && player.song.id === song.id && (!take || take.id === player.take.id)) close();
  },
  separated: (song, take) => {
    if (!player.opened) open(song, take);
    else if (player.song.id === song.id && !player.sound.isPlaying) open(song, player.take, player.other);
  },
});

function open(song, take, other = null) {
  const current = song.takes.find((one) => one.id === take.id);
  player.open(song, current, other && song.takes.find((one) => one.id === other.id));
  history.replaceState(null, "", `#songs/${song.id}/${take.id}`);
  songs.mark(player.opened);
}

function close() {
  player.close();
  history.replaceState(null, "", "#songs");
  songs.mark(player.opened);
}

async function refresh() {
  clearTimeout(timer);
  let isBusy = false;
  try {
    const state = await api.state();
    player ??= new Player(state.limits.chunk_seconds);
    byId("player").vocsep = player; // what sounds can be measured from outside
    document.body.dataset.ready = "";
    songs.mostBytes = state.limits.bytes;
    songs.show(state.songs);
    follow(state.songs);
    const prefect = byId("prefect");
    prefect.hidden = !state.prefect;
    if (state.prefect) prefect.href = state.prefect;
    isBusy = songs.uploads.length > 0 || state.songs.some((song) => song.takes.some((take) => ["waiting", "running"].includes(take.state)));
    showProblem("");
  } catch {
    showProblem("vocsep page does not answer; was it stopped?");
  }
  timer = setTimeout(refresh, isBusy ? BUSY_MS : IDLE_MS);
}

/** Open what the address names, and close what is gone. */
function follow(list) {
  if (wanted) {
    const [id, number] = wanted.split("/");
    wanted = "";
    const song = list.find((one) => one.id === id);
    const take = song?.takes.find((one) => String(one.id) === number && one.state === "done");
    if (take) open(song, take);
  }
  if (!player.opened) return;
  const song = list.find((one) => one.id === player.song.id);
  const isThere = (one) => song?.takes.some((take) => take.id === one.id);
  if (isThere(player.take) && player.other && !isThere(player.other)) open(song, player.take);
  else if (!isThere(player.take)) close();
  songs.mark(player.opened);
}

/** Say what is wrong, until it is right again; what was refused is shown for a while. */
const problems = { server: "", refused: "" };
function showProblem(text, kind = "server") {
  if (text === problems[kind]) return;
  problems[kind] = text;
  const shown = problems.server || problems.refused;
  byId("offline").textContent = shown;
  byId("offline").hidden = !shown;
  if (kind === "refused" && text) setTimeout(() => showProblem("", kind), REFUSED_MS);
}

async function showTab(name) {
  for (const tab of TABS) {
    const isShown = tab === name;
    byId(tab).hidden = !isShown;
    byId(`tab-${tab}`).setAttribute("aria-selected", String(isShown));
    byId(`tab-${tab}`).tabIndex = isShown ? 0 : -1;
  }
  if (name === "songs") player?.redraw();
  if (name !== "songs" || !location.hash.startsWith("#songs")) history.replaceState(null, "", `#${name}`);
  try {
    if (name === "models") await loadModels();
    if (name === "reports") await showReports();
  } catch (error) {
    showProblem(error.message, "refused");
  }
}

async function loadModels() {
  const models = await api.models();
  options.setModels(models);
  showModels(models);
}

TABS.forEach((name, index) => {
  const tab = byId(`tab-${name}`);
  tab.addEventListener("click", () => showTab(name));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = TABS[(index + step + TABS.length) % TABS.length];
    byId(`tab-${next}`).focus();
    showTab(next);
  });
});

const system = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (kept.get("theme") ?? (system.matches ? "dark" : "light")) === "dark";
function showTheme() {
  document.documentElement.dataset.theme = isDark() ? "dark" : "light";
  byId("theme").setAttribute("aria-label", isDark() ? "switch to light" : "switch to dark");
  player?.redraw();
}
byId("theme").addEventListener("click", () => {
  kept.set("theme", isDark() ? "light" : "dark");
  showTheme();
});
system.addEventListener("change", showTheme);
showTheme();

const [tab, ...rest] = location.hash.slice(1).split("/");
wanted = tab === "songs" ? rest.join("/") : "";
showTab(TABS.includes(tab) ? tab : "songs");
loadModels().catch((error) => showProblem(error.message, "refused"));
refresh();
