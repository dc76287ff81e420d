"""Settings of a spectrogram, and the presets that come with the package."""

from importlib import resources
from typing import Literal

from pydantic import Field, model_validator

from storage.errors import NotFound
from vocsep.config import Settings, load_yaml, validated

PATCH_FRAMES = 128
# Far beyond what is useful: every sample would be computed and stored that many times.
MOST_FRAMES_PER_WINDOW = 64
_PRESETS = resources.files("vocsep.spectrograms") / "presets"


class SpectrogramConfig(Settings):
    """How a waveform becomes a magnitude spectrogram.

    Attributes
    ----------
    sample_rate
        Rate in Hz that audio is resampled to before the STFT.
    channels
        1 mixes every file down to mono, 2 keeps stereo (mono files stay mono).
    n_fft, hop_length
        STFT window (periodic Hann) and step in samples at `sample_rate`.
    dropped_bin
        Which of the `n_fft // 2 + 1` bins is left out to get an even number: `dc` keeps 1..n, `nyquist` 0..n-1, `none`
        keeps all.
    """

    sample_rate: int = Field(ge=1000, le=192_000)
    channels: Literal[1, 2] = 2
    n_fft: int = Field(ge=64, le=65_536)
    hop_length: int = Field(ge=1)
    dropped_bin: Literal["dc", "nyquist", "none"] = "dc"

    @model_validator(mode="after")
    def _check_sizes(self) -> "SpectrogramConfig":
        if self.n_fft % 2:
            raise ValueError(f"n_fft must be even, is {self.n_fft}")
        if self.hop_length >= self.n_fft:
            raise ValueError(f"hop_length ({self.hop_length}) must be smaller than n_fft ({self.n_fft})")
        if self.hop_length < self.n_fft // MOST_FRAMES_PER_WINDOW:
            raise ValueError(
                f"hop_length must be at least {self.n_fft // MOST_FRAMES_PER_WINDOW} for n_fft {self.n_fft}"
            )
        return self

    @property
    def bins(self) -> int:
        """Bins that are kept."""
        return self.n_fft // 2 + (self.dropped_bin == "none")

    @property
    def band_hz(self) -> tuple[float, float]:
        """Edges of the band that the bins cover, half a bin below the first and above the last."""
        hertz_per_bin = self.sample_rate / self.n_fft
        lowest = (0.5 if self.dropped_bin == "dc" else -0.5) * hertz_per_bin
        return lowest, lowest + self.bins * hertz_per_bin

    @property
    def frames_per_second(self) -> float:
        """Frames per second of audio."""
        return self.sample_rate / self.hop_length


def preset_names() -> list[str]:
    """Names of the presets in `vocsep/spectrograms/presets`."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _PRESETS.iterdir())


def load_spectrogram_config(name: str) -> SpectrogramConfig:
    """Spectrogram settings from a preset's name or a YAML file's path.

    Raises `UserError` if there is no such preset or file, or it holds wrong values.
    """
    path = str(_PRESETS / f"{name}.yaml") if name in preset_names() else name
    try:
        return validated(SpectrogramConfig, load_yaml(path), name)
    except NotFound:
        raise NotFound(f"{name}: no such preset or YAML file; presets are {', '.join(preset_names())}") from None
