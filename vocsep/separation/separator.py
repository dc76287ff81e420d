"""Separating songs with a trained model: `Separator`."""

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from storage.errors import UserError
from storage.registry import ModelVersion
from vocsep.arrays import Spectrogram, Waveform
from vocsep.config import validated
from vocsep.cores import usable_threads
from vocsep.memory import BLOCK_BYTES, affordable
from vocsep.models.masks import Groups, context_frames, default_groups, predict_block, predict_mask
from vocsep.models.network import EngineName, MaskNetwork
from vocsep.models.precision import WantedPrecision, pick_precision
from vocsep.models.registry import open_registry
from vocsep.paths import MODELS as DEFAULT_MODELS
from vocsep.progress import Progress
from vocsep.separation.files import Separated, separate_file
from vocsep.separation.settings import SeparationSettings
from vocsep.separation.stream import Part, separate_stream
from vocsep.spectrograms.config import SpectrogramConfig
from vocsep.spectrograms.features import features
from vocsep.spectrograms.fft import SCIPY, Transforms

# With more blocks at a time, the one thread that decodes and encodes is what the others wait for.
MOST_JOBS = 4
# What a whole waveform is handed on in.
_BLOCK_SAMPLES = 1 << 18


@dataclass(frozen=True)
class Separator:
    """A trained model, ready to separate songs of any length, rate and number of channels.

    Attributes
    ----------
    network, spectrogram
        The model, and what it sees.
    overlap
        0 predicts the mask of the whole song; more averages those of overlapping patches (see `masks.predict_block`).
    wiener
        Whether the multichannel Wiener filter refines the vocals.
    jobs
        Blocks of a song that are computed at a time.
    transforms
        What transforms the song's frames.

    Examples
    --------
    >>> separator = Separator.load("champion")  # doctest: +SKIP
    >>> stems = separator.separate(waveform, sample_rate=44100)  # doctest: +SKIP
    >>> stems["vocals"].shape == waveform.shape  # doctest: +SKIP
    True
    """

    network: MaskNetwork
    spectrogram: SpectrogramConfig
    overlap: float = 0.0
    wiener: bool = False
    jobs: int = 1
    transforms: Transforms = SCIPY

    @classmethod
    def load(
        cls,
        model: str | Path | ModelVersion = "champion",
        models: Path = DEFAULT_MODELS,
        *,
        device: str = "auto",
        precision: WantedPrecision = "auto",
        engine: EngineName = "torch",
        overlap: float = 0.0,
        wiener: bool = False,
        jobs: int | None = None,
    ) -> "Separator":
        """Separator of a saved model.

        Parameters
        ----------
        model
            `champion`, `latest`, a version's number, a model folder, or, for the engine `onnx`, an exported file.
        models
            The registry that names are looked up in.
        device
            `auto`, `cpu`, `cuda` or `mps`, for the engine `torch`.
        precision
            Of the engine `torch`: `auto` takes bfloat16 where the device computes it natively, which is faster; `32`
            gives the same stems on all devices, within rounding.
        engine
            What runs the network. `onnx` does without torch, on the CPU, from what `vocsep export` wrote.
        overlap, wiener
            See the class.
        jobs
            None takes one for each core, as far as there is memory for them, but no more than `MOST_JOBS`.

        Raises
        ------
        UserError
            If there is no such model, its files are damaged or of a kind that this version does not know, or the
            device or the engine is missing.
        """
        if engine == "onnx":
            from vocsep.models.onnx_network import open_onnx

            network: MaskNetwork
            network, description, where = open_onnx(model, models)
            transforms: Transforms = SCIPY
        else:
            from vocsep.models.torch_network import TorchNetwork, folded, load_network, pick_device
            from vocsep.spectrograms.fft_torch import TorchTransforms

            version = model if isinstance(model, ModelVersion) else open_registry(models).open(str(model))
            place = pick_device(device)
            network = TorchNetwork(folded(load_network(version)).to(place), pick_precision(place.type, precision))
            description, where = version.description, str(version.path)
            transforms = TorchTransforms()
        spectrogram = validated(SpectrogramConfig, description.get("spectrogram"), where)
        jobs = jobs or affordable(min(MOST_JOBS, usable_threads()), BLOCK_BYTES)
        return cls(network, spectrogram, overlap, wiener, jobs, transforms)

    def mask(self, waveform: Waveform, sample_rate: int) -> Spectrogram:
        """Vocals mask `(channels, model frames, bins)` in [0, 1] of a whole mono or stereo waveform."""
        magnitudes = np.abs(features(waveform, sample_rate, self.spectrogram))
        return predict_mask(self.network, magnitudes, overlap=self.overlap)

    def separate(
        self, waveform: Waveform, sample_rate: int, progress: Progress = lambda done, total: None
    ) -> dict[str, Waveform]:
        """Separate a song.

        Parameters
        ----------
        waveform
            `(channels, samples)` float32, any number of channels, rate and length. The first two channels are left
            and right; others are taken alone.
        sample_rate
            Its rate in Hz.
        progress
            Called with the seconds that are done, of how many.

        Returns
        -------
        stems
            `vocals` and `accompaniment`, each of the waveform's own shape and rate; they sum to the waveform.

        Raises
        ------
        UserError
            If the waveform is empty or not finite.
        """
        if waveform.ndim != 2 or waveform.size == 0 or not np.isfinite(waveform).all():
            raise UserError("a waveform must be (channels, samples), not empty, without NaN or infinite samples")
        vocals = np.empty(waveform.shape, dtype=np.float32)
        starts = range(0, waveform.shape[1], _BLOCK_SAMPLES)
        blocks = (waveform[:, start : start + _BLOCK_SAMPLES].astype(np.float32, copy=False) for start in starts)
        done = 0
        for part in self.stream(blocks, sample_rate, default_groups(len(waveform))):
            vocals[:, done : done + part.vocals.shape[1]] = part.vocals
            done += part.vocals.shape[1]
            progress(done / sample_rate, waveform.shape[1] / sample_rate)
        return {"vocals": vocals, "accompaniment": waveform - vocals}

    def separate_file(
        self,
        path: str | Path,
        output: str | Path,
        settings: SeparationSettings | None = None,
        progress: Progress = lambda done, total: None,
    ) -> Separated:
        """Separate an audio file into files of its stems (see `vocsep.separation.files.separate_file`)."""
        return separate_file(Path(path), Path(output), self, settings, progress)

    def stream(self, blocks: Iterable[Waveform], sample_rate: int, groups: Groups) -> Generator[Part]:
        """Separate a song that comes in blocks, in memory that does not grow with it.

        Parameters
        ----------
        blocks
            `(channels, samples)` float32 each, finite, at least one sample in all.
        groups
            Channels that are one pair of left and right, or alone.

        Yields
        ------
        part
            The song's next samples and their vocals; the accompaniment is the difference.
        """

        def block_mask(magnitudes: Spectrogram, first: int, block: slice) -> Spectrogram:
            seen = groups if self.spectrogram.channels == 2 else [(0,)]
            return predict_block(self.network, magnitudes, first, block, seen, self.overlap)

        yield from separate_stream(
            blocks,
            sample_rate,
            self.spectrogram,
            groups,
            block_mask,
            context_frames=context_frames(self.network, self.overlap),
            refine=self.wiener,
            transforms=self.transforms,
            jobs=self.jobs,
        )
