"""What a run reports: progress bar, TensorBoard, and the same numbers in `metrics.csv`."""

import csv
import io
import logging
import sys
import threading
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
from torch.utils.tensorboard import SummaryWriter

from storage.files import is_disk_full, write_atomically, writing
from storage.store import SpectrogramStore
from vocsep.arrays import Waveform
from vocsep.preprocessing.config import spectrogram_config
from vocsep.progress import progress_bar
from vocsep.spectrograms.plot import loudest_span, plot_spectrograms
from vocsep.training.validation import load_song

METRICS_NAME = "metrics.csv"
COLUMNS = (
    "step",
    "seconds",
    "train/loss",
    "train/learning_rate",
    "train/gradient_norm",
    "train/patches_per_second",
    "train/data_wait_share",
    "valid/sdr_db",
)
STEPS_PER_ROW = 10

log = logging.getLogger(__name__)


class TrainingLog:
    """Writes a run's numbers, pictures and sounds into its folder.

    Parameters
    ----------
    step
        Where the run resumes; what was written beyond it is dropped, since those steps come again.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._path = folder / METRICS_NAME
        self._pictures = folder / "pictures"
        # TensorBoard's thread meets a full disk, and reports it once more to the next writer.
        self._hook, threading.excepthook = threading.excepthook, self._on_thread
        self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)
        rows = [row for row in read_metrics(folder) if float(row["step"]) <= step]
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self._path, text.getvalue().encode())
        self._file = self._path.open("a", encoding="utf-8")
        self._rows = csv.DictWriter(self._file, COLUMNS, lineterminator="\n")

    def write(self, step: int, seconds: float, values: dict[str, float]) -> None:
        """Numbers of one step, by the names of `COLUMNS`."""
        row = {name: f"{value:.6g}" for name, value in values.items()}
        self._rows.writerow({"step": step, "seconds": f"{seconds:.1f}"} | row)
        self._file.flush()
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def show(self, step: int, store: SpectrogramStore, estimates: dict[str, Waveform]) -> None:
        """Sounds and spectrograms of the loudest seconds of validation songs, by track id."""
        config = spectrogram_config(store)
        self._pictures.mkdir(exist_ok=True)
        for track in store.tracks("valid"):
            if track.id not in estimates:
                continue
            mixture, vocals = load_song(store, track)
            span = loudest_span(vocals, config.sample_rate)
            excerpts = {
                "mixture": mixture[:, span],
                "true vocals": vocals[:, span],
                f"estimate after {step} steps": estimates[track.id][:, span],
            }
            picture = self._pictures / f"{track.id}-{step:08d}.png"
            start = span.start / config.sample_rate
            with writing(picture) as temporary:
                plot_spectrograms(temporary, excerpts, config.sample_rate, config, start_seconds=start)
            self._writer.add_image(track.name, matplotlib.image.imread(picture), step, dataformats="HWC")
            for title, excerpt in zip(("mixture", "true vocals", "estimate"), excerpts.values(), strict=True):
                mono = np.clip(excerpt.mean(axis=0), -1, 1)
                self._writer.add_audio(f"{track.name}/{title}", mono[None], step, sample_rate=config.sample_rate)

    def close(self) -> None:
        """Flush everything to disk."""
        try:
            self._file.close()
        finally:
            try:
                self._writer.close()
            finally:
                threading.excepthook = self._hook

    def _on_thread(self, failure: threading.ExceptHookArgs) -> None:
        if not (isinstance(failure.exc_value, OSError) and is_disk_full(failure.exc_value)):
            self._hook(failure)


def read_metrics(folder: Path) -> list[dict[str, str]]:
    """Rows of a run's `metrics.csv`; whole lines only, even after a killed process."""
    path = folder / METRICS_NAME
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    return [row for row in csv.DictReader(whole) if row.get("step")]


class TrainingBar:
    """One progress bar over the budget, with step, rate, loss and best score."""

    def __init__(self) -> None:
        self._bar: Any = progress_bar(
            100, "train", "%", bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        )

    def update(self, used: float, step: int, steps_per_second: float, loss: float, best_mean: float | None) -> None:
        """Show where the run is; `used` is the used share of the budget, `best_mean` the best mean SDR in dB so far."""
        best = "-" if best_mean is None else f"{best_mean:.2f} dB"
        self._bar.set_postfix_str(
            f"step {step}, {steps_per_second:.1f} steps/s, loss {loss:.4f}, best mean {best}", refresh=False
        )
        self._bar.update(100 * used - self._bar.n)

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._bar.write(text, file=sys.stderr)

    def warn(self, text: str) -> None:
        """A line above the bar, and in the log of the run."""
        with self._bar.external_write_mode(file=sys.stderr):
            log.warning(text)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
