"""Preprocess runs that are killed, meet another one or a full disk, and what the next run makes of the store."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from storage.integrity import problems
from storage.lock import holder, lock_path, store_lock
from storage.store import SpectrogramStore
from tests.disk import fill, small_disk
from tests.flows.conftest import Run, clean_environment, flow_process, wait_until
from tests.forked import Forked, run_forked
from tests.helpers import tree
from tests.stores import shard_times, track_folders
from vocsep.datasets.layouts import open_dataset
from vocsep.preprocessing.config import StoreConfig
from vocsep.preprocessing.track import preprocess_song
from vocsep.preprocessing.update import updating
from vocsep.spectrograms.config import load_spectrogram_config

FINE = StoreConfig(spectrogram=load_spectrogram_config("fine"))
SONGS = 30

# Runs, each in a forked process, so none waits for imports; killed some time after it wrote this many tracks, unless
# that is never. The first one is in this process and loads what is loaded on first use.
RUNS = """
import contextlib, json, os, signal, sys, time
from pathlib import Path
import storage.store
from tests.flows.test_preprocess import undisturbed
from tests.stores import track_folders

def written(store, since):
    count = 0
    for folder in track_folders(store):
        with contextlib.suppress(FileNotFoundError):
            count += folder.stat().st_ctime_ns > since
    return count

storage.store.SpectrogramStore.save_interval_seconds, storage.store._SAVE_SHARE = 0.0, 1.0
songs, store = map(Path, sys.argv[1:])
undisturbed(songs, store.with_name("first.zarr"))
for line in sys.stdin:
    tracks, seconds = json.loads(line)
    since = time.time_ns()
    process = os.fork()
    if process == 0:
        undisturbed(songs, store)
        os._exit(0)
    ended = 0
    while written(store, since) < tracks and not ended:
        time.sleep(0.002)
        ended, status = os.waitpid(process, os.WNOHANG)
    if not ended:
        time.sleep(seconds)
        os.kill(process, signal.SIGKILL)
        ended, status = os.waitpid(process, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""
NEVER = 1_000_000


def undisturbed(songs: Path, store: Path) -> None:
    """What the flow does, in this process alone."""
    with updating(store, open_dataset(songs), FINE, prune=True) as (update, work):
        for song in work.pending:
            update.add(preprocess_song(song, store, FINE))


def write_song(songs: Path, number: int, seed: int, seconds: float = 1.0) -> None:
    folder = songs / ("test" if number % 3 == 0 else "train") / f"Song {number}"
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    vocals, band = 0.1 * generator.standard_normal((2, round(11025 * seconds), 2))
    for name, noise in (("mixture", vocals + band), ("vocals", vocals)):
        soundfile.write(folder / f"{name}.wav", noise.astype(np.float32), 11025)


def bytes_of(path: Path) -> int:
    return sum(map(len, tree(path).values()))


def assert_same(store: Path, expected: Path) -> None:
    """Check that two stores are equal byte for byte, and that nothing else was left behind."""
    found, wanted = tree(store), tree(expected)
    assert sorted(found) == sorted(wanted)
    assert [name for name in wanted if found[name] != wanted[name]] == []
    assert problems(store) == []
    assert [path.name for path in store.parent.iterdir() if store.name in path.name] == [store.name]


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Songs of noise, no two alike; not to be changed."""
    root = tmp_path_factory.mktemp("noise") / "songs"
    for number in range(SONGS):
        write_song(root, number, seed=number, seconds=5.0)
    return root


@pytest.fixture(scope="module")
def expected(songs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store that one undisturbed process makes of `songs`."""
    store = tmp_path_factory.mktemp("undisturbed") / "s.zarr"
    undisturbed(songs, store)
    return store


def test_store_after_20_kills_at_random_moments_and_a_finishing_run_is_that_of_an_undisturbed_run(
    tmp_path: Path,
) -> None:
    """Meanwhile songs are changed, added and taken away. At every moment the manifest names only what is whole."""
    songs, store, expected = tmp_path / "songs", tmp_path / "s.zarr", tmp_path / "expected" / "s.zarr"
    for number in range(16):
        write_song(songs, number, seed=number)
    command = [sys.executable, "-c", RUNS, str(songs), str(store)]
    moments = random.Random(1)
    codes, halfway = [0], []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as runs:

        def run(tracks: int, seconds: float) -> int:
            assert runs.stdin is not None
            assert runs.stdout is not None
            print(json.dumps([tracks, seconds]), file=runs.stdin, flush=True)
            return int(runs.stdout.readline())

        while codes.count(-signal.SIGKILL) < 20:
            attempt = len(codes)
            assert attempt < 60
            if codes[-1] == 0 or attempt == 10:
                for number in (1, 3, 4, 5, 6):
                    write_song(songs, number, seed=100 * attempt + number, seconds=1 + attempt / 10)
                write_song(songs, 20 + attempt, seed=attempt)
                if attempt > 1:
                    shutil.rmtree(next((songs / "train").iterdir()))
            codes.append(run(moments.randrange(4), moments.uniform(0, 0.1)))
            if store.exists():
                opened = SpectrogramStore.open(store)
                assert opened.damaged_shards() == []
                halfway.append(0 < len(opened.manifest.tracks) < len(list(songs.glob("*/*"))))
        assert run(NEVER, 0) == 0
    assert halfway.count(True) > 5
    undisturbed(songs, expected)
    assert_same(store, expected)


# --- the real flow --------------------------------------------------------------------------------------


def dask_workers(flow: Forked) -> list[int]:
    """Processes of a flow's Dask workers."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, IndexError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == flow.pid and b"spawn_main" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def wait_for_tracks(store: Path, count: int, flow: Forked) -> None:
    wait_until(lambda: len(track_folders(store)) >= count, flow)


def test_killed_worker_and_killed_flow_cost_no_byte_and_leave_the_store_free(
    songs: Path, expected: Path, tmp_path: Path, flows_environment: dict[str, str], run_flows: Run
) -> None:
    store = tmp_path / "s.zarr"
    arguments = ["preprocess", "--dataset", str(songs), "--store", str(store), "--workers"]
    with flow_process(tmp_path, flows_environment, *arguments, "2") as flow:
        wait_for_tracks(store, 2, flow)
        assert f"process {flow.pid} on " in holder(lock_path(store))
        workers = dask_workers(flow)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        wait_for_tracks(store, len(track_folders(store)) + 3, flow)
    assert holder(lock_path(store)) == ""
    kept = len(SpectrogramStore.open(store).manifest.tracks)
    assert kept < SONGS
    # Workers that lived on without their flow would write into the store of this run.
    result = run_flows(tmp_path, *arguments, "1")
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{SONGS - kept} songs written, {kept} unchanged" in result.stdout
    assert_same(store, expected)


def test_flow_is_refused_in_one_line_while_another_process_writes_the_store(songs: Path, tmp_path: Path) -> None:
    arguments = ("preprocess", "--dataset", str(songs), "--store", "s.zarr", "--prune")
    with store_lock(tmp_path / "s.zarr"):
        result = run_forked("flows.cli", *arguments, folder=tmp_path, environment=clean_environment())
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: s.zarr: being written by process {os.getpid()} on ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "s.zarr").exists()


def test_disk_that_fills_up_stops_the_flow_in_one_line_and_the_next_run_goes_on(
    songs: Path, expected: Path, tmp_path: Path, flows_environment: dict[str, str]
) -> None:
    """Something else takes the room that was there when the flow began."""
    with small_disk(tmp_path / "disk", round(1.3 * bytes_of(expected))) as disk:
        store = disk / "s.zarr"
        arguments = ["preprocess", "--dataset", str(songs), "--store", str(store), "--workers", "1"]
        with flow_process(tmp_path, flows_environment, *arguments) as flow:
            wait_for_tracks(store, 6, flow)
            fill(disk / "filler")
            output, errors = flow.communicate()
        assert flow.returncode == 2, output + errors
        error = errors[errors.rindex("error: ") :]
        assert error.count("\n") == 1
        assert f"{store}: disk full; " in error
        assert "Traceback" not in output + errors
        kept = SpectrogramStore.open(store).manifest.tracks
        assert 5 <= len(kept) < SONGS  # at most one makes room for the manifest
        assert f" {len(kept)} of {SONGS} songs are in the store" in error
        (needed,) = re.findall(r"the others need (\d+) MB, \d MB are free", error)
        # A track that was written and could not be named any more is one of the others.
        others = [folder for folder in track_folders(expected) if folder.name not in kept]
        assert len(others) == SONGS - len(kept)
        assert int(needed) == pytest.approx(sum(map(bytes_of, others)) / 1e6, rel=0.1)
        times = {shard: when for shard, when in shard_times(store).items() if shard.split("/")[1] in kept}
        assert {shard.split("/")[1] for shard in times} == set(kept)
        (disk / "filler").unlink()
        undisturbed(songs, store)
        assert_same(store, expected)
        assert times.items() <= shard_times(store).items()
