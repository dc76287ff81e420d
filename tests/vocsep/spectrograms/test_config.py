from pathlib import Path

import pytest
from pydantic import ValidationError

from storage.errors import UserError
from vocsep.spectrograms.config import SpectrogramConfig, load_spectrogram_config, preset_names

OWN = "sample_rate: 16000\nchannels: 1\nn_fft: 512\nhop_length: 128\ndropped_bin: nyquist\n"


def own_file(folder: Path, text: str) -> str:
    path = folder / "own.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_presets_are_those_of_the_design() -> None:
    assert preset_names() == ["fine", "fine-513", "notebook", "notebook-513"]
    assert load_spectrogram_config("fine").model_dump() == {
        "sample_rate": 11025,
        "channels": 2,
        "n_fft": 1024,
        "hop_length": 256,
        "dropped_bin": "dc",
    }
    assert load_spectrogram_config("notebook").model_dump() == {
        "sample_rate": 8192,
        "channels": 1,
        "n_fft": 1024,
        "hop_length": 768,
        "dropped_bin": "dc",
    }


def test_presets_keep_512_bins_and_128_frames_last_as_long_as_the_design_says() -> None:
    for name, seconds in (("fine", 2.97), ("notebook", 12.0)):
        config = load_spectrogram_config(name)
        assert config.bins == 512
        assert 128 / config.frames_per_second == pytest.approx(seconds, abs=0.005)


@pytest.mark.parametrize("name", ["fine", "notebook"])
def test_presets_with_513_bins_differ_in_nothing_but_the_bin_that_is_kept(name: str) -> None:
    even, all_bins = load_spectrogram_config(name), load_spectrogram_config(f"{name}-513")
    assert all_bins.bins == 513
    assert all_bins.model_dump() == even.model_dump() | {"dropped_bin": "none"}


def test_own_yaml_file_is_read_field_by_field(tmp_path: Path) -> None:
    assert load_spectrogram_config(own_file(tmp_path, OWN)) == SpectrogramConfig(
        sample_rate=16000, channels=1, n_fft=512, hop_length=128, dropped_bin="nyquist"
    )


def test_fields_that_have_defaults_may_be_left_out(tmp_path: Path) -> None:
    config = load_spectrogram_config(own_file(tmp_path, "sample_rate: 22050\nn_fft: 2048\nhop_length: 512\n"))
    assert (config.channels, config.dropped_bin) == (2, "dc")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("overlap: 4", "overlap"),
        ("sample_rate: fast", "sample_rate"),
        ("sample_rate: 10", "sample_rate"),
        ("channels: 3", "channels"),
        ("n_fft: 1000.5", "n_fft"),
        ("n_fft: 513", "n_fft must be even"),
        ("n_fft: 0", "n_fft"),
        ("hop_length: 0", "hop_length"),
        ("hop_length: 512", "hop_length"),
        ("hop_length: -1", "hop_length"),
        ("dropped_bin: top", "dropped_bin"),
    ],
)
def test_unknown_field_or_wrong_value_is_one_line_that_names_file_and_field(
    tmp_path: Path, line: str, named: str
) -> None:
    kept = [field for field in OWN.splitlines() if not field.startswith(line.split(":")[0])]
    path = own_file(tmp_path, "\n".join([*kept, line]))
    with pytest.raises(UserError) as error:
        load_spectrogram_config(path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    assert named in str(error.value)


def test_fields_that_do_not_go_together_are_told_in_the_words_of_the_check_alone(tmp_path: Path) -> None:
    path = own_file(tmp_path, OWN.replace("512", "513"))
    with pytest.raises(UserError) as error:
        load_spectrogram_config(path)
    assert str(error.value) == f"{path}: n_fft must be even, is 513"


@pytest.mark.parametrize("missing", ["sample_rate", "n_fft", "hop_length"])
def test_missing_field_without_default_is_named(tmp_path: Path, missing: str) -> None:
    kept = [field for field in OWN.splitlines() if not field.startswith(missing)]
    with pytest.raises(UserError, match=f"{missing}: .*required"):
        load_spectrogram_config(own_file(tmp_path, "\n".join(kept)))


@pytest.mark.parametrize("name", ["coarse", "", "no/such/file.yaml", "../fine", "fine.yaml"])
def test_unknown_preset_is_one_line_that_lists_the_presets(name: str) -> None:
    with pytest.raises(UserError, match=r"presets are fine, fine-513, notebook, notebook-513") as error:
        load_spectrogram_config(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["sample_rate: [1, 2", "a: b: c", "\tn_fft: 3", "- 1\n- 2", "just words", "", "5"])
def test_broken_yaml_or_a_file_that_is_no_mapping_is_one_line_that_names_the_file(tmp_path: Path, text: str) -> None:
    path = own_file(tmp_path, text)
    with pytest.raises(UserError) as error:
        load_spectrogram_config(path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(path)


def test_file_that_is_not_text_is_one_line_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(b"\xff\xfe\x00sample_rate\x80")
    with pytest.raises(UserError) as error:
        load_spectrogram_config(str(path))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(path))


def test_settings_never_change() -> None:
    config = load_spectrogram_config("fine")
    with pytest.raises(ValidationError, match="frozen"):
        config.n_fft = 2048
