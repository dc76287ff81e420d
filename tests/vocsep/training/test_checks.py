"""What is told before the first step; each in one line, and nothing is written."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.errors import UserError
from storage.store import SpectrogramStore
from tests.helpers import flip, one_line
from tests.vocsep.training.training_runs import Arrays, quick, small_store, train
from vocsep.models.architecture import UNetArchitecture
from vocsep.patches.pool import SongPool
from vocsep.training.checks import check_songs, check_sound, needed_bytes

PAIR = ("train", "train", "valid")


def refusal(store: SpectrogramStore, folder: Path, **changed: Any) -> str:
    """The one line with which training refuses to begin."""
    with pytest.raises(UserError) as error:
        train(store, folder, **changed)
    assert "\n" not in str(error.value)
    assert not (folder / "models").exists()
    assert not (folder / "runs").exists()
    return str(error.value)


def silencing(source: str, first_frame: int = 0) -> Callable[[str, Arrays], None]:
    """A change that makes one source silent up to a frame (0: in all frames)."""

    def change(name: str, arrays: Arrays) -> None:
        arrays[source][:, : first_frame or None] = 0

    return change


@pytest.mark.parametrize(
    ("splits", "message"),
    [(("train", "train", "test"), "no validation songs"), (("valid", "test"), "no training songs")],
)
def test_store_without_training_or_validation_songs_is_named(
    tmp_path: Path, splits: tuple[str, ...], message: str
) -> None:
    store = small_store(tmp_path / "store.zarr", splits)
    line = refusal(store, tmp_path)
    assert message in line
    assert str(store.path) in line
    assert "preprocess" in line


def test_one_song_cannot_be_mixed_with_others_but_trained_on(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store.zarr", ("train", "valid"))
    line = refusal(store, tmp_path)
    assert str(store.path) in line
    assert "remix" in line
    assert train(store, tmp_path, steps=2, augmentation={"remix": 0}).steps == 2


def test_validation_song_that_is_in_training_under_the_same_name_is_named(tmp_path: Path) -> None:
    names = ("One", "Shared song", "Shared song")
    line = refusal(small_store(tmp_path / "store.zarr", PAIR, names=names), tmp_path)
    assert "'Shared song'" in line
    assert str(tmp_path / "store.zarr") in line


def test_validation_song_that_is_in_training_under_another_name_is_told_by_its_file(tmp_path: Path) -> None:
    digests = ("a" * 64, "b" * 64, "b" * 64)
    names = ("One", "Two", "Two (remastered)")
    line = refusal(small_store(tmp_path / "store.zarr", PAIR, names=names, digests=digests), tmp_path)
    assert "'Two (remastered)'" in line
    assert "'Two'" in line


@pytest.mark.parametrize("name", ["shared SONG", "Shared song ", "Shared  Song"])
def test_validation_song_that_is_in_training_under_a_name_spelt_otherwise_is_named(tmp_path: Path, name: str) -> None:
    store = small_store(tmp_path / "store.zarr", PAIR, names=("One", "Shared song", name))
    one_line(lambda: check_songs(store, quick()), repr(name), "'Shared song'")


@pytest.mark.parametrize("split", ["valid", "test"])
def test_song_to_score_that_a_further_store_has_for_training_is_told_by_its_file(tmp_path: Path, split: str) -> None:
    digests = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)
    store = small_store(tmp_path / "store.zarr", (*PAIR, split), digests=digests)
    names = ("Five", "Six", "Seven")
    other = small_store(tmp_path / "other.zarr", PAIR, names=names, digests=("e" * 64, "d" * 64, "f" * 64))
    check_songs(store, quick())
    one_line(lambda: check_songs(store, quick(), SongPool(store, other)), "'Song 4'", "'Six'")


@pytest.mark.parametrize("source", ["vocals", "accompaniment"])
def test_training_songs_in_which_a_source_is_silent_everywhere_are_told(tmp_path: Path, source: str) -> None:
    store = small_store(tmp_path / "store.zarr", PAIR, change=silencing(source))
    line = refusal(store, tmp_path)
    assert f"{source} of the training songs are silent" in line
    assert str(store.path) in line


@pytest.mark.parametrize(("song", "source"), [(0, "vocals"), (1, "accompaniment"), (2, "mixture_waveform")])
def test_shard_that_changed_since_it_was_written_is_told_before_training(
    tmp_path: Path, song: int, source: str
) -> None:
    store = small_store(tmp_path / "store.zarr", PAIR)
    track = next(track for track in store.manifest.tracks.values() if track.name == f"Song {song + 1}")
    flip(store.path / track.arrays[source].shard)
    line = refusal(store, tmp_path)
    assert track.arrays[source].shard in line
    assert "vocsep store repair" in line


def test_songs_with_vocals_in_one_frame_only_are_not_silent(tmp_path: Path) -> None:
    check_sound(small_store(tmp_path / "store.zarr", PAIR, change=silencing("vocals", 250)))


def test_validation_songs_without_any_vocals_are_told_before_training(tmp_path: Path) -> None:
    def change(name: str, arrays: Arrays) -> None:
        if "vocals_waveform" in arrays:
            arrays["vocals_waveform"][:] = 0

    store = small_store(tmp_path / "store.zarr", PAIR, change=change)
    with pytest.raises(UserError, match="silent") as error:
        train(store, tmp_path)
    assert str(store.path) in str(error.value)
    assert not (tmp_path / "models").exists()


def test_network_too_large_for_the_memory_is_told_in_gigabytes(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store.zarr", PAIR)
    line = refusal(store, tmp_path, network="unet", width=1024)
    assert "width 1024" in line
    assert " GB" in line
    assert "batch_size" in line


def test_needed_memory_grows_with_width_and_with_what_is_computed_at_a_time() -> None:
    narrow, wide = UNetArchitecture(channels=1, width=16), UNetArchitecture(channels=1, width=32)
    base = needed_bytes(narrow, patches=16, bins=512)
    assert needed_bytes(wide, patches=16, bins=512) > 1.9 * base
    assert base < needed_bytes(narrow, patches=32, bins=512) < 2 * base
    # Four parts of eight patches, two at a time: patches as before, and gradients of one part more.
    assert base < needed_bytes(narrow, patches=32, bins=512, parts=4, threads=2) < 1.2 * base
    assert needed_bytes(narrow, patches=16, bins=512, precision="bfloat16") < base
    # Weights of the network of width 16 alone: 9.8 million, seven values of 4 bytes for each.
    assert base > 7 * 4 * 9.8e6


MEMORY_CODE = """
import re, torch
from functools import partial
from vocsep.models.architecture import UNetArchitecture
from vocsep.models.networks import build_network
from vocsep.patches.batch import Batch
from vocsep.training.checks import needed_bytes
from vocsep.training.config import TrainConfig
from vocsep.training.ema import AveragedNetwork
from vocsep.training.group import Group
from vocsep.training.loss import batch_loss
from vocsep.training.optimizer import new_optimizer
from vocsep.training.parts import BatchParts
from vocsep.training.state import weights_of

def memory(name):
    # Not getrusage: a process that was just started has the peak of the one that started it.
    return 1024 * int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1])

config = TrainConfig(network="unet", width=40)
architecture = UNetArchitecture(channels=1, width=40)
mixture = torch.rand(16, 1, 128, 128)
batch = Batch(mixture, mixture * 0.3, mixture * 0.7)
group = Group(torch.device("cpu"), "float32")
# What an optimizer imports when it is first made is no memory of the network.
new_optimizer(config, torch.nn.Linear(1, 1), group.device)
before = memory("VmRSS")
network = build_network(architecture).to(memory_format=torch.channels_last)
average = AveragedNetwork(network, 0.998)
optimizer = new_optimizer(config, network, group.device)
parts = BatchParts(group, network, partial(batch_loss, config.objective), 16, 2)
torch.set_num_threads(1)
for step in range(2):
    parts.backward(batch, step)
    optimizer.step()
    average.update(step + 1)
    best = weights_of(average.network)
print((memory("VmHWM") - before) / needed_bytes(architecture, 16, 128, parts=2, threads=2))
"""


def test_large_network_takes_about_the_memory_that_is_said_to_be_needed() -> None:
    result = subprocess.run([sys.executable, "-c", MEMORY_CODE], capture_output=True, text=True, timeout=600)
    assert 0.8 < float(result.stdout) < 1.2, result.stderr


def test_batch_that_the_processes_cannot_share_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = {
        "TORCHELASTIC_RUN_ID": "test",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "3",
        "LOCAL_WORLD_SIZE": "3",
    }
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    line = refusal(small_store(tmp_path / "store.zarr", PAIR), tmp_path, batch_size=4)
    assert "batch_size 4" in line
    assert "3 processes" in line


def test_model_to_start_from_that_is_not_there_is_told(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store.zarr", PAIR)
    assert "no model yet" in refusal(store, tmp_path, fine_tune="champion")
    assert "no such model" in refusal(store, tmp_path, fine_tune="17")
