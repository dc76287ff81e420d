"""The doctor: ten set-ups broken on purpose are each caught by the right check, and sound ones are not."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from storage.manifest import TrackRecord
from storage.store import SpectrogramStore
from tests.forked import run_forked
from tests.tracks import write_track
from vocsep.doctor.diagnosis import STEPS, Diagnosis, examine, probed
from vocsep.doctor.finding import Finding, judged
from vocsep.doctor.meanings import MEANINGS
from vocsep.doctor.network import agreement_finding, gradient_finding, rate_finding
from vocsep.doctor.objective import domain_finding, trivial_finding
from vocsep.doctor.report import as_html
from vocsep.doctor.songs import examine_songs
from vocsep.models.objective_config import Objective
from vocsep.spectrograms.config import load_spectrogram_config
from vocsep.spectrograms.stft import stft
from vocsep.training.config import TrainConfig
from vocsep.training.probe import Probe, open_probe
from vocsep.training.settings_files import load_settings

Arrays = dict[str, NDArray[Any]]
FRAMES = 20


def settings(**changed: Any) -> TrainConfig:
    """The default settings with a small network of one channel."""
    return TrainConfig.model_validate({"channels": 1, "width": 4, "batch_size": 4} | changed)


def broken(store: SpectrogramStore, path: Path, change: Callable[[TrackRecord, Arrays], Arrays]) -> SpectrogramStore:
    """A copy of a store whose arrays were changed before they were written."""
    manifest = store.manifest
    copy = SpectrogramStore.open_or_create(
        path, config=manifest.config, dataset=dict(manifest.dataset), tool=manifest.tool
    )
    for track in manifest.tracks.values():
        arrays = change(track, {name: np.array(store.array(track, name)) for name in track.arrays})
        copy.add(
            write_track(
                path,
                track.id,
                name=track.name,
                split=track.split,
                seconds=track.seconds,
                arrays=arrays,
                sources=track.sources,
            )
        )
    copy.save()
    return copy


def failing(findings: list[Finding]) -> list[str]:
    return [finding.check for finding in findings if finding.status == "fail"]


def probe_of(config: TrainConfig, store: SpectrogramStore) -> Probe:
    return open_probe(probed(config, store), store, STEPS)


# Ten broken set-ups


def test_shifted_target_is_caught_by_the_sum_of_stems(demo_store: SpectrogramStore, tmp_path: Path) -> None:
    def shift(track: TrackRecord, arrays: Arrays) -> Arrays:
        return arrays | {"vocals": np.roll(arrays["vocals"], FRAMES, axis=1)}

    assert failing(examine_songs(broken(demo_store, tmp_path / "s.zarr", shift), settings())) == ["sum of stems"]


def test_swapped_sources_are_caught_by_the_sources(demo_store: SpectrogramStore, tmp_path: Path) -> None:
    def swap(track: TrackRecord, arrays: Arrays) -> Arrays:
        return arrays | {"vocals": arrays["accompaniment"], "accompaniment": arrays["vocals"]}

    assert failing(examine_songs(broken(demo_store, tmp_path / "s.zarr", swap), settings())) == ["sources"]


@pytest.mark.parametrize(("factor", "way"), [(100.0, "high"), (0.01, "low")])
def test_learning_rate_100_times_off_is_caught_by_the_learning_rate(
    demo_store: SpectrogramStore, factor: float, way: str
) -> None:
    rate = TrainConfig().learning_rate
    # With the loss snr, what so high a rate leaves of one batch jumps from step to step.
    changed = settings(network="unet", learning_rate=rate * factor, objective={"loss": "l1"})
    finding = rate_finding(probe_of(changed, demo_store))
    assert finding.status == "fail"
    assert f"too {way}" in finding.advice
    assert rate / 20 < finding.values["suggested"] < rate * 20


def test_learning_rate_100_times_too_low_is_caught_for_the_default_network(demo_store: SpectrogramStore) -> None:
    finding = rate_finding(probe_of(settings(learning_rate=TrainConfig().learning_rate / 100), demo_store))
    assert finding.status == "fail"
    assert "too low" in finding.advice


def test_silent_targets_are_caught_by_silence_and_by_the_trivial_answers(
    demo_store: SpectrogramStore, tmp_path: Path
) -> None:
    def silence(track: TrackRecord, arrays: Arrays) -> Arrays:
        return arrays | {"vocals": np.zeros_like(arrays["vocals"]), "accompaniment": arrays["mixture"]}

    store = broken(demo_store, tmp_path / "s.zarr", silence)
    assert failing(examine_songs(store, settings())) == ["silence"]
    finding = trivial_finding(probe_of(settings(), store))
    assert finding.status == "fail"
    assert "silent" in finding.advice


def test_wrong_bin_rule_is_caught_between_training_and_use(demo_store: SpectrogramStore, tmp_path: Path) -> None:
    config = load_spectrogram_config("fine")

    def other_rule(track: TrackRecord, arrays: Arrays) -> Arrays:
        if "mixture_waveform" not in arrays:
            return arrays
        spectra = [
            stft(arrays[f"{name}_waveform"], config.n_fft, config.hop_length)[..., :-1]
            for name in ("mixture", "vocals")
        ]
        wrong = {"mixture": spectra[0], "vocals": spectra[1], "accompaniment": spectra[0] - spectra[1]}
        return arrays | {name: np.abs(spectrum).astype(np.float16) for name, spectrum in wrong.items()}

    store = broken(demo_store, tmp_path / "s.zarr", other_rule)
    assert failing(examine_songs(store, settings())) == []
    assert agreement_finding(probe_of(settings(), store), store).status == "fail"
    assert agreement_finding(probe_of(settings(), demo_store), demo_store).status == "pass"


@pytest.mark.parametrize("name", ["log-unit", "raw-unit", "peak"])
@pytest.mark.parametrize(("output", "status"), [("magnitude", "fail"), ("mask", "warn")])
def test_normalised_input_with_raw_target_is_caught_by_the_domain(name: str, output: str, status: str) -> None:
    """Without a mask the level is lost; with one it costs little, as the comparison showed."""
    finding = domain_finding(Objective.model_validate({"input": name, "target": "source", "output": output}))
    assert finding.status == status
    assert "normalized" in finding.figure
    assert (
        domain_finding(Objective.model_validate({"input": "raw", "target": "source", "output": output})).status
        == "pass"
    )


def test_song_in_both_splits_is_caught_by_the_splits(demo_store: SpectrogramStore, tmp_path: Path) -> None:
    """The same bytes under another name and digest, as a re-tagged copy of a file has."""
    twin = demo_store.tracks("valid")[0]
    first = demo_store.tracks("train")[0]

    def leak(track: TrackRecord, arrays: Arrays) -> Arrays:
        if track.id != first.id:
            return arrays
        return {name: np.array(demo_store.array(twin, name)) for name in ("mixture", "vocals", "accompaniment")}

    store = broken(demo_store, tmp_path / "s.zarr", leak)
    findings = examine_songs(store, settings())
    assert failing(findings) == ["splits"]
    (figure,) = [finding.figure for finding in findings if finding.check == "splits"]
    assert twin.name in figure
    assert first.name in figure


def test_frozen_layer_is_caught_by_the_gradients(demo_store: SpectrogramStore) -> None:
    probe = probe_of(settings(network="unet"), demo_store)
    assert gradient_finding(probe).status == "pass"
    for parameter in probe.network.get_submodule("encoder.2").parameters():
        parameter.requires_grad_(False)
    finding = gradient_finding(probe)
    assert finding.status == "fail"
    assert finding.values["without"] == ["encoder.2.0"]


def test_track_with_nan_is_caught_and_named_and_the_other_songs_are_examined(
    demo_store: SpectrogramStore, tmp_path: Path
) -> None:
    bad = demo_store.tracks("train")[1]

    def spoil(track: TrackRecord, arrays: Arrays) -> Arrays:
        if track.id == bad.id:
            arrays["vocals"][:, FRAMES] = np.nan
        return arrays

    diagnosis = Diagnosis(tuple(examine(settings(network="unet"), broken(demo_store, tmp_path / "s.zarr", spoil))))
    assert diagnosis.of("fail") == ["finite"]
    (finding,) = [finding for finding in diagnosis.findings if finding.check == "finite"]
    assert bad.name in finding.figure
    assert {"one batch", "learning rate", "train and use"} <= {finding.check for finding in diagnosis.findings}


# The systems


def doctor(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return run_forked("vocsep.cli.main", "doctor", *arguments, folder=folder, environment=os.environ)


def written(folder: Path, **changed: Any) -> str:
    """A settings file with a narrow network, that the tests need not wait."""
    path = folder / "settings.yaml"
    path.write_text(json.dumps({"channels": 1, "width": 4} | changed))
    return str(path)


# The rate of the default settings suits the network's own width; a much narrower one learns more slowly.
DEFAULT = {"width": 24}
NOTEBOOK = {"objective": {"input": "raw", "loss": "mse"}, "network": "unet"}


@pytest.mark.parametrize("changed", [DEFAULT, NOTEBOOK], ids=["default", "notebook"])
def test_nothing_fails_with_the_default_settings_and_with_the_notebook_s(
    demo_store: SpectrogramStore, tmp_path: Path, changed: dict[str, Any]
) -> None:
    result = doctor(tmp_path, "--config", written(tmp_path, **changed), "--store", str(demo_store.path))
    assert result.returncode == 0, result.stdout + result.stderr
    page = (tmp_path / "data/doctor/doctor.html").read_text()
    assert "data:image/png;base64," in page
    assert 'src="http' not in page
    assert "one batch" in result.stdout


def test_project_s_problems_are_named_and_json_is_all_that_is_printed(tmp_path: Path) -> None:
    """Without a store: songs are made, with all bins, as the project wants them."""
    result = doctor(tmp_path, "--config", written(tmp_path, **load_settings("project")), "--json")
    assert result.returncode == 1, result.stdout + result.stderr
    content = json.loads(result.stdout)
    found = {check["check"]: check for check in content["checks"]}
    assert content["status"] == "fail"
    assert found["domain"]["status"] == "warn"
    assert found["bins"]["status"] == "warn"
    assert found["bins"]["values"]["padded"] == 576 - 513
    assert found["trivial answers"]["status"] == "fail"
    assert found["trivial answers"]["values"]["unheard_share"] > 0.5
    assert found["input"]["status"] == "warn"
    assert found["input"]["values"]["lost_energy_share"] > 0.1
    assert found["masks at the start"]["status"] == "warn"
    assert "-0.4" in found["masks at the start"]["advice"]
    for name in ("splits", "finite", "sum of stems", "sources", "silence", "gradients", "train and use"):
        assert found[name]["status"] == "pass", found[name]


def test_unknown_system_is_one_line(tmp_path: Path) -> None:
    result = doctor(tmp_path, "--config", "solution-9")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "solution-9" in line
    assert "solution-2a" in line


def test_page_shows_what_fails_first_and_folds_what_is_fine() -> None:
    order = ("splits", "silence", "levels", "sources", "finite")
    found = dict(zip(order, ("pass", "warn", "pass", "fail", "warn"), strict=True))
    findings = [
        judged(check, f"<i>{check}</i>", (True, status, f"advice of {check}"), sound="", values={})  # type: ignore[arg-type]
        for check, status in found.items()
    ]
    html = as_html(Diagnosis(tuple(findings)), {"config": "<b>odd</b>"})
    assert "<i>" not in html
    assert "<b>" not in html
    shown, folded = html.split("<details>")
    places = [shown.index(f"advice of {check}") for check in ("sources", "silence", "finite")]
    assert places == sorted(places)
    assert all(f"advice of {check}" in folded for check in ("splits", "levels"))
    assert all(MEANINGS[check] in html for check in order)
    assert "<details>" not in as_html(Diagnosis(tuple(findings[1:2])), {})
    for loading in ("http:", "https:", "url(", "<link", "<script"):
        assert loading not in html
