"""Where patches are read from: all of them give the values in the store."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from storage.errors import UserError
from storage.store import SpectrogramStore
from storage.track_writer import Compression
from tests.vocsep.patches.patch_songs import BINS, SONGS, SOURCES, Made, make_store, recognizable, training_songs
from vocsep.patches.pool import SongPool, training_bytes
from vocsep.patches.tiers import Excerpts, PatchTier, ResidentTier, StreamTier, gather_rows, open_tier

Array = NDArray[Any]

CPU = torch.device("cpu")
TIERS = ("host", "stream")


def make_tier(name: str, store: SpectrogramStore, channels: int) -> PatchTier:
    """A tier by its name."""
    pool = SongPool(store)
    return StreamTier(pool, channels) if name == "stream" else ResidentTier(pool, SOURCES, channels, CPU)


def read(tier: PatchTier, source: str, track: Array, channel: Array, start: Array, frames: int) -> torch.Tensor:
    """Excerpts `(len(track), channels, frames, bins)`, copied."""
    excerpts = tier.excerpts(source, track, channel, start, np.full(len(track), frames))
    out = torch.full((len(track), tier.channels, frames, tier.bins), np.nan, device=tier.device)
    gather_rows(excerpts, out)
    return out


def excerpt(
    source: str, index: int, channel: int, start: int, frames: int, channels: int, dtype: str = "float32"
) -> Array:
    """What an excerpt of the songs has to be, `(channels, frames, BINS)`."""
    number, song = training_songs(SONGS)[index]
    values = np.zeros((song.channels, start + frames, BINS), dtype=np.float32)
    stored = recognizable(number, song, source).astype(dtype)[:, : start + frames]
    values[:, : stored.shape[1]] = stored
    return np.stack([values[(channel + step) % song.channels, start:] for step in range(channels)])


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., SpectrogramStore]:
    """A function that gives the store of SONGS with a dtype and compression, always the same one."""

    @cache
    def store(dtype: Literal["float16", "float32"], compression: Compression) -> SpectrogramStore:
        return make_store(tmp_path_factory.mktemp("stores") / "store.zarr", dtype=dtype, compression=compression)

    return store


@pytest.fixture(scope="module")
def tiers(stores: Callable[..., SpectrogramStore]) -> Callable[..., list[PatchTier]]:
    """A function that gives all tiers of such a store, always the same ones."""

    @cache
    def all_tiers(dtype: str, compression: str, channels: int) -> list[PatchTier]:
        return [make_tier(name, stores(dtype, compression), channels) for name in TIERS]

    return all_tiers


# (song, channel, start) of excerpts that begin within a song
places = st.lists(
    st.one_of(
        [
            st.tuples(st.just(index), st.integers(0, song.channels - 1), st.integers(0, song.frames - 1))
            for index, (_, song) in enumerate(training_songs(SONGS))
        ]
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@settings(deadline=None, max_examples=40)
@given(wanted=places, frames=st.integers(1, 12), channels=st.sampled_from([1, 2]), source=st.sampled_from(SOURCES))
def test_all_tiers_give_the_stored_values_and_zeros_after_the_end(
    tiers: Callable[..., list[PatchTier]],
    dtype: str,
    compression: str,
    wanted: list[tuple[int, int, int]],
    frames: int,
    channels: int,
    source: str,
) -> None:
    expected = np.stack([excerpt(source, *place, frames, channels, dtype) for place in wanted])
    track, channel, start = np.array(wanted, dtype=np.int64).T
    for name, tier in zip(TIERS, tiers(dtype, compression, channels), strict=True):
        patches = read(tier, source, track, channel, start, frames)
        assert patches.dtype == torch.float32
        assert np.array_equal(patches.numpy(), expected), name


@pytest.mark.parametrize("name", TIERS)
def test_patches_go_into_the_memory_that_is_given_and_nowhere_else(
    stores: Callable[..., SpectrogramStore], name: str
) -> None:
    tier = make_tier(name, stores("float16", "none"), 2)
    memory = torch.full((4, 2, 6, BINS), -1.0)
    # Song 3 of the training songs has 3 frames, so zeros must replace old values, too.
    track, start = np.array([1, 2]), np.array([5, 0])
    gather_rows(tier.excerpts("vocals", track, np.array([0, 0]), start, np.array([6, 6])), memory[1:3])
    for item, index in enumerate(track):
        expected = excerpt("vocals", index, 0, start[item], 6, 2, "float16")
        assert np.array_equal(memory[1 + item].numpy(), expected)
    assert (memory[[0, 3]] == -1).all()


@pytest.mark.parametrize("name", TIERS)
def test_excerpts_of_one_call_can_have_different_lengths(stores: Callable[..., SpectrogramStore], name: str) -> None:
    tier = make_tier(name, stores("float32", "none"), 1)
    track, start, frames = np.array([1, 2, 1]), np.array([4, 0, 0]), np.array([2, 9, 5])
    rows, first, available = tier.excerpts("mixture", track, np.zeros(3, dtype=np.int64), start, frames)
    for item, index in enumerate(track):
        expected = excerpt("mixture", index, 0, start[item], frames[item], 1)[0, : available[item]]
        assert available[item] == min(frames[item], training_songs(SONGS)[index][1].frames - start[item])
        assert np.array_equal(rows[first[item, 0] :][: available[item]].numpy(), expected)


@pytest.mark.parametrize("name", TIERS)
def test_one_source_of_a_stereo_song_can_begin_with_either_channel(
    stores: Callable[..., SpectrogramStore], name: str
) -> None:
    tier = make_tier(name, stores("float32", "none"), 2)
    track, start = np.array([1, 1]), np.array([4, 4])
    as_stored, swapped = read(tier, "mixture", track, np.array([0, 1]), start, 4)
    assert torch.equal(as_stored.flip(0), swapped)
    assert not torch.equal(as_stored, swapped)


@pytest.mark.parametrize("name", TIERS)
def test_tier_says_what_its_patches_are(stores: Callable[..., SpectrogramStore], name: str) -> None:
    tier = make_tier(name, stores("float32", "none"), 2)
    assert (tier.channels, tier.bins, tier.device) == (2, BINS, CPU)


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 40),
    items=st.integers(1, 4),
    channels=st.integers(1, 2),
    frames=st.integers(1, 10),
    half=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_rows_are_gathered_with_zeros_after_those_that_are_available(
    rows: int, items: int, channels: int, frames: int, half: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    table = torch.from_numpy(random.random((rows, 5), dtype=np.float32)).to(torch.float16 if half else torch.float32)
    first = random.integers(0, rows, (items, channels))
    available = np.minimum(random.integers(0, frames + 1, items), rows - first.max(axis=1))
    gathered = torch.full((items, channels, frames, 5), np.nan)
    gather_rows(Excerpts(table, first, available), gathered)
    for item in range(items):
        for channel in range(channels):
            row, length = first[item, channel], available[item]
            assert torch.equal(gathered[item, channel, :length], table[row : row + length].float())
            assert not gathered[item, channel, length:].any()


@pytest.mark.parametrize("name", TIERS)
def test_only_training_songs_are_held_and_read(tmp_path: Path, name: str) -> None:
    songs = (Made(50, "valid"), Made(5), Made(50, "test"), Made(7))
    store = make_store(tmp_path / "store.zarr", songs)
    tier = make_tier(name, store, 1)
    for index, number in enumerate((2, 4)):
        patch = read(tier, "mixture", np.array([index]), np.array([0]), np.array([0]), 5)[0, 0]
        assert np.array_equal(patch.numpy(), recognizable(number, songs[number - 1], "mixture")[0, :5])
    with pytest.raises(IndexError):
        read(tier, "mixture", np.array([2]), np.array([0]), np.array([0]), 5)


# Which tier


def free_memory(monkeypatch: pytest.MonkeyPatch, count: float) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=int(count)))


def test_training_bytes_are_those_of_the_named_sources_of_the_training_songs(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store.zarr")
    values = sum(song.channels * song.frames * BINS for _, song in training_songs(SONGS))
    itemsize = store.tracks("train")[0].arrays["vocals"].dtype.removeprefix("float")
    assert training_bytes(store.tracks("train"), ("vocals", "mixture")) == 2 * values * int(itemsize) // 8


def test_tier_is_host_memory_where_songs_take_at_most_half_of_what_is_free_else_the_store(
    stores: Callable[..., SpectrogramStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stores("float32", "none")
    size = training_bytes(store.tracks("train"), SOURCES)
    free_memory(monkeypatch, 2 * size)
    tier, text = open_tier(SongPool(store), SOURCES, 1, CPU)
    assert tier.name == "host"
    assert "resident in host memory" in text
    free_memory(monkeypatch, 2 * size - 2)
    tier, text = open_tier(SongPool(store), SOURCES, 1, CPU)
    assert tier.name == "stream"
    assert "streamed" in text
    # One source fewer fits.
    assert open_tier(SongPool(store), SOURCES[:2], 1, CPU)[0].name == "host"


@pytest.mark.parametrize("wanted", ["host", "stream"])
def test_tier_that_is_asked_for_is_taken_whatever_is_free(
    stores: Callable[..., SpectrogramStore], monkeypatch: pytest.MonkeyPatch, wanted: Literal["host", "stream"]
) -> None:
    for free in (0, 1e12):
        free_memory(monkeypatch, free)
        assert open_tier(SongPool(stores("float32", "none")), SOURCES, 1, CPU, wanted)[0].name == wanted


def test_choice_is_told_in_one_line_with_the_size(stores: Callable[..., SpectrogramStore]) -> None:
    for wanted in ("host", "stream"):
        text = open_tier(SongPool(stores("float32", "none")), SOURCES, 1, CPU, wanted)[1]
        assert "\n" not in text
        assert text.startswith("0.00 GB of training patches")


@pytest.mark.parametrize("name", ["host", "stream"])
def test_missing_shard_is_named(tmp_path: Path, name: str) -> None:
    store = make_store(tmp_path / "store.zarr")
    shard = store.path / store.tracks("train")[0].arrays["vocals"].shard
    shard.unlink()
    with pytest.raises(UserError, match="song-1") as error:
        read(make_tier(name, store, 1), "vocals", np.array([0]), np.array([0]), np.array([0]), 2)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("channels", [1, 2])
def test_songs_resident_on_a_gpu_give_the_stored_values(stores: Callable[..., SpectrogramStore], channels: int) -> None:
    tier, text = open_tier(SongPool(stores("float16", "none")), SOURCES, channels, torch.device("cuda"))
    assert tier.name == "device"
    assert "cuda" in text
    track, start = np.array([0, 1, 2, 3]), np.array([6, 0, 0, 2])
    patches = read(tier, "mixture", track, np.zeros(4, dtype=np.int64), start, 6).cpu().numpy()
    for item in range(4):
        assert np.array_equal(patches[item], excerpt("mixture", item, 0, start[item], 6, channels, "float16"))
