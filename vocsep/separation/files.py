"""From one audio file to the files of its stems, in constant memory."""

import contextlib
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from storage.errors import UserError, one_line
from vocsep.arrays import Waveform
from vocsep.audio.damage import DamagedSound
from vocsep.audio.formats import check_format
from vocsep.audio.info import AudioInfo
from vocsep.audio.reading import audio_info, decode_blocks
from vocsep.audio.writing import AudioWriter
from vocsep.models.masks import Groups
from vocsep.progress import Progress
from vocsep.separation.drawing import Drawing
from vocsep.separation.excerpt import excerpt_info, excerpt_samples
from vocsep.separation.listening import Listening
from vocsep.separation.outputs import PAGE, PICTURE, output_path, output_paths
from vocsep.separation.settings import Clip, SeparationSettings
from vocsep.separation.stream import SongSeparator
from vocsep.separation.unfinished import made_folders, unfinished_folder

# In Hz. Below, resampling would make of each block what fills the memory; above is no sound.
_RATES = (1000, 768_000)


@dataclass(frozen=True)
class Separated:
    """What became of one file.

    Attributes
    ----------
    outputs
        Stem to file.
    seconds, wall_seconds
        Length of the song, and what separating it took (0 if it was skipped).
    is_new
        False if all its files were there already.
    clipped_samples
        Samples of all stems that were beyond full scale and were cut off.
    gain
        What all stems were multiplied with, so that none is beyond full scale; 1 unless `clip` is `rescale`.
    picture, page
        The spectrograms, and the page to listen to, if they were asked for.
    """

    path: Path
    outputs: dict[str, Path]
    sample_rate: int
    channels: int
    seconds: float
    wall_seconds: float = 0.0
    is_new: bool = True
    clipped_samples: int = 0
    gain: float = 1.0
    picture: Path | None = None
    page: Path | None = None

    @property
    def files(self) -> list[Path]:
        """Stems, picture and page."""
        return [*self.outputs.values(), *filter(None, (self.picture, self.page))]

    def line(self) -> str:
        """For people."""
        files = ", ".join(map(str, self.files))
        if not self.is_new:
            return f"{self.path}: already separated (--overwrite does it again): {files}"
        speed = f"{self.seconds:.1f} s in {self.wall_seconds:.1f} s, {self.seconds / self.wall_seconds:.0f} x real time"
        notes = ""
        if self.clipped_samples:
            notes = f"; {self.clipped_samples} samples beyond full scale were cut off, see --clip"
        if self.gain != 1:
            notes += f"; all stems made {-20 * np.log10(self.gain):.2f} dB quieter"
        return f"{self.path}: {files} ({speed}{notes})"


def separate_file(
    path: Path,
    output: Path,
    separator: SongSeparator,
    settings: SeparationSettings | None = None,
    progress: Progress = lambda done, total: None,
) -> Separated:
    """Separate an audio file; its stems have its rate, channels, exact length, tags and cover picture.

    Files are written under temporary names and renamed at the end, all or none.

    Raises `UserError` if the file cannot be read, or the outputs cannot be written or would replace the input.
    """
    settings = settings or SeparationSettings()
    begin = time.perf_counter()
    outputs = output_paths(path, settings.stems, output, settings.file_name, settings.format)
    picture = output_path(path, PICTURE, output, settings.file_name, "png") if settings.plot else None
    page = output_path(path, PAGE, output, settings.file_name, "html") if settings.page else None
    info = excerpt_info(audio_info(path, settings.audio_track), settings.start, settings.duration)
    result = Separated(path, outputs, info.sample_rate, info.channels, info.seconds, picture=picture, page=page)
    there = [_is_there(file) for file in result.files]
    if all(there) and not settings.overwrite:
        return replace(result, is_new=False)
    if not _RATES[0] <= info.sample_rate <= _RATES[1]:
        raise UserError(
            f"{path}: a sample rate of {info.sample_rate} Hz cannot be separated, only {_RATES[0]} to {_RATES[1]}"
        )
    check_format(path, settings.format, settings.bit_depth, info, settings.bit_rate)
    shown: dict[Path, Drawing | Listening] = {}
    if picture:
        shown[picture] = Drawing(info, separator.spectrogram)
    if page:
        shown[page] = Listening(info, separator.spectrogram)
    gain = 1.0
    with contextlib.ExitStack() as stack:
        stack.enter_context(made_folders([output, *(file.parent for file in result.files)]))
        folder = stack.enter_context(unfinished_folder(output))
        writers = {
            stem: stack.enter_context(
                AudioWriter(file, settings.format, info, settings.bit_depth, folder, settings.bit_rate)
            )
            for stem, file in outputs.items()
        }
        if settings.clip == "rescale":
            rough = {stem: AudioWriter(folder / f"{stem}.wav", "wav", info) for stem in outputs}
            with contextlib.ExitStack() as rough_stack:
                for each in rough.values():
                    rough_stack.enter_context(each)
                samples, peak = _write(path, info, separator, rough, shown.values(), progress, settings)
            if peak > 1:  # rounded down, or the greatest sample would be beyond 1 again
                gain = float(np.nextafter(np.float32(1 / peak), np.float32(0)))
            for stem, writer in writers.items():
                for block in decode_blocks(rough[stem].path):
                    writer.write(block.waveforms[0] * np.float32(gain))
        else:
            samples, _ = _write(path, info, separator, writers, shown.values(), progress, settings)
        for writer in writers.values():
            writer.finish()
        for file, content in shown.items():
            unfinished = folder / f"shown{file.suffix}"
            content.write(unfinished)
            unfinished.replace(file)
    return replace(
        result,
        seconds=samples / info.sample_rate,
        wall_seconds=time.perf_counter() - begin,
        clipped_samples=sum(writer.clipped for writer in writers.values()),
        gain=gain,
    )


def _is_there(file: Path) -> bool:
    try:
        if file.is_dir():
            raise UserError(f"{file}: is a folder; give another output folder or --name")
        return file.is_file()
    except OSError as error:  # a name that is too long, or a folder that must not be looked into
        raise one_line(file, "written", error) from None


def _write(
    path: Path,
    info: AudioInfo,
    separator: SongSeparator,
    writers: dict[str, AudioWriter],
    shown: Iterable[Drawing | Listening],
    progress: Progress,
    settings: SeparationSettings,
) -> tuple[int, float]:
    """Separate a file into writers; returns how many samples it has and, for `rescale`, the greatest of all stems."""
    samples, peak = 0, 0.0
    groups = channel_groups(info.channel_names)
    stream = separator.stream(_blocks(path, info, settings), info.sample_rate, groups)
    with ThreadPoolExecutor(len(writers)) as encoders, contextlib.closing(stream) as parts:
        # A part is encoded, every stem on its own thread, while the next one is made.
        encoding: list[Future[float]] = []
        for part in parts:
            rest = part.mixture - part.vocals
            stems = {"vocals": part.vocals, "accompaniment": rest, "instrumental": rest}
            peak = max(peak, *(future.result() for future in encoding), 0.0)
            encoding = [
                encoders.submit(_encode, writer, stems[stem], settings.clip) for stem, writer in writers.items()
            ]
            for content in shown:
                content.add(part)
            samples += part.mixture.shape[1]
            progress(samples / info.sample_rate, info.seconds)
        peak = max(peak, *(future.result() for future in encoding))
    return samples, peak


def _encode(writer: AudioWriter, stem: Waveform, clip: Clip) -> float:
    """Write a part of a stem; returns its greatest sample if that is wanted."""
    writer.write(stem.clip(-1, 1) if clip == "clamp" else stem)
    return float(np.abs(stem).max(initial=0.0)) if clip == "rescale" else 0.0


def _blocks(path: Path, info: AudioInfo, settings: SeparationSettings) -> Iterator[Waveform]:
    """A song or its excerpt, block by block, which is what its file says; what comes after an excerpt is not read."""
    first, left = excerpt_samples(info.sample_rate, settings.start, settings.duration)
    accept_damaged = settings.accept_damaged
    try:
        for block in decode_blocks(path, (info.stream,), accept_damaged=accept_damaged, start=first):
            waveform = block.waveforms[0]
            if (len(waveform), block.sample_rate) != (info.channels, info.sample_rate):
                raise UserError(
                    f"{path}: damaged, says {info.channels} channels at {info.sample_rate} Hz and holds "
                    f"{len(waveform)} at {block.sample_rate} Hz"
                )
            yield waveform[:, :left]
            if left is not None:
                left -= waveform.shape[1]
                if left <= 0:
                    return
    except DamagedSound as error:
        raise UserError(f"{error}; --accept-damaged separates what there is") from None


def channel_groups(names: tuple[str, ...]) -> Groups:
    """Channels that belong together: left and right of one kind (FL and FR, SL and SR, ...); every other one is alone.

    >>> channel_groups(("FL", "FR", "FC", "LFE", "BL", "BR"))
    [(0, 1), (2,), (3,), (4, 5)]
    """
    groups: list[tuple[int, ...]] = []
    for index, name in enumerate(names):
        other = name[::-1].replace("L", "R", 1)[::-1]
        if name.endswith(("L", "LC")) and other in names:
            groups.append((index, names.index(other)))
    paired = {index for group in groups for index in group}
    return sorted([*groups, *((index,) for index in range(len(names)) if index not in paired)])
