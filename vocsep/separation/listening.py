"""A page to listen to a song and its stems, gathered block by block."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from storage.files import write_atomically
from vocsep.audio.info import AudioInfo
from vocsep.separation.drawing import Columns
from vocsep.separation.stream import Part
from vocsep.spectrograms.config import SpectrogramConfig

MOST_MINUTES = 20
_STEMS = ("mixture", "vocals", "accompaniment")


class Listening:
    """Sounds and pictures of the beginning, at most `MOST_MINUTES`, of a song that comes in parts."""

    def __init__(self, info: AudioInfo, spectrogram: SpectrogramConfig) -> None:
        from vocsep.html.sounds import Mp3Pieces

        self._info = info
        self._config = spectrogram
        self._most = round(MOST_MINUTES * 60 * info.sample_rate)
        self._samples = 0
        self._columns = Columns(replace(info, seconds=min(info.seconds, MOST_MINUTES * 60)), spectrogram)
        self._sounds = {stem: Mp3Pieces(info.channels, info.sample_rate) for stem in _STEMS}

    def add(self, part: Part) -> None:
        """Add a part's sounds, and what the model saw and predicted."""
        samples = part.mixture.shape[1]
        taken = min(samples, self._most - self._samples)
        self._samples += taken
        if not taken:
            return
        sounds = (part.mixture, part.vocals, part.mixture - part.vocals)
        with ThreadPoolExecutor(len(_STEMS)) as encoders:  # coding takes longer than separating
            list(encoders.map(lambda sound, waveform: sound.write(waveform[:, :taken]), self._sounds.values(), sounds))
        frames = round(part.magnitudes.shape[1] * taken / samples)
        mixture, mask = part.magnitudes[:, :frames], part.mask[:, :frames]
        self._columns.add(mixture=mixture, vocals=mixture * mask, accompaniment=mixture * (1 - mask))

    def write(self, path: Path) -> None:
        """Write the page to a file."""
        from vocsep.html.pages import rendered
        from vocsep.html.player import Lane, player_json

        for sound in self._sounds.values():
            sound.finish()
        spectra = self._columns.joined()
        lanes = [Lane(stem, stem, self._sounds[stem], spectra[stem]) for stem in _STEMS]
        page = rendered(
            "separation/listening.html.j2",
            name=self._info.path.name,
            title=self._info.tags.get("title", ""),
            artist=self._info.tags.get("artist", ""),
            is_cut=self._samples == self._most,
            most_minutes=MOST_MINUTES,
            song=player_json(lanes, self._config),
        )
        write_atomically(path, page.encode(errors="replace"))  # a name may hold what is no letter
