"""Songs as files, and what separating them gives."""

from pathlib import Path
from typing import Any

import pytest
import soundfile

from storage.errors import UserError
from vocsep.arrays import Waveform
from vocsep.audio.reading import decode
from vocsep.separation.files import Separated, separate_file
from vocsep.separation.separator import Separator
from vocsep.separation.settings import SeparationSettings

STEMS = ["vocals", "accompaniment"]


def write_wav(path: Path, waveform: Waveform, sample_rate: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform.T, sample_rate, subtype="FLOAT")
    return path


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


def separated(path: Path, output: Path, separator: Separator, **settings: Any) -> tuple[Separated, dict[str, Waveform]]:
    """Result, and the stems as soundfile or FFmpeg reads them."""
    result = separate_file(path, output, separator, SeparationSettings(**settings))
    assert list(result.outputs) == list(settings.get("stems", STEMS))
    assert files_in(output) == sorted(result.outputs.values())
    return result, {stem: decode(file)[0] for stem, file in result.outputs.items()}


def refused(path: Path, output: Path, separator: Separator, **settings: Any) -> str:
    """The one line; nothing was written."""
    before = files_in(output)
    with pytest.raises(UserError) as error:
        separate_file(path, output, separator, SeparationSettings(**settings))
    assert "\n" not in str(error.value)
    assert files_in(output) == before
    return str(error.value)
