"""A training run from its settings to its model."""

import time
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from storage.files import read_json
from storage.registry import ModelRegistry
from storage.store import SpectrogramStore
from tests.vocsep.models.small_models import unet
from tests.vocsep.training.training_runs import are_equal, fit_plainly, quick, scripted, small_store, train, weights_of
from vocsep.models.precision import pick_precision
from vocsep.models.torch_network import load_network
from vocsep.models.unet import UNet
from vocsep.separation.separator import Separator
from vocsep.spectrograms.config import load_spectrogram_config
from vocsep.training.description import describe_model, training_digest
from vocsep.training.fit import TrainResult, fit
from vocsep.training.validation import load_song, median_frame_sdr, validate

TRAIN_AND_VALID = ("train", "train", "valid")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SpectrogramStore:
    return small_store(tmp_path_factory.mktemp("training") / "store.zarr", TRAIN_AND_VALID)


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_precision_that_is_asked_for_is_taken(device: str) -> None:
    assert pick_precision(device, "32") == "float32"
    assert pick_precision(device, "bf16") == "bfloat16"


def test_precision_on_a_cpu_is_bfloat16_exactly_where_the_hardware_has_it() -> None:
    capabilities = torch.cpu.get_capabilities()
    native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    assert pick_precision("cpu", "auto") == ("bfloat16" if native else "float32")


@pytest.fixture(scope="module")
def run(demo_store: SpectrogramStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainResult, Path]:
    """Twelve steps on the demo songs, validated three times."""
    folder = tmp_path_factory.mktemp("run")
    settings = quick(steps=12, validations=3)
    result = fit(settings, demo_store, ModelRegistry(folder / "models"), folder / "runs", "never")
    assert result is not None
    return result, folder


def test_model_is_in_the_registry_and_its_files_load_again(run: tuple[TrainResult, Path]) -> None:
    result, folder = run
    registry = ModelRegistry(folder / "models")
    assert registry.versions() == [result.version] == [1]
    assert Path(result.model_path) == registry.open("1").path
    separator = Separator.load(registry.open("1"), device="cpu", precision="32")
    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 22050)).astype(np.float32)
    vocals = separator.separate(waveform, 44100)["vocals"]
    assert np.isfinite(vocals).all()
    assert vocals.any()


def test_description_says_what_the_model_is_and_where_it_comes_from(
    run: tuple[TrainResult, Path], demo_store: SpectrogramStore
) -> None:
    result, folder = run
    description = ModelRegistry(folder / "models").open("1").description
    assert {"name": "tfc-tdf", "channels": 1, "width": 2, "targets": 1}.items() <= description["architecture"].items()
    assert description["spectrogram"] == load_spectrogram_config("fine").model_dump(mode="json")
    assert description["objective"]["loss"] == "snr"
    assert description["targets"] == ["vocals"]
    assert description["data"] == {
        "dataset": demo_store.manifest.dataset["kind"],
        "digest": training_digest(demo_store),
        "train": sorted(track.name for track in demo_store.tracks("train")),
        "valid": sorted(track.name for track in demo_store.tracks("valid")),
    }
    assert len(description["data"]["train"]) == 3
    assert len(description["data"]["valid"]) == 1
    assert description["metrics"]["valid_sdr_db"] == result.valid_sdr_db
    assert description["metrics"]["valid_floor_sdr_db"] == result.floor_sdr_db
    assert description["versions"]["vocsep"] == version("vocsep")
    assert description["versions"]["torch"] == torch.__version__
    assert "licenses" in description["licence"]
    assert description["training"]["steps_done"] == result.steps == 12
    assert description["training"]["validation_share"] == result.validation_share > 0
    assert description["training"]["seconds"] == result.seconds > 0
    settings = quick(steps=12, validations=3).model_dump(mode="json")
    assert settings.items() <= description["training"].items()


def test_description_can_be_had_without_a_run(demo_store: SpectrogramStore) -> None:
    settings = quick(channels=2, width=5, objective={"loss": "mse"}, targets=("vocals", "accompaniment"))
    description = describe_model(settings, demo_store)
    assert {"name": "tfc-tdf", "channels": 2, "width": 5, "targets": 2}.items() <= description["architecture"].items()
    assert description["objective"]["loss"] == "mse"
    assert description["targets"] == ["vocals", "accompaniment"]
    assert description["data"]["digest"] == training_digest(demo_store)


def test_digest_of_the_songs_is_that_of_training_and_validation_songs_alone(tmp_path: Path) -> None:
    digests = [
        training_digest(small_store(tmp_path / f"{number}.zarr", splits, seed=seed))
        for number, (splits, seed) in enumerate(
            [
                (TRAIN_AND_VALID, 0),
                ((*TRAIN_AND_VALID, "test"), 0),
                (("train", "train", "train"), 0),
                (TRAIN_AND_VALID, 1),
            ]
        )
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_run_json_tells_what_the_model_file_tells_and_that_the_run_is_finished(run: tuple[TrainResult, Path]) -> None:
    result, folder = run
    run_folder = Path(result.run_folder)
    assert run_folder.parent == folder / "runs"
    content = read_json(run_folder / "run.json")
    model = ModelRegistry(folder / "models").open("1").description
    assert content.pop("status") == "finished"
    assert content.pop("model_version") == 1
    settings = quick(steps=12, validations=3)
    assert content.pop("settings") == settings.model_dump(mode="json")
    assert content.pop("config") == settings.identity()
    assert content.pop("data_digest") == model["data"]["digest"]
    begun = content.pop("created")
    assert begun == model["training"]["run"]["created"]
    assert datetime.fromisoformat(begun) <= datetime.fromisoformat(model["created"])
    assert content == {name: value for name, value in model.items() if name not in ("weights_sha256", "created")}
    assert [entry["step"] for entry in content["history"]] == [4, 8, 12]


def test_nothing_but_safetensors_text_pictures_and_event_files_is_written(run: tuple[TrainResult, Path]) -> None:
    _, folder = run
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) >= 8
    for path in files:
        kind = "tfevents" if "tfevents" in path.name else path.suffix or path.name
        assert kind in {".safetensors", ".json", ".csv", ".png", ".lock", "champion", "tfevents"}, path
        # Pickles begin with their protocol, torch's archives with PK.
        assert path.read_bytes()[:2] not in (b"PK", *(bytes([0x80, protocol]) for protocol in range(6))), path
        if kind in {".json", "champion", ".csv"}:
            path.read_text(encoding="utf-8")


def test_last_checkpoints_are_kept_and_older_ones_are_gone(run: tuple[TrainResult, Path]) -> None:
    checkpoints = Path(run[0].run_folder) / "checkpoints"
    expected = {f"step-{step:08d}.{suffix}" for step in (8, 12) for suffix in ("json", "safetensors")}
    assert {path.name for path in checkpoints.iterdir()} == expected


def test_saved_weights_score_what_the_result_says_and_are_the_best_of_the_run(
    run: tuple[TrainResult, Path], demo_store: SpectrogramStore
) -> None:
    result, folder = run
    model = ModelRegistry(folder / "models").open("1")
    assert validate(demo_store, load_network(model)).sdr_db == pytest.approx(result.valid_sdr_db, abs=1e-3)
    assert result.valid_sdr_db == max(entry["valid_sdr_db"] for entry in model.description["history"])


def test_result_says_the_floor_and_reads_well(run: tuple[TrainResult, Path], demo_store: SpectrogramStore) -> None:
    result, _ = run
    assert result.floor_sdr_db == validate(demo_store, None).sdr_db
    text = "\n".join(result.lines())
    assert f"{result.valid_sdr_db:.2f} dB" in text
    assert result.model_path in text
    assert f"{result.run_folder}/metrics.csv" in text


def test_best_weights_are_kept_when_later_ones_are_worse(store: SpectrogramStore, tmp_path: Path) -> None:
    # A learning rate that spoils what the first steps have learnt.
    spoiling: dict[str, Any] = {"schedule": "constant", "warmup": 0, "learning_rate": 0.05, "ema": 0, "network": "unet"}
    result = train(store, tmp_path, steps=6, validations=3, **spoiling)
    scores = [entry["valid_sdr_db"] for entry in read_json(Path(result.run_folder) / "run.json")["history"]]
    assert scores.index(max(scores)) < 2, scores
    network = load_network(ModelRegistry(tmp_path / "models").open("1"))
    assert validate(store, network).sdr_db == pytest.approx(max(scores), abs=1e-3)


@pytest.mark.parametrize("channels", [1, 2])
def test_same_seed_gives_the_same_weights_bit_for_bit_and_another_seed_others(tmp_path: Path, channels: int) -> None:
    store = small_store(tmp_path / "store.zarr", TRAIN_AND_VALID, channels=2)
    first, again, other = (
        weights_of(train(store, tmp_path / str(number), seed=seed, channels=channels, steps=3))
        for number, seed in enumerate((5, 5, 6))
    )
    assert are_equal(first, again)
    assert not are_equal(first, other)


def test_progress_is_told_after_every_step_and_ends_at_1(store: SpectrogramStore, tmp_path: Path) -> None:
    told: list[float] = []
    fit_plainly(quick(steps=4), store, tmp_path, "never", lambda used, total: told.append(used / total))
    assert told == [0.25, 0.5, 0.75, 1.0]


def test_run_never_writes_into_the_folder_of_another(store: SpectrogramStore, tmp_path: Path) -> None:
    now = datetime.now()
    others = {tmp_path / "runs" / f"{now + timedelta(seconds=second):%Y%m%d-%H%M%S}" for second in range(120)}
    for other in others:
        other.mkdir(parents=True)
        (other / "run.json").write_text("{}\n")
    result = train(store, tmp_path, steps=1, resume="auto")
    assert Path(result.run_folder) not in others
    assert all(sorted(other.iterdir()) == [other / "run.json"] for other in others)
    assert all((other / "run.json").read_text() == "{}\n" for other in others)


def test_loss_falls_and_validation_beats_floor_silence_and_the_untrained_network(
    demo_store: SpectrogramStore, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "steps": 60,
        "width": 4,
        "learning_rate": 0.01,
        "validations": 6,
        "augmentation": {"remix": 0.5},
    }
    result = train(demo_store, tmp_path, **settings)
    history = read_json(Path(result.run_folder) / "run.json")["history"]
    losses = [entry["train_loss"] for entry in history]
    assert losses[-1] < 0.8 * losses[0]
    torch.manual_seed(0)
    untrained = validate(demo_store, unet(1, 4).eval()).sdr_db
    # A mask of zeros scores 0 dB.
    assert result.valid_sdr_db > max(result.floor_sdr_db, untrained, 0.0) + 2


def test_network_of_two_targets_is_saved_loaded_and_separates(store: SpectrogramStore, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps": 60, "learning_rate": 0.01, "augmentation": {"remix": 0.5}}
    result = train(store, tmp_path, targets=("vocals", "accompaniment"), **settings)
    model = ModelRegistry(tmp_path / "models").open("1")
    assert model.description["targets"] == ["vocals", "accompaniment"]
    separator = Separator.load(model, device="cpu", precision="32")
    assert separator.network.targets == 2
    (track,) = store.tracks("valid")
    mixture, vocals = load_song(store, track)
    stems = separator.separate(mixture, 1000)
    np.testing.assert_allclose(stems["vocals"] + stems["accompaniment"], mixture, atol=1e-6)
    assert median_frame_sdr(vocals, stems["vocals"], 1000) == pytest.approx(result.valid_sdr_db, abs=0.01)
    assert (
        median_frame_sdr(mixture - vocals, stems["accompaniment"], 1000)
        > median_frame_sdr(mixture - vocals, mixture, 1000) + 2
    )
    assert result.valid_sdr_db > result.floor_sdr_db + 2


@pytest.mark.parametrize("longest", [0.01, 1.0])
def test_gradient_is_never_longer_than_the_clip(
    store: SpectrogramStore, tmp_path: Path, longest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms: list[float] = []
    step = torch.optim.Adam.step

    def measured(self: torch.optim.Adam, *arguments: Any, **named: Any) -> Any:
        result = step(self, *arguments, **named)
        gradients = [value.grad for group in self.param_groups for value in group["params"]]
        norms.append(float(torch.cat([gradient.flatten() for gradient in gradients if gradient is not None]).norm()))
        return result

    monkeypatch.setattr(torch.optim.Adam, "step", measured)
    train(store, tmp_path / "plain", steps=3, optimizer="adam")
    plain = norms[:]
    norms.clear()
    train(store, tmp_path / "clipped", steps=3, optimizer="adam", gradient_clip=longest)
    assert len(plain) == len(norms) == 3
    assert min(plain) > 0.01
    assert all(norm <= longest * 1.001 for norm in norms)
    # The first step begins at the same weights: only its length changes, and only if it is too long.
    assert norms[0] == pytest.approx(min(plain[0], longest), rel=1e-3)


def test_run_ends_when_validations_are_no_better_for_as_long_as_patience_lasts(
    store: SpectrogramStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is waited for is the SDR; the loss keeps falling.
    scores = [0.0, 1.0, 2.0, 1.5, 1.9, 2.5, 2.4, 2.5, 2.3, 2.2, 9.0, 9.0]
    monkeypatch.setattr("vocsep.training.loop.validate", scripted(scores))
    result = train(store, tmp_path, steps=24, validations=12, patience=3, learning_rate=0.01)
    history = read_json(Path(result.run_folder) / "run.json")["history"]
    # The first score is the floor's.
    assert [entry["valid_sdr_db"] for entry in history] == [1.0, 2.0, 1.5, 1.9, 2.5, 2.4, 2.5, 2.3]
    assert result.valid_sdr_db == 2.5
    assert 16 <= result.steps <= 17
    assert ModelRegistry(tmp_path / "models").versions() == [1]


def test_weights_of_the_highest_mean_are_kept_and_their_median_is_told(
    store: SpectrogramStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = [(0.0, 0.0, 0.0), (3.0, 3.0, 3.0), (2.0, 2.0, 9.0), (3.5, 3.5, 3.5)]
    monkeypatch.setattr("vocsep.training.loop.validate", scripted(scores))
    plain: dict[str, Any] = {"ema": 0, "schedule": "constant", "warmup": 0}
    result = train(store, tmp_path, steps=9, validations=3, **plain)
    history = read_json(Path(result.run_folder) / "run.json")["history"]
    assert [(entry["step"], entry["valid_sdr_db"]) for entry in history] == [(3, 3.0), (6, 2.0), (9, 3.5)]
    assert [entry["valid_mean_sdr_db"] for entry in history] == pytest.approx([3.0, 13 / 3, 3.5])
    assert result.valid_sdr_db == 2.0
    assert ModelRegistry(tmp_path / "models").open("1").description["metrics"]["valid_sdr_db"] == 2.0
    monkeypatch.setattr("vocsep.training.loop.validate", scripted([0.0, 1.0]))
    until_then = train(store, tmp_path / "until then", steps=6, validations=1, **plain)
    assert are_equal(weights_of(result), weights_of(until_then))


def test_minutes_end_in_a_validated_model_in_time(store: SpectrogramStore, tmp_path: Path) -> None:
    result = train(store, tmp_path, steps=None, max_minutes=0.05)
    history = read_json(Path(result.run_folder) / "run.json")["history"]
    assert [entry["step"] for entry in history] == [result.steps]
    assert result.seconds >= 3.0
    assert ModelRegistry(tmp_path / "models").versions() == [1]


def test_validations_leave_most_of_the_minutes_to_training_but_never_those_of_steps(
    store: SpectrogramStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(store: SpectrogramStore, network: UNet | None, keep_songs: int = 0, threads: int = 1) -> Any:
        if network is not None:
            time.sleep(0.5)
        return validate(store, network, 0)

    monkeypatch.setattr("vocsep.training.loop.validate", slow)
    timed = train(store, tmp_path / "timed", steps=None, max_minutes=0.04, validations=20)
    history = read_json(Path(timed.run_folder) / "run.json")["history"]
    # One of 0.5 s takes more than a tenth of 2.4 s: only the first and the last are made, which may be the same.
    assert 1 <= len(history) <= 2
    assert history[-1]["step"] == timed.steps
    counted = train(store, tmp_path / "counted", steps=4, validations=4)
    assert [entry["step"] for entry in read_json(Path(counted.run_folder) / "run.json")["history"]] == [1, 2, 3, 4]
