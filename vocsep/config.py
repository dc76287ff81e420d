"""Settings of the spectrogram, as pydantic models, and the named presets."""

from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from storage.errors import UserError

Model = TypeVar("Model", bound=BaseModel)


class Settings(BaseModel):
    """Base of all settings: unknown fields are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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
    """Names of the presets in `vocsep/presets`."""
    return sorted(entry.name.removesuffix(".yaml") for entry in (resources.files("vocsep") / "presets").iterdir())


def load_spectrogram_config(name: str) -> SpectrogramConfig:
    """Spectrogram settings from a preset's name or a YAML file's path.

    Raises
    ------
    UserError
        If there is no such preset or file, or it holds wrong values.
    """
    if name in preset_names():
        text = (resources.files("vocsep") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    elif Path(name).is_file():
        try:
            text = Path(name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{name}: not a text file (UTF-8)") from None
    else:
        raise UserError(f"{name}: no such preset or YAML file; presets are {', '.join(preset_names())}")
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{name}: not YAML ({str(error).splitlines()[0]})") from None
    return validated(SpectrogramConfig, content, name)


def validated(model: type[Model], content: Any, where: str) -> Model:
    """`content` as a `model`, or a `UserError` that names `where`, the field and what is wrong with it."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        # What a check of this project says of all settings together stands for itself.
        place = [where, ".".join(str(part) for part in first["loc"]), first["msg"].removeprefix("Value error, ")]
        raise UserError(": ".join(part for part in place if part)) from None
