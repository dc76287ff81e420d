"""The mask that a network predicts: in blocks that give that of the whole song at once, or in overlapping patches."""

from collections.abc import Sequence

import numpy as np

from storage.errors import UserError
from vocsep.arrays import Spectrogram
from vocsep.models.network import MaskNetwork
from vocsep.spectrograms.config import PATCH_FRAMES

# The network sees blocks of a song, each with `context_frames` on both sides that are thrown away afterwards. They are
# multiples of every network's strides (at most 64), so that the mask is that of the whole song at once.
BLOCK_FRAMES = 1536

PATCHES_AT_ONCE = 16
MOST_OVERLAP = 0.9

TINY_POWER = 1e-12

Groups = Sequence[tuple[int, ...]]
"""Channels that a stereo network sees together: pairs of left and right; a channel alone is seen in both places."""


def default_groups(channels: int) -> Groups:
    """The first two channels are a pair, each other one is alone."""
    return [tuple(range(min(channels, 2))), *((channel,) for channel in range(2, channels))]


def context_frames(network: MaskNetwork, overlap: float = 0.0) -> int:
    """Frames before and after a block that decide its mask; see `predict_block` for `overlap`."""
    return PATCH_FRAMES if overlap else network.context_frames


def predict_mask(network: MaskNetwork, magnitudes: Spectrogram, overlap: float = 0.0) -> Spectrogram:
    """Vocals mask for the raw magnitudes of a whole song, both `(channels, frames, bins)` float32.

    See `predict_block`.
    """
    frames, context = magnitudes.shape[1], context_frames(network, overlap)
    mask = np.empty(magnitudes.shape, dtype=np.float32)
    for start in range(0, frames, BLOCK_FRAMES):
        stop = min(start + BLOCK_FRAMES, frames)
        left = max(0, start - context)
        mask[:, start:stop] = predict_block(
            network, magnitudes[:, left : stop + context], left, slice(start, stop), overlap=overlap
        )
    return mask


def predict_block(
    network: MaskNetwork,
    magnitudes: Spectrogram,
    first: int,
    block: slice,
    groups: Groups | None = None,
    overlap: float = 0.0,
) -> Spectrogram:
    """Vocals mask of some frames of a song, `(channels, frames, bins)` float32.

    A network of one channel sees every channel on its own; one of two sees pairs (a channel alone is doubled, and the
    mean of both masks taken). The masks of a network with two targets, v and a, become the ratio mask
    v^2 / (v^2 + a^2).

    Parameters
    ----------
    magnitudes
        Raw magnitudes of the song from frame `first` on: `context_frames` before the block and after it, or fewer where
        the song begins and ends.
    block
        Frames of the song that a mask is wanted for.
    groups
        See `Groups`; None takes `default_groups`.
    overlap
        0 predicts the mask of the whole song. From above 0 to `MOST_OVERLAP`: the mean, weighted by a Hann window,
        of the masks of patches as long as those of training, each of which shares this part with the next.

    Raises
    ------
    UserError
        If the network's output is not finite.
    """
    channels, _, bins = magnitudes.shape
    groups = default_groups(channels) if groups is None else groups
    batch = _to_batch(network, magnitudes, groups)
    inside = slice(block.start - first, block.stop - first)
    masks = _overlapping(network, batch, first, inside, overlap) if overlap else network(batch)[:, :, inside]
    if not np.isfinite(masks).all():
        raise UserError("the network's output contains NaN; the model is broken, name another or train again")
    if network.targets == 2:
        masks = _ratio_mask(masks[:, : network.channels], masks[:, network.channels :])
    if network.channels == 1 or _is_one_pair(groups, channels):
        whole: Spectrogram = masks.reshape(channels, inside.stop - inside.start, bins)
        return whole
    mask = np.empty((channels, inside.stop - inside.start, bins), dtype=np.float32)
    for group, own in zip(groups, masks, strict=True):
        mask[list(group)] = own if len(group) == 2 else own.mean(axis=0, keepdims=True)
    return mask


def _to_batch(network: MaskNetwork, magnitudes: Spectrogram, groups: Groups) -> Spectrogram:
    """What the network sees, `(batch, channels of the network, frames, bins)`."""
    if network.channels == 1:
        return magnitudes[:, None]
    if _is_one_pair(groups, len(magnitudes)):
        return magnitudes[None]
    return np.stack([magnitudes[[group[0], group[-1]]] for group in groups])


def _is_one_pair(groups: Groups, channels: int) -> bool:
    """Whether a song is plain stereo, which needs no copies."""
    return channels == 2 and list(groups) == [(0, 1)]


def _overlapping(network: MaskNetwork, batch: Spectrogram, first: int, inside: slice, overlap: float) -> Spectrogram:
    """Windowed mean of the masks of all patches that reach into a block; they start at multiples of one step."""
    step = max(1, round(PATCH_FRAMES * (1 - overlap)))
    # A window without zeros, so that a frame that only the end of a patch reaches has a mask, too.
    window = np.hanning(PATCH_FRAMES + 2)[1:-1].astype(np.float32)[:, None]
    examples, channels, frames, bins = batch.shape
    length = inside.stop - inside.start
    total = np.zeros((examples, network.targets * channels, length, bins), dtype=np.float32)
    weight = np.zeros((length, 1), dtype=np.float32)
    begin = -(-(first + inside.start - PATCH_FRAMES + 1) // step) * step
    positions = range(begin - first, inside.stop, step)
    for some in (positions[start : start + PATCHES_AT_ONCE] for start in range(0, len(positions), PATCHES_AT_ONCE)):
        patches = np.zeros((len(some), examples, channels, PATCH_FRAMES, bins), dtype=np.float32)
        for patch, position in zip(patches, some, strict=True):
            source = slice(max(0, position), min(frames, position + PATCH_FRAMES))
            patch[:, :, source.start - position : source.stop - position] = batch[:, :, source]
        masks = network(patches.reshape(-1, channels, PATCH_FRAMES, bins))
        for mask, position in zip(masks.reshape(len(some), *total.shape[:2], PATCH_FRAMES, bins), some, strict=True):
            kept = slice(max(inside.start, position), min(inside.stop, position + PATCH_FRAMES))
            there = slice(kept.start - inside.start, kept.stop - inside.start)
            here = slice(kept.start - position, kept.stop - position)
            total[:, :, there] += mask[:, :, here] * window[here]
            weight[there] += window[here]
    total /= weight
    return total


def _ratio_mask(vocals: Spectrogram, accompaniment: Spectrogram) -> Spectrogram:
    """Share of the vocals' power in the power of both; half where both are silent. All of one shape."""
    own = np.square(vocals) + np.float32(TINY_POWER)
    share: Spectrogram = own / (own + np.square(accompaniment) + np.float32(TINY_POWER))
    return share
