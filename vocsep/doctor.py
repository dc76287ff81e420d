"""The doctor: is this set-up able to learn? Checks of songs, objective and network, without any training beforehand."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from storage.store import SpectrogramStore
from vocsep.config import load_spectrogram_config
from vocsep.dataset import open_dataset
from vocsep.demo import make_demo
from vocsep.doctor_data import examine_songs
from vocsep.doctor_finding import Finding, Status, worst
from vocsep.doctor_network import agreement_finding, gradient_finding, one_batch_findings, rate_finding
from vocsep.doctor_objective import bins_finding, domain_finding, input_finding, start_finding, trivial_finding
from vocsep.model_description import spectrogram_config
from vocsep.preprocessing import StoreConfig, updating
from vocsep.probe import Probe, open_probe
from vocsep.song_spectrograms import preprocess_song
from vocsep.train_config import TrainConfig

PATCHES_PER_STEP, STEPS = 8, 4
DEMO_SONGS, DEMO_SECONDS = 6, (8.0, 10.0)


@dataclass(frozen=True)
class Diagnosis:
    """All findings, in the order of the checks."""

    findings: tuple[Finding, ...]

    @property
    def status(self) -> Status:
        """The gravest of all."""
        return worst(*(finding.status for finding in self.findings))

    def of(self, status: Status) -> list[str]:
        """Names of the checks that ended so."""
        return [finding.check for finding in self.findings if finding.status == status]


def diagnose(
    config: TrainConfig, store: SpectrogramStore, on_check: Callable[[Finding], None] = lambda finding: None
) -> Diagnosis:
    """Make all checks; those of the network in small batches, on the songs whose values are finite.

    Parameters
    ----------
    on_check
        Called with every finding as soon as it is there.
    """
    findings: list[Finding] = []
    for finding in _findings(config, store):
        findings.append(finding)
        on_check(finding)
    return Diagnosis(tuple(findings))


def _findings(config: TrainConfig, store: SpectrogramStore) -> Iterator[Finding]:
    broken: set[str] = set()
    for finding in examine_songs(store, config):
        if finding.check == "finite":
            broken |= set(finding.values["songs"])
        yield finding
    yield domain_finding(config.objective)
    yield bins_finding(config.objective, store)
    sound = without_songs(store, broken)
    if sound.tracks("train"):
        probe = open_probe(probed(config, sound), sound, STEPS)
        yield from examine(probe, sound)


def examine(probe: Probe, store: SpectrogramStore) -> Iterator[Finding]:
    """The checks of what is learned and of the network that learns it."""
    yield input_finding(probe)
    yield trivial_finding(probe)
    yield start_finding(probe)
    yield gradient_finding(probe)
    rate = rate_finding(probe)
    yield rate
    yield from one_batch_findings(probe, rate.values["suggested"])
    if any("mixture_waveform" in track.arrays for track in store.tracks("valid")):
        yield agreement_finding(probe, store)


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
    """A store of a few demo songs, made where it is not there yet, with the bins that the settings want."""
    preset = "fine-513" if config.objective.bins == "all" else "fine"
    songs, path = folder / "songs", folder / f"{preset}.zarr"
    make_demo(songs, train_songs=DEMO_SONGS, test_songs=0, seconds=DEMO_SECONDS)
    dataset = open_dataset(songs)
    settings = StoreConfig(spectrogram=load_spectrogram_config(preset))
    with updating(path, dataset, settings) as (update, work):
        for song in work.pending:
            update.add(preprocess_song(song, path, settings))
    return SpectrogramStore.open(path)
