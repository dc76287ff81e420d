"""What changed in the songs since the last retraining."""

from dataclasses import dataclass
from pathlib import Path

from storage.calling import call
from storage.errors import UserError
from storage.manifest import Manifest, TrackRecord
from vocsep.datasets.songs import Dataset
from vocsep.retraining.job import all_jobs

LARGEST_LOSS = 0.5
"""Share of the songs that may vanish at once; more look like an unmounted disk."""


@dataclass(frozen=True)
class Changes:
    """Names of songs that are new, changed or removed since the last finished job; test songs included."""

    new: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]

    def __str__(self) -> str:
        """For people."""
        parts = [(self.new, "new"), (self.changed, "changed"), (self.removed, "removed")]
        return ", ".join(f"{len(names)} {word}" for names, word in parts if names) or "no song changed"


def song_digests(manifest: Manifest) -> dict[str, str]:
    """Songs of a store and what tells two states of one apart."""

    def digest(track: TrackRecord) -> str:
        return f"{track.split} " + " ".join(f"{array.crc32c:08x}" for _, array in sorted(track.arrays.items()))

    return {track.name: digest(track) for track in manifest.tracks.values()}


def changes_since_last(jobs: Path, songs: dict[str, str]) -> Changes:
    """What is other than when the last job was finished; all songs are new to the first."""
    finished = [job for job in all_jobs(jobs) if job.finished]
    held = finished[-1].songs if finished else {}
    both = songs.keys() & held.keys()
    return Changes(
        new=tuple(sorted(songs.keys() - held.keys())),
        changed=tuple(sorted(name for name in both if songs[name] != held[name])),
        removed=tuple(sorted(held.keys() - songs.keys())),
    )


def check_loss(manifest: Manifest, dataset: Dataset) -> None:
    """Raise `UserError` if more songs are gone than anyone would remove on purpose."""
    held = {track.name for track in manifest.tracks.values()}
    gone = held - {song.name for song in dataset.songs} - dataset.problems.keys()
    if len(gone) > LARGEST_LOSS * len(held):
        raise UserError(
            f"{dataset.root}: {len(gone)} of {len(held)} songs are gone; nothing was changed. If that is meant, drop "
            f"them with: {call('preprocess ARGS=--prune', 'preprocess --prune')}"
        )
