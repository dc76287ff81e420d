"""A real S3 server (moto) in a separate process on the loopback interface, and small stores to copy to it."""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
from numpy.typing import NDArray

from storage.manifest import SPECTROGRAMS
from storage.remote.bucket import connect
from storage.store import SpectrogramStore
from tests import helpers
from tests.tracks import write_track

SECRET = "averysecretkeythatstandsnowhereelse"


CONFIG = {"spectrogram": {"sample_rate": 8192}, "dtype": "float16"}


DATASET = {"kind": "folder", "root": "/songs"}
TRACKS = 24


TRANSFER = """
import itertools, os, signal, sys
from pathlib import Path
import obstore
import storage.remote.store
from storage.remote.mirror import fetch
from storage.remote.store import push
direction, source, target, fatal_call, interval = sys.argv[1:]
storage.remote.store.RemoteStore.save_interval_seconds = float(interval)
calls = itertools.count(1)
def deadly(function):
    def call(*arguments, **options):
        if next(calls) == int(fatal_call):
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call
if direction == "push":
    obstore.put = deadly(obstore.put)
    push(Path(source), target)
else:
    obstore.get = deadly(obstore.get)
    fetch(source, Path(target))
"""


@contextlib.contextmanager
def s3_server() -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """An S3 server without buckets: its address and its process."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with (
        tempfile.NamedTemporaryFile("r") as log,
        Path(log.name).open("w") as output,
        subprocess.Popen(command, stdout=output, stderr=output) as process,
    ):
        try:
            while not (address := re.search(r"http://127\.0\.0\.1:\d+", Path(log.name).read_text())):
                assert process.poll() is None, Path(log.name).read_text()
                time.sleep(0.02)
            yield address[0], process
        finally:
            process.kill()


def use(address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Set what a user sets in the environment, and nothing else; returns the URL of a new bucket."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    name = f"bucket-{uuid.uuid4().hex}"
    urllib.request.urlopen(urllib.request.Request(f"{address}/{name}", method="PUT")).close()
    return f"s3://{name}"


def arrays(seed: int, frames: int = 200) -> dict[str, NDArray[Any]]:
    generator = np.random.default_rng(seed)
    return {name: generator.random((2, frames, 8)).astype(np.float16) for name in SPECTROGRAMS}


def add_track(store: SpectrogramStore, track_id: str, seed: int, split: str = "train", frames: int = 200) -> None:
    values = arrays(seed, frames)
    store.add(write_track(store.path, track_id, name=f"Name of {track_id}", split=split, seconds=1, arrays=values))
    store.save()


def local_store(path: Path, tracks: int = 0, frames: int = 200) -> SpectrogramStore:
    store = SpectrogramStore.open_or_create(path, config=CONFIG, dataset=DATASET, tool="test")
    for number in range(tracks):
        add_track(store, f"t-{number:03d}", number, frames=frames)
    return store


def objects(url: str) -> dict[str, bytes]:
    bucket = connect(url)
    return {
        entry["path"]: bytes(obstore.get(bucket, entry["path"]).bytes()) for entry in obstore.list(bucket).collect()
    }


def one_line(action: Callable[[], object], *parts: str) -> str:
    """Message of the `UserError` that `action` raises, which names all `parts` and no secret."""
    message = helpers.one_line(action, *parts)
    assert SECRET not in message
    return message


def flip_a_byte(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def damage_object(url: str, key: str, change: Callable[[bytes], bytes] = flip_a_byte) -> None:
    bucket = connect(url)
    obstore.put(bucket, key, change(bytes(obstore.get(bucket, key).bytes())))
