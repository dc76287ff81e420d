import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from storage.errors import UserError
from tests.disk import small_disk
from tests.vocsep.audio.audio_files import TAGS, cover_of, tags_of, write_song
from tests.vocsep.models.small_models import music
from tests.vocsep.separation.separated_files import STEMS, files_in, refused, separated, write_wav
from vocsep.arrays import Waveform
from vocsep.audio.formats import AudioFormat
from vocsep.audio.reading import audio_info, decode
from vocsep.separation.files import channel_groups, separate_file
from vocsep.separation.separator import Separator
from vocsep.separation.settings import Clip, SeparationSettings

# Inputs of every kind


@pytest.mark.parametrize(
    ("name", "sample_rate", "channels"),
    [
        ("song.wav", 44100, 2),
        ("narrow.wav", 8000, 1),
        ("high.wav", 192_000, 2),
        ("surround.wav", 48000, 6),
        ("song.aiff", 22050, 1),
        ("song.flac", 96000, 2),
        ("surround.flac", 44100, 6),
        ("song.mp3", 44100, 2),
        ("old.mp3", 11025, 1),
        ("song.m4a", 44100, 2),
        ("surround.m4a", 48000, 6),
        ("song.ogg", 44100, 2),
        ("surround.ogg", 48000, 6),
        ("song.opus", 48000, 2),
        ("film.mkv", 48000, 2),
        ("film.mp4", 48000, 6),
    ],
)
def test_stems_have_rate_channels_and_exact_length_of_their_song_and_sum_to_it(
    separator: Separator, tmp_path: Path, name: str, sample_rate: int, channels: int
) -> None:
    path = write_song(tmp_path / name, music(3, channels, sample_rate, 0.6), sample_rate, video=name.startswith("film"))
    waveform, rate = decode(path)
    assert (rate, len(waveform)) == (sample_rate, channels)
    told: list[float] = []
    result = separate_file(path, tmp_path / "out", separator, progress=lambda done, total: told.append(done))
    assert (result.sample_rate, result.channels, result.is_new) == (sample_rate, channels, True)
    assert result.seconds == pytest.approx(waveform.shape[1] / sample_rate)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(result.seconds)
    folder = tmp_path / "out" / path.stem
    assert list(result.outputs.values()) == [folder / "vocals.wav", folder / "accompaniment.wav"]
    assert files_in(tmp_path / "out") == sorted(result.outputs.values())
    stems = []
    for file in result.outputs.values():
        found = soundfile.info(file)
        assert (found.samplerate, found.channels, found.frames) == (sample_rate, channels, waveform.shape[1])
        assert audio_info(file).layout == audio_info(path).layout
        stems.append(soundfile.read(file, dtype="float32", always_2d=True)[0].T)
    np.testing.assert_allclose(stems[0] + stems[1], waveform, rtol=0, atol=1e-6)
    # An untrained mask is neither all 0 nor all 1.
    assert all(np.abs(stem).max() > 0.005 for stem in stems)


@pytest.mark.parametrize("channels", [3, 4, 7])
def test_channels_without_names_are_separated_into_as_many(separator: Separator, tmp_path: Path, channels: int) -> None:
    waveform = music(4, channels, 22050)
    path = write_wav(tmp_path / "song.wav", waveform, 22050)
    _, stems = separated(path, tmp_path / "out", separator)
    np.testing.assert_allclose(stems["vocals"] + stems["accompaniment"], waveform, rtol=0, atol=1e-6)
    result = separate_file(path, tmp_path / "flac", separator, SeparationSettings(format="flac", bit_depth="24"))
    for stem, file in result.outputs.items():
        np.testing.assert_allclose(decode(file)[0], stems[stem].clip(-1, 1), rtol=0, atol=2.0**-23)
    assert "use wav" in refused(path, tmp_path / "mp3", separator, format="mp3")


def test_left_and_right_of_a_plain_wav_file_are_seen_together(separator: Separator, tmp_path: Path) -> None:
    waveform = music(4, 2, 44100)
    path = write_wav(tmp_path / "song.wav", waveform, 44100)
    _, stems = separated(path, tmp_path / "out", separator)
    expected = separator.separate(waveform, 44100)
    for stem in STEMS:
        np.testing.assert_allclose(stems[stem], expected[stem], rtol=0, atol=1e-6)
    # A network for stereo gives another mask for each side alone.
    alone = separator.separate(waveform[:1], 44100)["vocals"]
    assert np.abs(alone[0] - stems["vocals"][0]).max() > 1e-3


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (("FC",), [(0,)]),
        (("FL", "FR"), [(0, 1)]),
        (("DL", "DR"), [(0, 1)]),
        (("FL", "FR", "FC", "LFE", "SL", "SR"), [(0, 1), (2,), (3,), (4, 5)]),
        (("FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC"), [(0, 1), (2,), (3,), (4, 5), (6, 7)]),
        (("FC", "FL", "FR"), [(0,), (1, 2)]),
        (("FL", "FC"), [(0,), (1,)]),
        (("TFL", "TFC", "TFR", "TC"), [(0, 2), (1,), (3,)]),
        (("NONE",) * 4, [(0,), (1,), (2,), (3,)]),
    ],
)
def test_channels_that_face_each_other_are_one_group(names: tuple[str, ...], groups: list[tuple[int, ...]]) -> None:
    assert channel_groups(names) == groups


# Formats


@pytest.mark.parametrize("container", ["wav", "flac", "mp3", "ogg", "m4a"])
def test_tags_and_cover_of_an_mp3_file_go_into_its_stems(
    separator: Separator, tmp_path: Path, container: AudioFormat
) -> None:
    path = write_song(tmp_path / "song.mp3", music(5, 2, 44100), 44100, tags=TAGS, cover=True)
    result = separate_file(path, tmp_path / "out", separator, SeparationSettings(format=container))
    for file in result.outputs.values():
        found = tags_of(file)
        assert {name: found.get(name) for name in TAGS} == TAGS
        assert cover_of(file) == (cover_of(path) if container in ("mp3", "flac", "m4a") else None)
        expected = decode(path)[0].shape
        if container == "m4a":
            assert audio_info(file).seconds * 44100 == pytest.approx(expected[1], abs=1e-3)
        else:
            assert decode(file)[0].shape == expected


def test_only_the_stems_asked_for_are_written(separator: Separator, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "song.wav", music(4, 2, 22050), 22050)
    both = separated(path, tmp_path / "out", separator)[1]
    for stem in STEMS:
        one = separated(path, tmp_path / stem, separator, stems=(stem,), name="{track}")[1]
        np.testing.assert_array_equal(one[stem], both[stem])


@pytest.mark.parametrize(
    ("settings", "rate", "channels", "advice"),
    [
        ({"format": "mp3"}, 96000, 2, "use wav or flac"),
        ({"format": "mp3"}, 44100, 6, "use wav"),
        ({"format": "m4a"}, 192_000, 2, "use wav or flac"),
        ({"format": "flac"}, 8000, 9, "use wav"),
        ({"format": "flac", "bit_depth": "32f"}, 44100, 2, "use 24 or 16"),
        ({"format": "mp3", "bit_depth": "16"}, 44100, 2, "it has none"),
    ],
)
def test_format_that_cannot_hold_the_song_is_told_before_anything_is_separated(
    tmp_path: Path, settings: dict[str, Any], rate: int, channels: int, advice: str
) -> None:
    path = write_wav(tmp_path / "song.wav", music(4, channels, rate, 0.1), rate)

    class NoSeparator:
        """If anything is asked of it, the work has begun too early."""

    assert advice in refused(path, tmp_path / "out", NoSeparator(), **settings)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


# Clipping


def loud_song(path: Path) -> tuple[Path, Waveform]:
    waveform = 4 * music(6, 2, 22050)
    assert np.abs(waveform).max() > 1.5
    return write_wav(path, waveform, 22050), waveform


def test_float_stems_keep_what_lies_beyond_full_scale(separator: Separator, tmp_path: Path) -> None:
    path, waveform = loud_song(tmp_path / "song.wav")
    result, stems = separated(path, tmp_path / "out", separator)
    assert max(np.abs(stem).max() for stem in stems.values()) > 1
    assert (result.clipped_samples, result.gain) == (0, 1.0)
    np.testing.assert_allclose(stems["vocals"] + stems["accompaniment"], waveform, rtol=0, atol=1e-6)


def test_stems_are_cut_off_at_full_scale_by_choice_or_where_the_format_ends_and_the_samples_counted(
    separator: Separator, tmp_path: Path
) -> None:
    path, _ = loud_song(tmp_path / "song.wav")
    _, kept = separated(path, tmp_path / "none", separator)
    beyond = sum(int((np.abs(stem) > 1).sum()) for stem in kept.values())
    assert beyond > 10
    result, stems = separated(path, tmp_path / "16", separator, bit_depth="16")
    assert result.clipped_samples == beyond
    assert f"{beyond} samples" in result.line()
    for stem in STEMS:
        np.testing.assert_allclose(stems[stem], kept[stem].clip(-1, 1), rtol=0, atol=2.0**-15)
    _, stems = separated(path, tmp_path / "clamp", separator, clip="clamp")
    for stem in STEMS:
        np.testing.assert_array_equal(stems[stem], kept[stem].clip(-1, 1))


@pytest.mark.parametrize(("container", "depth"), [("wav", "32f"), ("wav", "16"), ("flac", "24")])
def test_rescaling_makes_all_stems_quieter_by_one_gain_that_is_told(
    separator: Separator, tmp_path: Path, container: AudioFormat, depth: str
) -> None:
    path, waveform = loud_song(tmp_path / "song.wav")
    _, kept = separated(path, tmp_path / "none", separator)
    peak = max(np.abs(stem).max() for stem in kept.values())
    result, stems = separated(path, tmp_path / "out", separator, clip="rescale", format=container, bit_depth=depth)
    assert result.gain == pytest.approx(1 / peak, rel=1e-6)
    assert result.clipped_samples == 0
    assert f"{20 * np.log10(peak):.2f} dB quieter" in result.line()
    step = {"32f": 1e-6, "24": 2.0**-23, "16": 2.0**-15}[depth]
    for stem in STEMS:
        assert np.abs(stems[stem]).max() <= 1
        np.testing.assert_allclose(stems[stem], kept[stem] * result.gain, rtol=0, atol=step)
    total = stems["vocals"] + stems["accompaniment"]
    np.testing.assert_allclose(total, waveform * result.gain, rtol=0, atol=2 * step)


def test_nothing_is_rescaled_where_nothing_clips(separator: Separator, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "song.wav", music(6, 2, 22050), 22050)
    _, kept = separated(path, tmp_path / "none", separator)
    result, stems = separated(path, tmp_path / "out", separator, clip="rescale")
    assert result.gain == 1.0
    for stem in STEMS:
        np.testing.assert_array_equal(stems[stem], kept[stem])


# Excerpts, and the stems' names


@pytest.mark.parametrize("name", ["song.wav", "song.mp3"])
def test_stems_of_an_excerpt_sum_to_that_part_of_the_song(separator: Separator, tmp_path: Path, name: str) -> None:
    path = write_song(tmp_path / name, music(10, 2, 22050, 2.0), 22050, tags=TAGS)
    whole, _ = decode(path)
    told: list[tuple[float, float]] = []
    for start, duration, label in ((0.5, 0.75, " 0.5-1.25 s"), (1.25, None, " from 1.25 s"), (0.0, 9.0, " 0-9 s")):
        settings = SeparationSettings(start=start, duration=duration)
        result = separate_file(
            path, tmp_path / "out", separator, settings, lambda done, total: told.append((done, total))
        )
        first, stop = round(start * 22050), round((start + (duration or 9)) * 22050)
        expected = whole[:, first:stop]
        assert result.outputs["vocals"] == tmp_path / "out" / f"song{label}" / "vocals.wav"
        stems = [decode(file)[0] for file in result.outputs.values()]
        np.testing.assert_allclose(sum(stems), expected, rtol=0, atol=1e-6)
        assert result.seconds * 22050 == expected.shape[1]
        assert told[-1][0] == pytest.approx(told[-1][1], abs=0.06)
        assert tags_of(result.outputs["vocals"])["title"] == TAGS["title"]
        assert not separate_file(path, tmp_path / "out", separator, settings).is_new
    # The song itself does not exist yet.
    assert separate_file(path, tmp_path / "out", separator).is_new


def test_excerpt_behind_the_end_of_a_song_is_one_line_that_tells_its_length(
    separator: Separator, tmp_path: Path
) -> None:
    path = write_song(tmp_path / "song.flac", music(10, 1, 8000, 1.5), 8000)
    message = refused(path, tmp_path / "out", separator, start="0:02")
    assert message.endswith("is 1.5 s long; the excerpt begins at 2.0 s")


def test_instrumental_is_the_accompaniment_by_the_name_that_was_asked_for(separator: Separator, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "song.wav", music(11, 2, 22050), 22050)
    _, stems = separated(path, tmp_path / "out", separator)
    _, named = separated(path, tmp_path / "named", separator, stems=("instrumental",))
    np.testing.assert_array_equal(named["instrumental"], stems["accompaniment"])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90.25", 90.25), ("1:30", 90), ("01:30.5", 90.5), ("1:02:03", 3723), ("0", 0), (" 5. ", 5), (7, 7)],
)
def test_times_are_seconds_or_have_minutes_and_hours_before_colons(text: Any, seconds: float) -> None:
    assert SeparationSettings(start=text).start == seconds


@pytest.mark.parametrize("text", ["", ":30", "1:", "-1", "1:-30", "1e3", "nan", "inf", "1:2:3:4", "٣", "9" * 300])
def test_what_is_no_time_is_refused(text: str) -> None:
    for name in ("start", "duration"):
        with pytest.raises(ValueError, match=name):
            SeparationSettings.model_validate({name: text})
    with pytest.raises(ValueError, match="duration"):
        SeparationSettings(duration=0)


# All or nothing


def test_files_that_are_there_are_left_alone_unless_asked_and_one_that_is_missing_redoes_both(
    separator: Separator, tmp_path: Path
) -> None:
    path = write_wav(tmp_path / "song.wav", music(7, 1, 8000, 0.3), 8000)
    first, _ = separated(path, tmp_path / "out", separator)
    for file in first.outputs.values():
        file.write_bytes(b"mine")
    again = separate_file(path, tmp_path / "out", separator)
    assert not again.is_new
    assert again.outputs == first.outputs
    assert "--overwrite" in again.line()
    assert all(file.read_bytes() == b"mine" for file in again.outputs.values())
    first.outputs["accompaniment"].unlink()
    result, _ = separated(path, tmp_path / "out", separator)
    assert result.is_new
    first.outputs["vocals"].write_bytes(b"mine")
    result, stems = separated(path, tmp_path / "out", separator, overwrite=True)
    assert result.is_new
    assert stems["vocals"].shape == (1, 2400)


def test_song_that_turns_out_damaged_midway_leaves_no_stem(separator: Separator, tmp_path: Path) -> None:
    waveform = music(8, 2, 8000, 20.0)
    waveform[1, -5] = np.nan
    path = write_wav(tmp_path / "song.wav", waveform, 8000)
    for clip in ("none", "rescale"):
        message = refused(path, tmp_path / "out", separator, clip=clip)
        assert str(path) in message
        assert "NaN" in message


def test_interrupted_song_leaves_no_stem_and_no_thread(separator: Separator, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "song.wav", music(8, 2, 8000), 8000)

    def interrupt(seconds: float, total: float) -> None:
        raise KeyboardInterrupt

    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        separate_file(path, tmp_path / "out", separator, progress=interrupt)
    assert files_in(tmp_path / "out") == []
    assert threading.active_count() == threads


@pytest.mark.parametrize("clip", ["none", "rescale"])
@pytest.mark.parametrize("container", ["wav", "flac", "ogg"])
def test_full_disk_is_one_line_and_leaves_nothing(
    separator: Separator, tmp_path: Path, container: AudioFormat, clip: Clip
) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, (2, 60_000)).astype(np.float32)
    path = write_wav(tmp_path / "song.wav", noise, 22050)
    with small_disk(tmp_path / "disk", 1 << 16) as disk:
        message = refused(path, disk / "out", separator, format=container, clip=clip)
        assert "cannot be written" in message
        assert str(disk) in message


def test_folder_that_cannot_be_written_is_one_line(separator: Separator, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "song.wav", music(9, 1, 8000, 0.2), 8000)
    (tmp_path / "out").write_bytes(b"a file")
    for settings in (SeparationSettings(), SeparationSettings(clip="rescale")):
        with pytest.raises(UserError, match="cannot be written") as error:
            separate_file(path, tmp_path / "out", separator, settings)
        assert "\n" not in str(error.value)


def test_stem_whose_name_is_too_long_for_the_disk_is_one_line(separator: Separator, tmp_path: Path) -> None:
    path = write_wav(tmp_path / f"{'a' * 245}.wav", music(9, 1, 8000, 0.2), 8000)
    for overwrite in (False, True):
        message = refused(path, tmp_path / "out", separator, name="{track} ({stem})", overwrite=overwrite)
        assert "too long" in message
    separated(path, tmp_path / "out", separator)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission_is_one_line(separator: Separator, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "song.wav", music(9, 1, 8000, 0.2), 8000)
    (tmp_path / "out").mkdir(mode=0o555)
    assert "cannot be written" in refused(path, tmp_path / "out", separator)


def test_stem_whose_name_is_taken_by_a_folder_costs_the_other_nothing(separator: Separator, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "song.wav", music(9, 1, 8000, 0.2), 8000)
    (tmp_path / "out" / "song" / "vocals.wav").mkdir(parents=True)
    assert "folder" in refused(path, tmp_path / "out", separator)


def test_picture_is_drawn_beside_the_stems_wherever_the_name_puts_it(separator: Separator, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "song.wav", music(9, 2, 22050), 22050)
    for name, picture in (("{track}/{stem}", "song/spectrograms.png"), ("{stem}/{track}", "spectrograms/song.png")):
        output = tmp_path / name[1:3]
        settings = SeparationSettings(plot=True, name=name)
        result = separate_file(path, output, separator, settings)
        assert result.picture == output / picture
        assert (output / picture).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert files_in(output) == sorted([output / picture, *result.outputs.values()])
        assert not separate_file(path, output, separator, settings).is_new
        (output / picture).unlink()
        assert separate_file(path, output, separator, settings).is_new
