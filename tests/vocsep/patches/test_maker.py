"""Training patches against a slow version written from the definitions, on every tier."""

from pathlib import Path

import numpy as np
import pytest
import torch

from storage.store import SpectrogramStore
from tests.vocsep.patches.makers import FRAMES, Array, cosines_of, maker, sampler
from tests.vocsep.patches.patch_songs import SOURCES, Made, make_store, training_songs
from vocsep.patches.batch import Batch
from vocsep.patches.sampling import Augmentation, Draws, SourceDraws

# On a device the patches of a batch are made together, here on the processor.
TIERS = ("host", "device", "stream")


WIDE_BINS = 24


SONGS = (Made(40), Made(25, channels=2), Made(30, "valid"), Made(11), Made(90, channels=2), Made(70, "test"))


@pytest.fixture(scope="module")
def values() -> dict[str, list[Array]]:
    """Random magnitudes of SONGS by source, the mixture not being the sum of the others."""
    random = np.random.default_rng(0)
    return {
        source: [random.gamma(0.5, 4, (song.channels, song.frames, WIDE_BINS)).astype(np.float32) for song in SONGS]
        for source in SOURCES
    }


@pytest.fixture(scope="module")
def store(values: dict[str, list[Array]], tmp_path_factory: pytest.TempPathFactory) -> SpectrogramStore:
    return make_store(tmp_path_factory.mktemp("stores") / "store.zarr", SONGS, values=values)


def interpolated(values: Array, positions: Array, axis: int) -> Array:
    """Linear interpolation; the ends continue beyond the first and the last value."""
    along = np.arange(values.shape[axis])
    found: Array = np.apply_along_axis(lambda line: np.interp(positions, along, line), axis, values)
    return found


def slow_source(values: list[Array], draws: SourceDraws, item: int, channels: int) -> Array:
    """One source of one patch as its draws say, in float64, by the definitions."""
    songs = [song for song, made in zip(values, SONGS, strict=True) if made.split == "train"]
    song = songs[draws.track[item]]
    order = [draws.channel[item]]
    if channels == 2:
        order = [min(channel, len(song) - 1) for channel in ((1, 0) if draws.swap[item] else (0, 1))]
    start, read, pitch = int(draws.start[item]), int(draws.frames[item]), float(draws.pitch[item])
    excerpt = np.zeros((channels, read, WIDE_BINS))
    part = song[order, start : start + read]
    excerpt[:, : part.shape[1]] = part
    # The middle of a frame stays the middle of a frame.
    excerpt = interpolated(excerpt, (np.arange(FRAMES) + 0.5) * read / FRAMES - 0.5, axis=1)
    taken, filled = (round(WIDE_BINS / pitch), WIDE_BINS) if pitch > 1 else (WIDE_BINS, round(WIDE_BINS * pitch))
    patch = np.zeros((channels, FRAMES, WIDE_BINS))
    patch[..., :filled] = interpolated(excerpt[..., :taken], (np.arange(filled) + 0.5) * taken / filled - 0.5, axis=2)
    patch *= draws.gain[item]
    return patch


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("tier", TIERS)
def test_patches_are_those_of_a_slow_version_written_from_the_definitions(
    store: SpectrogramStore, values: dict[str, list[Array]], tier: str, channels: int
) -> None:
    making = maker(store, tier, channels, with_accompaniment=True)
    drawing = sampler(store)
    remixes = 0
    for step in range(6):
        draws = drawing.draw(step)
        batch = making.make(draws)
        assert batch.accompaniment is not None
        for item in range(12):
            vocals = slow_source(values["vocals"], draws.vocals, item, channels)
            accompaniment = slow_source(values["accompaniment"], draws.accompaniment, item, channels)
            np.testing.assert_allclose(batch.vocals[item], vocals, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(batch.accompaniment[item], accompaniment, rtol=1e-4, atol=1e-4)
            if not draws.remixed[item]:
                mixture = slow_source(values["mixture"], draws.vocals, item, channels)
                np.testing.assert_allclose(batch.mixture[item], mixture, rtol=1e-4, atol=1e-4)
                continue
            remixes += 1
            cosines = cosines_of(batch.mixture[item], batch.vocals[item], batch.accompaniment[item])
            known = cosines[~np.isnan(cosines)]
            assert len(known) > 50
            assert np.abs(known).max() <= 1 + 1e-3
            assert known.std() > 0.5
    assert remixes > 20


def test_all_tiers_make_the_same_patches(store: SpectrogramStore) -> None:
    draws = sampler(store, batch_size=40).draw(0)
    for channels in (1, 2):
        batches = [maker(store, tier, channels).make(draws) for tier in TIERS]
        for other in batches[1:]:
            torch.testing.assert_close(other.mixture, batches[0].mixture, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(other.vocals, batches[0].vocals, rtol=1e-4, atol=1e-4)
        assert torch.equal(batches[2].mixture, batches[0].mixture)  # host and stream: to the bit


def test_patches_of_processes_are_to_the_bit_those_of_one(store: SpectrogramStore) -> None:
    draws = sampler(store).draw(3)
    whole = maker(store, "host", 2).make(draws)
    for rank in range(3):
        share = maker(store, "stream", 2).make(draws.share(rank, 3))
        assert torch.equal(share.mixture, whole.mixture[rank::3])
        assert torch.equal(share.vocals, whole.vocals[rank::3])


def test_patches_depend_on_nothing_but_draws_and_seed(store: SpectrogramStore) -> None:
    drawing, making = sampler(store), maker(store)
    first = making.make(drawing.draw(0))
    making.make(drawing.draw(1))
    torch.manual_seed(77)
    assert torch.equal(making.make(drawing.draw(0)).mixture, first.mixture)
    assert torch.equal(maker(store).make(drawing.draw(0)).mixture, first.mixture)
    other = maker(store, seed=1).make(drawing.draw(0))
    assert not torch.equal(other.mixture, first.mixture)
    assert torch.equal(other.vocals, first.vocals)


@pytest.mark.parametrize("with_accompaniment", [False, True])
@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("remix", [0.0, 0.5, 1.0])
def test_batch_has_its_shape_and_the_accompaniment_where_asked_for(
    store: SpectrogramStore, remix: float, tier: str, with_accompaniment: bool
) -> None:
    making = maker(store, tier, 2, with_accompaniment=with_accompaniment)
    batch = making.make(sampler(store, Augmentation(remix=remix)).draw(0))
    assert (batch.accompaniment is not None) is with_accompaniment
    for patches in batch:
        if patches is not None:
            assert patches.shape == (12, 2, FRAMES, WIDE_BINS)
            assert patches.dtype == torch.float32
            assert torch.isfinite(patches).all()
            assert (patches >= 0).all()


@pytest.mark.parametrize("with_accompaniment", [False, True])
@pytest.mark.parametrize("tier", TIERS)
def test_batch_is_made_in_the_memory_of_an_earlier_one_with_the_values_of_a_new_one(
    store: SpectrogramStore, tier: str, with_accompaniment: bool
) -> None:
    making, drawing = maker(store, tier, 2, with_accompaniment=with_accompaniment), sampler(store)
    earlier = making.make(drawing.draw(0))
    addresses = [None if patches is None else patches.data_ptr() for patches in earlier]
    for patches in earlier:
        if patches is not None:
            patches.fill_(np.nan)
    again = making.make(drawing.draw(1), earlier)
    assert [None if patches is None else patches.data_ptr() for patches in again] == addresses
    fresh = maker(store, tier, 2, with_accompaniment=with_accompaniment).make(drawing.draw(1))
    for one_part, other_part in zip(again, fresh, strict=True):
        assert (one_part is None) == (other_part is None)
        assert one_part is None or other_part is None or torch.equal(one_part, other_part)


def test_batches_made_one_after_the_other_share_no_memory(store: SpectrogramStore) -> None:
    making, drawing = maker(store), sampler(store)
    first = making.make(drawing.draw(0))
    kept = Batch(first.mixture.clone(), first.vocals.clone(), None)
    making.make(drawing.draw(1))
    assert torch.equal(first.mixture, kept.mixture)
    assert torch.equal(first.vocals, kept.vocals)


@pytest.mark.parametrize("remix", [0.0, 1.0])
@pytest.mark.parametrize("tier", TIERS)
def test_validation_and_test_songs_are_never_heard(tmp_path: Path, tier: str, remix: float) -> None:
    songs = (Made(900, "valid"), Made(5), Made(900, "test"), Made(6))
    store = make_store(tmp_path / "store.zarr", songs)
    numbers = [number for number, _ in training_songs(songs)]
    nothing = Augmentation(remix=remix, gain=0, swap=0, pitch=0, tempo=0)
    making, drawing = maker(store, tier, frames=4), sampler(store, nothing, batch_size=40, frames=4)
    heard = set()
    for step in range(5):
        batch = making.make(drawing.draw(step))
        heard |= set((batch.vocals[:, 0, 0, 0] // 1000).int().tolist())
        # At most the sum of the last song with itself.
        assert (batch.mixture < 2 * 4010).all()
        if remix == 0:
            assert torch.equal(batch.mixture, batch.vocals - 1 / 64)
    assert heard == set(numbers)


@pytest.mark.parametrize("remix", [0.0, 1.0])
@pytest.mark.parametrize("tier", TIERS)
def test_after_the_end_of_a_short_song_there_is_silence_in_remixes_too(tmp_path: Path, tier: str, remix: float) -> None:
    store = make_store(tmp_path / "store.zarr", (Made(3, channels=2), Made(3)))
    nothing = Augmentation(remix=remix, gain=0, swap=0, pitch=0, tempo=0)
    batch = maker(store, tier, 2, frames=8).make(sampler(store, nothing, frames=8).draw(0))
    for patches in (batch.mixture, batch.vocals):
        assert not patches[:, :, 3:].any()
    assert (batch.vocals[:, :, :3] >= 1000).all()


def test_mono_song_stands_in_both_channels_and_stereo_stays_together(store: SpectrogramStore) -> None:
    nothing = Augmentation(remix=0, gain=0, swap=0, pitch=0, tempo=0)
    draws = sampler(store, nothing, batch_size=60).draw(0)
    batch = maker(store, "host", 2).make(draws)
    channels = np.array([song.channels for _, song in training_songs(SONGS)])[draws.vocals.track]
    assert 10 < (channels == 1).sum() < 50
    for item in range(60):
        left, right = batch.mixture[item]
        assert torch.equal(left, right) == (channels[item] == 1)


@pytest.mark.parametrize("tier", TIERS)
def test_gain_is_a_factor_on_one_source_and_swap_exchanges_its_channels(store: SpectrogramStore, tier: str) -> None:
    songs = [song for _, song in training_songs(SONGS)]
    stereo = songs.index(Made(90, channels=2))

    def source(gain: float, swap: bool) -> SourceDraws:
        whole = {"track": stereo, "channel": 0, "start": 7, "frames": FRAMES}
        return SourceDraws(
            **{name: np.array([value, value]) for name, value in whole.items()},
            pitch=np.ones(2, dtype=np.float32),
            gain=np.array([1, gain], dtype=np.float32),
            swap=np.array([False, swap]),
        )

    draws = Draws(source(2.5, True), source(0.5, False), np.array([True, True]), np.array([0.3, 0.3]))
    batch = maker(store, tier, 2, with_accompaniment=True).make(draws)
    assert batch.accompaniment is not None
    torch.testing.assert_close(batch.vocals[1], 2.5 * batch.vocals[0].flip(0))
    torch.testing.assert_close(batch.accompaniment[1], 0.5 * batch.accompaniment[0])
    # The mix is made after that, here with the same phases.
    cosines = cosines_of(batch.mixture, batch.vocals, batch.accompaniment)[:, 0]
    is_clear = ~np.isnan(cosines).any(axis=0)
    assert is_clear.sum() > 20
    np.testing.assert_allclose(cosines[0][is_clear], cosines[1][is_clear], rtol=0, atol=1e-2)
