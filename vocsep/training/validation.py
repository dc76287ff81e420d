"""Validation during training: SDR in dB of whole songs, from what the store holds."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch

from storage.errors import UserError
from storage.manifest import TrackRecord
from storage.store import SpectrogramStore
from vocsep.arrays import Spectrogram, Waveform
from vocsep.metrics.bsseval import frame_sdr
from vocsep.models.mask_module import MaskModule
from vocsep.models.masks import predict_mask
from vocsep.models.torch_network import TorchNetwork
from vocsep.preprocessing.config import spectrogram_config
from vocsep.spectrograms.masking import apply_mask


@dataclass(frozen=True)
class Validation:
    """SDR in dB of all validation songs together, of each, and the estimates that were asked for, by track id.

    Attributes
    ----------
    sdr_db
        Median over the songs that can be scored.
    song_sdr_db
        NaN of songs whose vocals are silent.
    """

    sdr_db: float
    song_sdr_db: dict[str, float]
    estimates: dict[str, Waveform] = field(default_factory=dict)

    @property
    def mean_sdr_db(self) -> float:
        """Mean over the songs that can be scored."""
        return float(np.nanmean(list(self.song_sdr_db.values())))


def load_song(store: SpectrogramStore, track: TrackRecord) -> tuple[Waveform, Waveform]:
    """Mixture and vocals of a validation song, `(channels, samples)` float32 at the store's sample rate."""
    mixture: Waveform = np.array(store.array(track, "mixture_waveform"), dtype=np.float32)
    vocals: Waveform = np.array(store.array(track, "vocals_waveform"), dtype=np.float32)
    return mixture, vocals


def validate(store: SpectrogramStore, network: MaskModule | None, keep_songs: int = 0, threads: int = 1) -> Validation:
    """Vocals SDR in dB over the validation songs: median of 1-s frames per song, then median over songs.

    Measured at the store's sample rate, on the stored waveforms; a frame's SDR is that of museval (see `frame_sdr`), so
    that only the band above the preset's is missing.

    Parameters
    ----------
    network
        In evaluation mode; None scores the mixture itself, the floor.
    keep_songs
        How many songs' estimates to return.
    threads
        How many songs are separated at a time, each by one thread.

    Raises
    ------
    UserError
        If the store has no validation songs, or none of them has a frame that can be scored.
    """
    tracks = store.tracks("valid")
    if not tracks:
        raise UserError(f"{store.path}: no validation songs in the store; preprocess at least two training songs")
    keep = {track.id for track in tracks[:keep_songs]}

    def score(track: TrackRecord) -> tuple[float, Waveform | None]:
        mixture, vocals = load_song(store, track)
        estimate = mixture if network is None else _separate(store, track, mixture, network)
        sdr_db = median_frame_sdr(vocals, estimate, _spectrogram_rate(store))
        return sdr_db, estimate if track.id in keep else None

    with ThreadPoolExecutor(threads, "validation", initializer=torch.set_num_threads, initargs=(1,)) as workers:
        found = {track.id: result for track, result in zip(tracks, workers.map(score, tracks), strict=True)}
    scores = {name: sdr_db for name, (sdr_db, _) in found.items()}
    estimates = {name: estimate for name, (_, estimate) in found.items() if estimate is not None}
    counted = [score for score in scores.values() if not np.isnan(score)]
    if not counted:
        raise UserError(f"{store.path}: the vocals of all validation songs are silent, nothing to score")
    return Validation(float(np.median(counted)), scores, estimates)


def median_frame_sdr(reference: Waveform, estimate: Waveform, sample_rate: int) -> float:
    """Median over 1-s frames of SDR in dB; NaN if the reference is silent. Both `(channels, samples)`.

    A silent estimate of an audible frame has 0 dB, which is what the formula gives; museval leaves it out.
    """
    sdr = frame_sdr(reference[None], estimate[None], window=sample_rate, hop=sample_rate)[0]
    audible = [reference[:, start * sample_rate : (start + 1) * sample_rate].any() for start in range(len(sdr))]
    sdr[np.isnan(sdr) & np.array(audible)] = 0.0
    counted = sdr[~np.isnan(sdr)]
    return float(np.median(counted)) if len(counted) else float("nan")


def _spectrogram_rate(store: SpectrogramStore) -> int:
    return spectrogram_config(store).sample_rate


def _separate(store: SpectrogramStore, track: TrackRecord, mixture: Waveform, network: MaskModule) -> Waveform:
    config = spectrogram_config(store)
    magnitudes: Spectrogram = np.array(store.array(track, "mixture"), dtype=np.float32)
    return apply_mask(mixture, config.sample_rate, predict_mask(TorchNetwork(network), magnitudes), config)
