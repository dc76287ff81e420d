"""Between which lines a comparison's curves are: SDR of doing nothing, of one mask for all, of the best mask."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from storage.errors import UserError
from storage.store import SpectrogramStore
from vocsep.arrays import Spectrogram
from vocsep.comparison.runs import PROBED_STEPS
from vocsep.models.constant_masks import best_constant_mask
from vocsep.models.objective import oracle_mask
from vocsep.models.objective_config import Objective
from vocsep.preprocessing.config import spectrogram_config
from vocsep.separation.separator import Separator
from vocsep.spectrograms.masking import apply_mask
from vocsep.spectrograms.plot import draw_spectrograms
from vocsep.training.config import TrainConfig
from vocsep.training.probe import open_probe
from vocsep.training.validation import load_song, median_frame_sdr

SHOWN_SECONDS = 6.0


def reference_lines(config: TrainConfig, store: SpectrogramStore) -> dict[str, float]:
    """Validation SDR in dB (see `vocsep.training.validation`) without any network.

    Returns
    -------
    lines
        `mixture`: the mixture as it is. `constant mask`: the one mask for everything that has the smallest squared
        error on the training patches. `oracle mask`: clip(v / (x + e), 0, 1) of the true magnitudes, what the best of
        all masks of this kind would reach.
    """
    probe = open_probe(config, store, PROBED_STEPS)
    constant, _ = best_constant_mask(Objective(loss="mse"), probe.mixture, probe.vocals)
    return {
        "mixture": _validation_sdr(store, lambda mixture, vocals: np.ones_like(mixture)),
        "constant mask": _validation_sdr(store, lambda mixture, vocals: np.full_like(mixture, constant)),
        "oracle mask": _validation_sdr(store, _oracle),
    }


def _oracle(mixture: Spectrogram, vocals: Spectrogram) -> Spectrogram:
    mask: Spectrogram = oracle_mask(torch.from_numpy(mixture), torch.from_numpy(vocals)).numpy()
    return mask


def _validation_sdr(store: SpectrogramStore, mask_of: Callable[[Spectrogram, Spectrogram], Spectrogram]) -> float:
    config = spectrogram_config(store)
    scores = []
    for track in store.tracks("valid"):
        mixture, vocals = load_song(store, track)
        magnitudes = [np.array(store.array(track, name), dtype=np.float32) for name in ("mixture", "vocals")]
        estimate = apply_mask(mixture, config.sample_rate, mask_of(*magnitudes), config)
        scores.append(median_frame_sdr(vocals, estimate, config.sample_rate))
    counted = [score for score in scores if not np.isnan(score)]
    if not counted:
        raise UserError(f"{store.path}: the vocals of all validation songs are silent, nothing to score")
    return float(np.median(counted))


def draw_estimates(path: Path, store: SpectrogramStore, models: dict[str, Path]) -> str:
    """Draw the spectrograms of one validation song: mixture, true vocals, and what each model makes of it.

    Parameters
    ----------
    models
        Title to the folder of a registry; its newest model is used.

    Returns
    -------
    name
        Of the song: the one whose vocals are loudest against the rest.
    """
    config = spectrogram_config(store)

    def vocals_share(index: int) -> float:
        mixture, vocals = load_song(store, store.tracks("valid")[index])
        return float(np.square(vocals).sum() / (np.square(mixture).sum() + 1e-9))

    track = store.tracks("valid")[max(range(len(store.tracks("valid"))), key=vocals_share)]
    frames = round(SHOWN_SECONDS * config.frames_per_second)
    mixture, vocals = (np.array(store.array(track, name), dtype=np.float32) for name in ("mixture", "vocals"))
    spectra = {"mixture": mixture, "true vocals": vocals}
    for title, folder in models.items():
        separator = Separator.load("latest", folder, device="cpu")
        waveform, _ = load_song(store, track)
        spectra[title] = separator.mask(waveform, config.sample_rate) * mixture
    shown = {title: spectrum[:, :frames].mean(axis=0) for title, spectrum in spectra.items()}
    length = len(next(iter(shown.values()))) / config.frames_per_second
    draw_spectrograms(path, shown, seconds=(0.0, length), hertz=(0, config.sample_rate / 2))
    return track.name
