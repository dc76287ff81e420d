import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies
from numpy.typing import NDArray

from storage.errors import UserError
from storage.store import SpectrogramStore
from storage.track_writer import write_track
from vocsep.config import SpectrogramConfig
from vocsep.preprocessing import StoreConfig
from vocsep.sampling import Batch, PatchSampler, prefetched, remix_magnitudes

Array = NDArray[Any]

BINS = 3
SOURCES = ("mixture", "vocals", "accompaniment")


@dataclass(frozen=True)
class Made:
    """A song of the small stores: its number is in every value."""

    frames: int
    split: str = "train"
    channels: int = 1


def recognisable(number: int, channels: int, frames: int, source: str) -> Array:
    """song * 1000 + frame + channel / 2 + bin / 8 + source / 64, exact in float32."""
    song = np.full((channels, frames, BINS), 1000.0 * number, dtype=np.float32)
    song += np.arange(frames)[:, None] + np.arange(channels)[:, None, None] / 2 + np.arange(BINS) / 8
    return song + np.float32(SOURCES.index(source) / 64)


def make_store(path: Path, songs: list[Made]) -> SpectrogramStore:
    config = StoreConfig(spectrogram=SpectrogramConfig(sample_rate=1000, n_fft=64, hop_length=16), dtype="float32")
    store = SpectrogramStore.open_or_create(
        path, config=config.model_dump(mode="json"), dataset={"kind": "folder", "root": "songs"}, tool="test"
    )
    for number, song in enumerate(songs, start=1):
        arrays = {name: recognisable(number, song.channels, song.frames, name) for name in SOURCES}
        store.add(
            write_track(
                path,
                f"song-{number}",
                name=f"Song {number}",
                split=song.split,
                seconds=1.0,
                arrays=arrays,
                sources=(),
            )
        )
    store.save()
    return store


def sampler(
    store: SpectrogramStore,
    *,
    batch_size: int = 16,
    channels: int = 1,
    frames: int = 4,
    remix: float = 0.0,
    seed: int = 0,
) -> PatchSampler:
    return PatchSampler(store, batch_size=batch_size, channels=channels, frames=frames, remix=remix, seed=seed)


def all_slices(songs: list[Made], frames: int, source: str) -> dict[tuple[int, int, int], Array]:
    """Every patch that a training song has: (song, channel, start) to values, zeros after the end."""
    slices = {}
    for number, song in enumerate(songs, start=1):
        if song.split != "train":
            continue
        values = recognisable(number, song.channels, song.frames, source)
        padded = np.pad(values, ((0, 0), (0, max(0, frames - song.frames)), (0, 0)))
        for channel in range(song.channels):
            for start in range(padded.shape[1] - frames + 1):
                slices[number, channel, start] = padded[channel, start : start + frames]
    return slices


def place_of(patch: Array, slices: dict[tuple[int, int, int], Array]) -> tuple[int, int, int]:
    (found,) = [place for place, values in slices.items() if np.array_equal(values, patch)]
    return found


def equal(first: Batch, second: Batch) -> bool:
    return (
        np.array_equal(first.mixture, second.mixture)
        and np.array_equal(first.vocals, second.vocals)
        and first.songs == second.songs
    )


SONGS = [Made(9), Made(20, channels=2), Made(6, "valid"), Made(8, "test"), Made(3), Made(4, channels=2)]


@pytest.fixture
def store(tmp_path: Path) -> SpectrogramStore:
    return make_store(tmp_path / "store.zarr", SONGS)


# Which batch


@pytest.mark.parametrize("remix", [0.0, 0.6])
@pytest.mark.parametrize("channels", [1, 2])
def test_batch_depends_only_on_seed_and_step_and_not_on_what_was_drawn_before(
    store: SpectrogramStore, channels: int, remix: float
) -> None:
    drawing = sampler(store, channels=channels, remix=remix, seed=3)
    in_order = [drawing.batch(step) for step in range(5)]
    for step in (4, 0, 2):
        fresh = sampler(store, channels=channels, remix=remix, seed=3)
        assert equal(fresh.batch(step), in_order[step])
        assert equal(drawing.batch(step), in_order[step])
    assert not any(equal(first, second) for first, second in itertools.combinations(in_order, 2))


def test_batches_begin_at_any_step(store: SpectrogramStore) -> None:
    drawing = sampler(store, remix=0.5)
    for first in (0, 7):
        for step, batch in zip(range(first, first + 3), drawing.batches(first), strict=False):
            assert equal(batch, drawing.batch(step))


def test_another_seed_gives_other_batches(store: SpectrogramStore) -> None:
    assert not equal(sampler(store, seed=0).batch(0), sampler(store, seed=1).batch(0))
    # Neighbouring seeds and steps share nothing: step 1 of seed 0 is not step 0 of seed 1.
    assert not equal(sampler(store, seed=0).batch(1), sampler(store, seed=1).batch(0))


def test_batch_has_its_shape_and_type_and_names_its_songs(store: SpectrogramStore) -> None:
    batch = sampler(store, batch_size=5, channels=2, frames=4, remix=0.5).batch(0)
    for patches in (batch.mixture, batch.vocals):
        assert patches.shape == (5, 2, 4, BINS)
        assert patches.dtype == np.float32
    assert set(batch.songs) <= {"Song 1", "Song 2", "Song 5", "Song 6"}
    assert list(batch.songs) == sorted(set(batch.songs))


# Which patches


def test_without_remix_every_patch_is_a_slice_of_a_training_song_and_vocals_lie_at_the_same_place(
    store: SpectrogramStore,
) -> None:
    mixtures, vocals = (all_slices(SONGS, 4, source) for source in ("mixture", "vocals"))
    for step in range(10):
        batch = sampler(store).batch(step)
        places = [place_of(patch[0], mixtures) for patch in batch.mixture]
        assert [place_of(patch[0], vocals) for patch in batch.vocals] == places
        assert {f"Song {number}" for number, _, _ in places} == set(batch.songs)


def test_every_start_the_first_and_the_last_among_them_is_drawn_and_no_other(store: SpectrogramStore) -> None:
    slices = all_slices(SONGS, 4, "mixture")
    drawing = sampler(store, batch_size=100)
    drawn = {
        place_of(patch[0], slices) for batch in (drawing.batch(step) for step in range(20)) for patch in batch.mixture
    }
    assert drawn == set(slices)
    assert {start for number, _, start in drawn if number == 2} == set(range(20 - 4 + 1))


def test_songs_are_drawn_in_proportion_to_their_frames_and_starts_and_channels_evenly(tmp_path: Path) -> None:
    songs = [Made(100), Made(300), Made(50, channels=2), Made(550)]
    store = make_store(tmp_path / "store.zarr", songs)
    batch = sampler(store, batch_size=4000, frames=11).batch(0)
    first = batch.mixture[:, 0, 0, 0]
    numbers = (first // 1000).astype(int)
    counts = np.bincount(numbers, minlength=5)[1:]
    expected = np.array([100, 300, 50, 550]) * 4000 / 1000
    # Of chi square with 3 degrees of freedom, 1 in 1000 lies beyond 16.3.
    assert ((counts - expected) ** 2 / expected).sum() < 16.3
    starts = np.bincount((first[numbers == 4] % 1000).astype(int) // 54, minlength=10)
    assert len(starts) == 10
    even = starts.sum() / 10
    assert ((starts - even) ** 2 / even).sum() < 27.9  # 9 degrees of freedom
    right = (first[numbers == 3] % 1 >= 0.5).mean()
    assert abs(right - 0.5) < 3.3 * 0.5 / np.sqrt(counts[2])


@pytest.mark.parametrize("remix", [0.0, 1.0])
def test_validation_and_test_songs_are_never_drawn(tmp_path: Path, remix: float) -> None:
    store = make_store(tmp_path / "store.zarr", [Made(5), Made(900, "valid"), Made(900, "test")])
    for step in range(20):
        batch = sampler(store, remix=remix).batch(step)
        assert batch.songs == ("Song 1",)
        assert (batch.vocals < 2000).all()
        # At most the sum of two magnitudes of song 1, whose values lie near 1000.
        assert (batch.mixture < 2 * 1010).all()


@pytest.mark.parametrize("channels", [1, 2])
def test_song_shorter_than_a_patch_is_padded_with_zeros(tmp_path: Path, channels: int) -> None:
    store = make_store(tmp_path / "store.zarr", [Made(3, channels=2)])
    batch = sampler(store, channels=channels, frames=8).batch(0)
    for patches in (batch.mixture, batch.vocals):
        assert (patches[:, :, :3] >= 1000).all()
        assert not patches[:, :, 3:].any()
        assert ((patches[:, 0, :3, 0] // 1).astype(int) == [1000, 1001, 1002]).all()


def test_padding_of_a_remix_is_silent_too(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store.zarr", [Made(3)])
    batch = sampler(store, frames=8, remix=1.0).batch(0)
    assert not batch.mixture[:, :, 3:].any()
    assert not batch.vocals[:, :, 3:].any()


def test_two_channels_stay_together_and_mono_stands_in_both(store: SpectrogramStore) -> None:
    slices = all_slices(SONGS, 4, "mixture")
    drawing = sampler(store, batch_size=200, channels=2)
    seen: Counter[bool] = Counter()
    for patch in drawing.batch(0).mixture:
        left, right = place_of(patch[0], slices), place_of(patch[1], slices)
        is_stereo = SONGS[left[0] - 1].channels == 2
        assert (left[0], left[2]) == (right[0], right[2])
        assert (left[1], right[1]) == ((0, 1) if is_stereo else (0, 0))
        seen[is_stereo] += 1
    assert min(seen[True], seen[False]) > 20


def test_store_without_training_songs_is_one_line_that_names_the_store(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store.zarr", [Made(5, "valid"), Made(5, "test")])
    with pytest.raises(UserError, match="no training songs") as error:
        sampler(store)
    assert str(store.path) in str(error.value)
    assert "\n" not in str(error.value)


# Remixes


def test_remix_takes_vocals_and_accompaniment_from_places_of_their_own(tmp_path: Path) -> None:
    songs = [Made(30), Made(30)]
    store = make_store(tmp_path / "store.zarr", songs)
    slices = all_slices(songs, 4, "vocals")
    drawing = sampler(store, batch_size=1, remix=1.0)
    pairs: Counter[tuple[int, int]] = Counter()
    for step in range(400):
        batch = drawing.batch(step)
        mixed, voice = batch.mixture[0, 0], batch.vocals[0, 0]
        sung = place_of(voice, slices)[0]
        named = {int(name.removeprefix("Song ")) for name in batch.songs}
        played = min(named - {sung}, default=sung)
        assert named == {sung, played}
        # Magnitudes of song n lie between 1000 n and 1000 n + 31.
        assert (mixed >= abs(sung - played) * 1000 - 31).all()
        assert (mixed <= (sung + played) * 1000 + 62).all()
        pairs[sung, played] += 1
    assert len(pairs) == 4
    # Each pair is drawn every fourth time.
    assert all(abs(count - 100) < 3.5 * np.sqrt(400 * 0.25 * 0.75) for count in pairs.values())


def test_share_of_remixed_patches_is_the_one_asked_for(tmp_path: Path) -> None:
    songs = [Made(30), Made(40)]
    store = make_store(tmp_path / "store.zarr", songs)
    batch = sampler(store, batch_size=2000, remix=0.3).batch(0)
    own_mixture = batch.vocals - np.float32(1 / 64)
    remixed = (batch.mixture != own_mixture).any(axis=(1, 2, 3)).mean()
    assert abs(remixed - 0.3) < 3.3 * np.sqrt(0.3 * 0.7 / 2000)


# Silent or audible: squares of magnitudes below 1e-19 vanish in float32.
magnitude_pairs = numpy_strategies.arrays(
    np.float32, (2, 2, 1, 3, 4), elements=st.just(0.0) | st.floats(2.0**-20, 1000, width=32)
)


@settings(deadline=None)
@given(pair=magnitude_pairs, seed=st.integers(0, 1000))
def test_remixed_magnitude_lies_between_difference_and_sum(pair: Array, seed: int) -> None:
    vocals, accompaniment = pair
    mixed = remix_magnitudes(vocals, accompaniment, np.random.default_rng(seed))
    assert mixed.dtype == np.float32
    assert mixed.shape == vocals.shape
    # The root halves the digits of V^2 + A^2 - 2 V A where V and A are nearly equal.
    rounding = 2e-3 * (vocals + accompaniment)
    assert (mixed >= np.abs(vocals - accompaniment) - rounding).all()
    assert (mixed <= vocals + accompaniment + rounding).all()


@settings(deadline=None)
@given(pair=magnitude_pairs, seed=st.integers(0, 1000))
def test_remix_with_silence_is_the_other_source(pair: Array, seed: int) -> None:
    source, silence = pair[0], np.zeros_like(pair[0])
    for mixed in (
        remix_magnitudes(source, silence, np.random.default_rng(seed)),
        remix_magnitudes(silence, source, np.random.default_rng(seed)),
    ):
        np.testing.assert_allclose(mixed, source, rtol=1e-6)


def test_mean_power_of_remixes_is_the_sum_of_the_powers() -> None:
    shape = (4, 1, 500, 500)
    mixed = remix_magnitudes(np.full(shape, 3, np.float32), np.full(shape, 4, np.float32), np.random.default_rng(0))
    power = mixed.astype(np.float64) ** 2
    # 2 V A cos(phi) has a standard deviation of sqrt(2) V A.
    assert abs(power.mean() - 25) < 4 * np.sqrt(2) * 12 / np.sqrt(power.size)
    assert abs(power.std() - np.sqrt(2) * 12) < 0.1


def test_phase_of_a_remix_is_common_to_the_channels_and_new_for_each_item_frame_and_bin() -> None:
    shape = (3, 2, 5, 7)
    vocals, accompaniment = np.full(shape, 3, np.float32), np.full(shape, 4, np.float32)
    accompaniment[:, 1] = 8
    mixed = remix_magnitudes(vocals, accompaniment, np.random.default_rng(0))
    cosine = (mixed**2 - vocals**2 - accompaniment**2) / (2 * vocals * accompaniment)
    np.testing.assert_allclose(cosine[:, 0], cosine[:, 1], rtol=0, atol=1e-5)
    assert len(np.unique(cosine[:, 0].round(5))) > 0.95 * 3 * 5 * 7


# Prefetching


def labelled(number: int) -> Batch:
    patches = np.full((1, 1, 1, 1), number, dtype=np.float32)
    return Batch(patches, patches, (str(number),))


def patch_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "patches"}


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 20])
def test_prefetched_batches_are_the_same_in_the_same_order(count: int, depth: int) -> None:
    batches = [labelled(number) for number in range(count)]
    arrived = list(prefetched(iter(batches), depth))
    assert len(arrived) == count
    assert all(first is second for first, second in zip(arrived, batches, strict=True))
    assert not patch_threads()


def test_prefetched_batches_of_a_sampler_are_those_of_the_sampler(store: SpectrogramStore) -> None:
    drawing = sampler(store, remix=0.5)
    ahead = prefetched(drawing.batches())
    for step in range(6):
        assert equal(next(ahead), drawing.batch(step))
    assert isinstance(ahead, Iterator)


def test_prefetched_raises_what_its_source_raises_after_the_batches_before() -> None:
    def failing() -> Iterator[Batch]:
        yield labelled(0)
        yield labelled(1)
        raise UserError("shard is missing")

    arrived: list[Batch] = []
    with pytest.raises(UserError, match="shard is missing"):
        arrived.extend(iter_into(arrived, prefetched(failing())))
    assert [batch.songs for batch in arrived] == [("0",), ("1",)]
    assert not patch_threads()


def iter_into(arrived: list[Batch], batches: Iterator[Batch]) -> Iterator[Batch]:
    """Append to `arrived` one by one; yields nothing."""
    for batch in batches:
        arrived.append(batch)
    yield from ()


@pytest.mark.parametrize("taken", [1, 3])
def test_prefetched_ends_its_thread_when_closed_early_even_with_a_full_queue(taken: int) -> None:
    made: list[int] = []

    def endless() -> Iterator[Batch]:
        for number in itertools.count():
            made.append(number)
            yield labelled(number)

    before = threading.enumerate()
    ahead = prefetched(endless(), depth=2)
    for _ in range(taken):
        next(ahead)
    assert len(patch_threads()) == 1
    ahead.close()  # type: ignore[attr-defined]
    assert threading.enumerate() == before
    # What was taken, what waited in the queue, and one in the thread's hand.
    assert len(made) <= taken + 2 + 1


def test_prefetched_ends_its_thread_when_its_user_fails() -> None:
    def use() -> None:
        for batch in prefetched(labelled(number) for number in itertools.count()):
            raise KeyError(batch.songs[0])

    with pytest.raises(KeyError, match="0"):
        use()
    assert not patch_threads()
