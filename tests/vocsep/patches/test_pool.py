"""Training songs of several stores: what is drawn from where, and how loud."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from scipy import stats

from storage.store import SpectrogramStore
from tests.tracks import write_track
from tests.vocsep.patches.patch_songs import SOURCES, Made, make_store
from vocsep.patches.maker import PatchMaker
from vocsep.patches.pool import SongPool, SongSet
from vocsep.patches.sampling import Augmentation, PatchSampler
from vocsep.patches.tiers import ResidentTier, StreamTier
from vocsep.spectrograms.config import SpectrogramConfig
from vocsep.spectrograms.features import features

PLAIN = Augmentation(remix=0, gain=0, swap=0, pitch=0, tempo=0)


def add_alone(store: SpectrogramStore, number: int, source: str, frames: int, value: float) -> None:
    """A song of one source, the same value everywhere."""
    arrays = {source: np.full((1, frames, 3), value, dtype=np.float32)}
    store.add(
        write_track(
            store.path, f"alone-{number}", name=f"Alone {number}", split="train", seconds=1.0, arrays=arrays, sources=()
        )
    )


@pytest.fixture
def first(tmp_path: Path) -> SpectrogramStore:
    return make_store(tmp_path / "first.zarr")


@pytest.fixture
def second(tmp_path: Path) -> SpectrogramStore:
    """Instrumentals of 30 and 10 frames, and one voice of 20."""
    store = make_store(tmp_path / "second.zarr", ())
    add_alone(store, 1, "accompaniment", 30, 2.0)
    add_alone(store, 2, "accompaniment", 10, 2.0)
    add_alone(store, 3, "vocals", 20, 8.0)
    store.save()
    return store


def plain_sampler(pool: SongPool, frames: int = 2, remix: float = 0.0) -> PatchSampler:
    """Draws 64 excerpts that are not changed."""
    augmentation = PLAIN.model_copy(update={"remix": remix})
    return PatchSampler(pool, batch_size=64, frames=frames, augmentation=augmentation, seed=1, is_silent=pool.is_silent)


def drawn(pool: SongPool, source: str, steps: int = 400) -> dict[str, float]:
    """Share of the draws of a source that fall on each song."""
    sampler = plain_sampler(pool, remix=1.0)
    indices = np.concatenate([getattr(sampler.draw(step), source).track for step in range(steps)])
    counts = np.bincount(indices, minlength=len(pool.tracks)) / len(indices)
    return {track.name: float(share) for track, share in zip(pool.tracks, counts, strict=True)}


def test_without_shares_songs_of_all_sets_are_drawn_by_their_length(
    first: SpectrogramStore, second: SpectrogramStore
) -> None:
    pool = SongPool(first, second)
    for source in ("vocals", "accompaniment"):
        lengths = {track.name: track.frames for track in pool.tracks if source in track.arrays}
        shares = drawn(pool, source)
        for track in pool.tracks:
            expected = lengths.get(track.name, 0) / sum(lengths.values())
            assert shares[track.name] == pytest.approx(expected, abs=0.02)


def test_shares_are_those_of_the_drawn_sources_and_the_first_set_has_the_rest(
    first: SpectrogramStore, second: SpectrogramStore
) -> None:
    pool = SongPool(first, SongSet(second, vocals=0.25, accompaniment=0.6))
    assert drawn(pool, "vocals")["Alone 3"] == pytest.approx(0.25, abs=0.02)
    shares = drawn(pool, "accompaniment")
    assert shares["Alone 1"] == pytest.approx(0.45, abs=0.02)
    assert shares["Alone 2"] == pytest.approx(0.15, abs=0.02)
    assert shares["Alone 3"] == 0


def test_share_of_a_source_that_a_set_lacks_falls_to_the_others(first: SpectrogramStore, tmp_path: Path) -> None:
    store = make_store(tmp_path / "instrumentals.zarr", ())
    add_alone(store, 1, "accompaniment", 30, 1.0)
    pool = SongPool(first, SongSet(store, vocals=0.5, accompaniment=0.5))
    assert drawn(pool, "vocals")["Alone 1"] == 0
    assert drawn(pool, "accompaniment")["Alone 1"] == pytest.approx(0.5, abs=0.02)


def test_song_of_one_source_is_always_mixed_with_another(first: SpectrogramStore, second: SpectrogramStore) -> None:
    pool = SongPool(first, SongSet(second, vocals=0.5, accompaniment=0.5))
    sampler = plain_sampler(pool)
    draws = [sampler.draw(step) for step in range(50)]
    alone = [index for index, track in enumerate(pool.tracks) if "mixture" not in track.arrays]
    for draw in draws:
        assert np.array_equal(draw.remixed, np.isin(draw.vocals.track, alone))
    assert any(draw.remixed.any() for draw in draws)


def test_median_level_of_a_set_is_brought_to_that_of_the_first(tmp_path: Path) -> None:
    quiet, loud = make_store(tmp_path / "quiet.zarr", ()), make_store(tmp_path / "loud.zarr", ())
    for number, value in enumerate((1.0, 2.0, 3.0)):
        add_alone(quiet, number, "vocals", 12, value)
        add_alone(loud, 10 + number, "vocals", 12, 40 * value)
    pool = SongPool(quiet, loud)
    np.testing.assert_allclose(pool.gains("vocals"), [1, 1, 1, 1 / 40, 1 / 40, 1 / 40], rtol=1e-5)
    assert (SongPool(loud).gains("vocals") == 1).all()


def test_memory_and_store_give_the_same_patches_of_all_sets(first: SpectrogramStore, second: SpectrogramStore) -> None:
    pool = SongPool(first, SongSet(second, vocals=0.4, accompaniment=0.4))
    sampler = PatchSampler(pool, batch_size=32, frames=4, augmentation=Augmentation(), seed=3, is_silent=pool.is_silent)
    tiers = (ResidentTier(pool, SOURCES, 1, torch.device("cpu")), StreamTier(pool, 1))
    for step in range(5):
        batches = [
            PatchMaker(tier, frames=4, seed=0, with_accompaniment=True).make(sampler.draw(step)) for tier in tiers
        ]
        for one, other in zip(*batches, strict=True):
            assert one is not None
            assert other is not None
            assert torch.equal(one, other)


# Silence


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_places_without_singing_are_those_below_a_thousandth_of_a_full_scale_tone(
    tmp_path: Path, dtype: Literal["float16", "float32"]
) -> None:
    """The magnitude of a full-scale tone, 16 with an FFT of 64 samples, is that of a real one."""
    config = SpectrogramConfig(sample_rate=1000, n_fft=64, hop_length=16)
    tone = np.sin(2 * np.pi * 250 / 1000 * np.arange(4000, dtype=np.float32))[None]
    limit = float(np.abs(features(tone, 1000, config)).max()) / 1000
    levels = [0.0, 0.9 * limit, 1.1 * limit, 0.0, np.nan]
    vocals = np.repeat(np.array(levels, dtype=np.float32), 10)[None, :, None] * np.ones(3, dtype=np.float32)
    # Of two channels, one that has singing is enough.
    vocals = np.concatenate([np.zeros_like(vocals), vocals])
    values = {source: [vocals] for source in SOURCES}
    pool = SongPool(make_store(tmp_path / "s.zarr", [Made(50, channels=2)], dtype=dtype, values=values))
    starts = np.arange(47)
    silent = pool.is_silent(np.zeros_like(starts), starts, np.full_like(starts, 4))
    # Four frames from 17 to 29 on reach into the third part, those from 37 on into the last.
    assert np.flatnonzero(~silent).tolist() == [*range(17, 30), *range(37, 47)]
    # The end of a song is padded with silence.
    assert pool.is_silent(np.array([0]), np.array([49]), np.array([9])).tolist() == [False]


@pytest.mark.parametrize("silent_share", [0.0, 0.5, 1.0])
def test_places_without_singing_are_drawn_less_and_the_others_evenly(tmp_path: Path, silent_share: float) -> None:
    frames = 400
    values = {source: [np.ones((1, frames, 3), dtype=np.float32)] for source in SOURCES}
    values["vocals"][0][:, : round(silent_share * frames)] = 0
    pool = SongPool(make_store(tmp_path / "s.zarr", [Made(frames)], values=values))
    sampler = plain_sampler(pool, frames=1, remix=0.5)
    draws = [sampler.draw(step) for step in range(200)]
    starts = np.concatenate([one.vocals.start for one in draws])
    is_silent = starts < silent_share * frames
    # Independent draws, of which the third is taken as it is.
    assert is_silent.mean() == pytest.approx(silent_share**3, abs=5 * np.sqrt(0.125 / len(starts)))
    for part in (starts[is_silent], starts[~is_silent]):
        if len(part):
            assert stats.kstest(part / frames, stats.uniform(part.min() / frames, np.ptp(part) / frames).cdf)[1] > 1e-3
    # An excerpt of a song's own mixture has the accompaniment of the same place, a remix one of any.
    for one in draws:
        assert np.array_equal(one.accompaniment.start[~one.remixed], one.vocals.start[~one.remixed])
    others = np.concatenate([one.accompaniment.start[one.remixed] for one in draws])
    assert (others < silent_share * frames).mean() == pytest.approx(silent_share, abs=0.03)
