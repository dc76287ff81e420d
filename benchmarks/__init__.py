"""Headline figures: `python -m benchmarks.NAME` prints a table and, last, one JSON object."""

import shutil


def require_ffmpeg(package: str) -> None:
    """End the benchmark in one line where a package that it is compared with could not be imported."""
    if not (shutil.which("ffmpeg") and shutil.which("ffprobe")):
        raise SystemExit(f"{package} needs the programs ffmpeg and ffprobe: apt-get install ffmpeg")
