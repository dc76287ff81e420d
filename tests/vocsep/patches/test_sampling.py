"""Which patches a step sees, and how they are changed."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from tests.vocsep.patches.patch_songs import pool_of, record
from vocsep.patches.sampling import Augmentation, Draws, PatchSampler, SourceDraws

Array = NDArray[Any]

NOTHING = Augmentation(remix=0, gain=0, swap=0, pitch=0, tempo=0)
SONGS = ((9, 1), (20, 2), (3, 1), (4, 2))  # frames and channels


def never_silent(track: Array, start: Array, frames: Array) -> Array:
    """All songs have singing everywhere."""
    return np.zeros(len(track), dtype=bool)


def sampler(
    songs: tuple[tuple[int, int], ...] = SONGS,
    *,
    batch_size: int = 16,
    frames: int = 4,
    seed: int = 0,
    is_silent: Callable[[Array, Array, Array], Array] = never_silent,
    **changed: Any,
) -> PatchSampler:
    """Of songs with these frames and channels; nothing is changed but what is asked for."""
    tracks = [record(length, channels, number) for number, (length, channels) in enumerate(songs, start=1)]
    augmentation = Augmentation.model_validate(NOTHING.model_dump() | changed)
    return PatchSampler(
        pool_of(*tracks),
        batch_size=batch_size,
        frames=frames,
        augmentation=augmentation,
        seed=seed,
        is_silent=is_silent,
    )


def chosen(name: str, value: float) -> dict[str, Any]:
    return {name: value}


def columns(draws: Draws) -> dict[str, Array]:
    """All that was drawn, by name; one entry per patch each."""
    sources = {"vocals": draws.vocals, "accompaniment": draws.accompaniment}
    return {"remixed": draws.remixed, "phase": draws.phase} | {
        f"{name}.{field.name}": getattr(source, field.name)
        for name, source in sources.items()
        for field in dataclasses.fields(SourceDraws)
    }


def equal(first: Draws, second: Draws) -> bool:
    one, other = columns(first), columns(second)
    return all(np.array_equal(one[name], other[name]) for name in one)


def joined(drawing: PatchSampler, steps: int) -> dict[str, Array]:
    """All that is drawn in the first steps."""
    drawn = [columns(drawing.draw(step)) for step in range(steps)]
    return {name: np.concatenate([one[name] for one in drawn]) for name in drawn[0]}


def assert_even(counts: Array, shares: Array, beyond: float) -> None:
    """Counts go with the shares: chi square is below `beyond`, chosen so that 1 true case in 1000 would not."""
    expected = shares / shares.sum() * counts.sum()
    assert ((counts - expected) ** 2 / expected).sum() < beyond


# What draws depend on


def test_draws_depend_only_on_seed_and_step_and_not_on_what_was_drawn_before() -> None:
    everything: dict[str, Any] = {"remix": 0.5, "gain": 0.5, "swap": 0.5, "pitch": 0.5, "tempo": 0.5}
    drawing = sampler(seed=3, **everything)
    in_order = [drawing.draw(step) for step in range(5)]
    for step in (4, 0, 2):
        assert equal(sampler(seed=3, **everything).draw(step), in_order[step])
        assert equal(drawing.draw(step), in_order[step])
    assert not any(equal(in_order[one], in_order[other]) for one in range(5) for other in range(one))


def test_another_seed_gives_other_draws_even_one_step_later() -> None:
    assert not equal(sampler(seed=0).draw(0), sampler(seed=1).draw(0))
    # Step 1 of seed 0 is not step 0 of seed 1.
    assert not equal(sampler(seed=0).draw(1), sampler(seed=1).draw(0))


def test_neither_the_global_random_numbers_nor_the_settings_of_one_change_move_the_others() -> None:
    before = columns(sampler(remix=0.5).draw(0))
    np.random.seed(1)  # noqa: NPY002
    after = columns(sampler(remix=0.5, gain=0.7, pitch=0.3).draw(0))
    for name in ("remixed", "phase", "vocals.track", "vocals.start", "accompaniment.start"):
        assert np.array_equal(before[name], after[name]), name


def test_places_that_are_silent_are_drawn_again_and_no_other_draw_moves() -> None:
    def is_silent(track: Array, start: Array, frames: Array) -> Array:
        silent: Array = (track == 1) & (start < 8)
        return silent

    everything: dict[str, Any] = {"remix": 0.5, "gain": 0.5, "swap": 0.5, "pitch": 0.5, "tempo": 0.5}
    before, after = (joined(sampler(**everything, is_silent=one), 50) for one in (never_silent, is_silent))
    kept = ~is_silent(before["vocals.track"], before["vocals.start"], before["vocals.frames"])
    assert 0.2 < kept.mean() < 0.9
    for name, values in before.items():
        assert np.array_equal(after[name][kept], values[kept]), name
    others = before["remixed"]
    for name in (name for name in before if name.startswith("accompaniment.") or name in ("remixed", "phase")):
        assert np.array_equal(after[name][others], before[name][others]), name


# Shares of several processes


@settings(deadline=None, max_examples=30)
@given(processes=st.integers(1, 8), each=st.integers(1, 5), step=st.integers(0, 1000))
def test_shares_of_processes_are_disjoint_and_together_the_whole_batch(processes: int, each: int, step: int) -> None:
    drawing = sampler(batch_size=processes * each, remix=0.5, gain=1, pitch=1, swap=0.5, tempo=0.5)
    whole = drawing.draw(step)
    assert len(set(whole.phase)) == processes * each  # so that every patch can be told from the others
    shares = [whole.share(rank, processes) for rank in range(processes)]
    assert all(len(share.remixed) == each for share in shares)
    seen = [float(phase) for share in shares for phase in share.phase]
    assert sorted(seen) == sorted(whole.phase)
    for share in shares:
        places = [list(whole.phase).index(phase) for phase in share.phase]
        for name, values in columns(share).items():
            assert np.array_equal(values, columns(whole)[name][places]), name


# Places


def test_every_start_the_first_and_the_last_among_them_is_drawn_and_no_other() -> None:
    drawn = joined(sampler(batch_size=100), 20)
    found = set(zip(*(drawn[f"vocals.{name}"].tolist() for name in ("track", "channel", "start")), strict=True))
    assert found == {
        (track, channel, start)
        for track, (length, channels) in enumerate(SONGS)
        for channel in range(channels)
        for start in range(max(1, length - 4 + 1))
    }


def test_songs_are_drawn_in_proportion_to_their_frames_and_starts_and_channels_evenly() -> None:
    lengths = (100, 300, 50, 550)
    songs = tuple((length, 2 if length == 50 else 1) for length in lengths)
    draws = sampler(songs, batch_size=4000, frames=11).draw(0)
    assert_even(np.bincount(draws.vocals.track, minlength=4), np.array(lengths), 16.3)
    starts = draws.vocals.start[draws.vocals.track == 3]
    assert_even(np.bincount(starts // 54, minlength=10), np.ones(10), 27.9)
    assert_even(np.bincount(draws.vocals.channel[draws.vocals.track == 2], minlength=2), np.ones(2), 10.8)
    assert not draws.vocals.channel[draws.vocals.track != 2].any()


@settings(deadline=None, max_examples=50)
@given(
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=5),
    factor=st.sampled_from([1.0, 1.2, 2.0]),
    seed=st.integers(0, 1000),
)
def test_excerpts_lie_within_their_songs_unless_these_are_too_short(
    lengths: list[int], factor: float, seed: int
) -> None:
    songs = tuple((length, 1 + length % 2) for length in lengths)
    drawing = sampler(songs, batch_size=64, frames=128, seed=seed, remix=0.5, tempo=0.7, tempo_factor=factor)
    drawn = columns(drawing.draw(0))
    for source in ("vocals", "accompaniment"):
        track, start, frames, channel = (drawn[f"{source}.{name}"] for name in ("track", "start", "frames", "channel"))
        length = np.array(lengths)[track]
        assert ((start >= 0) & (start < length)).all()
        assert (start + frames <= np.maximum(length, frames)).all()
        assert ((channel >= 0) & (channel < 1 + length % 2)).all()


def test_phases_lie_in_0_to_1_evenly() -> None:
    phase = joined(sampler(batch_size=1000), 4)["phase"]
    assert ((phase >= 0) & (phase < 1)).all()
    assert_even(np.histogram(phase, bins=10, range=(0, 1))[0], np.ones(10), 27.9)


# Remixes


def test_share_of_remixed_patches_is_the_one_asked_for() -> None:
    for remix in (0.0, 0.3, 1.0):
        remixed = sampler(batch_size=2000, remix=remix).draw(0).remixed
        assert abs(remixed.mean() - remix) <= 3.3 * np.sqrt(remix * (1 - remix) / 2000)


def test_excerpts_have_one_place_and_the_same_changes_for_vocals_and_accompaniment() -> None:
    drawn = joined(sampler(batch_size=500, remix=0.5, gain=0.5, swap=0.5, pitch=0.5, tempo=0.5), 2)
    excerpts = ~drawn["remixed"]
    for field in dataclasses.fields(SourceDraws):
        vocals, accompaniment = drawn[f"vocals.{field.name}"], drawn[f"accompaniment.{field.name}"]
        assert np.array_equal(vocals[excerpts], accompaniment[excerpts]), field.name
        assert (vocals[~excerpts] != accompaniment[~excerpts]).any(), field.name


def test_remix_takes_both_sources_from_places_and_with_changes_of_their_own() -> None:
    songs = ((50, 2), (50, 2))
    drawn = joined(sampler(songs, batch_size=1000, remix=1, gain=1, swap=0.5, pitch=1, tempo=1), 4)
    pairs = np.bincount(drawn["vocals.track"] * 2 + drawn["accompaniment.track"], minlength=4)
    assert_even(pairs, np.ones(4), 16.3)
    for name in ("gain", "pitch", "start", "frames", "swap", "channel"):
        correlation = np.corrcoef(drawn[f"vocals.{name}"], drawn[f"accompaniment.{name}"])[0, 1]
        assert abs(correlation) < 3.3 / np.sqrt(4000), name


# Changes


def test_without_augmentation_nothing_is_changed() -> None:
    drawn = joined(sampler(batch_size=200), 5)
    assert not drawn["remixed"].any()
    assert not drawn["vocals.swap"].any()
    for name, value in (("gain", 1), ("pitch", 1), ("frames", 4)):
        assert (drawn[f"vocals.{name}"] == value).all(), name


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("change", ["gain", "swap", "pitch", "tempo"])
def test_each_change_comes_as_often_as_asked_for_and_alone(change: str, probability: float) -> None:
    songs = ((100_000, 2), (100_000, 2))
    drawn = joined(sampler(songs, batch_size=1000, frames=10_000, remix=1, **chosen(change, probability)), 2)
    for source in ("vocals", "accompaniment"):
        changed = {
            "gain": drawn[f"{source}.gain"] != 1,
            "swap": drawn[f"{source}.swap"],
            "pitch": drawn[f"{source}.pitch"] != 1,
            "tempo": drawn[f"{source}.frames"] != 10_000,
        }
        for name, flags in changed.items():
            expected = probability if name == change else 0.0
            # A tempo within half a frame of 10 000 is none.
            tolerance = 3.3 * np.sqrt(expected * (1 - expected) / 2000) + (0.002 if name == "tempo" else 0)
            assert abs(flags.mean() - expected) <= tolerance, (source, name)


@pytest.mark.parametrize(
    ("change", "range_name", "limit", "unit"),
    [
        ("gain", "gain_db", 9.0, lambda draws: 20 * np.log10(draws.gain)),
        ("pitch", "pitch_semitones", 4.0, lambda draws: 12 * np.log2(draws.pitch)),
        ("tempo", "tempo_factor", np.log2(1.5), lambda draws: np.log2(draws.frames / 10_000)),
    ],
)
def test_changes_fill_their_range_evenly_up_and_down(change: str, range_name: str, limit: float, unit: Any) -> None:
    setting = 1.5 if change == "tempo" else limit
    drawing = sampler(
        ((100_000, 1),) * 2,
        batch_size=4000,
        frames=10_000,
        remix=1,
        **chosen(change, 1.0),
        **chosen(range_name, setting),
    )
    values = unit(drawing.draw(0).vocals)
    assert np.abs(values).max() <= limit * (1 + 1e-4)
    assert_even(np.histogram(values, bins=10, range=(-limit * 1.0001, limit * 1.0001))[0], np.ones(10), 27.9)


def test_pitch_does_not_change_the_frames_that_are_read_and_tempo_not_the_pitch() -> None:
    assert (sampler(pitch=1).draw(0).vocals.frames == 4).all()
    assert (sampler(tempo=1).draw(0).vocals.pitch == 1).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"remix": 1.5},
        {"gain": -0.1},
        {"gain_db": -1},
        {"swap": 2},
        {"pitch": 1.01},
        {"pitch_semitones": 13},
        {"tempo": -1},
        {"tempo_factor": 0.9},
        {"tempo_factor": 2.1},
        {"reverb": 0.5},
    ],
)
def test_wrong_or_unknown_setting_is_refused_by_its_name(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError) as error:
        Augmentation.model_validate(wrong)
    assert [part["loc"] for part in error.value.errors()] == [(next(iter(wrong)),)]


# Names


def test_places_name_song_and_frame_of_every_patch_and_both_of_a_remix() -> None:
    drawing = sampler(batch_size=200, remix=0.5)
    draws = drawing.draw(0)
    places = drawing.places(draws)
    assert len(places) == 200
    for index, place in enumerate(places):
        vocals, accompaniment = (
            f"Song {source.track[index] + 1} (frame {source.start[index]})"
            for source in (draws.vocals, draws.accompaniment)
        )
        assert place == (f"{vocals} + {accompaniment}" if draws.remixed[index] else vocals)
    share = draws.share(1, 4)
    assert drawing.places(share) == places[1::4]
