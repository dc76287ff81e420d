"""BSSEval v4 compared with museval: values, seconds and memory on one core.

    python -m benchmarks.evaluation [--dataset MUSDB18] [--seconds 60] [--rounds 3]

Every engine runs in its own process, with one thread, engines taking turns, and medians are reported.
The songs are stems of a MUSDB18 (preview) folder, joined end to end, from `--dataset` or the environment's
MUSDB_PATH; without one, signals are synthesized, and the output says so. The estimates are those of an ideal
ratio mask.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import scipy.signal
from numpy.typing import NDArray

from benchmarks import require_ffmpeg

Floats = NDArray[Any]

RATE = 44_100
MEASURES = ("sdr", "isr", "sir", "sar")
ENGINES = ("museval", "bss_eval", "frame_sdr")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")


def main() -> None:
    """Run the benchmark, or, inside it, one engine."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation", description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", type=Path, default=os.environ.get("MUSDB_PATH"), help="MUSDB18 folder")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the signals")
    parser.add_argument("--rounds", type=int, default=3, help="processes per engine (museval: at most 2)")
    parser.add_argument("--engine", choices=ENGINES, help=argparse.SUPPRESS)
    parser.add_argument("--inputs", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--mirror", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.engine:
        run_engine(arguments.engine, arguments.inputs, arguments.mirror)
    else:
        compare(arguments.dataset, arguments.seconds, max(1, arguments.rounds))


def compare(dataset: Path | None, seconds: float, rounds: int) -> None:
    """Print the table and the JSON line."""
    require_ffmpeg("museval")
    samples = int(seconds * RATE)
    references = real_songs(Path(dataset), samples) if dataset else synthetic_song(samples)
    estimates = ideal_ratio_mask(references)
    what = f"songs from {dataset}" if dataset else "synthesized signals (no MUSDB18 folder given)"
    print(f"{seconds:g} s stereo, 2 sources, windows of 1 s, one thread; {what}")
    seconds_of: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    memory_of: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    scores: dict[str, Floats] = {}
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "signals.npy"
        np.save(inputs, np.stack([references, estimates]).astype(np.float32))
        for number in range(rounds):
            for engine in ENGINES:
                if engine == "museval" and number > 1:
                    continue  # it is slow
                # The second time museval gets left and right swapped, which should change nothing.
                mirrored = engine == "museval" and number == 1
                result = start_engine(engine, inputs, mirrored)
                seconds_of[engine] += result["seconds"]
                memory_of[engine].append(result["megabytes"])
                scores["mirrored" if mirrored else engine] = np.array(result["scores"])
    report(seconds_of, memory_of, scores, bool(dataset))


def start_engine(engine: str, inputs: Path, mirrored: bool) -> dict[str, Any]:
    """Run one engine in a fresh process with one thread, and return what it found."""
    command = [sys.executable, "-m", "benchmarks.evaluation", "--engine", engine, "--inputs", str(inputs)]
    if mirrored:
        command.append("--mirror")
    done = subprocess.run(command, env=os.environ | ONE_THREAD, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def run_engine(engine: str, inputs: Path, mirrored: bool) -> None:
    """Score the inputs in this process; print seconds, memory beyond the inputs, and scores as JSON."""
    references, estimates = np.load(inputs)
    if mirrored:
        references, estimates = references[:, ::-1], estimates[:, ::-1]
    durations = []
    if engine == "museval":
        import museval.metrics
    else:
        from vocsep.metrics.bsseval import bss_eval, frame_sdr
    before = peak_megabytes()
    for _ in range(1 if engine == "museval" else 3):
        start = time.perf_counter()
        if engine == "museval":
            scores = np.stack(
                museval.metrics.bss_eval(
                    references.transpose(0, 2, 1), estimates.transpose(0, 2, 1), window=RATE, hop=RATE
                )[:4]
            )
        elif engine == "bss_eval":
            scores = bss_eval(references, estimates, window=RATE, hop=RATE)
        else:
            scores = frame_sdr(references, estimates, window=RATE, hop=RATE)[None]
        durations.append(time.perf_counter() - start)
    megabytes = peak_megabytes() - before
    print(json.dumps({"seconds": durations, "megabytes": megabytes, "scores": scores.tolist()}))


def peak_megabytes() -> float:
    """Most memory that this process has held so far."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, whose ru_maxrss starts at the parent's
        kilobytes = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(kilobytes) * 1024 / 1e6
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def report(
    seconds_of: dict[str, list[float]],
    memory_of: dict[str, list[float]],
    scores: dict[str, Floats],
    real: bool,
) -> None:
    """Print the table, then the JSON line."""
    typical = {engine: statistics.median(values) for engine, values in seconds_of.items()}
    most = {engine: max(values) for engine, values in memory_of.items()}
    print(f"{'engine':<12}{'seconds':>10}{'times faster':>15}{'MB beyond inputs':>19}")
    for engine in ENGINES:
        faster = typical["museval"] / typical[engine]
        print(f"{engine:<12}{typical[engine]:>10.3f}{faster:>15.1f}{most[engine]:>19.0f}")
    values: dict[str, float] = {}
    print(f"largest difference from museval in any of {scores['museval'].shape[-1]} frames, dB:")
    for measure, ours, theirs in zip(MEASURES, scores["bss_eval"], scores["museval"], strict=True):
        values[f"max_abs_diff_{measure}_db"] = difference(ours, theirs)
        print(f"  {measure.upper()} {values[f'max_abs_diff_{measure}_db']:.1e}")
    values["max_abs_diff_db"] = difference(scores["bss_eval"], scores["museval"])
    values["sdr_only_max_abs_diff_db"] = difference(scores["frame_sdr"], scores["museval"][:1])
    print(f"  SDR alone {values['sdr_only_max_abs_diff_db']:.1e}")
    if "mirrored" in scores:
        values["museval_mirrored_diff_db"] = difference(scores["mirrored"], scores["museval"])
        print(f"  (museval from itself, left and right swapped: {values['museval_mirrored_diff_db']:.1e})")
    for engine in ENGINES:
        values[f"{engine}_seconds"] = typical[engine]
        values[f"{engine}_megabytes"] = most[engine]
    values["frames"] = scores["museval"].shape[-1]
    values["real_songs"] = int(real)
    ratios = {
        "over_museval": typical["museval"] / typical["bss_eval"],
        "sdr_only_over_museval": typical["museval"] / typical["frame_sdr"],
    }
    print(json.dumps({"name": "evaluation", "values": values, "ratios": ratios}))


def difference(ours: Floats, theirs: Floats) -> float:
    """Return the largest absolute difference; NaN must meet NaN, and inf meet inf."""
    same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    apart = np.abs(ours[~same] - theirs[~same])
    if np.isnan(apart).any():
        raise SystemExit("a frame is NaN in one engine and not in the other")
    return float(apart.max(initial=0.0))


def real_songs(dataset: Path, samples: int) -> Floats:
    """Join stems end to end, over again if they are too few: vocals and accompaniment, `(2, 2, samples)`."""
    import av

    paths = sorted(dataset.rglob("*.stem.mp4"))
    if not paths:
        raise SystemExit(f"--dataset {dataset}: no *.stem.mp4 in it; give a MUSDB18 folder, or none")
    songs: list[Floats] = []
    while sum(song.shape[-1] for song in songs) < samples:
        path = paths[len(songs) % len(paths)]
        stems = []
        for number in range(1, 5):  # drums, bass, other, vocals; 0 is the mixture
            with av.open(str(path)) as file:
                stems.append(np.concatenate([block.to_ndarray() for block in file.decode(audio=number)], axis=-1))
        songs.append(np.stack([stems[3], stems[0] + stems[1] + stems[2]]))
    return np.concatenate(songs, axis=-1)[..., :samples]


def synthetic_song(samples: int) -> Floats:
    """Syllables of a gliding voice over colored noise, `(2, 2, samples)`."""
    random = np.random.default_rng(0)
    seconds = np.arange(samples) / RATE
    pitch = 220 * 2 ** (0.5 * np.sin(0.7 * seconds) + 0.02 * np.sin(35 * seconds))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    voice = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 20))
    voice = voice * np.clip(np.sin(5 * seconds) + 0.6, 0, None)
    band = scipy.signal.lfilter([0.1], [1, -0.9], random.standard_normal((2, samples)), axis=-1)
    band *= 1 + 0.8 * np.sign(np.sin(12 * seconds))
    song = np.stack([0.1 * np.stack([voice, 0.8 * voice]), 0.2 * band])
    return np.asarray(song + 1e-4 * random.standard_normal(song.shape))


def ideal_ratio_mask(references: Floats) -> Floats:
    """Estimates with the errors that masking makes: the mixture's spectrogram times each source's share."""
    settings = {"nperseg": 4096, "noverlap": 3072}
    spectra = scipy.signal.stft(references, **settings)[2]
    vocals, accompaniment = np.abs(spectra)
    mask = vocals / (vocals + accompaniment + 1e-9)
    mixture = references.sum(axis=0)
    estimate = scipy.signal.istft(mask * spectra.sum(axis=0), **settings)[1][..., : mixture.shape[-1]]
    return np.stack([estimate, mixture - estimate])


if __name__ == "__main__":
    main()
