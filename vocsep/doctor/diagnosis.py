"""The doctor: is this set-up able to learn? Checks of songs, objective and network, without any training beforehand."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from storage.store import SpectrogramStore
from vocsep.demo.dataset import make_demo
from vocsep.doctor.finding import Finding, Status
from vocsep.doctor.network import agreement_finding, gradient_finding, one_batch_findings, rate_finding
from vocsep.doctor.objective import bins_finding, domain_finding, input_finding, start_finding, trivial_finding
from vocsep.doctor.songs import examine_songs
from vocsep.preprocessing.config import spectrogram_config
from vocsep.preprocessing.step import PreprocessConfig, preprocess
from vocsep.training.config import TrainConfig
from vocsep.training.probe import open_probe

PATCHES_PER_STEP, STEPS = 8, 4


@dataclass(frozen=True)
class Diagnosis:
    """All findings, in the order of the checks."""

    findings: tuple[Finding, ...]

    @property
    def status(self) -> Status:
        """The worst."""
        return "fail" if self.of("fail") else "warn" if self.of("warn") else "pass"

    def of(self, status: Status) -> list[str]:
        """Names of the checks that ended so."""
        return [finding.check for finding in self.findings if finding.status == status]


def examine(config: TrainConfig, store: SpectrogramStore) -> Iterator[Finding]:
    """Make all checks; those of the network in small batches, on the songs whose values are finite."""
    broken: set[str] = set()
    for finding in examine_songs(store, config):
        if finding.check == "finite":
            broken |= set(finding.values["songs"])
        yield finding
    yield domain_finding(config.objective)
    yield bins_finding(config, store)
    sound = without_songs(store, broken)
    if not sound.tracks("train"):
        return
    probe = open_probe(probed(config, sound), sound, STEPS)
    yield input_finding(probe)
    yield trivial_finding(probe)
    yield start_finding(probe)
    yield gradient_finding(probe)
    rate = rate_finding(probe)
    yield rate
    yield from one_batch_findings(probe, rate.values["suggested"])
    if any("mixture_waveform" in track.arrays for track in sound.tracks("valid")):
        yield agreement_finding(probe, sound)


def probed(config: TrainConfig, store: SpectrogramStore) -> TrainConfig:
    """Settings with which the network is looked at: small batches, and bins that the store has."""
    objective = config.objective
    if spectrogram_config(store).dropped_bin != "none":
        objective = objective.model_copy(update={"bins": "even"})
    size = min(config.batch_size, PATCHES_PER_STEP)
    return config.model_copy(update={"batch_size": size, "objective": objective})


def without_songs(store: SpectrogramStore, names: set[str]) -> SpectrogramStore:
    """The same store, but for some songs; nothing on disk changes."""
    tracks = {key: track for key, track in store.manifest.tracks.items() if track.name not in names}
    return SpectrogramStore(store.path, store.manifest.model_copy(update={"tracks": tracks}))


def demo_store(folder: Path, config: TrainConfig) -> SpectrogramStore:
    """A store of a few demo songs, made if it is missing, with the bins that the settings want."""
    preset = "fine-513" if config.objective.bins == "all" else "fine"
    songs, path = folder / "songs", folder / f"{preset}.zarr"
    make_demo(songs, train_songs=6, test_songs=0, seconds=(8.0, 10.0))
    preprocess(PreprocessConfig(dataset=songs, preset=preset, store=path))
    return SpectrogramStore.open(path)
