"""What a player in a file holds: its lanes with their sounds, outlines and pictures, as JSON for its script."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2.utils import htmlsafe_json_dumps
from matplotlib.image import imsave

from vocsep.arrays import Waveform
from vocsep.html.pictures import shown_band, spectrogram_pixels
from vocsep.html.sounds import PIECE_SECONDS, Mp3Pieces
from vocsep.spectrograms.config import SpectrogramConfig


@dataclass(frozen=True)
class Lane:
    """What is heard and seen of one sound.

    Attributes
    ----------
    name
        For people, and different from that of every other lane.
    kind
        `mixture`, `vocals` or `accompaniment`, each of which has a color.
    sound
        Finished; of the rate, channels and length of every other lane.
    magnitudes
        `(columns, bins)` of the picture.
    """

    name: str
    kind: str
    sound: Mp3Pieces
    magnitudes: Waveform


def player_json(lanes: Sequence[Lane], config: SpectrogramConfig) -> str:
    """The lanes, in their order, as JSON that can be put into HTML as it is; pictures share one scale of loudness."""
    first = lanes[0].sound
    top = max(float(lane.magnitudes.max(initial=0.0)) for lane in lanes) or 1.0
    return htmlsafe_json_dumps(
        {
            "sampleRate": first.rate,
            "channels": first.channels,
            "frames": first.frames,
            "margin": first.margin,
            "pieceSeconds": PIECE_SECONDS,
            "hertz": shown_band(config),
            "tracks": [
                {
                    "name": lane.name,
                    "kind": lane.kind,
                    "peaks": lane.sound.peaks.columns(),
                    "picture": f"data:image/jpeg;base64,{_base64(_picture(lane.magnitudes, config, top))}",
                    "pieces": [_base64(piece) for piece in lane.sound.pieces],
                }
                for lane in lanes
            ],
        },
        separators=(",", ":"),
    )


def _picture(magnitudes: Waveform, config: SpectrogramConfig, top: float) -> bytes:
    """A JPEG, which has a sixth of the bytes of a PNG."""
    content = io.BytesIO()
    imsave(content, spectrogram_pixels(magnitudes, config, top), format="jpg", pil_kwargs={"quality": 80})
    return content.getvalue()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
