"""Own songs whose files are not what their names say, and mixes among the stems."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from tests.helpers import one_line
from vocsep.datasets.layouts import open_dataset
from vocsep.datasets.songs import Song
from vocsep.datasets.sources import read_sources

RATE = 8000
ALL = ("mixture", "vocals", "accompaniment")
Floats = NDArray[Any]


def noise(seed: int, level: float = 0.2, channels: int = 2) -> Floats:
    return np.random.default_rng(seed).uniform(-level, level, (channels, RATE // 2)).astype(np.float32)


def later(waveform: Floats, samples: int) -> Floats:
    """The same, so many samples later; zeros precede it. Earlier, if they are negative."""
    moved = np.zeros_like(waveform)
    moved[:, max(0, samples) : waveform.shape[1] + min(0, samples)] = waveform[
        :, max(0, -samples) : waveform.shape[1] - max(0, samples)
    ]
    return moved


V, DRUMS, BASS, OTHER = noise(1), noise(2), noise(3, 0.1), noise(4, 0.05)
BAND = DRUMS + BASS + OTHER
SILENT = 0 * V


def song(root: Path, files: dict[str, Floats], name: str = "A Song") -> Song:
    folder = root / "train" / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, waveform in files.items():
        soundfile.write(folder / file, waveform.T, RATE, subtype="FLOAT" if file.endswith("wav") else "PCM_24")
    (found,) = open_dataset(root, "folder").songs
    return found


def require(found: Song, **expected: Floats) -> None:
    sources, _ = read_sources(found, ALL)
    for name, waveform in expected.items():
        np.testing.assert_allclose(sources[name], waveform, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["mix", "Mixdown", "full", "original", "Full Mix", "MASTER", "a_song"])
def test_mix_under_a_usual_name_is_the_mixture_and_no_stem(tmp_path: Path, name: str) -> None:
    found = song(tmp_path, {"vocals.wav": V, f"{name}.wav": V + BAND})
    require(found, mixture=V + BAND, vocals=V, accompaniment=BAND)


@pytest.mark.parametrize("name", ["instrumental", "Backing Track", "no_vocals", "karaoke"])
def test_accompaniment_under_a_usual_name_beside_its_stems_counts_once(tmp_path: Path, name: str) -> None:
    stems = {"vocals.wav": V, "drums.wav": DRUMS, "bass.wav": BASS, "other.wav": OTHER}
    require(song(tmp_path, stems | {f"{name}.wav": BAND}), mixture=V + BAND, vocals=V, accompaniment=BAND)


def test_voice_under_another_usual_name_is_the_vocals(tmp_path: Path) -> None:
    require(song(tmp_path, {"Vox.wav": V, "Instrumental.flac": BAND}), mixture=V + BAND, vocals=V)


def test_numbers_that_programs_put_before_and_behind_names_count_for_nothing(tmp_path: Path) -> None:
    files = {"01_Vocals.wav": V, "02 drums.wav": DRUMS, "03 bass.wav": BASS, "04-Mix (1).wav": V + DRUMS + BASS}
    require(song(tmp_path, files), mixture=V + DRUMS + BASS, vocals=V, accompaniment=DRUMS + BASS)


@pytest.mark.parametrize(
    ("extra", "wrong", "told"),
    [
        ({"rhythm.wav": DRUMS + BASS}, "rhythm.wav", ("bass.wav", "drums.wav", "sum", "dB")),
        ({"band bus.wav": BAND}, "band bus.wav", ("bass.wav", "drums.wav", "other.wav", "sum")),
        ({"stereo.wav": V + BAND}, "stereo.wav", ("vocals.wav", "drums.wav", "sum")),
        ({"stereo.wav": 0.7 * (V + BAND)}, "stereo.wav", ("vocals.wav", "sum")),
        ({"stereo.wav": 0.3 * (V + BAND)}, "stereo.wav", ("vocals.wav", "drums.wav", "sum")),
        ({"stereo.wav": -V - BAND}, "stereo.wav", ("vocals.wav", "drums.wav", "sum")),
        ({"stereo.wav": later(V + BAND, 40)}, "A Song", ("A Song: the accompaniment contains", "40 samples later")),
        ({"quiet.wav": -0.4 * DRUMS}, "drums.wav", ("quiet.wav", "twice")),
        ({"band bus.wav": 0.2 * BAND}, "band bus.wav", ("drums.wav", "sum")),
        ({"print.wav": V + BAND, "rhythm.wav": DRUMS + BASS}, "rhythm.wav", ("sum",)),
        ({"lead.wav": V}, "lead.wav", ("vocals.wav", "twice")),
        ({"drums copy.flac": DRUMS}, "drums", ("twice",)),
        ({"mixture.wav": V + DRUMS}, "mixture.wav", ("not the sum", "dB")),
        ({"mixture.wav": 2 * (V + BAND)}, "mixture.wav", ("not the sum", "-6 dB")),
        ({"mixture.wav": BAND}, "mixture.wav", ("vocals.wav",)),
        ({"mixture.wav": SILENT}, "mixture.wav", ("not the sum",)),
    ],
)
def test_stem_or_mixture_that_is_something_else_is_refused_by_name(
    tmp_path: Path, extra: dict[str, Floats], wrong: str, told: tuple[str, ...]
) -> None:
    found = song(tmp_path, {"vocals.wav": V, "drums.wav": DRUMS, "bass.wav": BASS, "other.wav": OTHER} | extra)
    one_line(lambda: read_sources(found, ALL), found.name, wrong, *told)


@pytest.mark.parametrize(
    ("files", "wrong"),
    [
        ({"Take 3.wav": V + BAND}, "Take 3.wav"),
        ({"Take 3.wav": 0.6 * (V + BAND)}, "Take 3.wav"),
        ({"accompaniment.wav": V + BAND}, "accompaniment.wav"),
        ({"accompaniment.wav": V}, "accompaniment.wav"),
        ({"accompaniment.wav": -V - BAND}, "accompaniment.wav"),
        ({"accompaniment.wav": later(V + BAND, 1104)}, "accompaniment.wav"),
        ({"accompaniment.wav": later(V + BAND, -32)}, "accompaniment.wav"),
        ({"mixture.wav": 0.6 * (V + BAND)}, "mixture.wav"),
        ({"mixture.wav": BAND}, "mixture.wav"),
        ({"mixture.wav": np.roll(V, 100, axis=1) + BAND}, "mixture.wav"),
    ],
)
def test_song_of_two_files_that_are_not_what_they_should_be_is_refused_by_name(
    tmp_path: Path, files: dict[str, Floats], wrong: str
) -> None:
    found = song(tmp_path, {"vocals.wav": V} | files)
    one_line(lambda: read_sources(found, ("vocals", "mixture")), found.name, wrong)


def test_songs_in_the_form_of_musdb18_hq_must_add_up_too_but_for_one_that_is_known_not_to(tmp_path: Path) -> None:
    stems = {"vocals.wav": V, "drums.wav": DRUMS, "bass.wav": BASS, "other.wav": OTHER}
    for name, mixture in (("Right", V + BAND), ("Wrong", V + DRUMS), ("PR - Oh No", V + DRUMS)):
        for file, waveform in (stems | {"mixture.wav": mixture}).items():
            path = tmp_path / "train" / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, waveform.T, RATE, subtype="FLOAT")
    dataset = open_dataset(tmp_path)
    assert dataset.kind == "musdb18-hq"
    songs = {found.name: found for found in dataset.songs}
    require(songs["Right"], mixture=V + BAND, accompaniment=BAND)
    require(songs["PR - Oh No"], mixture=V + DRUMS, accompaniment=BAND)
    one_line(lambda: read_sources(songs["Wrong"], ALL), "Wrong", "mixture.wav", "dB")


@pytest.mark.parametrize(
    "files",
    [
        {"vocals.wav": SILENT, "mixture.wav": BAND},
        {"vocals.wav": SILENT, "drums.wav": DRUMS, "bass.wav": SILENT, "other.wav": SILENT},
        {"vocals.wav": V, "drums.wav": DRUMS, "bass.wav": BASS, "mixture.wav": V + DRUMS + BASS + noise(9, 0.02)},
        {"vocals.wav": V, "piano left.wav": noise(5, 0.2, 1), "piano right.wav": noise(6, 0.2, 1)},
        {"vocals.wav": 0.01 * V, "mixture.wav": BAND},
        {"vocals.wav": V, "drums.wav": DRUMS, "mic.wav": DRUMS + 0.3 * noise(7)},
    ],
)
def test_songs_that_add_up_are_read(tmp_path: Path, files: dict[str, Floats]) -> None:
    require(song(tmp_path, files), vocals=files["vocals.wav"])


@pytest.mark.parametrize(
    "names", [("vocals.wav", "vocals.flac"), ("vocals.wav", "VOCALS.wav"), ("drums.wav", "Drums.flac"),
              ("mix.wav", "mixture.wav"), ("instrumental.wav", "accompaniment.wav")]
)  # fmt: skip
def test_stem_in_two_files_is_a_named_problem_and_the_others_remain(tmp_path: Path, names: tuple[str, str]) -> None:
    song(tmp_path, {"vocals.wav": V, "drums.wav": DRUMS}, "Good")
    folder = tmp_path / "train" / "Twice"
    folder.mkdir()
    for file in {"vocals.wav", "bass.wav", *names}:
        soundfile.write(folder / file, V.T, RATE)
    dataset = open_dataset(tmp_path)
    assert [found.name for found in dataset.songs] == ["Good"]
    assert all(name in dataset.problems["Twice"] for name in (str(folder), *names))
