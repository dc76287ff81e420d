"""What an evaluation is asked to do."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from vocsep.config import Settings
from vocsep.paths import MODELS, REPORTS, STORE
from vocsep.preprocessing.location import StoreLocation

Engine = Literal["fast", "museval"]


class EvaluateConfig(Settings):
    """Which model, on which songs, and where the report goes."""

    model: str = Field(default="latest", description="latest, champion, a version's number or a model folder.")
    estimates: Path | None = Field(
        default=None, description="Folder of estimates made elsewhere, <song>/vocals.wav ..., instead of a model."
    )
    against: str | None = Field(default=None, description="Model to compare with; by default the champion.")
    dataset: Path | None = Field(
        default=None, description="Root folder of songs with known stems; by default those of the store."
    )
    kind: str = Field(default="auto", description="auto, musdb18, musdb18-hq, folder, karaoke or demo.")
    split: str = Field(default="test", description="Songs to score: test, valid or train.")
    engine: Engine = Field(default="fast", description="fast, or museval (the reference, slow).")
    store: StoreLocation = Field(
        default=STORE, description="Spectrogram store: a folder, or a URL such as s3://bucket/name.zarr."
    )
    models: Path = Field(default=MODELS, description="Model registry.")
    reports: Path = Field(default=REPORTS, description="Folder for reports.")
    workers: int | None = Field(default=None, ge=1, description="Processes; by default one per core, if memory allows.")
