"""The sources of a song, read from its files block by block."""

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from storage.errors import UserError
from vocsep.arrays import Waveform
from vocsep.audio.reading import Block, decode_blocks
from vocsep.datasets.songs import AudioSource, Song
from vocsep.datasets.sums import StemSums

LENGTH_TOLERANCE_SECONDS = 0.1


def read_sources(song: Song, names: Iterable[str]) -> tuple[dict[str, Waveform], int]:
    """Whole sources of a song and their sample rate: the blocks of `source_blocks`, joined."""
    names = tuple(names)
    blocks = list(source_blocks(song, names))
    waveforms = {name: np.concatenate([block[name] for block, _ in blocks], axis=1) for name in names}
    return waveforms, blocks[0][1]


def source_blocks(song: Song, names: Iterable[str]) -> Iterator[tuple[dict[str, Waveform], int]]:
    """Read sources of a song block by block, decoding every file once and only the streams that are needed.

    Parameters
    ----------
    names
        Of `mixture`, `vocals`, `accompaniment`.

    Yields
    ------
    waveforms, sample_rate
        Name to `(channels, samples)` float32, all of one shape (mono parts of a stereo song are in both channels;
        parts that end up to 0.1 s early are padded with zeros), at the song's own rate in Hz.

    Raises
    ------
    UserError
        If a file cannot be read, rates, channels or lengths of the parts do not go together, or they do not add up; of
        lengths, sums and damaged files that may show after the last block.
    """
    names = tuple(names)
    wanted: dict[str, tuple[AudioSource, ...]] = {name: getattr(song, name) for name in names}
    by_difference = "accompaniment" in wanted and not wanted["accompaniment"]
    if by_difference:
        wanted = {"mixture": song.mixture, "vocals": song.vocals}
    lengths: Counter[AudioSource] = Counter()
    sums = StemSums(song) if song.told_by_names and "vocals" in names else None
    needed = {part for source in wanted.values() for part in source}
    for parts, rates in _part_blocks(needed.union(sums.parts if sums else ())):
        if len(rates) != 1:
            differing = ", ".join(map(str, sorted(rates)))
            raise UserError(f"{song.name}: its files have different sample rates ({differing})")
        (sample_rate,) = rates
        channels = max(len(waveform) for waveform in parts.values())
        if any(len(waveform) not in (1, channels) for waveform in parts.values()):
            raise UserError(f"{song.name}: its files have channel counts that do not go together")
        lengths.update({part: waveform.shape[1] for part, waveform in parts.items()})
        shape = (channels, max(waveform.shape[1] for waveform in parts.values()))
        if sums:
            sums.add(parts, shape)
        waveforms = {name: _sum([parts[part] for part in source], shape) for name, source in wanted.items()}
        if by_difference:
            waveforms["accompaniment"] = waveforms["mixture"] - waveforms["vocals"]
        yield {name: waveforms[name] for name in names}, sample_rate
    shortest, longest = min(lengths.values()) / sample_rate, max(lengths.values()) / sample_rate
    if longest - shortest > LENGTH_TOLERANCE_SECONDS:
        raise UserError(f"{song.name}: its sources differ in length ({shortest:.2f} s and {longest:.2f} s)")
    if sums:
        sums.check()


def _sum(parts: list[Waveform], shape: tuple[int, int]) -> Waveform:
    """Sum of waveforms as `shape`: one channel is used for all, zeros follow the end."""
    if len(parts) == 1 and parts[0].shape == shape:
        return parts[0]
    total = np.zeros(shape, dtype=np.float32)
    for part in parts:
        total[:, : part.shape[1]] += part
    return total


def _part_blocks(parts: set[AudioSource]) -> Iterator[tuple[dict[AudioSource, Waveform], set[int]]]:
    """Blocks of several parts, all files side by side, and the files' sample rates; parts that have ended are empty."""
    paths = sorted({part.path for part in parts})
    streams = {path: tuple(sorted({part.stream for part in parts if part.path == path})) for path in paths}
    for blocks in zip(*(_endless(decode_blocks(path, streams[path])) for path in paths), strict=True):
        if not any(waveform.size for block in blocks for waveform in block.waveforms):
            return
        decoded = {
            (path, stream): waveform
            for path, block in zip(paths, blocks, strict=True)
            for stream, waveform in zip(streams[path], block.waveforms, strict=True)
        }
        yield {part: _channel(decoded[part.path, part.stream], part) for part in parts}, {b.sample_rate for b in blocks}


def _endless(blocks: Iterator[Block]) -> Iterator[Block]:
    """All blocks, then empty ones."""
    for block in blocks:
        yield block
    empty = Block([waveform[:, :0] for waveform in block.waveforms], block.sample_rate)
    while True:
        yield empty


def _channel(waveform: Waveform, part: AudioSource) -> Waveform:
    """The channel of a decoded waveform that a part is made of, or all."""
    if part.channel is None:
        return waveform
    if len(waveform) != 2:
        raise UserError(f"{part.path}: {len(waveform)} channels, a karaoke file has two")
    return waveform[part.channel : part.channel + 1]
