"""Spectrogram stores as settings name them: a folder, or a URL of object storage."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from storage.errors import UserError
from storage.manifest import MANIFEST_NAME, Manifest
from storage.remote.bucket import is_url
from storage.remote.mirror import fetch
from storage.remote.store import RemoteStore
from storage.store import SpectrogramStore
from vocsep.paths import CACHE
from vocsep.progress import progress_on_bar


def _location(value: Any) -> Any:
    # A path would lose one of the slashes of s3://.
    return str(value) if is_url(str(value)) else Path(value)


StoreLocation = Annotated[Path | str, BeforeValidator(_location)]


def require_store(store_path: Path | str) -> None:
    """Raise `UserError` unless there is a store."""
    if isinstance(store_path, str):
        RemoteStore.open(store_path)
    else:
        SpectrogramStore.open(store_path)


def held_manifest(store_path: Path | str) -> Manifest | None:
    """The manifest of a store, None where there is no store yet; `UserError` if it is damaged or cannot be reached."""
    if isinstance(store_path, str):
        remote = RemoteStore.find(store_path)
        return None if remote is None else remote.manifest
    return Manifest.load(store_path) if (store_path / MANIFEST_NAME).exists() else None


def dataset_root(manifest: Manifest, store_path: Path | str) -> Path:
    """Folder of the songs that a store was made from; `UserError` if it does not say."""
    if not manifest.root:
        raise UserError(f"{store_path}: does not say of which dataset its songs are; delete it and preprocess again")
    return Path(manifest.root)


def on_disk(store_path: Path | str, splits: Collection[str]) -> Path:
    """The store's folder; of one at a URL, a copy of the songs of some splits, brought up to date and checked."""
    if isinstance(store_path, Path):
        return store_path
    # Copies for different uses are separate: a copy contains nothing that was not asked for.
    cache = CACHE / ("-".join(sorted(splits)) or "manifests")
    with progress_on_bar("fetch", "B", unit_scale=True) as progress:
        return fetch(store_path, cache, splits=splits, on_bytes=progress)
