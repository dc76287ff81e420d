"""A small store of demo songs, for a diagnosis without any music of one's own."""

from pathlib import Path

from storage.store import SpectrogramStore
from vocsep.datasets.layouts import open_dataset
from vocsep.demo.dataset import make_demo
from vocsep.preprocessing.config import StoreConfig
from vocsep.preprocessing.track import preprocess_song
from vocsep.preprocessing.update import updating
from vocsep.spectrograms.config import load_spectrogram_config
from vocsep.training.config import TrainConfig

DEMO_SONGS, DEMO_SECONDS = 6, (8.0, 10.0)


def demo_store(folder: Path, config: TrainConfig) -> SpectrogramStore:
    """A store of a few demo songs, made where it is not there yet, with the bins that the settings want."""
    preset = "fine-513" if config.objective.bins == "all" else "fine"
    songs, path = folder / "songs", folder / f"{preset}.zarr"
    make_demo(songs, train_songs=DEMO_SONGS, test_songs=0, seconds=DEMO_SECONDS)
    dataset = open_dataset(songs)
    settings = StoreConfig(spectrogram=load_spectrogram_config(preset))
    with updating(path, dataset, settings) as (update, work):
        for song in work.pending:
            update.add(preprocess_song(song, path, settings))
    return SpectrogramStore.open(path)
