"""`vocsep store ...`: what it says, exit codes, and that it does what it says."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import obstore
import pytest
from typer.testing import CliRunner, Result

import storage.remote.store
import vocsep.progress
from storage.errors import UserError
from storage.manifest import MANIFEST_NAME, TrackRecord
from storage.remote.bucket import connect
from storage.store import SpectrogramStore
from storage.track_writer import TEMPORARY_FOLDER
from tests.helpers import tree
from tests.storage.remote.buckets import flip_a_byte, s3_server, use
from tests.vocsep.cli.test_main import assert_one_line
from tests.vocsep.cli.test_main import vocsep as vocsep_process
from vocsep.cli.main import app
from vocsep.evaluation.config import EvaluateConfig
from vocsep.evaluation.target import resolve

CopyOfDemoStore = Callable[[], SpectrogramStore]


def store(*arguments: object) -> Result:
    """`vocsep store ...` in this process; a user's mistake is the result's exception."""
    return CliRunner().invoke(app, ["store", *map(str, arguments)], env={"COLUMNS": "200"})


def one_line(*arguments: object) -> str:
    result = store(*arguments)
    assert isinstance(result.exception, UserError), result.output
    message = str(result.exception)
    assert "\n" not in message
    return message


def test_info_says_what_the_store_holds(demo_store: SpectrogramStore, demo_root: Path) -> None:
    result = store("info", demo_store.path)
    assert result.exit_code == 0
    tracks = list(demo_store.manifest.tracks.values())
    rows = {line.split()[0]: line.split()[1:] for line in result.output.splitlines() if len(line.split()) == 5}
    for split, expected in (("train", 3), ("valid", 1), ("test", 2), ("all", 6)):
        chosen = [track for track in tracks if split in (track.split, "all")]
        assert len(chosen) == expected
        songs, hours, frames, megabytes = rows[split]
        assert songs == str(expected)
        assert float(hours) == pytest.approx(sum(track.seconds for track in chosen) / 3600, abs=0.006)
        assert int(frames.replace(",", "")) == sum(track.frames for track in chosen)
        size = sum(
            (demo_store.path / array.shard).stat().st_size for track in chosen for array in track.arrays.values()
        )
        assert float(megabytes) == pytest.approx(size / 1e6, abs=0.051)
    manifest = json.loads((demo_store.path / MANIFEST_NAME).read_text())
    for part in (
        str(demo_store.path),
        "demo songs",
        str(demo_root),
        "sample_rate 11025",
        "n_fft 1024",
        "hop_length 256",
        "dtype float16",
        manifest["config_digest"][:16],
        demo_store.manifest.data_digest[:16],
    ):
        assert part in result.output


def test_store_that_does_not_say_what_it_holds_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    SpectrogramStore.open_or_create(path, config={}, dataset={}, tool="test")
    line = one_line("info", path)
    assert str(path) in line
    assert "spectrogram" in line
    with pytest.raises(UserError, match="does not say of which dataset"):
        resolve(EvaluateConfig(store=path, models=tmp_path / "models", model="bundled"))


def test_verify_of_an_intact_store_says_so(demo_store: SpectrogramStore) -> None:
    result = store("verify", demo_store.path)
    assert result.exit_code == 0
    assert "20 shards of 6 songs, all intact" in result.output


def first_track(opened: SpectrogramStore) -> TrackRecord:
    return min(opened.manifest.tracks.values(), key=lambda track: track.id)


def flip(opened: SpectrogramStore) -> str:
    shard = first_track(opened).arrays["vocals"].shard
    (opened.path / shard).write_bytes(flip_a_byte((opened.path / shard).read_bytes()))
    return shard


def truncate(opened: SpectrogramStore) -> str:
    shard = first_track(opened).arrays["mixture"].shard
    (opened.path / shard).write_bytes((opened.path / shard).read_bytes()[:-1])
    return shard


def delete(opened: SpectrogramStore) -> str:
    shard = first_track(opened).arrays["accompaniment"].shard
    (opened.path / shard).unlink()
    return shard


def edit_the_manifest(opened: SpectrogramStore) -> str:
    path = opened.path / MANIFEST_NAME
    track = first_track(opened)
    path.write_text(path.read_text().replace(f'"frames": {track.frames}', '"frames": 7', 1))
    return MANIFEST_NAME


def leave_a_half_written_track(opened: SpectrogramStore) -> str:
    track = first_track(opened)
    folder = opened.path / TEMPORARY_FOLDER / f"{track.id}-1234"
    shutil.copytree(opened.path / track.split / track.id, folder)
    shutil.rmtree(folder / "vocals")
    return str(folder.relative_to(opened.path))


def leave_a_stray_track(opened: SpectrogramStore) -> str:
    track = first_track(opened)
    shutil.copytree(opened.path / track.split / track.id, opened.path / "train" / "stray-1")
    return "train/stray-1"


DAMAGES = [flip, truncate, delete, edit_the_manifest, leave_a_half_written_track, leave_a_stray_track]


@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_names_the_damage_with_exit_code_1_and_repair_mends_it(
    copy_of_demo_store: CopyOfDemoStore, damage: Callable[[SpectrogramStore], str]
) -> None:
    opened = copy_of_demo_store()
    intact = tree(opened.path)
    track = first_track(opened)
    others = {
        path: path.stat().st_mtime_ns
        for other in opened.manifest.tracks.values()
        if other.id != track.id
        for path in (opened.path / other.split / other.id).rglob("*")
    }
    where = damage(opened)
    result = store("verify", opened.path)
    assert result.exit_code == 1
    assert where in result.stdout
    if damage not in (leave_a_half_written_track, leave_a_stray_track):
        assert f"({track.name})" in result.stdout
    assert "vocsep store repair" in result.stderr

    result = store("repair", opened.path)
    assert result.exit_code == 0, result.output
    assert store("verify", opened.path).exit_code == 0
    found = tree(opened.path)
    del intact[MANIFEST_NAME], found[MANIFEST_NAME]
    assert found == intact
    assert {path: path.stat().st_mtime_ns for path in others} == others
    result = store("repair", opened.path)
    assert "no song is damaged" in result.output


def test_verify_names_every_damage_of_several(copy_of_demo_store: CopyOfDemoStore) -> None:
    opened = copy_of_demo_store()
    expected = [damage(opened) for damage in (flip, truncate, delete)]
    result = store("verify", opened.path)
    assert all(where in result.stdout for where in expected)
    assert "3 problems" in result.stderr


def test_exit_codes_of_the_program(copy_of_demo_store: CopyOfDemoStore, tmp_path: Path) -> None:
    opened = copy_of_demo_store()
    delete(opened)
    result = vocsep_process("store", "verify", str(opened.path), folder=tmp_path)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert_one_line(vocsep_process("store", "info", "nowhere.zarr", folder=tmp_path), "nowhere.zarr", "no spectrogram")


@pytest.mark.parametrize("command", ["info", "verify", "repair"])
def test_no_store_is_one_line(tmp_path: Path, command: str) -> None:
    assert "no spectrogram store" in one_line(command, tmp_path / "s.zarr")


def test_plot_draws_a_song_into_the_named_or_the_usual_file(
    demo_store: SpectrogramStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    track = first_track(demo_store)
    part = track.name[:-1].upper()
    result = store("plot", part, "--store", demo_store.path, "-o", "new/p.png", "--start", "1", "--seconds", "1.5")
    assert result.exit_code == 0, result.output
    assert result.output == f"{track.name}: new/p.png\n"
    assert Path("new/p.png").read_bytes().startswith(b"\x89PNG")
    result = store("plot", track.id, "--store", demo_store.path)
    assert result.output == f"{track.name}: data/pictures/{track.id}.png\n"
    assert (tmp_path / "data/pictures" / f"{track.id}.png").exists()


def test_plot_of_an_unknown_song_is_one_line_with_the_songs_there_are(demo_store: SpectrogramStore) -> None:
    message = one_line("plot", "Bohemian Rhapsody", "--store", demo_store.path)
    assert all(track.name in message for track in demo_store.manifest.tracks.values())


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as (address, _):
        yield address


@pytest.fixture
def url(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    return f"{use(server, monkeypatch)}/demo.zarr"


def test_a_store_goes_to_a_url_and_back_and_is_checked_and_mended_there(
    demo_store: SpectrogramStore, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "6 songs uploaded" in store("push", demo_store.path, url).output
    assert "0 songs uploaded" in store("push", demo_store.path, url).output

    info = store("info", url)
    assert info.exit_code == 0
    assert info.output.splitlines()[1:] == store("info", demo_store.path).output.splitlines()[1:]
    assert "all intact" in store("verify", url).output

    folder = Path(store("fetch", url).stdout.strip())
    assert folder.parent == Path("data/cache")
    assert tree(folder) == tree(demo_store.path)
    part = Path(store("fetch", url, "--cache", "other", "--split", "train", "--split", "valid").stdout.strip())
    assert sorted(track.split for track in SpectrogramStore.open(part).manifest.tracks.values()) == [
        *["train"] * 3,
        "valid",
    ]

    track = first_track(demo_store)
    key = track.arrays["vocals"].shard
    bucket = connect(url)
    obstore.put(bucket, key, flip_a_byte(bytes(obstore.get(bucket, key).bytes())))
    verified = store("verify", url)
    assert verified.exit_code == 1
    assert f"{key}: " in verified.stdout
    assert f"({track.name})" in verified.stdout
    repaired = store("repair", url)
    assert f"dropped: {track.name}" in repaired.output
    assert "1 songs uploaded" in store("push", demo_store.path, url).output
    assert "all intact" in store("verify", url).output


@pytest.mark.parametrize("command", ["push", "fetch", "verify"])
def test_progress_is_shown_in_bytes(
    demo_store: SpectrogramStore, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if command != "push":
        storage.remote.store.push(demo_store.path, url)
    monkeypatch.setattr(vocsep.progress, "LOG_INTERVAL_SECONDS", 0)
    monkeypatch.setattr(vocsep.progress, "SHOW_AFTER_SECONDS", 0)
    megabytes = sum(track.bytes for track in demo_store.manifest.tracks.values()) / 1e6
    shown = store(command, *([demo_store.path] if command == "push" else []), url).stderr
    assert re.search(rf"{command}: 100%.* {megabytes:.1f}M/{megabytes:.1f}M .*B/s", shown), shown


def test_an_unknown_split_is_one_line(url: str) -> None:
    message = one_line("fetch", url, "--split", "training")
    assert "training" in message
    assert "train, valid, test" in message


def test_a_folder_where_a_url_is_asked_for_is_one_line(demo_store: SpectrogramStore, tmp_path: Path) -> None:
    for command in (("push", demo_store.path, tmp_path), ("fetch", tmp_path)):
        assert "s3://bucket/name.zarr" in one_line(*command)
