// Everything that the page asks its server.

const token = document.querySelector('meta[name="vocsep-token"]').content;

async function ask(path, method = "GET", content = undefined) {
  const headers = method === "GET" ? {} : { "X-Vocsep-Token": token };
  const response = await fetch(path, { method, headers, body: content && JSON.stringify(content) });
  if (response.ok) return response.status === 204 ? null : response.json();
  throw new Error(await problem(response));
}

async function problem(response) {
  try {
    return (await response.json()).error;
  } catch {
    return `${response.status} ${response.statusText}`;
  }
}

export const state = () => ask("/api/state");
export const models = () => ask("/api/models");
export const reports = () => ask("/api/reports");
export const removeSong = (song) => ask(`/api/songs/${song}`, "DELETE");
export const removeTake = (song, take) => ask(`/api/songs/${song}/takes/${take}`, "DELETE");
export const addTake = (song, options) => ask(`/api/songs/${song}/takes`, "POST", options);
export const takePath = (song, take) => `/songs/${song}/${take}`;

/** Announce a file and send it as it is; `onProgress` hears the share that is sent. Returns a function that stops it. */
export function upload(file, options, onProgress, onEnd) {
  const request = new XMLHttpRequest();
  let isStopped = false;
  ask("/api/songs", "POST", { name: file.name, size: file.size, options })
    .then(({ id }) => {
      if (isStopped) return removeSong(id).catch(() => {});
      request.open("PUT", `/api/songs/${id}`);
      request.setRequestHeader("X-Vocsep-Token", token);
      request.responseType = "json";
      request.upload.onprogress = (event) => onProgress(event.total ? event.loaded / event.total : 0);
      request.onload = () => onEnd(request.status < 400 ? "" : request.response?.error || `error ${request.status}`);
      request.onerror = () => onEnd("could not be sent");
      request.onabort = () => onEnd("stopped");
      request.send(file);
      return null;
    })
    .catch((error) => onEnd(error.message));
  return () => {
    isStopped = true;
    request.abort();
  };
}
