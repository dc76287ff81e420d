import copy
import functools
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from storage.errors import UserError
from storage.files import read_json, write_json
from storage.registry import ModelRegistry, ModelVersion
from vocsep import separation
from vocsep.audio import Waveform, decode
from vocsep.config import load_spectrogram_config
from vocsep.model import UNet, build_network
from vocsep.separation import (
    STEMS,
    Separator,
    inputs_to_separate,
    pick_device,
    predict_mask,
    separate_file,
)

Array = NDArray[Any]


@functools.cache
def lively(channels: int, seed: int = 0, targets: int = 1, scaled_bins: int | None = None) -> UNet:
    """An untrained network whose masks differ from place to place, in evaluation mode; not to be changed."""
    torch.manual_seed(seed)
    network = UNet(channels, width=2, targets=targets, scaled_bins=scaled_bins)
    with torch.no_grad():
        for _ in range(20):
            network(10 * torch.rand(2, channels, 128, scaled_bins or 128) ** 4)
    return network.eval()


def add_model(folder: Path, *, channels: int = 1, preset: str = "fine", seed: int = 0) -> ModelVersion:
    """Save such a network as the next version and make it the champion."""
    registry = ModelRegistry(folder)
    weights = {name: value.numpy() for name, value in lively(channels, seed).state_dict().items()}
    description = {
        "architecture": {"name": "unet", "channels": channels, "width": 2, "targets": 1, "scaled_bins": None},
        "spectrogram": load_spectrogram_config(preset).model_dump(mode="json"),
        "targets": ["vocals"],
    }
    model = registry.add(weights, description)
    assert model.version is not None
    registry.promote(model.version)
    return model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry: version 1 sees mono at the fine preset, 2 stereo at fine, 3 mono at notebook (the champion)."""
    folder = tmp_path_factory.mktemp("registry") / "models"
    add_model(folder, channels=1, preset="fine")
    add_model(folder, channels=2, preset="fine")
    add_model(folder, channels=1, preset="notebook")
    return folder


VERSIONS = ("1", "2", "3")


def load(models: Path, version: str) -> Separator:
    return Separator.load(ModelRegistry(models).open(version), device="cpu")


def music(seed: int, channels: int, sample_rate: int, seconds: float = 0.7) -> Waveform:
    """Chords and noise: something with structure in every band."""
    random = np.random.default_rng(seed)
    samples = round(seconds * sample_rate)
    times = np.arange(samples) / sample_rate
    waveform = 0.05 * random.standard_normal((channels, samples))
    for frequency in (110, 220.5, 441, 1500, 3100):
        waveform += 0.1 * np.sin(2 * np.pi * frequency * times + random.uniform(0, 6, (channels, 1)))
    return waveform.astype(np.float32)


def write_wav(path: Path, waveform: Waveform, sample_rate: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform.T, sample_rate, subtype="FLOAT")
    return path


def write_mp3(path: Path, waveform: Waveform, sample_rate: int) -> Path:
    with av.open(str(path), "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=sample_rate, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(waveform), format="fltp", layout="stereo")
        frame.sample_rate = sample_rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return path


# The mask of a whole song


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("scaled_bins", [None, 512])
@pytest.mark.parametrize("frames", [64, 129, 700, 961])
def test_mask_made_block_by_block_is_that_of_one_pass_over_the_whole_song(
    channels: int, scaled_bins: int | None, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = lively(channels, scaled_bins=scaled_bins)
    song = 10 * np.random.default_rng(frames).random((2, frames, 512), dtype=np.float32) ** 4
    batch = torch.from_numpy(song)[:, None] if channels == 1 else torch.from_numpy(song)[None]
    with torch.inference_mode():
        whole = network(batch).reshape(2, frames, 512).numpy()
    assert whole.std() > 0.05
    monkeypatch.setattr(separation, "BLOCK_FRAMES", 128)
    mask = predict_mask(network, song)
    assert mask.shape == song.shape
    np.testing.assert_allclose(mask, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2])
def test_masks_of_two_targets_become_the_share_of_the_vocals_power(channels: int) -> None:
    network = lively(channels, targets=2)
    song = 10 * np.random.default_rng(1).random((2, 100, 512), dtype=np.float32) ** 4
    batch = torch.from_numpy(song)[:, None] if channels == 1 else torch.from_numpy(song)[None]
    with torch.inference_mode():
        # All channels of the vocals, then those of the accompaniment.
        masks = network(batch).numpy()
    vocals, accompaniment = (masks[:, 0], masks[:, 1]) if channels == 1 else (masks[0, :2], masks[0, 2:])
    assert np.abs(vocals - accompaniment).max() > 0.05
    expected = vocals**2 / (vocals**2 + accompaniment**2)
    np.testing.assert_allclose(predict_mask(network, song), expected, rtol=0, atol=1e-5)


def test_masks_of_two_targets_that_are_both_0_share_evenly() -> None:
    network = copy.deepcopy(lively(1, targets=2))
    with torch.no_grad():
        network.to_mask.weight.zero_()
        network.to_mask.bias.fill_(-1e4)  # type: ignore[union-attr]
    np.testing.assert_array_equal(predict_mask(network, np.ones((1, 64, 512), np.float32)), 0.5)


def test_network_of_one_channel_treats_the_channels_of_a_song_alone() -> None:
    network = lively(1)
    song = np.random.default_rng(0).random((2, 100, 512), dtype=np.float32)
    both = predict_mask(network, song)
    for channel in (0, 1):
        alone = predict_mask(network, song[channel : channel + 1])
        np.testing.assert_allclose(alone[0], both[channel], rtol=0, atol=1e-5)


def test_network_of_two_channels_sees_mono_in_both_and_its_masks_are_averaged() -> None:
    network = lively(2)
    song = np.random.default_rng(0).random((1, 100, 512), dtype=np.float32)
    doubled = predict_mask(network, np.concatenate([song, song]))
    assert np.abs(doubled[0] - doubled[1]).max() > 0.01
    mono = predict_mask(network, song)
    assert mono.shape == (1, 100, 512)
    np.testing.assert_allclose(mono[0], doubled.mean(axis=0), rtol=0, atol=1e-6)


def test_magnitudes_are_left_as_they_are() -> None:
    song = np.random.default_rng(0).random((2, 70, 512), dtype=np.float32)
    before = song.copy()
    predict_mask(lively(1), song)
    np.testing.assert_array_equal(song, before)


def test_network_with_nan_in_its_weights_is_one_line() -> None:
    network = copy.deepcopy(lively(1))
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="NaN") as error:
        predict_mask(network, np.ones((1, 64, 512), np.float32))
    assert "\n" not in str(error.value)


# Waveforms


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("sample_rate", "channels"), [(44100, 2), (48000, 2), (22050, 1), (8000, 1), (96000, 2), (11025, 2)]
)
def test_stems_have_the_waveforms_shape_and_sum_to_it(
    models: Path, version: str, sample_rate: int, channels: int
) -> None:
    waveform = music(1, channels, sample_rate)
    before = waveform.copy()
    stems = load(models, version).separate(waveform, sample_rate)
    np.testing.assert_array_equal(waveform, before)
    assert list(stems) == ["vocals", "accompaniment"]
    for stem in stems.values():
        assert stem.shape == waveform.shape
        assert stem.dtype == np.float32
        # An untrained mask is neither all 0 nor all 1.
        assert np.abs(stem).max() > 0.01
    np.testing.assert_allclose(stems["vocals"] + stems["accompaniment"], waveform, rtol=0, atol=1e-6)


def test_mask_of_the_separator_has_a_value_for_every_frame_and_bin_of_the_preset(models: Path) -> None:
    fine, notebook = load(models, "1"), load(models, "3")
    waveform = music(2, 2, 44100, 1.0)
    assert fine.mask(waveform, 44100).shape == (2, 1 + 11025 // 256, 512)
    assert notebook.mask(waveform, 44100).shape == (1, 1 + 8192 // 768, 512)
    assert ((fine.mask(waveform, 44100) >= 0) & (fine.mask(waveform, 44100) <= 1)).all()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("samples", [1, 3, 500, 44100])
def test_silence_gives_silence_of_any_length(models: Path, version: str, samples: int) -> None:
    for channels in (1, 2):
        stems = load(models, version).separate(np.zeros((channels, samples), np.float32), 44100)
        for stem in stems.values():
            assert stem.shape == (channels, samples)
            assert not stem.any()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("sample_rate", [8000, 44100, 192000])
@pytest.mark.parametrize("samples", [1, 2, 100])
def test_waveform_of_a_few_samples_is_separated_too(models: Path, version: str, sample_rate: int, samples: int) -> None:
    waveform = np.full((2, samples), 0.5, np.float32)
    stems = load(models, version).separate(waveform, sample_rate)
    assert np.isfinite(stems["vocals"]).all()
    np.testing.assert_allclose(stems["vocals"] + stems["accompaniment"], waveform, rtol=0, atol=1e-6)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "waveform",
    [
        np.zeros((2, 0), np.float32),
        np.zeros((0, 100), np.float32),
        np.zeros(100, np.float32),
        np.zeros((3, 1000), np.float32),
        np.full((2, 1000), np.nan, np.float32),
        np.full((1, 1000), np.inf, np.float32),
    ],
    ids=["no samples", "no channels", "one axis", "three channels", "NaN", "infinite"],
)
def test_waveform_that_cannot_be_separated_is_refused_in_one_line(
    models: Path, version: str, waveform: Waveform
) -> None:
    separator = load(models, version)
    with pytest.raises(UserError) as error:
        separator.separate(waveform, 44100)
    assert "\n" not in str(error.value)


# Files


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("name", "sample_rate", "channels"),
    [
        ("wide.wav", 48000, 2),
        ("mono.wav", 22050, 1),
        ("song.mp3", 44100, 2),
        ("narrow.wav", 8000, 2),
        ("high.wav", 96000, 1),
    ],
)
def test_separated_files_have_rate_channels_and_exact_length_of_their_input(
    models: Path, tmp_path: Path, version: str, name: str, sample_rate: int, channels: int
) -> None:
    path = tmp_path / name
    write = write_mp3 if path.suffix == ".mp3" else write_wav
    write(path, music(3, channels, sample_rate), sample_rate)
    waveform, rate = decode(path)
    assert (rate, len(waveform)) == (sample_rate, channels)
    outputs = separate_file(path, models, version, tmp_path / "out")
    folder = tmp_path / "out" / path.stem
    assert outputs == [folder / "vocals.wav", folder / "accompaniment.wav"]
    assert sorted(folder.iterdir()) == sorted(outputs)
    stems = []
    for output in outputs:
        information = soundfile.info(output)
        assert (information.samplerate, information.channels) == (sample_rate, channels)
        assert information.frames == waveform.shape[1]
        stems.append(soundfile.read(output, dtype="float32", always_2d=True)[0].T)
    np.testing.assert_allclose(stems[0] + stems[1], waveform, rtol=0, atol=1e-6)


def test_separated_file_is_what_the_separator_gives(models: Path, tmp_path: Path) -> None:
    waveform = music(4, 2, 44100)
    path = write_wav(tmp_path / "song.wav", waveform, 44100)
    outputs = separate_file(path, models, "1", tmp_path / "out")
    stems = load(models, "1").separate(waveform, 44100)
    for stem, output in zip(STEMS, outputs, strict=True):
        np.testing.assert_allclose(decode(output)[0], stems[stem], rtol=0, atol=1e-6)


def test_flac_stems_are_those_of_wav_to_24_bits(models: Path, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "song.wav", music(4, 2, 44100), 44100)
    wav = separate_file(path, models, "1", tmp_path / "out")
    flac = separate_file(path, models, "1", tmp_path / "out", "flac")
    assert [output.name for output in flac] == ["vocals.flac", "accompaniment.flac"]
    for first, second in zip(wav, flac, strict=True):
        np.testing.assert_allclose(decode(second)[0], decode(first)[0], rtol=0, atol=2**-23)


def test_song_whose_name_is_any_unicode_keeps_it(models: Path, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "Zoë - où $1 | 歌.live.wav", music(5, 1, 8000, 0.2), 8000)
    outputs = separate_file(path, models, "3", tmp_path / "out")
    assert {output.parent.name for output in outputs} == {"Zoë - où $1 | 歌.live"}
    assert all(output.is_file() for output in outputs)


@pytest.mark.parametrize("stem", STEMS)
def test_output_that_would_replace_its_input_is_refused_and_the_input_stays(
    models: Path, tmp_path: Path, stem: str
) -> None:
    path = write_wav(tmp_path / stem / f"{stem}.wav", music(6, 1, 8000, 0.2), 8000)
    content = path.read_bytes()
    with pytest.raises(UserError, match="replace") as error:
        separate_file(path, models, "1", tmp_path)
    assert str(path) in str(error.value)
    assert path.read_bytes() == content
    assert list(tmp_path.rglob("*.wav")) == [path]


def test_output_that_would_replace_its_input_by_way_of_a_link_is_refused(models: Path, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "vocals" / "vocals.wav", music(6, 1, 8000, 0.2), 8000)
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(UserError, match="replace"):
        separate_file(path, models, "1", tmp_path / "link")


@pytest.mark.parametrize("content", [b"", b"not audio at all\n" * 100, b"RIFF\x00\x00\x00\x00WAVE"])
def test_file_that_is_not_audio_is_one_line_that_names_it_and_leaves_nothing(
    models: Path, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "words.wav"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        separate_file(path, models, "1", tmp_path / "out")
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_missing_file_is_one_line_that_names_it(models: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file") as error:
        separate_file(tmp_path / "gone.wav", models, "1", tmp_path / "out")
    assert str(tmp_path / "gone.wav") in str(error.value)


@pytest.mark.parametrize("version", VERSIONS)
def test_file_of_more_than_two_channels_is_one_line_that_names_it(models: Path, tmp_path: Path, version: str) -> None:
    path = write_wav(tmp_path / "surround.wav", music(7, 6, 8000, 0.2), 8000)
    with pytest.raises(UserError, match="6 channels") as error:
        separate_file(path, models, version, tmp_path / "out")
    assert str(path) in str(error.value)


def test_container_that_cannot_be_written_is_one_line(models: Path, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "song.wav", music(8, 1, 8000, 0.2), 8000)
    with pytest.raises(UserError, match="use wav or flac"):
        separate_file(path, models, "1", tmp_path / "out", "mp3")


def test_newly_promoted_champion_separates_the_next_file_of_the_same_process(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "song.wav", music(9, 1, 11025), 11025)
    vocals = []
    for seed in (0, 1):
        add_model(tmp_path / "models", seed=seed)
        outputs = separate_file(path, tmp_path / "models", "champion", tmp_path / f"out{seed}")
        vocals.append(decode(outputs[0])[0])
    assert np.abs(vocals[0] - vocals[1]).max() > 1e-3


# Inputs


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_folders_are_searched_all_the_way_down_for_audio_files_in_order(tmp_path: Path) -> None:
    names = ["b.wav", "a.mp3", "deep/er/c.flac", "deep/d.M4A", "deep/e.ogg"]
    paths = [touch(tmp_path / "songs" / name) for name in names]
    for other in ("cover.jpg", "deep/notes.txt", "list.m3u", "wav", ".hidden.wav", "deep/._d.M4A"):
        touch(tmp_path / "songs" / other)
    assert inputs_to_separate([tmp_path / "songs"], tmp_path / "out") == sorted(paths)


def test_stems_of_an_earlier_run_inside_the_folder_are_no_inputs(tmp_path: Path) -> None:
    songs = tmp_path / "songs"
    first, second = touch(songs / "a.wav"), touch(songs / "output" / "b.wav")
    for song in ("a", "b"):
        for stem in STEMS:
            touch(songs / "out" / song / f"{stem}.wav")
    assert inputs_to_separate([songs], songs / "out") == [first, second]
    (tmp_path / "link").symlink_to(songs, target_is_directory=True)
    assert inputs_to_separate([songs], tmp_path / "link" / "out") == [first, second]
    assert inputs_to_separate([tmp_path / "link"], songs / "out") == [
        tmp_path / "link" / "a.wav",
        tmp_path / "link" / "output" / "b.wav",
    ]


def test_files_are_taken_as_named_whatever_their_suffix_and_in_the_order_of_their_naming(tmp_path: Path) -> None:
    odd, inside = touch(tmp_path / "take.xyz"), touch(tmp_path / "songs" / "a.wav")
    assert inputs_to_separate([odd, tmp_path / "songs"], tmp_path / "out") == [odd, inside]
    assert inputs_to_separate([tmp_path / "songs", odd], tmp_path / "out") == [inside, odd]


def test_folder_that_is_named_like_an_audio_file_is_searched_and_not_taken_for_one(tmp_path: Path) -> None:
    inside = touch(tmp_path / "songs" / "album.mp3" / "a.wav")
    assert inputs_to_separate([tmp_path / "songs"], tmp_path / "out") == [inside]


def test_input_that_does_not_exist_is_one_line_that_names_it(tmp_path: Path) -> None:
    touch(tmp_path / "a.wav")
    with pytest.raises(UserError, match="no such file or folder") as error:
        inputs_to_separate([tmp_path / "a.wav", tmp_path / "b.wav"], tmp_path / "out")
    assert str(tmp_path / "b.wav") in str(error.value)


def test_folder_without_audio_files_is_one_line_that_names_it(tmp_path: Path) -> None:
    touch(tmp_path / "songs" / "words.txt")
    with pytest.raises(UserError, match="no audio files") as error:
        inputs_to_separate([tmp_path / "songs"], tmp_path / "out")
    assert str(tmp_path / "songs") in str(error.value)


def test_two_inputs_with_one_name_are_refused_by_both_names(tmp_path: Path) -> None:
    first, second = touch(tmp_path / "songs" / "a.wav"), touch(tmp_path / "songs" / "more" / "a.mp3")
    with pytest.raises(UserError, match="same outputs") as error:
        inputs_to_separate([tmp_path / "songs"], tmp_path / "out")
    assert str(first) in str(error.value)
    assert str(second) in str(error.value)


def test_file_named_twice_is_separated_once(tmp_path: Path) -> None:
    path = touch(tmp_path / "songs" / "a.wav")
    assert inputs_to_separate([path, tmp_path / "songs", path], tmp_path / "out") == [path]


# Models


def test_device_is_the_one_named_and_auto_is_one_that_works() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert torch.ones(2, device=pick_device()).sum().item() == 2


def test_architecture_of_another_kind_is_named_in_one_line() -> None:
    with pytest.raises(UserError, match="'transformer' is not known"):
        build_network({"name": "transformer", "channels": 1, "width": 16})
    with pytest.raises(UserError, match="not known"):
        build_network({})


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "other"])
def test_damaged_weights_are_refused_in_one_line_that_names_the_file(tmp_path: Path, damage: str) -> None:
    model = add_model(tmp_path / "models")
    weights = model.path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    if damage == "gone":
        weights.unlink()
    else:
        content[-5] ^= 1
        weights.write_bytes({"flipped": bytes(content), "cut": bytes(content[:-9]), "other": b"x"}[damage])
    with pytest.raises(UserError, match="missing or damaged") as error:
        Separator.load(ModelRegistry(tmp_path / "models").open("1"))
    assert str(weights) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changed",
    [
        {"architecture": {"name": "unet", "channels": 2, "width": 2, "targets": 1}},
        {"architecture": {"name": "unet", "channels": 1, "width": 3, "targets": 1}},
        {"architecture": {"name": "unet", "channels": 1, "width": 2, "targets": 2}},
        {"architecture": {"name": "unet", "channels": 1, "width": 2, "targets": 3}},
        {"architecture": {"name": "unet", "channels": 1, "width": 2, "targets": 1, "scaled_bins": 512}},
        {"architecture": {"name": "unet", "channels": 1, "width": 2, "targets": 1, "scaled_bins": "all"}},
        {"architecture": {"name": "unet"}},
        {"architecture": {"name": "unet", "channels": 1, "width": "wide", "targets": 1}},
        {"architecture": None},
        {"spectrogram": {"sample_rate": 11025}},
        {"spectrogram": None},
        {"weights_sha256": None},
    ],
)
def test_description_that_does_not_fit_is_refused_in_one_line(tmp_path: Path, changed: dict[str, Any]) -> None:
    model = add_model(tmp_path / "models")
    description = read_json(model.path / "model.json") | changed
    # None stands for a field that is missing.
    write_json(model.path / "model.json", {name: value for name, value in description.items() if value is not None})
    with pytest.raises(UserError) as error:
        Separator.load(ModelRegistry(tmp_path / "models").open("1"))
    assert "\n" not in str(error.value)


def test_loaded_network_is_in_evaluation_mode_and_has_the_saved_weights(models: Path) -> None:
    separator = load(models, "2")
    assert not any(module.training for module in separator.network.modules())
    saved = ModelRegistry(models).open("2").load_weights()
    for name, value in separator.network.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), saved[name].reshape(value.shape))
