import time
from datetime import datetime, timedelta
from importlib.metadata import version
from math import cos, pi
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from storage.errors import UserError
from storage.files import read_json
from storage.registry import ModelRegistry
from storage.store import SpectrogramStore
from storage.track_writer import write_track
from vocsep.bsseval import frame_sdr
from vocsep.config import SpectrogramConfig, load_spectrogram_config
from vocsep.model import UNet
from vocsep.preprocessing import StoreConfig
from vocsep.separation import Separator
from vocsep.spectrogram import magnitudes
from vocsep.training import (
    Budget,
    TrainConfig,
    TrainResult,
    describe_model,
    fit,
    learning_rate_factor,
    pick_precision,
)
from vocsep.validation import validation_sdr

Array = NDArray[Any]

SMALL = SpectrogramConfig(sample_rate=1000, n_fft=64, hop_length=16)


def quick(**changed: Any) -> TrainConfig:
    """A run of six steps of a tiny network, on the CPU, in float32, validated once."""
    settings = {
        "steps": 6,
        "batch_size": 4,
        "width": 2,
        "validations": 1,
        "device": "cpu",
        "precision": "32",
        **changed,
    }
    return TrainConfig.model_validate(settings)


def train(store: SpectrogramStore, folder: Path, registry: ModelRegistry | None = None, **changed: Any) -> TrainResult:
    return fit(quick(**changed), store, registry or ModelRegistry(folder / "models"), folder / "runs")


def small_store(
    path: Path, splits: tuple[str, ...], *, seed: int = 0, broken: str | None = None, silent_vocals: bool = False
) -> SpectrogramStore:
    """Songs of 4 s: vocals are a wandering tone, accompaniment is noise. `broken` names one that holds NaN."""
    config = StoreConfig(spectrogram=SMALL, dtype="float32").model_dump(mode="json")
    store = SpectrogramStore.open_or_create(
        path, config=config, dataset={"kind": "folder", "root": "songs"}, tool="test"
    )
    random = np.random.default_rng(seed)
    times = np.arange(4000) / 1000
    for number, split in enumerate(splits, start=1):
        name = f"Song {number}"
        pitch = 150 + 60 * np.sin(2 * np.pi * random.uniform(0.2, 0.6) * times)
        vocals = (0.3 * np.sin(2 * np.pi * np.cumsum(pitch) / 1000)).astype(np.float32)[None]
        vocals *= 0 if silent_vocals else 1
        mixture = vocals + random.normal(0, 0.2, (1, 4000)).astype(np.float32)
        arrays: dict[str, NDArray[np.generic]] = dict(magnitudes(mixture, vocals, 1000, SMALL))
        if name == broken:
            arrays["mixture"][:, 20:] = np.nan
        if split == "valid":
            arrays |= {"mixture_waveform": mixture, "vocals_waveform": vocals}
        store.add(write_track(path, f"song-{number}", name=name, split=split, seconds=4.0, arrays=arrays, sources=()))
    store.save()
    return store


def weights_of(result: TrainResult) -> dict[str, Array]:
    return ModelRegistry(Path(result.model_path).parent).open(str(result.version)).load_weights()


def are_equal(first: dict[str, Array], second: dict[str, Array]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


# Settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"epochs": 0},
        {"max_minutes": -1},
        {"batch_size": 0},
        {"learning_rate": 0},
        {"warmup": 1},
        {"loss": "l3"},
        {"remix": 1.5},
        {"channels": 3},
        {"width": 0},
        {"validations": 0},
        {"seed": -1},
        {"device": "tpu"},
        {"precision": "16"},
        {"momentum": 0.9},
    ],
)
def test_wrong_or_unknown_setting_is_refused_by_its_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as error:
        TrainConfig.model_validate(wrong)
    assert [part["loc"] for part in error.value.errors()] == [(next(iter(wrong)),)]


# Budget and learning rate


@given(used=st.floats(0, 1), warmup=st.floats(0.001, 0.9))
def test_learning_rate_rises_linearly_and_falls_along_half_a_cosine(used: float, warmup: float) -> None:
    factor = learning_rate_factor(used, warmup)
    assert -1e-12 <= factor <= 1 + 1e-12
    if used < warmup:
        assert factor == pytest.approx(used / warmup)
    else:
        assert factor == pytest.approx(0.5 + 0.5 * cos(pi * (used - warmup) / (1 - warmup)))


def test_learning_rate_begins_at_0_is_whole_after_warmup_half_midway_down_and_0_at_the_end() -> None:
    assert learning_rate_factor(0.0, 0.2) == 0
    assert learning_rate_factor(0.1, 0.2) == pytest.approx(0.5)
    assert learning_rate_factor(0.2, 0.2) == pytest.approx(1)
    assert learning_rate_factor(0.6, 0.2) == pytest.approx(0.5)
    assert learning_rate_factor(1.0, 0.2) == pytest.approx(0, abs=1e-12)
    assert learning_rate_factor(0.0, 0.0) == 1


def test_budget_by_steps_is_the_share_of_the_steps_and_never_more_than_all() -> None:
    budget = Budget(8, None)
    assert [budget.used(step) for step in (0, 2, 8, 9)] == [0, 0.25, 1, 1]


def test_budget_by_time_is_the_share_of_the_seconds_and_never_more_than_all() -> None:
    budget = Budget(None, 1e9)
    assert budget.used(1_000_000) < 1e-3
    budget.started = time.monotonic() - 5e8
    assert budget.used(0) == pytest.approx(0.5, abs=1e-3)
    budget.started = time.monotonic() - 2e9
    assert budget.used(0) == 1


def test_budget_of_both_follows_the_one_that_is_used_up_first() -> None:
    budget = Budget(100, 1e9)
    assert budget.used(60) == pytest.approx(0.6)
    budget.started = time.monotonic() - 9e8
    assert budget.used(60) == pytest.approx(0.9, abs=1e-3)


# Precision


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_precision_that_is_asked_for_is_taken(device: str) -> None:
    assert pick_precision(device, "32") == "32-true"
    assert pick_precision(device, "bf16") == "bf16-mixed"


def test_precision_on_a_cpu_is_bfloat16_exactly_where_the_hardware_has_it() -> None:
    capabilities = torch.cpu.get_capabilities()
    native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    assert pick_precision("cpu", "auto") == ("bf16-mixed" if native else "32-true")


# A run


@pytest.fixture(scope="module")
def run(demo_store: SpectrogramStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainResult, Path]:
    """Twelve steps on the demo songs, validated three times."""
    folder = tmp_path_factory.mktemp("run")
    return train(demo_store, folder, steps=12, validations=3), folder


def test_model_is_in_the_registry_and_its_files_load_again(run: tuple[TrainResult, Path]) -> None:
    result, folder = run
    registry = ModelRegistry(folder / "models")
    assert registry.versions() == [result.version] == [1]
    assert Path(result.model_path) == registry.open("1").path
    separator = Separator.load(registry.open("1"), device="cpu")
    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 22050)).astype(np.float32)
    vocals = separator.separate(waveform, 44100)["vocals"]
    assert np.isfinite(vocals).all()
    assert vocals.any()


def test_description_says_what_the_model_is_and_where_it_comes_from(
    run: tuple[TrainResult, Path], demo_store: SpectrogramStore
) -> None:
    result, folder = run
    description = ModelRegistry(folder / "models").open("1").description
    assert description["architecture"] == {"name": "unet", "channels": 1, "width": 2}
    assert description["spectrogram"] == load_spectrogram_config("fine").model_dump(mode="json")
    assert description["objective"]["loss"] == "l1"
    assert description["targets"] == ["vocals"]
    assert description["data"] == {
        "dataset": demo_store.manifest.dataset["kind"],
        "digest": demo_store.manifest.data_digest,
        "train": sorted(track.name for track in demo_store.tracks("train")),
        "valid": sorted(track.name for track in demo_store.tracks("valid")),
    }
    assert len(description["data"]["train"]) == 3
    assert len(description["data"]["valid"]) == 1
    assert description["metrics"]["valid_sdr_db"] == result.valid_sdr_db
    assert description["metrics"]["valid_floor_sdr_db"] == result.floor_sdr_db
    assert description["versions"]["vocsep"] == version("vocsep")
    assert description["versions"]["torch"] == torch.__version__
    assert "licence" in description["licence"]
    assert description["training"]["steps_done"] == result.steps == 12


def test_description_can_be_had_without_a_run(demo_store: SpectrogramStore) -> None:
    description = describe_model(quick(channels=2, width=5, loss="mse"), demo_store)
    assert description["architecture"] == {"name": "unet", "channels": 2, "width": 5}
    assert description["objective"]["loss"] == "mse"
    assert description["data"]["digest"] == demo_store.manifest.data_digest


def test_run_folder_has_run_json_and_a_tensorboard_log_with_the_validations(
    run: tuple[TrainResult, Path],
) -> None:
    result, folder = run
    run_folder = Path(result.run_folder)
    assert run_folder.parent == folder / "runs"
    content = read_json(run_folder / "run.json")
    assert content["model_version"] == 1
    model = ModelRegistry(folder / "models").open("1").description
    assert content == {name: value for name, value in model.items() if name != "weights_sha256"} | {"model_version": 1}
    events = EventAccumulator(str(run_folder))
    events.Reload()
    scores = events.Scalars("valid/sdr_db")
    assert [score.step for score in scores] == [entry["step"] for entry in model["history"]] == [4, 8, 12]
    expected = [entry["valid_sdr_db"] for entry in model["history"]]
    np.testing.assert_allclose([score.value for score in scores], expected, rtol=1e-6)
    assert max(expected) == result.valid_sdr_db
    assert [score.step for score in events.Scalars("train/loss")] == [10]


def test_nothing_but_safetensors_text_and_event_files_is_written(run: tuple[TrainResult, Path]) -> None:
    _, folder = run
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) >= 5
    for path in files:
        kind = "tfevents" if "tfevents" in path.name else path.suffix or path.name
        assert kind in {".safetensors", ".json", "champion", "tfevents", ".yaml"}, path
        # Pickles begin with their protocol, torch's archives with PK.
        assert path.read_bytes()[:2] not in (b"PK", *(bytes([0x80, protocol]) for protocol in range(6))), path
        if kind in {".json", "champion", ".yaml"}:
            path.read_text(encoding="utf-8")


def test_saved_weights_score_what_the_result_says(run: tuple[TrainResult, Path], demo_store: SpectrogramStore) -> None:
    result, folder = run
    separator = Separator.load(ModelRegistry(folder / "models").open("1"), device="cpu")
    assert validation_sdr(demo_store, separator.network, 1) == pytest.approx(result.valid_sdr_db, abs=1e-3)


def test_floor_is_the_sdr_of_the_mixture_itself(run: tuple[TrainResult, Path], demo_store: SpectrogramStore) -> None:
    (track,) = demo_store.tracks("valid")
    mixture, vocals = (
        np.array(demo_store.array(track, f"{name}_waveform"), dtype=np.float64) for name in ("mixture", "vocals")
    )
    scores = []
    for start in range(0, mixture.shape[1] - 11025 + 1, 11025):
        true, estimate = vocals[:, start : start + 11025], mixture[:, start : start + 11025]
        if true.any():
            scores.append(10 * np.log10((true**2).sum() / ((estimate - true) ** 2).sum()))
    assert run[0].floor_sdr_db == pytest.approx(np.median(scores), abs=1e-4)


def test_validation_of_several_songs_is_the_median_of_their_medians_without_silent_ones(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store.zarr", ("valid", "valid", "valid"))
    medians = []
    for track in store.tracks("valid"):
        mixture, vocals = (np.array(store.array(track, f"{name}_waveform")) for name in ("mixture", "vocals"))
        medians.append(np.median(frame_sdr(vocals[None], mixture[None], window=1000, hop=1000)))
    assert validation_sdr(store, None, 1) == pytest.approx(np.median(medians), abs=1e-6)


# Reproducibility


@pytest.mark.parametrize("channels", [1, 2])
def test_same_seed_gives_the_same_weights_bit_for_bit_and_another_seed_others(
    demo_store: SpectrogramStore, tmp_path: Path, channels: int
) -> None:
    first, again, other = (
        weights_of(train(demo_store, tmp_path / str(number), seed=seed, channels=channels, steps=3))
        for number, seed in enumerate((5, 5, 6))
    )
    assert are_equal(first, again)
    assert not are_equal(first, other)


def test_progress_is_told_after_every_step_and_ends_at_1(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store.zarr", ("train", "valid"))
    told: list[float] = []
    fit(quick(steps=4), store, ModelRegistry(tmp_path / "models"), tmp_path / "runs", told.append)
    assert told == [0.25, 0.5, 0.75, 1.0]


def test_epoch_is_as_many_patches_as_lie_side_by_side_in_the_training_songs(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store.zarr", ("train", "train", "valid"))
    frames = sum(track.frames for track in store.tracks("train"))
    assert frames == 2 * 251
    # 502 frames hold 3 patches of 128; 4 epochs of them in batches of 5 are 12 / 5 steps.
    assert train(store, tmp_path, steps=None, epochs=4, batch_size=5).steps == 3
    assert train(store, tmp_path, steps=2, epochs=4, batch_size=5).steps == 2


def test_run_never_writes_into_the_folder_of_another(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store.zarr", ("train", "valid"))
    now = datetime.now()
    others = {tmp_path / "runs" / f"{now + timedelta(seconds=second):%Y%m%d-%H%M%S}" for second in range(120)}
    for other in others:
        other.mkdir(parents=True)
        (other / "run.json").write_text("{}\n")
    result = train(store, tmp_path, steps=1)
    assert Path(result.run_folder) not in others
    assert all(sorted(other.iterdir()) == [other / "run.json"] for other in others)
    assert all((other / "run.json").read_text() == "{}\n" for other in others)


# Learning


def test_loss_falls_and_validation_beats_floor_silence_and_the_untrained_network(
    demo_store: SpectrogramStore, tmp_path: Path
) -> None:
    result = train(demo_store, tmp_path, steps=60, batch_size=4, width=4, learning_rate=0.01, validations=6, remix=0.5)
    history = read_json(Path(result.run_folder) / "run.json")["history"]
    losses = [entry["train_loss"] for entry in history]
    assert losses[-1] < 0.8 * losses[0]
    torch.manual_seed(0)
    untrained = validation_sdr(demo_store, UNet(1, 4).eval(), 1)
    # A mask of zeros scores 0 dB.
    assert result.valid_sdr_db > max(result.floor_sdr_db, untrained, 0.0) + 2


# Mistakes


def test_nan_in_the_training_data_stops_naming_step_and_song_and_adds_no_model(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store.zarr", ("train", "valid"), broken="Song 1")
    with pytest.raises(UserError, match=r"step 0 .*Song 1") as error:
        train(store, tmp_path, remix=0)
    assert "\n" not in str(error.value)
    assert ModelRegistry(tmp_path / "models").versions() == []


def test_learning_rate_that_makes_the_network_explode_ends_in_one_line(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store.zarr", ("train", "valid"))
    with pytest.raises(UserError, match=r"NaN|nan|not finite") as error:
        train(store, tmp_path, learning_rate=1e38, steps=30, warmup=0)
    assert "\n" not in str(error.value)
    assert ModelRegistry(tmp_path / "models").versions() == []


@pytest.mark.parametrize(
    ("splits", "message"),
    [(("train", "test"), "no validation songs"), (("valid", "test"), "no training songs")],
)
def test_store_without_training_or_validation_songs_is_one_line_that_names_it(
    tmp_path: Path, splits: tuple[str, ...], message: str
) -> None:
    store = small_store(tmp_path / "store.zarr", splits)
    with pytest.raises(UserError, match=message) as error:
        train(store, tmp_path)
    assert str(store.path) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "models").exists()
    assert not (tmp_path / "runs").exists()


def test_validation_songs_without_any_vocals_are_told_before_training(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store.zarr", ("train", "valid"), silent_vocals=True)
    with pytest.raises(UserError, match="silent") as error:
        train(store, tmp_path)
    assert str(store.path) in str(error.value)


# The champion


def held_model(registry: ModelRegistry, store: SpectrogramStore, valid_sdr_db: float) -> int:
    """A champion that says it scored so on the validation songs of `store`."""
    weights = {name: value.numpy() for name, value in UNet(1, 2).state_dict().items()}
    description = describe_model(quick(), store) | {"metrics": {"valid_sdr_db": valid_sdr_db}}
    held = registry.add(weights, description).version
    assert held is not None
    registry.promote(held)
    return held


def test_first_model_becomes_champion(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store.zarr", ("train", "valid"))
    registry = ModelRegistry(tmp_path / "models")
    result = train(store, tmp_path, registry)
    assert result.is_champion
    assert registry.champion() == result.version == 1


@pytest.mark.parametrize(("held_sdr_db", "is_replaced"), [(99.0, False), (-99.0, True)])
def test_champion_validated_on_the_same_data_is_replaced_only_by_a_better_model(
    tmp_path: Path, held_sdr_db: float, is_replaced: bool
) -> None:
    store = small_store(tmp_path / "store.zarr", ("train", "valid"))
    registry = ModelRegistry(tmp_path / "models")
    held = held_model(registry, store, held_sdr_db)
    result = train(store, tmp_path, registry)
    assert result.version == held + 1
    assert result.is_champion is is_replaced
    assert registry.champion() == (result.version if is_replaced else held)
    assert registry.open("latest").version == result.version


def test_champion_validated_on_other_data_is_replaced_whatever_it_scored(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store.zarr", ("train", "valid"), seed=0)
    other = small_store(tmp_path / "other.zarr", ("train", "valid"), seed=1)
    assert store.manifest.data_digest != other.manifest.data_digest
    registry = ModelRegistry(tmp_path / "models")
    held_model(registry, other, 99.0)
    result = train(store, tmp_path, registry)
    assert result.is_champion
    assert registry.champion() == result.version
