"""Patches from draws: pitch, tempo, level, channels and the mix."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies
from numpy.typing import NDArray
from torch import Tensor

from storage.store import SpectrogramStore
from tests.vocsep.patches.patch_songs import SOURCES, Made, make_store, training_songs
from tests.vocsep.patches.test_tiers import make_tier
from vocsep.kernels import StoredRows, fill_patch
from vocsep.patches.maker import Batch, PatchMaker, remix_magnitudes, stretch, stretched_bins
from vocsep.patches.pool import SongPool
from vocsep.patches.sampling import Augmentation, Draws, PatchSampler, SourceDraws

Array = NDArray[Any]

# On a device the patches of a batch are made together, here on the processor.
TIERS = ("host", "device", "stream")
WAYS = ("by_rows", "together")
FRAMES = 16
WIDE_BINS = 24
SONGS = (Made(40), Made(25, channels=2), Made(30, "valid"), Made(11), Made(90, channels=2), Made(70, "test"))
EVERYTHING = Augmentation(
    remix=0.6, gain=0.6, gain_db=12, swap=0.5, pitch=0.5, pitch_semitones=7, tempo=0.5, tempo_factor=1.5
)


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


def sampler(
    store: SpectrogramStore, augmentation: Augmentation = EVERYTHING, batch_size: int = 12, frames: int = FRAMES
) -> PatchSampler:
    return PatchSampler(SongPool(store), batch_size=batch_size, frames=frames, augmentation=augmentation, seed=5)


def maker(
    store: SpectrogramStore,
    tier: str = "host",
    channels: int = 1,
    *,
    frames: int = FRAMES,
    seed: int = 0,
    with_accompaniment: bool = False,
) -> PatchMaker:
    made = PatchMaker(make_tier(tier, store, channels), frames=frames, seed=seed, with_accompaniment=with_accompaniment)
    made.together = tier == "device"
    return made


def one(way: str, frames: int, out_frames: int, pitch: float, magnitudes: Tensor) -> Tensor:
    """Stretch one item `(channels, frames, bins)`."""
    channels, read, bins = magnitudes.shape
    out = torch.full((1, channels, out_frames, bins), np.nan)
    factor, kept = np.array([pitch], dtype=np.float32), np.array([frames])
    if way == "together":
        stretch(magnitudes[None], factor, kept, out)
        return out[0]
    rows = np.ascontiguousarray(magnitudes.numpy()).reshape(-1, bins)
    first = read * np.arange(channels)[None]
    source = StoredRows(rows, first, kept, kept, *stretched_bins(factor, bins), np.ones(1, dtype=np.float32))
    none, zero = out[:0].numpy(), np.zeros(1, dtype=np.int64)
    remixed, cosines = np.array([False]), np.zeros(1, dtype=np.float32)
    fill_patch(0, source, source, source, remixed, zero, cosines, out.numpy(), none, torch.empty_like(out).numpy())
    return out[0]


def interpolated(values: Array, positions: Array, axis: int) -> Array:
    """Linear interpolation; the ends go on beyond the first and the last value."""
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


def cosines_of(mixture: Tensor, vocals: Tensor, accompaniment: Tensor) -> Array:
    """Cosine of the relative phase that a mix was made with; NaN where one of the sources is hardly there."""
    m, v, a = (part.double().numpy() for part in (mixture, vocals, accompaniment))
    is_clear = np.minimum(v, a) > 0.05 * np.maximum(v, a)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines: Array = np.where(is_clear, (m**2 - v**2 - a**2) / (2 * v * a), np.nan)
    return cosines


# Against a slow version


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


def test_on_a_processor_patches_are_made_row_by_row(store: SpectrogramStore) -> None:
    for tier in ("host", "stream"):
        making = PatchMaker(make_tier(tier, store, 1), frames=FRAMES, seed=0, with_accompaniment=False)
        assert making.together is False


# Memory


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


# Which songs


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


# Level and channels


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


# Pitch and tempo


magnitudes = numpy_strategies.arrays(
    np.float32,
    st.tuples(st.integers(1, 2), st.integers(1, 12), st.integers(1, 20)),
    elements=st.floats(0, 1000, width=32),
)


@settings(deadline=None)
@given(spectrogram=magnitudes)
def test_stretch_by_nothing_changes_nothing(spectrogram: Array) -> None:
    values = torch.from_numpy(spectrogram)
    frames = values.shape[1]
    assert torch.equal(one("by_rows", frames, frames, 1.0, values), values)
    # Neighbours weigh in by no more than the rounding of places.
    together = one("together", frames, frames, 1.0, values)
    torch.testing.assert_close(together, values, rtol=1e-5, atol=1e-5 * float(values.max()) + 1e-6)


@pytest.mark.parametrize("way", WAYS)
@settings(deadline=None, max_examples=200)
@given(spectrogram=magnitudes, out_frames=st.integers(1, 20), semitones=st.floats(-12, 12))
def test_stretched_magnitudes_are_never_negative_nor_louder_than_the_loudest(
    way: str, spectrogram: Array, out_frames: int, semitones: float
) -> None:
    values = torch.from_numpy(spectrogram)
    stretched = one(way, values.shape[1], out_frames, 2 ** (semitones / 12), values)
    assert (stretched >= 0).all()
    assert stretched.max() <= values.max() * (1 + 1e-5)


@pytest.mark.parametrize("way", WAYS)
@settings(deadline=None)
@given(
    bins=st.integers(8, 200),
    frames=st.integers(1, 20),
    out_frames=st.integers(1, 20),
    semitones=st.floats(-12, 12),
    level=st.floats(0.01, 100),
)
def test_level_of_a_flat_spectrum_is_kept_and_above_what_is_known_there_is_silence(
    way: str, bins: int, frames: int, out_frames: int, semitones: float, level: float
) -> None:
    pitch = float(np.float32(2 ** (semitones / 12)))
    stretched = one(way, frames, out_frames, pitch, torch.full((1, frames, bins), level))
    known = bins if pitch >= 1 else round(bins * pitch)
    torch.testing.assert_close(stretched[..., :known], torch.full_like(stretched[..., :known], level))
    assert not stretched[..., known:].any()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("line", [20, 61, 150, 237])
@pytest.mark.parametrize("semitones", [-12, -3, -0.5, 0.5, 2, 3, 7, 12])
def test_pure_tone_moves_to_its_frequency_times_the_pitch_and_keeps_its_time(
    way: str, line: int, semitones: float
) -> None:
    pitch = 2 ** (semitones / 12)
    tone = torch.zeros(1, 9, 512)
    tone[..., line - 2 : line + 3] = torch.tensor([0.25, 0.75, 1, 0.75, 0.25])
    tone *= torch.tensor([0.0, 0, 1, 1, 1, 0, 0, 0.5, 0])[:, None]
    stretched = one(way, 9, 9, pitch, tone)
    bins = torch.arange(512) + 0.5
    center = (stretched * bins).sum(-1)[0] / stretched.sum(-1)[0]
    for frame in (2, 3, 4, 7):
        assert abs(float(center[frame]) - (line + 0.5) * pitch) < 0.6
        assert float(stretched[0, frame].max()) == pytest.approx(float(tone[0, frame].max()), rel=0.15)
    # The other places are rounded, together.
    assert stretched[0, [0, 1, 5, 6, 8]].max() <= (0 if way == "by_rows" else 1e-5)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("frames", "factor"), [(256, 0.5), (64, 2.0), (154, 128 / 154), (107, 128 / 107)])
def test_tempo_changes_the_distance_of_two_events_and_not_their_bins(way: str, frames: int, factor: float) -> None:
    first, second = frames // 4, frames // 4 + frames // 2
    events = torch.zeros(1, frames, 32)
    events[0, first - 1 : first + 2, 7] = events[0, second - 1 : second + 2, 21] = torch.tensor([0.5, 1, 0.5])
    stretched = one(way, frames, 128, 1.0, events)[0]
    places = torch.arange(128) + 0.5
    found = [float((stretched[:, event] * places).sum() / stretched[:, event].sum()) for event in (7, 21)]
    assert found[0] == pytest.approx((first + 0.5) * factor, abs=0.6)
    assert found[1] - found[0] == pytest.approx((second - first) * factor, abs=0.8)
    stretched[:, [7, 21]] = 0
    assert not stretched.any()


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 1000),
    frames=st.lists(st.integers(1, 30), min_size=2, max_size=4),
    out_frames=st.integers(1, 24),
    bins=st.integers(4, 40),
    semitones=st.lists(st.floats(-12, 12), min_size=4, max_size=4),
)
def test_items_stretched_together_are_those_stretched_row_by_row(
    seed: int, frames: list[int], out_frames: int, bins: int, semitones: list[float]
) -> None:
    random = np.random.default_rng(seed)
    values = torch.from_numpy(random.random((len(frames), 2, max(frames), bins), dtype=np.float32))
    pitch = np.array([1.0, *(2 ** (value / 12) for value in semitones)][: len(frames)], dtype=np.float32)
    together = torch.full((len(frames), 2, out_frames, bins), np.nan)
    stretch(values, pitch, np.array(frames), together)
    for item in range(len(frames)):
        alone = one("by_rows", frames[item], out_frames, float(pitch[item]), values[item])
        torch.testing.assert_close(together[item], alone, rtol=0, atol=1e-4)


# Mixing

# Silent or audible: squares of magnitudes below 1e-19 vanish in float32.
magnitude_pairs = numpy_strategies.arrays(
    np.float32, (2, 2, 1, 3, 4), elements=st.just(0.0) | st.floats(2.0**-20, 1000, width=32)
)


def random_cosines(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.cos(torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 * np.pi)


@settings(deadline=None)
@given(pair=magnitude_pairs, seed=st.integers(0, 1000))
def test_remixed_magnitude_lies_between_difference_and_sum(pair: Array, seed: int) -> None:
    vocals, accompaniment = torch.from_numpy(pair)
    mixed = remix_magnitudes(vocals, accompaniment, random_cosines((2, 1, 3, 4), seed))
    assert mixed.dtype == torch.float32
    assert mixed.shape == vocals.shape
    # The root halves the digits of V^2 + A^2 - 2 V A where V and A are nearly equal.
    rounding = 2e-3 * (vocals + accompaniment)
    assert (mixed >= (vocals - accompaniment).abs() - rounding).all()
    assert (mixed <= vocals + accompaniment + rounding).all()


@settings(deadline=None)
@given(pair=magnitude_pairs, seed=st.integers(0, 1000))
def test_remix_with_silence_is_the_other_source(pair: Array, seed: int) -> None:
    source = torch.from_numpy(pair[0])
    cosines = random_cosines((2, 1, 3, 4), seed)
    for mixed in (
        remix_magnitudes(source, torch.zeros_like(source), cosines),
        remix_magnitudes(torch.zeros_like(source), source, cosines),
    ):
        torch.testing.assert_close(mixed, source, rtol=1e-6, atol=0)


def test_remix_with_phases_in_step_is_the_sum_and_against_each_other_the_difference() -> None:
    vocals, accompaniment = torch.tensor([3.0]), torch.tensor([4.0])
    for cosine, expected in ((1.0, 7.0), (-1.0, 1.0), (0.0, 5.0)):
        mixed = remix_magnitudes(vocals, accompaniment, torch.tensor([cosine]))
        assert float(mixed) == pytest.approx(expected, rel=1e-5)


def test_sources_that_cancel_each_other_leave_silence_and_no_nan() -> None:
    torch.manual_seed(0)
    vocals = torch.rand(1, 1, 200, 200) * 100
    # Equal but for the last digits, where rounding decides which side of zero the power comes out on.
    accompaniment = vocals * (1 + 1e-7 * torch.randint(-3, 4, vocals.shape))
    mixed = remix_magnitudes(vocals, accompaniment, torch.full_like(vocals, -1.0))
    assert torch.isfinite(mixed).all()
    assert mixed.max() < 0.5


@pytest.fixture(scope="module")
def constant_mixes(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    """Patches of 64 frames and bins of remixes of vocals 3 and accompaniment 4 and 8 (left and right)."""
    levels = {"vocals": (3, 3), "accompaniment": (4, 8), "mixture": (1, 1)}
    values = {
        name: [np.broadcast_to(np.array(both, np.float32)[:, None, None], (2, 64, 64))] for name, both in levels.items()
    }
    store = make_store(tmp_path_factory.mktemp("stores") / "store.zarr", (Made(64, channels=2),), values=values)
    only_remix = Augmentation(remix=1, gain=0, swap=0, pitch=0, tempo=0)
    drawing = sampler(store, only_remix, batch_size=50, frames=64)
    return maker(store, "host", 2, frames=64, with_accompaniment=True).make(drawing.draw(0))


def test_mean_power_of_remixes_is_the_sum_of_the_powers(constant_mixes: Batch) -> None:
    power = constant_mixes.mixture[:, 0].double() ** 2
    # 2 V A cos(phi) has a standard deviation of sqrt(2) V A.
    deviation = np.sqrt(2) * 12
    assert abs(float(power.mean()) - 25) < 4 * deviation / np.sqrt(power.numel())
    assert abs(float(power.std()) - deviation) < 0.1


def test_phases_of_remixes_are_uniform_common_to_the_channels_and_new_for_each_item_frame_and_bin(
    constant_mixes: Batch,
) -> None:
    assert constant_mixes.accompaniment is not None
    cosines = cosines_of(constant_mixes.mixture, constant_mixes.vocals, constant_mixes.accompaniment)
    np.testing.assert_allclose(cosines[:, 0], cosines[:, 1], rtol=0, atol=1e-5)
    shares = np.histogram(np.arccos(np.clip(cosines[:, 0], -1, 1)), bins=8, range=(0, np.pi))[0]
    expected = shares.sum() / 8
    assert ((shares - expected) ** 2 / expected).sum() < 24.3  # 1 true case in 1000 lies beyond
    lines = cosines[:, 0].reshape(-1, 64)
    for shifted in (np.roll(cosines[:, 0], 1, axis=axis).reshape(-1, 64) for axis in (0, 1, 2)):
        assert abs(np.corrcoef(lines.ravel(), shifted.ravel())[0, 1]) < 4 / np.sqrt(lines.size)


def test_patch_larger_than_the_table_of_phases_is_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store.zarr", (Made(5),))
    with pytest.raises(ValueError, match=r"2000000 x 3"):
        maker(store, frames=2_000_000)
