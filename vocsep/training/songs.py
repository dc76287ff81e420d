"""The songs that a training draws from: those of its store, and of further ones."""

from typing import Any

from pydantic import Field, model_validator

from storage.errors import UserError
from storage.store import SpectrogramStore, config_differences
from vocsep.config import Settings
from vocsep.patches.pool import SongPool, SongSet
from vocsep.preprocessing.config import spectrogram_config
from vocsep.preprocessing.location import StoreLocation, on_disk


class ExtraStore(Settings):
    """A further store whose training songs are drawn; as text, `STORE`, `STORE=SHARE` or `STORE=VOCALS:ACCOMPANIMENT`.

    Attributes
    ----------
    vocals, accompaniment
        Share of all drawn vocals and accompaniments that comes from here; None: by hours.
    """

    store: StoreLocation
    vocals: float | None = Field(default=None, ge=0, le=1)
    accompaniment: float | None = Field(default=None, ge=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, content: Any) -> Any:
        if not isinstance(content, str):
            return content
        store, _, shares = content.partition("=")
        vocals, _, accompaniment = shares.partition(":")
        return {"store": store, "vocals": vocals or None, "accompaniment": accompaniment or vocals or None}


def song_pool(extra: tuple[ExtraStore, ...], store: SpectrogramStore) -> SongPool:
    """Songs of a training's store and of the further ones.

    Raises
    ------
    UserError
        If a store is missing or of another spectrogram, or the shares leave nothing for the first.
    """
    for source in ("vocals", "accompaniment"):
        total = sum(getattr(one, source) or 0.0 for one in extra)
        if total >= 1:
            raise UserError(f"extra: the shares of {source} sum to {total:g}; they must leave some for the first store")
    sets = [SongSet(store)]
    for one in extra:
        opened = SpectrogramStore.open(on_disk(one.store, ("train",)))
        first, other = (spectrogram_config(held).model_dump() for held in (store, opened))
        if different := config_differences(first, other):
            raise UserError(f"{one.store}: its spectrograms differ from those of {store.path} ({different})")
        sets.append(SongSet(opened, one.vocals, one.accompaniment))
    return SongPool(*sets)
