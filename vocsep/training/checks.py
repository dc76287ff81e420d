"""What can be found wrong with a training before its first step."""

from collections.abc import Collection

import torch

from storage.checked import require_intact
from storage.errors import UserError
from storage.manifest import SPECTROGRAMS
from storage.store import SpectrogramStore
from vocsep.datasets.songs import same_files, song_key
from vocsep.memory import usable_memory
from vocsep.models.architecture import TfcTdfArchitecture, UNetArchitecture
from vocsep.models.networks import step_values
from vocsep.models.precision import Precision, pick_precision
from vocsep.patches.pool import SongPool
from vocsep.paths import ALL_BINS_STORE
from vocsep.preprocessing.config import spectrogram_config, store_of_all_bins
from vocsep.spectrograms.config import PATCH_FRAMES
from vocsep.training.config import TrainConfig
from vocsep.training.description import describe_architecture
from vocsep.training.parts import parts_of

# Fitted to the peaks of U-Nets of width 16 to 56 and of the default network, within 12 %. Per weight: itself, two
# moments of the optimizer, the average, the best one so far, gradients of two parts, what the convolutions copy.
BYTES_PER_WEIGHT: dict[Precision, float] = {"float32": 35, "bfloat16": 32}
BYTES_PER_GRADIENT = 4
# Per value that a layer gives: itself, and gradients on the way back.
BYTES_PER_VALUE: dict[Precision, float] = {"float32": 3.3, "bfloat16": 1.8}
# What the libraries keep from the first step on, however small the network.
FIXED_BYTES = 220e6


def check_songs(store: SpectrogramStore, config: TrainConfig, pool: SongPool | None = None) -> None:
    """Refuse songs that a model cannot be trained, validated and tested on.

    Parameters
    ----------
    pool
        The songs that patches are drawn from, where they are not those of the store alone.

    Raises
    ------
    UserError
        If there are no training or no validation songs, only one training song to remix, or a validation or test song
        that is drawn for training, by name or by the content of all its files.
    """
    train, valid = store.tracks("train"), store.tracks("valid")
    drawn = pool.tracks if pool else train
    if not train:
        raise UserError(f"{store.path}: no training songs in the store; preprocess songs that have a train split")
    if not valid:
        raise UserError(f"{store.path}: no validation songs in the store; preprocess at least two training songs")
    if len(drawn) < 2 and config.augmentation.remix > 0:
        raise UserError(f"{store.path}: one training song is too few to mix songs; add songs, or set remix to 0")
    names = {song_key(track.name): track.name for track in drawn}
    digests = [({source.sha256 for source in track.sources}, track.name) for track in drawn]
    for track in (*valid, *store.tracks("test")):
        own = {source.sha256 for source in track.sources}
        twins = (name for other, name in digests if same_files(own, other))
        twin = names.get(song_key(track.name)) or next(twins, None)
        if twin is not None:
            purpose = "validation" if track.split == "valid" else "test"
            raise UserError(
                f"{store.path}: {purpose} song {track.name!r} is also a training song ({twin!r}); a model would be "
                "scored on songs that it was trained on. Remove one of them and preprocess again"
            )


def check_bins(store: SpectrogramStore, config: TrainConfig) -> None:
    """Refuse an objective that wants bins that the store lacks.

    Raises
    ------
    UserError
        That says how to make a store that has them; or names the song that has others than its store.
    """
    spectrogram = spectrogram_config(store)
    for track in (*store.tracks("train"), *store.tracks("valid")):
        for name in SPECTROGRAMS:
            if name in track.arrays and track.arrays[name].shape[2:] != (spectrogram.bins,):
                raise UserError(
                    f"{store.path}: {name} of {track.name!r} is of shape {track.arrays[name].shape}, not of "
                    f"{spectrogram.bins} bins; run `vocsep store verify`"
                )
    if config.objective.bins == "all" and spectrogram.dropped_bin != "none":
        raise UserError(
            f"{store.path}: holds {spectrogram.bins} bins, the objective wants all {spectrogram.bins + 1}; make a "
            f"store that has them: {store_of_all_bins(ALL_BINS_STORE)}"
        )


def check_sound(store: SpectrogramStore) -> None:
    """Refuse training songs whose vocals or accompaniment are silent in all of them.

    Raises
    ------
    UserError
        That names the store and the silent source.
    """
    for source in ("vocals", "accompaniment"):
        # The first song with sound ends the search.
        if not any(store.array(track, source).any() for track in store.tracks("train")):
            raise UserError(
                f"{store.path}: the {source} of the training songs are silent; there is nothing to learn. Look at one "
                "with `vocsep store plot`"
            )


def check_bytes(store: SpectrogramStore, pool: SongPool, sources: Collection[str]) -> None:
    """Refuse shards that changed since they were written; each is read whole once, and again when its file changes.

    Parameters
    ----------
    sources
        The spectrograms of training songs that are read.

    Raises
    ------
    UserError
        That names the damaged shard.
    """
    for index, one in enumerate(pool.sets):
        tracks = one.store.tracks("train")
        arrays = [array for track in tracks for name, array in track.arrays.items() if name in sources]
        if index == 0:
            arrays += [array for track in store.tracks("valid") for array in track.arrays.values()]
        require_intact(one.store, arrays)


def needed_bytes(
    architecture: UNetArchitecture | TfcTdfArchitecture,
    patches: int,
    bins: int,
    *,
    precision: Precision = "float32",
    parts: int = 1,
    threads: int = 1,
) -> int:
    """About how much memory one step takes, in bytes.

    Parameters
    ----------
    patches
        Of this process's share of the batch.
    parts, threads
        How many parts these are computed in, and how many of the parts at a time (see `vocsep.training.parts`).
    """
    weights, values = step_values(architecture, PATCH_FRAMES, bins)
    at_once = min(parts, threads)
    # Each part that is computed has gradients, and so has what they are added to.
    gradients = min(parts, at_once + 1)
    per_weight = BYTES_PER_WEIGHT[precision] + BYTES_PER_GRADIENT * max(0, gradients - 2)
    return int(FIXED_BYTES + per_weight * weights + BYTES_PER_VALUE[precision] * values * patches * at_once / parts)


def check_memory(config: TrainConfig, store: SpectrogramStore, device: torch.device, processes: int = 1) -> None:
    """Refuse a model that is larger than the memory that is free.

    Raises
    ------
    UserError
        That says how much is needed and what to lower.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else usable_memory()
    bins = spectrogram_config(store).bins
    architecture = describe_architecture(config, store)
    patches = config.batch_size // processes
    parts = parts_of(patches, device)
    precision, threads = pick_precision(device.type, config.precision), torch.get_num_threads()
    needed = needed_bytes(architecture, patches, bins, precision=precision, parts=parts, threads=threads)
    if needed > free:
        raise UserError(
            f"width {architecture.width} with batches of {config.batch_size} needs about {needed / 1e9:.1f} GB of "
            f"memory, {free / 1e9:.1f} GB are free on {device}; lower width or batch_size"
        )
