"""How songs are separated, as one settings model: of the command line, of the flow, and of Python."""

from string import Formatter
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from vocsep.audio.formats import AudioFormat, BitDepth, BitRate
from vocsep.config import Settings
from vocsep.models.masks import MOST_OVERLAP
from vocsep.models.network import EngineName
from vocsep.models.precision import WantedPrecision
from vocsep.separation.excerpt import Seconds, excerpt_label
from vocsep.separation.outputs import OUTPUT_FIELDS

Clip = Literal["none", "clamp", "rescale"]
Stem = Literal["vocals", "accompaniment", "instrumental"]
"""The instrumental is the accompaniment by another name; its file is called what it was asked for as."""
Preset = Literal["fast", "best"]
_PRESETS: dict[str, dict[str, str]] = {"fast": {"precision": "auto"}, "best": {"precision": "32"}}


class SeparationSettings(Settings):
    """What is written of each song, and how it is made."""

    stems: tuple[Stem, ...] = Field(
        default=("vocals", "accompaniment"),
        min_length=1,
        description="Stems to write, separated by commas; instrumental is another name for accompaniment.",
    )
    format: AudioFormat = Field(default="wav", description="wav, flac, mp3, ogg or m4a.")
    bit_depth: BitDepth | None = Field(default=None, description="16, 24 or 32f; wav: default 32f, flac: default 24.")
    bit_rate: BitRate | None = Field(
        default=None,
        description="64 to 320 kbit/s: constant for mp3 (default: best VBR) and m4a (default 256), variable for ogg "
        "(default 256).",
    )
    start: Seconds = Field(default=0.0, description="Start of an excerpt of each song, as seconds or minutes:seconds.")
    duration: Seconds | None = Field(
        default=None, gt=0, description="Length of the excerpt, as seconds or minutes:seconds (default: to the end)."
    )
    name: str = Field(
        default="{track}/{stem}",
        description="Path of a stem in OUTPUT, without ending; {track}, {stem}, {folder} and {suffix} are filled in.",
    )
    clip: Clip = Field(
        default="none",
        description="Samples beyond full scale. none: kept where the format can; clamp: cut off; rescale: all stems of "
        "such a song are turned down alike.",
    )
    overlap: float = Field(
        default=0.0, ge=0.0, le=MOST_OVERLAP, description="Share by which patches overlap; 0: the whole song at once."
    )
    wiener: bool = Field(default=False, description="Refine with the multichannel Wiener filter.")
    accept_damaged: bool = Field(default=False, description="Separate what is left of truncated or damaged files.")
    audio_track: int | None = Field(
        default=None, ge=1, description="Audio track of a file, counted from 1 (default: the one that players choose)."
    )
    plot: bool = Field(default=False, description="Draw the spectrograms of every song next to its stems.")
    page: bool = Field(
        default=False,
        description="Write listen.html next to the stems, in which any browser plays mixture and stems in step; "
        "one file of about 3 MB a minute, 20 minutes at most.",
    )
    overwrite: bool = Field(default=False, description="Separate songs again whose stems exist.")
    model: str = Field(
        default="champion",
        description="champion, latest, bundled, a version's number, a model folder or a file of vocsep export.",
    )
    engine: EngineName = Field(default="torch", description="torch, or onnx (of an exported model, without torch).")
    device: str = Field(default="auto", description="auto, cpu, cuda or mps.")
    precision: WantedPrecision = Field(
        default="auto", description="For torch: auto (bfloat16 where it is native, which is faster), 32 or bf16."
    )

    preset: Preset | None = Field(
        default=None,
        description="fast (the default): precision auto. best: precision 32, slower where auto is bfloat16, hardly any "
        "better. Options given as well win.",
    )

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return _PRESETS.get(str(values.get("preset")), {}) | values

    @field_validator("stems")
    @classmethod
    def _check_stems(cls, stems: tuple[str, ...]) -> tuple[str, ...]:
        if len({"accompaniment" if stem == "instrumental" else stem for stem in stems}) < len(stems):
            raise ValueError("a stem is named twice")
        return stems

    @model_validator(mode="after")
    def _check_name(self) -> "SeparationSettings":
        try:
            parsed = list(Formatter().parse(self.name))
        except ValueError as error:
            raise ValueError(f"name: {error}") from None
        fields = {field for _, field, _, _ in parsed if field is not None}
        if fields - set(OUTPUT_FIELDS) or any(conversion or spec for _, _, spec, conversion in parsed):
            known = ", ".join(f"{{{field}}}" for field in OUTPUT_FIELDS)
            raise ValueError(f"name: only {known} can be in braces")
        if "stem" not in fields and len(self.stems) > 1:
            raise ValueError("name: must hold {stem}, or the stems would overwrite each other")
        return self

    @property
    def file_name(self) -> str:
        """The template `name`, with an excerpt's place behind the song's name, so that it is not the whole song's."""
        return self.name.replace("{track}", "{track}" + excerpt_label(self.start, self.duration))
