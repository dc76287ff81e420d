"""What is in a store's folder."""

from pathlib import Path

from storage.manifest import SPLITS


def shard_times(store: Path) -> dict[str, int]:
    shards = (path for path in store.glob("*/*/*/c/**/*") if path.is_file())
    return {str(path.relative_to(store)): path.stat().st_mtime_ns for path in shards}


def track_folders(store: Path) -> list[Path]:
    return [folder for split in SPLITS for folder in (store / split).glob("*/")]
