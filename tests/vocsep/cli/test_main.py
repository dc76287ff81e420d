"""The `vocsep` and `python -m flows` commands as processes: results, exit codes, one line for a user's mistake."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import soundfile

from storage.registry import ModelRegistry
from storage.store import SpectrogramStore
from tests.forked import run_forked
from tests.vocsep.models.small_models import unet
from vocsep.models.objective_config import Objective
from vocsep.training.config import TrainConfig
from vocsep.training.description import describe_model

Completed = subprocess.CompletedProcess[str]


def environment_in(folder: Path) -> dict[str, str]:
    return os.environ | {"PREFECT_HOME": str(folder / "data" / "prefect")}


def run(*command: str, folder: Path) -> Completed:
    environment = environment_in(folder)
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )


def vocsep(*arguments: str, folder: Path) -> Completed:
    return run_forked("vocsep.cli.main", *arguments, folder=folder, environment=environment_in(folder))


def flows(*arguments: str, folder: Path, **variables: str) -> Completed:
    return run_forked("flows.cli", *arguments, folder=folder, environment=environment_in(folder) | variables)


def assert_one_line(result: Completed, *words: str) -> None:
    assert result.returncode == 2, result.stdout + result.stderr
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


@pytest.fixture(scope="module")
def models(demo_store: SpectrogramStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with one untrained model."""
    registry = ModelRegistry(tmp_path_factory.mktemp("models"))
    config = TrainConfig(network="unet", width=2, channels=1, objective=Objective(input="raw"))
    weights = {name: value.numpy() for name, value in unet(channels=1, width=2).state_dict().items()}
    description = describe_model(config, demo_store) | {
        "metrics": {"valid_sdr_db": 1.0, "valid_floor_sdr_db": 0.0},
        "training": {"steps_done": 0},
    }
    registry.promote(registry.add(weights, description).version or 0)
    return registry.path


def test_help_lists_the_commands_of_both_programs(tmp_path: Path) -> None:
    text = vocsep("--help", folder=tmp_path).stdout
    assert all(command in text for command in ("demo-data", "store", "separate", "evaluate", "models"))
    text = flows("--help", folder=tmp_path).stdout
    assert all(command in text for command in ("preprocess", "train", "evaluate", "separate"))


HEAVY = {"zarr", "librosa", "museval", "musdb", "matplotlib", "torch", "numba", "prefect", "dask", "av"}


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    program = (
        "import json, sys\n"
        "from vocsep.cli.main import app\n"
        "try:\n    app(['--help'])\n"
        "finally:\n    print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    result = run("-c", program, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert HEAVY & set(json.loads(result.stdout.splitlines()[-1])) == set()


def test_short_help_and_version(tmp_path: Path) -> None:
    assert vocsep("-h", folder=tmp_path).stdout == vocsep("--help", folder=tmp_path).stdout
    assert "--preset" in vocsep("preprocess", "-h", folder=tmp_path).stdout
    assert vocsep("--version", folder=tmp_path).stdout.strip() == f"vocsep {version('vocsep')}"
    assert "--install-completion" in vocsep("-h", folder=tmp_path).stdout


def test_package_gives_the_steps_lazily(tmp_path: Path) -> None:
    program = (
        "import json, sys\nimport vocsep\n"
        "heavy = sorted({name.split('.')[0] for name in sys.modules})\n"
        "print(json.dumps([heavy, [callable(getattr(vocsep, name)) for name in vocsep.__all__ if name[0] != '_']]))\n"
        "print(vocsep.__version__)\n"
    )
    heavy, found = json.loads(run("-c", program, folder=tmp_path).stdout.splitlines()[0])
    assert HEAVY & set(heavy) == set()
    assert found
    assert all(found)


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda root: None, ("no such dataset folder",)),
        (lambda root: root.mkdir(), ("empty",)),
        (lambda root: (root / "train").mkdir(parents=True), ("not a dataset",)),
        (lambda root: root.write_text("a file"), ("no such dataset folder",)),
    ],
    ids=["missing", "empty", "not MUSDB", "a file"],
)
def test_a_wrong_dataset_path_is_one_line_and_exit_code_2(tmp_path: Path, prepare, words: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    prepare(tmp_path / "songs")
    assert_one_line(flows("preprocess", "--dataset", "songs", folder=tmp_path), "songs", *words)


def test_a_store_of_another_configuration_is_refused_and_the_difference_named(
    tmp_path: Path, demo_root: Path, demo_store: SpectrogramStore
) -> None:
    store = str(demo_store.path)
    arguments = ("preprocess", "--dataset", str(demo_root), "--preset", "notebook", "--store", store)
    assert_one_line(flows(*arguments, folder=tmp_path), "another configuration", "8192", "11025")


def test_no_store_and_no_model_are_one_line(tmp_path: Path) -> None:
    assert_one_line(flows("train", folder=tmp_path), "no spectrogram store", "make preprocess")
    assert_one_line(flows("evaluate", folder=tmp_path), "no model yet", "make train")
    assert_one_line(vocsep("separate", "song.wav", folder=tmp_path), "no such file")
    assert_one_line(vocsep("models", "history", folder=tmp_path), "no model yet")
    assert_one_line(vocsep("store", "info", folder=tmp_path), "no spectrogram store")
    (tmp_path / "song.wav").write_bytes(b"")
    assert_one_line(vocsep("separate", "song.wav", "--model", "latest", folder=tmp_path), "no model yet")


def test_a_prefect_home_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    result = flows("train", folder=tmp_path, PREFECT_HOME=str(tmp_path / "a file" / "prefect"))
    assert_one_line(result, "PREFECT_HOME", "a file")


def test_a_wrong_option_value_is_one_line(tmp_path: Path) -> None:
    assert_one_line(flows("train", "--loss", "l3", folder=tmp_path), "loss")
    assert_one_line(flows("preprocess", "--preset", "finest", folder=tmp_path), "finest", "fine", "notebook")


def test_a_file_that_is_not_audio_is_one_line(tmp_path: Path, models: Path) -> None:
    (tmp_path / "song.mp3").write_text("these are words, not music")
    assert_one_line(vocsep("separate", "song.mp3", "--models", str(models), folder=tmp_path), "song.mp3", "audio")


def test_one_bad_file_of_several_is_named_and_the_others_are_done(tmp_path: Path, models: Path) -> None:
    noise = (0.1 * np.random.default_rng(0).standard_normal(22050)).astype(np.float32)
    soundfile.write(tmp_path / "good.wav", noise, 22050, subtype="FLOAT")
    (tmp_path / "bad.wav").write_text("words")
    result = vocsep("separate", "bad.wav", "good.wav", "-o", "out", "--models", str(models), folder=tmp_path)
    assert result.returncode == 1
    assert "bad.wav" in result.stderr
    assert "Traceback" not in result.stderr
    vocals, rate = soundfile.read(tmp_path / "out/good/vocals.wav", dtype="float32")
    accompaniment, _ = soundfile.read(tmp_path / "out/good/accompaniment.wav", dtype="float32")
    assert rate == 22050
    np.testing.assert_allclose(vocals + accompaniment, noise, atol=1e-6)


def test_separate_imports_neither_prefect_nor_dask(tmp_path: Path, models: Path) -> None:
    soundfile.write(tmp_path / "song.wav", np.zeros(8000, dtype=np.float32), 8000)
    program = (
        "import json, sys\n"
        "from vocsep.cli.main import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    result = run("-c", program, "separate", "song.wav", "--models", str(models), folder=tmp_path)
    assert result.returncode == 0, result.stderr
    imported = set(json.loads(result.stdout.splitlines()[-1]))
    assert "torch" in imported
    heavy = {"prefect", "dask", "distributed", "musdb", "museval"}
    assert not imported & (heavy | {"zarr", "librosa", "matplotlib"})


def test_store_info_and_verify_tell_songs_splits_and_damage(tmp_path: Path, demo_store: SpectrogramStore) -> None:
    shutil.copytree(demo_store.path, tmp_path / "songs.zarr")
    info = vocsep("store", "info", "songs.zarr", folder=tmp_path)
    assert info.returncode == 0, info.stderr
    assert all(
        word in info.stdout for word in ("train", "valid", "test", "11025", demo_store.manifest.data_digest[:16])
    )
    assert vocsep("store", "verify", "songs.zarr", folder=tmp_path).returncode == 0
    track = demo_store.tracks("train")[0]
    shard = tmp_path / "songs.zarr" / track.arrays["vocals"].shard
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    verify = vocsep("store", "verify", "songs.zarr", folder=tmp_path)
    assert verify.returncode == 1
    assert track.arrays["vocals"].shard in verify.stdout
    assert len(verify.stdout.splitlines()) == 1


def test_models_list_shows_version_champion_and_score(tmp_path: Path, models: Path) -> None:
    result = vocsep("models", "list", "--models", str(models), folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "1.00" in result.stdout
    assert "*" in result.stdout


def test_demo_data_command_makes_songs_that_evaluate_scores(tmp_path: Path, models: Path) -> None:
    arguments = ("--train-songs", "1", "--test-songs", "1", "--seconds", "2", "3")
    made = vocsep("demo-data", "-o", "my songs", *arguments, folder=tmp_path)
    assert made.returncode == 0, made.stderr
    command = shlex.split(made.stdout.partition("next: vocsep ")[2])
    following = vocsep(*command, folder=tmp_path)
    assert following.returncode == 0, following.stderr
    assert "2 songs written" in following.stdout
    scored = vocsep("evaluate", "--dataset", "my songs", "--models", str(models), folder=tmp_path)
    assert scored.returncode == 0, scored.stderr
    summary = json.loads((tmp_path / "data/reports/latest/summary.json").read_text())
    assert summary["songs"] == 1
