"""Separating a song of any length block by block: samples in, vocals out, on several threads.

A song is cut into segments, each a block of the model's frames. One thread decodes, resamples and transforms; each
segment then goes through the network, and its mask onto the STFT of the file at its own rate, on its own thread;
the result is overlapped and added in order. The segments' borders leave no trace: every one of them has the
context that the network reaches, and the samples that its frames cover.
"""

import contextlib
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from vocsep.arrays import Spectrogram, Waveform
from vocsep.audio.resampling import Resampler
from vocsep.models import masks
from vocsep.models.masks import Groups
from vocsep.separation.wiener import wiener
from vocsep.spectrograms.config import SpectrogramConfig
from vocsep.spectrograms.features import drop_bin
from vocsep.spectrograms.fft import SCIPY, Transforms
from vocsep.spectrograms.masking import multiply_mask, own_rate_stft
from vocsep.spectrograms.stft import stft_blocks, stft_window, transform

BlockMask = Callable[[Spectrogram, int, slice], Spectrogram]
"""`masks.predict_block` of a network: magnitudes with context, their first frame, and the frames of the block."""

MASKED_FRAMES = 32
"""Frames of the file's own STFT that a mask is applied to at once; more take memory and no less time."""
WIENER_FRAMES = 256
"""Frames that the Wiener filter takes one spatial model from, as many as Open-Unmix does or about 6 s."""


@dataclass(frozen=True)
class Segment:
    """One block of a song on its way through.

    Attributes
    ----------
    magnitudes
        `(channels of the preset, frames, bins)` from the model's frame `first_frame` on: the block with its context.
    block
        The model's frames that the segment is made of.
    masked
        Those that a mask is needed for: one more if the song continues, since its frames are between two of the model.
    own_frames
        Frames of the file's own STFT that are in the block.
    waveform
        `(channels, samples)`: what the own frames cover, with zeros before the song and after it.
    finished
        Samples of the song, within the waveform, that no later frame reaches and no earlier segment finished.
    """

    magnitudes: Spectrogram
    first_frame: int
    block: slice
    masked: slice
    own_frames: slice
    waveform: Waveform
    finished: slice


Filtered = tuple[Segment, Waveform, Spectrogram]
"""A segment, its vocals as windowed frames, overlapped and added, and the mask of its masked frames."""


@dataclass(frozen=True)
class Part:
    """The next part of a song.

    Attributes
    ----------
    mixture, vocals
        `(channels, samples)` each.
    magnitudes, mask
        `(channels of the preset, frames, bins)`: what the model saw of it, without context, and predicted.
    """

    mixture: Waveform
    vocals: Waveform
    magnitudes: Spectrogram
    mask: Spectrogram


@dataclass
class _Kept:
    """Samples that came in and are still needed."""

    blocks: list[Waveform] = field(default_factory=list)
    start: int = 0  # of the first block that is left
    stop: int = 0

    def append(self, block: Waveform) -> None:
        self.blocks.append(block)
        self.stop += block.shape[1]

    def take(self, start: int, stop: int) -> Waveform:
        """Samples from `start` to `stop`, zeros where there are none."""
        taken = np.empty((len(self.blocks[0]), stop - start), dtype=np.float32)
        taken[:, : max(0, -start)] = 0
        taken[:, max(0, self.stop - start) :] = 0
        position = self.start
        for block in self.blocks:
            inside = slice(max(start, position), min(stop, position + block.shape[1]))
            if inside.start < inside.stop:
                taken[:, inside.start - start : inside.stop - start] = block[
                    :, inside.start - position : inside.stop - position
                ]
            position += block.shape[1]
        return taken

    def drop_before(self, start: int) -> None:
        """Forget whole blocks before `start`."""
        while len(self.blocks) > 1 and self.start + self.blocks[0].shape[1] <= start:
            self.start += self.blocks.pop(0).shape[1]


def segments(
    blocks: Iterable[Waveform], sample_rate: int, config: SpectrogramConfig, context_frames: int
) -> Iterator[Segment]:
    """Cut a song that comes in blocks of `(channels, samples)` into segments; memory stays that of a few.

    There is at least one block with at least one sample. Magnitudes have `context_frames` more on both sides.
    """
    n_fft, hop_length = own_rate_stft(sample_rate, config)
    own_per_frame = (sample_rate * config.hop_length) / (config.sample_rate * hop_length)
    kept = _Kept()

    def at_preset_rate() -> Iterator[Waveform]:
        resampler = None
        for block in blocks:
            kept.append(block)
            seen = block.mean(axis=0, keepdims=True) if config.channels == 1 else block
            resampler = resampler or Resampler(len(seen), sample_rate, config.sample_rate)
            yield resampler.process(seen)
        assert resampler is not None
        yield resampler.process(seen[:, :0], last=True)

    def first_own_frame(frame: int) -> int:
        return int(np.ceil(frame * own_per_frame - 1e-9))

    magnitudes: list[Spectrogram] = []
    first = total = start = 0  # the frame that the magnitudes begin with, how many came in all, the next block's first

    def cut(stop: int, is_last: bool) -> Segment:
        nonlocal magnitudes, first, start
        joined = np.concatenate(magnitudes, axis=1)
        left = max(0, start - context_frames)
        own_start = first_own_frame(start)
        own_stop = max(own_start, 1 + kept.stop // hop_length) if is_last else first_own_frame(stop)
        # A frame is centered: it covers half a window before its sample and after it.
        begin, end = own_start * hop_length - n_fft // 2, (own_stop - 1) * hop_length + n_fft // 2
        finished = kept.stop if is_last else own_stop * hop_length - n_fft // 2
        segment = Segment(
            joined[:, left - first : stop + 1 + context_frames - first],
            left,
            slice(start, stop),
            slice(start, min(stop + 1, total)),
            slice(own_start, own_stop),
            kept.take(begin, end),
            slice(max(0, begin) - begin, finished - begin),
        )
        start, first = stop, max(0, stop - context_frames)
        magnitudes = [joined[:, first - total :].copy()]
        kept.drop_before(finished)
        return segment

    for spectrum in stft_blocks(at_preset_rate(), config.n_fft, config.hop_length):
        block = np.abs(drop_bin(spectrum, config))
        magnitudes.append(block)
        total += block.shape[1]
        while total > start + masks.BLOCK_FRAMES + context_frames + 1:
            yield cut(start + masks.BLOCK_FRAMES, is_last=False)
    while start + masks.BLOCK_FRAMES < total:
        yield cut(start + masks.BLOCK_FRAMES, is_last=False)
    yield cut(total, is_last=True)


def filter_segment(
    segment: Segment,
    sample_rate: int,
    config: SpectrogramConfig,
    groups: Groups,
    block_mask: BlockMask,
    refine: bool,
    transforms: Transforms,
) -> Filtered:
    """Predict a segment's mask and apply it to the frames of its waveform (see `separate_stream`)."""
    mask = block_mask(segment.magnitudes, segment.first_frame, segment.masked)
    n_fft, hop_length = own_rate_stft(sample_rate, config)
    window = stft_window(n_fft)
    first = segment.own_frames.start
    vocals = np.zeros(segment.waveform.shape, dtype=np.float32)
    done = 0
    at_once = WIENER_FRAMES if refine else MASKED_FRAMES
    for spectrum in transform(segment.waveform, window, hop_length, at_once, transforms):
        estimate = spectrum.copy() if refine else spectrum
        multiply_mask(estimate, mask, sample_rate, config, own_frame=first + done, first_frame=segment.block.start)
        if refine:
            estimate = wiener(spectrum, estimate, groups)
        overlap_add(transforms.irfft(estimate, n_fft), window, vocals[:, done * hop_length :], hop_length, transforms)
        done += spectrum.shape[-2]
    return segment, vocals, mask


@lru_cache(maxsize=1)
def _weight(count: int, n_fft: int, hop_length: int) -> Waveform:
    """The squares of the windows of `count` frames, overlapped and added."""
    weight = np.zeros((1, (count - 1) * hop_length + n_fft), dtype=np.float32)
    window = stft_window(n_fft)
    if count:
        overlap_add(np.broadcast_to(window, (1, count, n_fft)), window, weight, hop_length, SCIPY)
    weight.flags.writeable = False  # it is kept
    one: Waveform = weight[0]
    return one


def overlap_add(
    frames: Waveform, window: Waveform, waveform: Waveform, hop_length: int, transforms: Transforms
) -> None:
    """Add windowed frames `(channels, frames, samples)`, each `hop_length` later than the last, onto a waveform."""
    _, count, length = frames.shape
    for start in range(0, length, hop_length):
        piece = slice(start, min(start + hop_length, length))
        # Row t of this view is where the piece of frame t belongs.
        rows = sliding_window_view(waveform[:, start:], piece.stop - start, axis=1, writeable=True)[:, ::hop_length]
        transforms.add_product(rows[:, :count], frames[..., piece], window[piece])


def join(filtered: Iterable[Filtered], n_fft: int, hop_length: int) -> Iterator[Part]:
    """Add the overlaps of segments that come in order; nothing is lost or doubled."""
    tail = weight_tail = np.empty(0, dtype=np.float32)  # of the segment before
    for segment, vocals, mask in filtered:
        count = segment.own_frames.stop - segment.own_frames.start
        weight = _weight(count, n_fft, hop_length).copy()
        if weight_tail.size:
            vocals[:, : len(weight_tail)] += tail
            weight[: len(weight_tail)] += weight_tail
        length = count * hop_length
        tail, weight_tail = vocals[:, length:].copy(), weight[length:].copy()
        here = segment.finished
        np.divide(vocals[:, here], weight[here], out=vocals[:, here])
        inside = slice(segment.block.start - segment.first_frame, segment.block.stop - segment.first_frame)
        own_mask = mask[:, : inside.stop - inside.start]
        yield Part(segment.waveform[:, here], vocals[:, here], segment.magnitudes[:, inside], own_mask)


class SongSeparator(Protocol):
    """What turns the blocks of a song into the parts of its stems: a `Separator`."""

    @property
    def spectrogram(self) -> SpectrogramConfig:
        """Of the model."""
        ...

    def stream(self, blocks: Iterable[Waveform], sample_rate: int, groups: Groups) -> Generator[Part]:
        """See `Separator.stream`."""
        ...


def separate_stream(
    blocks: Iterable[Waveform],
    sample_rate: int,
    config: SpectrogramConfig,
    groups: Groups,
    block_mask: BlockMask,
    *,
    context_frames: int,
    refine: bool,
    transforms: Transforms,
    jobs: int,
) -> Iterator[Part]:
    """Separate a song that comes in blocks, `(channels, samples)` float32 each, at least one sample in all.

    Parameters
    ----------
    groups
        Channels of the file that belong together (see `masks.Groups`).
    context_frames
        What `block_mask` needs on both sides of a block.
    refine
        Whether the multichannel Wiener filter refines the vocals; else the mask is applied as it is.
    transforms
        What transforms the frames.
    jobs
        Segments that are computed at a time, each on its own thread.
    """

    def filtered(workers: Executor) -> Iterator[Filtered]:
        waiting: deque[Future[Filtered]] = deque()
        try:
            for segment in segments(blocks, sample_rate, config, context_frames):
                waiting.append(
                    workers.submit(filter_segment, segment, sample_rate, config, groups, block_mask, refine, transforms)
                )
                while len(waiting) >= jobs + 2 or (waiting and waiting[0].done()):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    with _single_threads(jobs) as workers:
        yield from join(filtered(workers), *own_rate_stft(sample_rate, config))


@contextlib.contextmanager
def _single_threads(count: int) -> Iterator[Executor]:
    """Threads that each compute a segment on a separate core; more within would only wait for each other."""
    torch: Any = sys.modules.get("torch")
    initializer = {"initializer": torch.set_num_threads, "initargs": (1,)} if torch else {}
    try:
        with ThreadPoolExecutor(count, **initializer) as workers:
            yield workers
    finally:
        if torch:  # threads that the program starts later would begin with one, too
            torch.set_num_threads(torch.get_num_threads())
