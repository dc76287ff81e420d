"""Separating songs with a trained model: `Separator`, and the mask that a network predicts for a whole song."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from storage.errors import UserError
from storage.registry import ModelRegistry, ModelVersion
from vocsep.audio import AUDIO_SUFFIXES, Waveform, decode, encode
from vocsep.config import SpectrogramConfig, validated
from vocsep.model import UNet, build_network
from vocsep.spectrogram import Spectrogram, apply_mask, features

# The network sees blocks of a song, each with this much context on both sides that is thrown away afterwards. Blocks
# start at multiples of the network's strides, and the context is longer than its reach, so that the mask is that of the
# whole song at once.
BLOCK_FRAMES = 1024
CONTEXT_FRAMES = 256

STEMS = ("vocals", "accompaniment")

TINY_POWER = 1e-12


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; `auto` takes CUDA, then Apple's MPS, then the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@torch.inference_mode()
def predict_mask(network: UNet, magnitudes: Spectrogram) -> Spectrogram:
    """Vocals mask for the raw magnitudes of a whole song, both `(channels, frames, bins)` float32.

    A network of one channel sees every channel on its own; one of two sees stereo (mono is doubled, and the mean of
    both masks taken). The masks of a network with two targets, v and a, become the ratio mask v^2 / (v^2 + a^2). The
    network must be in evaluation mode.

    Raises
    ------
    UserError
        If the network's output is not finite.
    """
    device = next(network.parameters()).device
    song = torch.from_numpy(np.ascontiguousarray(magnitudes))
    batch = song[:, None] if network.channels == 1 else song.expand(network.channels, -1, -1)[None]
    frames = batch.shape[2]
    mask = torch.empty_like(batch)
    for start in range(0, frames, BLOCK_FRAMES):
        stop = min(start + BLOCK_FRAMES, frames)
        left = max(0, start - CONTEXT_FRAMES)
        right = min(frames, stop + CONTEXT_FRAMES)
        block = network(batch[:, :, left:right].to(device).contiguous(memory_format=torch.channels_last))
        powers = block[:, :, start - left : stop - left].float().cpu().chunk(network.targets, dim=1)
        mask[:, :, start:stop] = powers[0] if network.targets == 1 else _ratio_mask(*powers)
    if not torch.isfinite(mask).all():
        raise UserError("the network's output holds NaN; the model is broken, name another or train again")
    result = mask[:, 0] if network.channels == 1 else mask[0]
    if len(result) > len(song):
        result = result.mean(dim=0, keepdim=True)
    values: Spectrogram = result.numpy()
    return values


def _ratio_mask(vocals: Tensor, accompaniment: Tensor) -> Tensor:
    """Share of the vocals' power in the power of both; half where both are silent. All of one shape."""
    powers = vocals.square(), accompaniment.square()
    return (powers[0] + TINY_POWER) / (powers[0] + powers[1] + 2 * TINY_POWER)


@dataclass(frozen=True)
class Separator:
    """A trained model, ready to separate waveforms.

    Examples
    --------
    >>> separator = Separator.load(ModelRegistry(Path("data/models")).open("champion"))  # doctest: +SKIP
    >>> stems = separator.separate(waveform, sample_rate=44100)  # doctest: +SKIP
    >>> stems["vocals"].shape == waveform.shape  # doctest: +SKIP
    True
    """

    network: UNet
    spectrogram: SpectrogramConfig

    @classmethod
    def load(cls, model: ModelVersion, device: str = "auto") -> "Separator":
        """Separator of a saved model.

        Raises
        ------
        UserError
            If the model's files are damaged or of a kind that this version does not know.
        """
        where = str(model.path)
        architecture = model.description.get("architecture", {})
        network = build_network(architecture)
        weights = {name: torch.from_numpy(value) for name, value in model.load_weights().items()}
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise UserError(f"{where}: weights do not fit the architecture ({str(error).splitlines()[0]})") from None
        network.to(pick_device(device), memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        spectrogram = validated(SpectrogramConfig, model.description.get("spectrogram"), where)
        return cls(network, spectrogram)

    def mask(self, waveform: Waveform, sample_rate: int) -> Spectrogram:
        """Vocals mask `(channels, model frames, bins)` in [0, 1] of a `(channels, samples)` waveform."""
        magnitudes = np.abs(features(waveform, sample_rate, self.spectrogram))
        return predict_mask(self.network, magnitudes)

    def separate(self, waveform: Waveform, sample_rate: int) -> dict[str, Waveform]:
        """Take a song apart.

        Parameters
        ----------
        waveform
            `(channels, samples)` float32, mono or stereo, any rate and length.
        sample_rate
            Its rate in Hz.

        Returns
        -------
        stems
            `vocals` and `accompaniment`, each of the waveform's own shape and rate; they sum to the waveform.

        Raises
        ------
        UserError
            If the waveform is empty, not finite, or has more than two channels.
        """
        if waveform.ndim != 2 or waveform.size == 0 or len(waveform) > 2 or not np.isfinite(waveform).all():
            raise UserError("a waveform must be (1 or 2 channels, samples), not empty, without NaN or infinite samples")
        vocals = apply_mask(waveform, sample_rate, self.mask(waveform, sample_rate), self.spectrogram)
        return {"vocals": vocals, "accompaniment": waveform - vocals}


def cached_separator(registry: Path, model: str) -> Separator:
    """Separator by registry folder and model name (see `ModelRegistry.open`), kept for this process's next song."""
    opened = ModelRegistry(registry).open(model)
    return _loaded(opened.path.resolve(), opened.description.get("weights_sha256"))


@functools.lru_cache(maxsize=2)
def _loaded(path: Path, digest: str | None) -> Separator:
    """Separator of the model folder whose weights have this digest, so that a moved champion is loaded anew."""
    return Separator.load(ModelRegistry(path.parent).open(str(path)))


def separate_file(path: Path, registry: Path, model: str, output: Path, container: str = "wav") -> list[Path]:
    """Separate an audio file into `<output>/<its name>/{vocals,accompaniment}.<container>`; returns their paths.

    Raises
    ------
    UserError
        If the file or the model cannot be read, or the outputs cannot be written or would replace the input.
    """
    targets = {stem: output / path.stem / f"{stem}.{container}" for stem in STEMS}
    for target in targets.values():
        if target.resolve() == path.resolve():
            raise UserError(f"{path}: the output would replace the input; give another output folder")
    separator = cached_separator(registry, model)
    waveform, sample_rate = decode(path)
    if len(waveform) > 2:
        raise UserError(f"{path}: {len(waveform)} channels; only mono and stereo files can be separated")
    stems = separator.separate(waveform, sample_rate)
    for stem, target in targets.items():
        encode(target, stems[stem], sample_rate)
    return list(targets.values())


def inputs_to_separate(inputs: Iterable[Path], output: Path) -> list[Path]:
    """The files named, and the audio files anywhere below the folders named, in order, but none in `output`.

    Raises
    ------
    UserError
        If an input does not exist, a folder holds no audio files, or two files would have the same outputs.
    """
    files: list[Path] = []
    for entry in inputs:
        if entry.is_dir():
            inside = sorted(path for path in entry.rglob("*") if _is_input(path, output))
            if not inside:
                raise UserError(f"{entry}: no audio files in this folder")
            files += inside
        elif entry.exists():
            files.append(entry)
        else:
            raise UserError(f"{entry}: no such file or folder")
    files = list({path.resolve(): path for path in reversed(files)}.values())[::-1]  # each once, where first named
    by_name: dict[str, Path] = {}
    for path in files:
        if by_name.setdefault(path.stem, path) != path:
            raise UserError(f"{path}: would get the same outputs as {by_name[path.stem]}; separate them one by one")
    return files


def _is_input(path: Path, output: Path) -> bool:
    """Whether a file found in a folder is a song, and not a stem that an earlier run wrote."""
    hidden = path.name.startswith(".")
    is_audio = path.is_file() and path.suffix.lower() in AUDIO_SUFFIXES and not hidden
    return is_audio and not path.resolve().is_relative_to(output.resolve())
