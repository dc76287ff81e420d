"""The doctor's look at the songs of a store: are they intact, do they fit together, is there something to learn?"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from storage.errors import UserError
from storage.manifest import SPECTROGRAMS, TrackRecord
from storage.store import SpectrogramStore
from vocsep.arrays import Spectrogram
from vocsep.doctor.finding import Finding, judged
from vocsep.preprocessing.config import spectrogram_config
from vocsep.training.checks import check_songs
from vocsep.training.config import TrainConfig
from vocsep.training.description import training_digest

# Of a long song, blocks from all over it are looked at.
FRAMES, BLOCKS = 2048, 16
# Values this far below a song's loudest one are ignored: storing in float16 rounds it.
AUDIBLE_DB = -60.0
# Rounding of three magnitudes that are stored in float16, as a share of them.
ROUNDING = 3e-3
BASS_HERTZ = 100.0


@dataclass(frozen=True)
class SongFigures:
    """What was measured of a song."""

    name: str
    silent_share: float
    mixture_level: float
    torn_share: float
    vocals_bass: float
    accompaniment_bass: float


def examine_songs(store: SpectrogramStore, config: TrainConfig) -> list[Finding]:
    """All checks of the songs that training reads."""
    songs = [(track.name, measure(store, track)) for split in ("train", "valid") for track in store.tracks(split)]
    sound = [figures for _, figures in songs if figures is not None]
    bad = [name for name, figures in songs if figures is None]
    findings = [store_finding(store), split_finding(store, config), finite_finding(bad, len(songs))]
    if sound:
        findings += [sum_finding(sound), swap_finding(sound), silence_finding(sound), level_finding(sound)]
    return findings


def measure(store: SpectrogramStore, track: TrackRecord) -> SongFigures | None:
    """Figures of one song, from at most `FRAMES` of its frames; None where it holds numbers that are not finite."""
    parts = mixture, vocals, accompaniment = [_excerpt(store, track, source) for source in SPECTROGRAMS]
    if not all(np.isfinite(part).all() for part in parts):
        return None
    loudest = max(float(part.max(initial=0.0)) for part in parts)
    audible = loudest * 10 ** (AUDIBLE_DB / 20)
    # The sides of a triangle: mixture, vocals and accompaniment are complex numbers of which one is the others' sum.
    total = mixture + vocals + accompaniment
    torn = 2 * np.maximum(np.maximum(mixture, vocals), accompaniment) > total * (1 + ROUNDING) + audible
    heard = total > 4 * audible
    bass = max(1, round(BASS_HERTZ * spectrogram_config(store).n_fft / spectrogram_config(store).sample_rate))
    return SongFigures(
        name=track.name,
        silent_share=float((vocals.max(axis=(0, 2)) <= audible).mean()) if loudest > 0 else 1.0,
        mixture_level=float(np.sqrt(np.square(mixture).mean())),
        torn_share=float((torn & heard).sum() / max(1, heard.sum())),
        vocals_bass=_share_below(vocals, bass),
        accompaniment_bass=_share_below(accompaniment, bass),
    )


def store_finding(store: SpectrogramStore) -> Finding:
    """Which songs were looked at."""
    train, valid = store.tracks("train"), store.tracks("valid")
    hours = sum(track.seconds for track in (*train, *valid)) / 3600
    digest = training_digest(store)[:16]
    return judged(
        "store",
        f"{len(train)} training and {len(valid)} validation songs, {hours:.2f} hours, data digest {digest}",
        sound="Two trainings can be compared only if this digest is the same.",
        values={"train": len(train), "valid": len(valid), "hours": hours, "digest": digest},
    )


def split_finding(store: SpectrogramStore, config: TrainConfig) -> Finding:
    """Songs in both splits, by name, by their files or by their stored bytes."""
    train, valid = (
        [(track.arrays["mixture"].crc32c, track.name) for track in store.tracks(split)] for split in ("train", "valid")
    )
    held = dict(train)
    twins = [(name, held[checksum]) for checksum, name in valid if checksum in held]
    try:
        check_songs(store, config)
        problem = f"{twins[0][0]!r} is stored in both splits (as {twins[0][1]!r} for training)" if twins else ""
    except UserError as error:
        problem = str(error)
    advice = "Move or remove songs: a model is scored on songs that it was trained on, or cannot be scored at all."
    return judged(
        "splits",
        problem or "no validation song is also a training song",
        (problem != "", "fail", advice),
        sound="Validation scores say how the model does on songs that it has not seen.",
        values={"in both": len(twins)},
    )


def finite_finding(bad: list[str], songs: int) -> Finding:
    """Numbers that are not finite."""
    advice = "One NaN spoils all weights at once: make these songs again, and run `vocsep store verify`."
    return judged(
        "finite",
        f"not finite: {', '.join(bad)}" if bad else f"all values of {songs} songs are finite",
        (bool(bad), "fail", advice),
        sound="No song can spoil the weights.",
        values={"songs": bad},
    )


def sum_finding(songs: list[SongFigures]) -> Finding:
    """Mixture, vocals and accompaniment that cannot belong together."""
    torn = max(songs, key=lambda song: song.torn_share)
    share = float(np.mean([song.torn_share for song in songs]))
    advice = (
        "Target and input do not belong together, by time, level or song: preprocess again, and look at one with "
        "`vocsep store plot`."
    )
    return judged(
        "sum of stems",
        f"{share:.2%} of the audible values cannot be the sum of their stems (most in {torn.name!r}: "
        f"{torn.torn_share:.2%})",
        (torn.torn_share > 0.02, "fail", advice),
        sound="The targets belong to the inputs.",
        values={"share": share, "worst": torn.torn_share, "song": torn.name},
    )


def swap_finding(songs: list[SongFigures]) -> Finding:
    """Vocals that have more bass than the accompaniment."""
    known = [song for song in songs if np.isfinite(song.vocals_bass) and np.isfinite(song.accompaniment_bass)]
    swapped = [song.name for song in known if song.vocals_bass > song.accompaniment_bass]
    share = len(swapped) / max(1, len(known))
    voice, rest = (
        float(np.median([getattr(song, name) for song in known])) if known else float("nan")
        for name in ("vocals_bass", "accompaniment_bass")
    )
    swap = "The vocals have the bass, so the sources are probably swapped: look at which stem is which in the dataset."
    some = f"In {len(swapped)} of {len(known)} songs the vocals have more bass than the rest: listen to them."
    return judged(
        "sources",
        f"below {BASS_HERTZ:.0f} Hz are {voice:.1%} of the vocals' energy, {rest:.1%} of the accompaniment's (medians)",
        (share > 0.5, "fail", swap),
        (share > 0.2, "warn", some),
        sound="Voice and accompaniment are where they should be.",
        values={"vocals": voice, "accompaniment": rest, "songs": swapped},
    )


def silence_finding(songs: list[SongFigures]) -> Finding:
    """Frames without vocals."""
    share = float(np.mean([song.silent_share for song in songs]))
    silent = [song.name for song in songs if song.silent_share == 1]
    return judged(
        "silence",
        f"in {share:.0%} of the frames the vocals are silent; {len(silent)} of {len(songs)} songs have none at all",
        (len(silent) == len(songs), "fail", "There is nothing to learn: the vocals are silent in all songs."),
        (share > 0.6, "warn", "Most of what the network sees is silence; leave out songs without vocals."),
        sound="There is enough singing to learn from.",
        values={"share": share, "songs": silent},
    )


def level_finding(songs: list[SongFigures]) -> Finding:
    """How far apart the songs' levels are."""
    levels = np.array([song.mixture_level for song in songs if song.mixture_level > 0])
    span = float(20 * np.log10(levels.max() / levels.min())) if len(levels) else 0.0
    advice = "Quiet songs count for nothing in a loss of raw magnitudes: bring the songs to similar levels."
    return judged(
        "levels",
        f"the loudest song is {span:.0f} dB above the quietest",
        (span > 40, "warn", advice),
        sound="No song drowns the others.",
        values={"span_db": span},
    )


def _excerpt(store: SpectrogramStore, track: TrackRecord, source: str) -> Spectrogram:
    """Blocks of a song's spectrogram, `(channels, frames, bins)` float32."""
    array = store.array(track, source)
    if track.frames <= FRAMES:
        return np.array(array, dtype=np.float32)
    length = FRAMES // BLOCKS
    starts = np.linspace(0, track.frames - length, BLOCKS).astype(int)
    return np.concatenate([np.array(array[:, start : start + length], dtype=np.float32) for start in starts], axis=1)


def _share_below(magnitudes: Spectrogram, bins: int) -> float:
    """Share of the energy in the lowest bins; NaN for silence."""
    power: npt.NDArray[np.float32] = np.square(magnitudes).sum(axis=(0, 1))
    return float(power[:bins].sum() / power.sum()) if power.sum() > 0 else float("nan")
