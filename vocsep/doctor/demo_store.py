"""A small store of demo songs, for a diagnosis without any music of one's own."""

from pathlib import Path

from storage.store import SpectrogramStore
from vocsep.demo.dataset import make_demo
from vocsep.preprocessing.step import PreprocessConfig, preprocess
from vocsep.training.config import TrainConfig

DEMO_SONGS, DEMO_SECONDS = 6, (8.0, 10.0)


def demo_store(folder: Path, config: TrainConfig) -> SpectrogramStore:
    """A store of a few demo songs, made where it is not there yet, with the bins that the settings want."""
    preset = "fine-513" if config.objective.bins == "all" else "fine"
    songs, path = folder / "songs", folder / f"{preset}.zarr"
    make_demo(songs, train_songs=DEMO_SONGS, test_songs=0, seconds=DEMO_SECONDS)
    preprocess(PreprocessConfig(dataset=songs, preset=preset, store=path))
    return SpectrogramStore.open(path)
