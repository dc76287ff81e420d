"""Validation during training: SDR in dB of whole songs, from what the store holds."""

import numpy as np
import numpy.typing as npt

from storage.errors import UserError
from storage.manifest import TrackRecord
from storage.store import SpectrogramStore
from vocsep.bsseval import frame_sdr
from vocsep.model import UNet
from vocsep.preprocessing import StoreConfig
from vocsep.separation import predict_mask
from vocsep.spectrogram import Spectrogram, apply_mask


def validation_sdr(store: SpectrogramStore, network: UNet | None, channels: int) -> float:
    """Vocals SDR in dB over the validation songs: median of 1-s frames per song, then median over songs.

    Measured at the store's sample rate, on the stored waveforms; a frame's SDR is that of museval (see `frame_sdr`), so
    that only the band above the preset's is missing.

    Parameters
    ----------
    network
        In evaluation mode; None scores the mixture itself, the floor.
    channels
        Channels that the network sees at a time.

    Raises
    ------
    UserError
        If the store has no validation songs, or none of them has a frame that can be scored.
    """
    tracks = store.tracks("valid")
    if not tracks:
        raise UserError(f"{store.path}: no validation songs in the store; preprocess at least two training songs")
    scores = [_song_sdr(store, track, network, channels) for track in tracks]
    counted = [score for score in scores if not np.isnan(score)]
    if not counted:
        raise UserError(f"{store.path}: the vocals of all validation songs are silent, nothing to score")
    return float(np.median(counted))


def _song_sdr(store: SpectrogramStore, track: TrackRecord, network: UNet | None, channels: int) -> float:
    config = StoreConfig.model_validate(store.manifest.config).spectrogram
    mixture: npt.NDArray[np.float32] = np.array(store.array(track, "mixture_waveform"), dtype=np.float32)
    vocals: npt.NDArray[np.float32] = np.array(store.array(track, "vocals_waveform"), dtype=np.float32)
    estimate = mixture
    if network is not None:
        magnitudes: Spectrogram = np.array(store.array(track, "mixture"), dtype=np.float32)
        estimate = apply_mask(mixture, config.sample_rate, predict_mask(network, magnitudes, channels), config)
    sdr = frame_sdr(vocals[None], estimate[None], window=config.sample_rate, hop=config.sample_rate)[0]
    counted = sdr[~np.isnan(sdr)]
    return float(np.median(counted)) if len(counted) else float("nan")
