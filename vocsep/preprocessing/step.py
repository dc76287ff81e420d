"""The step `preprocess`: a dataset's songs to the spectrograms in a store."""

import errno
import os
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from storage.files import is_disk_full
from storage.lock import require_free
from storage.manifest import TrackRecord
from storage.remote.store import RemoteStore
from storage.store import SpectrogramStore
from storage.track_writer import Compression
from vocsep.config import Settings
from vocsep.datasets.layouts import open_dataset
from vocsep.datasets.songs import Dataset, Song
from vocsep.mapping import Map, Outcome, SomeFailed, failures_of, serial
from vocsep.paths import DEMO, STORE
from vocsep.preprocessing.config import StoreConfig
from vocsep.preprocessing.location import StoreLocation, held_manifest
from vocsep.preprocessing.plan import Plan, check_store
from vocsep.preprocessing.remote import check_remote_store, preprocess_song_to, updating_remote
from vocsep.preprocessing.track import preprocess_song
from vocsep.preprocessing.twins import require_distinct
from vocsep.preprocessing.update import updating
from vocsep.progress import Progress
from vocsep.spectrograms.config import load_spectrogram_config

SHOWN = 10  # names in a line


class PreprocessConfig(Settings):
    """Which songs, how, and where to."""

    dataset: Path | None = Field(
        default=None, description="Root folder of the songs; without it, the demo songs are made and used."
    )
    kind: str = Field(
        default="auto", description="auto, musdb18, musdb18-hq, folder, karaoke, vocals, accompaniment or demo."
    )
    preset: str = Field(default="fine", description="Spectral preset (fine, notebook) or YAML file.")
    dtype: Literal["float16", "float32"] = Field(default="float16", description="Stored type: float16 or float32.")
    compression: Compression = Field(default="none", description="none, zstd or blosc (smaller, read far slower).")
    store: StoreLocation = Field(
        default=STORE, description="Spectrogram store: a folder, or a URL such as s3://bucket/name.zarr."
    )
    workers: int | None = Field(default=None, ge=1, description="Processes; by default one per core, if memory allows.")
    prune: bool = Field(default=False, description="Drop songs that are no longer in the dataset.")
    skip_failed: bool = Field(
        default=False, description="Name songs that cannot be used and continue without them: no failure, exit code 0."
    )


@dataclass(frozen=True)
class PreprocessResult:
    """What was done.

    Attributes
    ----------
    made, unchanged
        How many songs were written, and how many were up to date.
    gone, pruned
        Songs of the store that the dataset no longer has, and whether they were dropped.
    songs_hours
        Length of all songs in the store.
    songs
        One row per song that was looked at, for tables.
    failed
        Songs that could not be used, and why, where the settings say to continue without them.
    skipped
        What of the dataset's folder was taken for no song.
    """

    store: str
    made: int
    unchanged: int
    gone: tuple[str, ...]
    pruned: bool
    songs_hours: float
    seconds: float
    songs: tuple[dict[str, str], ...]
    failed: dict[str, str]
    skipped: tuple[str, ...]

    def lines(self) -> list[str]:
        """For people."""
        lines = [
            f"preprocess: {self.made} songs written, {self.unchanged} unchanged, {self.songs_hours:.2f} hours in "
            f"{self.store} ({self.seconds:.0f} s)"
        ]
        if self.gone:
            fate = "dropped" if self.pruned else "kept (--prune drops them)"
            lines.append(f"  no longer in the dataset, {fate}: {', '.join(self.gone)}")
        if self.skipped:
            more = f" and {len(self.skipped) - SHOWN} more" if len(self.skipped) > SHOWN else ""
            lines.append(f"  no songs, left out: {', '.join(self.skipped[:SHOWN])}{more}")
        lines += [f"  failed, left out: {name}: {reason}" for name, reason in self.failed.items()]
        return lines


def store_config(config: PreprocessConfig) -> StoreConfig:
    """The store's configuration that the settings name."""
    spectrogram = load_spectrogram_config(config.preset)
    return StoreConfig(spectrogram=spectrogram, dtype=config.dtype, compression=config.compression)


def check(config: PreprocessConfig) -> None:
    """Raise `UserError` if the songs, the settings or the store are wrong; nothing is written."""
    expected = store_config(config)
    if isinstance(config.store, Path):
        require_free(config.store)
    if config.dataset is not None:
        dataset = open_dataset(config.dataset, config.kind)
        if isinstance(config.store, Path):
            check_store(config.store, dataset, expected)
        else:
            check_remote_store(config.store, dataset, expected)


def preprocess(config: PreprocessConfig, *, progress: Progress | None = None, map: Map = serial) -> PreprocessResult:
    """Bring a store up to date with a dataset: write what is missing or changed, and nothing else.

    Finished songs are named in the store a moment later, so that a run that is killed loses none of them.

    Parameters
    ----------
    progress
        Called with the songs that are done, of how many.
    map
        What songs are spread over; each is decoded and written where it runs.

    Raises
    ------
    UserError
        If the songs, the settings or the store are wrong, a song is in two splits, or the disk is full.
    SomeFailed
        If some songs failed; the others are in the store.

    Examples
    --------
    >>> from pathlib import Path
    >>> preprocess(PreprocessConfig(dataset=Path("musdb18"), store=Path("s.zarr")))  # doctest: +SKIP
    """
    started = time.monotonic()
    report = progress or (lambda done, total: None)
    if config.dataset is None:
        # Late: workers need none of what makes songs.
        from vocsep.demo.dataset import held_settings, make_demo

        make_demo(DEMO, progress=report, **held_settings(DEMO))
    dataset = open_dataset(config.dataset or DEMO, config.kind)
    expected = store_config(config)
    held = held_manifest(config.store)
    require_distinct(dataset, held.tracks.values() if held else ())
    outcomes: list[Outcome[Song, TrackRecord | None]] = []
    with _updating(config, dataset, expected) as (update, work):

        def on_outcome(outcome: Outcome[Song, TrackRecord | None], finished: int) -> None:
            if outcome.result is not None:
                update.add(outcome.result)
            elif outcome.error is None:
                # Every other song would meet the same.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            report(finished, len(work.pending))

        target = config.store.resolve() if isinstance(config.store, Path) else config.store
        outcomes = map(write_song, work.pending, (target, expected), on_outcome=on_outcome)
    failures = dict(dataset.problems) | failures_of(outcomes)
    # Without any song there is nothing to continue with.
    goes_on = config.skip_failed and bool(update.manifest.tracks)
    result = PreprocessResult(
        store=str(config.store),
        made=sum(outcome.result is not None for outcome in outcomes),
        unchanged=work.finished,
        gone=work.gone,
        pruned=config.prune,
        songs_hours=sum(track.seconds for track in update.manifest.tracks.values()) / 3600,
        seconds=time.monotonic() - started,
        songs=tuple(_rows(dataset, outcomes)),
        failed=failures if goes_on else {},
        skipped=dataset.skipped,
    )
    if failures and not goes_on:
        raise SomeFailed(failures, len(dataset.songs) + len(dataset.problems), "songs", result)
    return result


def _updating(
    config: PreprocessConfig, dataset: Dataset, expected: StoreConfig
) -> AbstractContextManager[tuple[SpectrogramStore | RemoteStore, Plan]]:
    if isinstance(config.store, Path):
        return updating(config.store, dataset, expected, prune=config.prune)
    return updating_remote(config.store, dataset, expected, prune=config.prune)


def write_song(song: Song, store_path: Path | str, config: StoreConfig) -> TrackRecord | None:
    """A song's track, written where this runs; None if the disk is full, which trying again would not change."""
    try:
        if isinstance(store_path, str):
            return preprocess_song_to(song, store_path, config)
        return preprocess_song(song, store_path, config)
    except OSError as error:
        if is_disk_full(error):
            return None
        raise


def _rows(dataset: Dataset, outcomes: list[Outcome[Song, TrackRecord | None]]) -> list[dict[str, str]]:
    rows = [
        {
            "song": outcome.item.name,
            "split": outcome.item.split,
            "seconds": f"{outcome.result.seconds:.1f}" if outcome.result else "",
            "frames": str(outcome.result.frames) if outcome.result else "",
            "megabytes": f"{outcome.result.bytes / 1e6:.1f}" if outcome.result else "",
            "state": outcome.error or "written",
        }
        for outcome in sorted(outcomes, key=lambda outcome: (outcome.error is None, outcome.item.name))
    ]
    return [{"song": name, "state": reason} for name, reason in dataset.problems.items()] + rows
