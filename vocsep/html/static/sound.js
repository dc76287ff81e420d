// The stems of a song on one clock, in pieces: what sounds is scheduled a few seconds ahead, and no more is held.
//
// All stems of a piece start in one go at one time of the audio clock, whole samples apart from the piece before, so
// that they cannot drift. Levels change by ramps, and jumps (seeks, loops) dip for a few milliseconds: nothing clicks.
// Between a look at the audio clock and the last call for that time, the page can be held up for longer than any margin.
// So fades are curves, which last as long when they begin late; a stem is let in after all stems were told in time; and
// what fades out is stopped much later.

const AHEAD_SECONDS = 6;
const LEAD_SECONDS = 0.08;
const MARGIN_SECONDS = 0.03;
const FADE_SECONDS = 0.012;
const SEAM_SECONDS = 0.004;
const LEVEL_SECONDS = 0.012;
const STOP_SECONDS = 1;
const LOOK_MS = 250;
const PIECES_HELD = 4;

export class Sound extends EventTarget {
  /** `tracks` are functions from a piece's number to a promise of its `AudioBuffer`; frames count samples per channel. */
  constructor(tracks, { sampleRate, frames, chunkSeconds }) {
    super();
    Object.assign(this, { sampleRate, frames, isPlaying: false, loop: null });
    this.pieceFrames = chunkSeconds * sampleRate;
    this.tracks = tracks.map((load) => ({ load, level: 1, pieces: new Map(), input: null, gain: null }));
    this.context = null;
    this.master = null;
    this.rest = 0; // the frame where it is while nothing sounds
    this.runs = []; // from which time on which frame sounds
    this.cursor = null; // what is scheduled next
    this.endTime = null;
    this.sources = new Set();
    this.fades = []; // of what sounds since the last jump: three gains for each track
    this.generation = 0;
  }

  /** The frame that sounds now. */
  get frame() {
    if (!this.runs.length) return this.rest;
    const now = this.context.currentTime;
    const run = this.runs.findLast((one) => one.time <= now);
    if (!run) return this.runs[0].frame;
    return Math.min(this.frames, run.frame + (now - run.time) * this.sampleRate);
  }

  get seconds() {
    return this.frame / this.sampleRate;
  }

  get duration() {
    return this.frames / this.sampleRate;
  }

  async play() {
    if (this.isPlaying) return;
    this.#open();
    this.isPlaying = true;
    this.#changed();
    await this.context.resume();
    await this.#begin(this.rest >= this.frames ? 0 : this.rest);
  }

  pause() {
    if (!this.isPlaying) return;
    this.rest = Math.round(this.frame);
    this.isPlaying = false;
    this.#silence();
    this.#changed();
  }

  async seek(seconds) {
    const frame = Math.round(Math.min(Math.max(0, seconds), this.duration) * this.sampleRate);
    if (this.isPlaying) await this.#begin(frame);
    else this.rest = frame;
    this.#changed();
  }

  /** Repeat the stretch between two times; null plays on. */
  async setLoop(start, stop) {
    const isLoop = start !== null && stop - start >= 0.1;
    this.loop = isLoop
      ? { start: Math.round(start * this.sampleRate), stop: Math.min(this.frames, Math.round(stop * this.sampleRate)) }
      : null;
    if (this.isPlaying) await this.#begin(Math.round(this.frame));
    this.#changed();
  }

  setLevel(index, level) {
    const track = this.tracks[index];
    track.level = level;
    track.gain?.gain.setTargetAtTime(level, this.context.currentTime + MARGIN_SECONDS, LEVEL_SECONDS);
  }

  close() {
    this.generation += 1;
    this.isPlaying = false;
    this.runs = [];
    this.context?.close();
  }

  #open() {
    if (this.context) return;
    try {
      this.context = new AudioContext({ sampleRate: this.sampleRate, latencyHint: "interactive" });
    } catch {
      this.context = new AudioContext(); // a browser that does not take the rate
    }
    this.master = this.context.createGain();
    this.master.connect(this.context.destination);
    for (const track of this.tracks) {
      track.input = this.context.createGain();
      track.gain = this.context.createGain();
      track.gain.gain.value = track.level;
      track.input.connect(track.gain).connect(this.master);
    }
  }

  /** Let go of what is scheduled, and sound from a frame on. */
  async #begin(frame) {
    this.#silence();
    this.rest = frame;
    const generation = this.generation;
    await this.#pieces(frame);
    if (generation !== this.generation) return;
    this.cursor = { frame, time: null };
    this.fades = this.tracks.map((track) => {
      const [enter, seam, leave] = [0, 1, 1].map((gain) => new GainNode(this.context, { gain }));
      enter.connect(seam).connect(leave).connect(track.input);
      return { enter: enter.gain, seam: seam.gain, leave: leave.gain, input: enter };
    });
    await this.#fill(generation);
  }

  /** Schedule pieces until enough of them are ahead, and look again later. */
  async #fill(generation) {
    while (this.cursor && !(this.cursor.time > this.context.currentTime + AHEAD_SECONDS)) {
      const buffers = await this.#pieces(this.cursor.frame);
      if (generation !== this.generation) return;
      this.#schedule(buffers);
    }
    if (this.endTime !== null && this.context.currentTime >= this.endTime) {
      this.isPlaying = false;
      this.#silence();
      this.rest = this.frames;
      this.#changed();
      return;
    }
    setTimeout(() => generation === this.generation && this.#fill(generation), LOOK_MS);
  }

  #schedule(buffers) {
    const { cursor, loop } = this;
    const now = this.context.currentTime;
    const asked = performance.now();
    const isFirst = cursor.time === null;
    if (isFirst) {
      const rate = this.context.sampleRate;
      cursor.time = Math.ceil((now + LEAD_SECONDS) * rate) / rate;
    }
    const pieceStart = Math.floor(cursor.frame / this.pieceFrames) * this.pieceFrames;
    const isInLoop = loop && cursor.frame < loop.stop;
    const stop = Math.min(pieceStart + this.pieceFrames, this.frames, isInLoop ? loop.stop : Infinity);
    const seconds = (stop - cursor.frame) / this.sampleRate;
    this.tracks.forEach((_, index) => {
      const source = new AudioBufferSourceNode(this.context, { buffer: buffers[index] });
      source.connect(this.fades[index].input);
      source.start(cursor.time, (cursor.frame - pieceStart) / this.sampleRate, seconds);
      source.onended = () => {
        source.disconnect();
        this.sources.delete(source);
      };
      this.sources.add(source);
    });
    // Some browsers' clock does not move meanwhile.
    const told = Math.max(this.context.currentTime, now + (performance.now() - asked) / 1000);
    if (told + SEAM_SECONDS > cursor.time) {
      // The piece came late, or the last stem was told late: each begins as it comes. All of them again.
      this.#begin(cursor.frame);
      return;
    }
    if (isFirst) {
      for (const { enter } of this.fades) enter.setValueCurveAtTime([0, 1], cursor.time, FADE_SECONDS);
      this.runs.push({ time: cursor.time, frame: cursor.frame });
    }
    cursor.frame = stop;
    cursor.time += seconds;
    if (isInLoop && stop === loop.stop) {
      for (const { seam } of this.fades) seam.setValueCurveAtTime([1, 0, 1], cursor.time - SEAM_SECONDS, 2 * SEAM_SECONDS);
      cursor.frame = loop.start;
      this.runs.push({ time: cursor.time, frame: loop.start });
    } else if (stop >= this.frames) {
      this.endTime = cursor.time;
      this.cursor = null;
    }
    this.runs = this.runs.filter((run, index) => index >= this.runs.length - 50);
  }

  #silence() {
    this.generation += 1;
    this.runs = [];
    this.cursor = null;
    this.endTime = null;
    const time = this.context.currentTime + MARGIN_SECONDS;
    for (const { leave } of this.fades) leave.setValueCurveAtTime([1, 0], time, FADE_SECONDS);
    for (const source of this.sources) source.stop(time + STOP_SECONDS);
    this.sources.clear();
    this.fades = [];
  }

  /** The pieces of all tracks that hold a frame. */
  async #pieces(frame) {
    const number = Math.min(Math.floor(frame / this.pieceFrames), Math.ceil(this.frames / this.pieceFrames) - 1);
    try {
      return await Promise.all(this.tracks.map((track) => this.#piece(track, number)));
    } catch {
      this.pause(); // the song is gone, or the server is; callers that wait for the pieces give up
      return null;
    }
  }

  #piece(track, number) {
    let piece = track.pieces.get(number);
    if (!piece) {
      piece = track.load(number);
      piece.catch(() => track.pieces.delete(number));
      track.pieces.set(number, piece);
      for (const old of [...track.pieces.keys()].slice(0, -PIECES_HELD)) track.pieces.delete(old);
    }
    return piece;
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
