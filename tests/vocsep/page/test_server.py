"""The page's server as a process: who is let in, what is taken, what comes back, and how it ends."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile

from tests.helpers import beyond_loopback, bundled_scores, tree
from tests.vocsep.models.small_models import add_model, music
from tests.vocsep.page.running_page import PATIENCE_SECONDS, PROGRAM, RunningPage, running_page
from vocsep.page.songs import Songs

MOST_MB = 3
RATE = 44_100
OLD = "of the day before yesterday"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPage]:
    root = tmp_path_factory.mktemp("page")
    add_model(root / "models", channels=2)
    (root / "secret.txt").write_text("secret")
    report = root / "reports" / "20260101-000000-model"
    report.mkdir(parents=True)
    (report / "report.html").write_text("<h1>Evaluation</h1>")
    (root / "reports" / "latest").symlink_to(report.name)
    (root / "reports" / "elsewhere").symlink_to(root)
    songs = Songs(root / "songs")
    old = songs.new_id()
    (root / "songs" / old / "song.json").write_text(
        json.dumps({"id": old, "name": OLD, "size": 0, "created": time.time() - 86_460, "takes": []})
    )
    options = ("--models", str(root / "models"), "--reports", str(root / "reports"), "--most-mb", str(MOST_MB))
    with running_page(root / "songs", *options) as running:
        yield running


@pytest.fixture(scope="module")
def song(page: RunningPage) -> str:
    """A song of 5 s that is separated; its name is none for a file."""
    song = page.upload("../../Ünïcødé/曲 & <b>.wav", wav(music(0, 2, RATE, 5.0)))
    assert page.ended(song)["state"] == "done", page.ended(song)
    return song


def wav(waveform: np.ndarray, rate: int = RATE) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, waveform.T, rate, format="WAV", subtype="FLOAT")
    return content.getvalue()


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:{port}"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1:{port}.evil.example"},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "https://127.0.0.1:{port}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/", "/api/state", "/static/main.js"])
def test_other_names_and_other_pages_are_refused(page: RunningPage, path: str, headers: dict[str, str]) -> None:
    given = {name: value.format(port=page.port) for name, value in headers.items()}
    answer = page.ask("GET", path, headers=given)
    assert answer.status == 403
    assert page.token.encode() not in answer.content
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/songs"),
        ("PUT", "/api/songs/0123456789abcdef"),
        ("DELETE", "/api/songs/{song}"),
        ("POST", "/api/songs/{song}/takes"),
        ("DELETE", "/api/songs/{song}/takes/1"),
        ("OPTIONS", "/api/songs"),
    ],
)
def test_nothing_is_changed_without_the_token(page: RunningPage, song: str, method: str, path: str) -> None:
    before = page.songs()
    body = json.dumps({"name": "x.wav", "size": 3}).encode()
    for headers in ({}, {"X-Vocsep-Token": page.token[:-1]}, {"X-Vocsep-Token": "é"}):
        assert page.ask(method, path.format(song=song), body, headers).status == 403
    given = {"X-Vocsep-Token": page.token, "Origin": "http://evil.example"}
    assert page.ask(method, path.format(song=song), body, given).status == 403
    assert page.songs() == before


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}"])
def test_the_page_itself_is_let_in_and_may_load_nothing_from_elsewhere(page: RunningPage, host: str) -> None:
    name = host.format(port=page.port)
    answer = page.ask("GET", "/", headers={"Host": name, "Origin": f"http://{name}", "Sec-Fetch-Site": "same-origin"})
    assert answer.status == 200
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {source for directive in policy.values() for source in directive.split()} == {"'none'", "'self'"}
    assert policy["frame-ancestors"] == "'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_only_loopback_is_listened_on(page: RunningPage) -> None:
    process = psutil.Process(page.process.pid)
    assert beyond_loopback([process, *process.children(recursive=True)]) == {}


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/%2e%2e/server.py",
        "/static/..%2fserver.py",
        "/static/index.html",
        "/reports/latest",
        "/reports/elsewhere",
        "/reports/..",
        "/reports/%2e%2e%2fsecret.txt",
        "/songs/../1/peaks",
        "/songs/%2e%2e/1/peaks",
        "/songs/{song}/1/files/..%2f..%2fsong.json",
        "/songs/{song}/1/files/upload",
        "/songs/{song}/1/pictures/..%2fpeaks.json",
        "/songs/{song}/1/samples/..%2fvocals/0",
        "/songs/{song}/1/samples/vocals/99",
        "/songs/{song}/1/samples/vocals/-1",
        "/songs/{song}/2/peaks",
        "/songs/{song}/../../secret.txt",
        "/secret.txt",
        "/etc/passwd",
        "//etc/passwd",
    ],
)
def test_no_other_file_is_served(page: RunningPage, song: str, path: str) -> None:
    answer = page.ask("GET", path.format(song=song))
    assert answer.status == 404
    assert b"secret" not in answer.content


def test_stems_sum_to_the_song_and_names_are_no_paths(page: RunningPage, song: str) -> None:
    names = {path.relative_to(page.folder).parts[0] for path in page.folder.rglob("*")}
    assert names <= {song, ".lock", *page.songs()}
    assert page.songs()[song]["name"] == "曲 & <b>.wav"
    path = f"/songs/{song}/1"
    stems = []
    for stem in ("vocals", "accompaniment"):
        answer = page.ask("GET", f"{path}/files/{stem}")
        assert answer.status == 200
        # RFC 5987, as browsers read it: the song's name without what file systems refuse.
        assert f"%E6%9B%B2%20%26%20_b_%20-%20{stem}.wav" in answer.headers["content-disposition"]
        samples, rate = soundfile.read(io.BytesIO(answer.content), dtype="float32")
        assert rate == RATE
        stems.append(samples.T)
    np.testing.assert_allclose(stems[0] + stems[1], music(0, 2, RATE, 5.0), atol=1e-6)
    with zipfile.ZipFile(io.BytesIO(page.ask("GET", f"{path}/all.zip").content)) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == ["曲 & _b_/accompaniment.wav", "曲 & _b_/vocals.wav"]
        samples, _ = soundfile.read(io.BytesIO(archive.read("曲 & _b_/vocals.wav")), dtype="float32")
        np.testing.assert_array_equal(samples.T, stems[0])


def test_pieces_joined_are_the_stems_to_16_bits(page: RunningPage, song: str) -> None:
    path = f"/songs/{song}/1"
    heard = {}
    for stem in ("mixture", "vocals", "accompaniment"):
        pieces = [page.ask("GET", f"{path}/samples/{stem}/{number}").content for number in range(2)]
        assert len(pieces[0]) == 4 * RATE * 2 * 2
        heard[stem] = np.frombuffer(b"".join(pieces), "<i2").reshape(-1, 2).T / 32768
    np.testing.assert_allclose(heard["mixture"], music(0, 2, RATE, 5.0), atol=1 / 32000)
    np.testing.assert_allclose(heard["vocals"] + heard["accompaniment"], heard["mixture"], atol=3 / 32000)
    answer = page.ask("GET", f"{path}/files/vocals")
    samples, _ = soundfile.read(io.BytesIO(answer.content), dtype="float32")
    np.testing.assert_allclose(heard["vocals"], samples.T, atol=1 / 32000)
    peaks = page.ask("GET", f"{path}/peaks").json()
    lowest, highest = np.array(peaks["mixture"]).T / 1000
    assert lowest.min() == pytest.approx(heard["mixture"].min(), abs=1e-3)
    assert highest.max() == pytest.approx(heard["mixture"].max(), abs=1e-3)
    rms = page.songs()[song]["takes"][0]["sound"]["rms"]
    assert rms["vocals"] == pytest.approx(np.sqrt(np.mean(heard["vocals"] ** 2)), rel=1e-3)


def test_songs_older_than_a_day_are_gone(page: RunningPage, song: str) -> None:
    assert OLD not in [one["name"] for one in page.songs().values()]
    assert {entry.name for entry in page.folder.iterdir()} - {".lock"} == set(page.songs())


def test_uploads_that_are_too_large_are_refused_and_leave_nothing(page: RunningPage) -> None:
    before = tree(page.folder)
    too_many = MOST_MB * 1_000_000 + 1
    refused = page.change("POST", "/api/songs", {"name": "big.wav", "size": too_many})
    assert refused.status == 413
    assert refused.json()["error"].startswith("big.wav: has 3 MB")
    for content in (bytes(11), bytes(9)):  # more than announced, and less
        announced = page.change("POST", "/api/songs", {"name": "lied.wav", "size": 10})
        answer = page.change("PUT", f"/api/songs/{announced.json()['id']}", body=content)
        assert answer.status == (413 if len(content) > 10 else 400)
        assert "lied.wav" in answer.json()["error"]
    assert page.change("POST", "/api/songs", body=b" " * 100_000).status == 413
    assert tree(page.folder) == before


@pytest.mark.parametrize(
    "announcement",
    [
        {"name": "x.wav", "size": 0},
        {"name": "x.wav", "size": -1},
        {"name": "x.wav"},
        {"name": "x.wav", "size": 5, "path": "/etc"},
        {"name": "x.wav", "size": 5, "options": {"model": "../models/0001"}},
        {"name": "x.wav", "size": 5, "options": {"model": "/etc"}},
        {"name": "x.wav", "size": 5, "options": {"model": "7"}},
        {"name": "x.wav", "size": 5, "options": {"format": "exe"}},
        {"name": "x.wav", "size": 5, "options": {"stems": []}},
        {"name": "x.wav", "size": 5, "options": {"start": 5, "stop": 5}},
        {"name": "x.wav", "size": 5, "options": {"device": "cuda"}},
        [],
        "x",
    ],
    ids=str,
)
def test_odd_announcements_are_one_line(page: RunningPage, announcement: object) -> None:
    answer = page.change("POST", "/api/songs", announcement)
    assert answer.status == 400
    assert len(answer.json()["error"].splitlines()) == 1


def test_a_bad_file_has_one_line_by_its_name_and_costs_the_others_nothing(page: RunningPage) -> None:
    bad = page.upload("broken.mp3", b"no sound at all " * 100)
    short = page.upload("short.wav", wav(music(1, 1, 8000, 2.0), 8000), format="flac", start=1.5, stop=9.0)
    failed = page.ended(bad)
    assert failed["state"] == "failed"
    assert failed["error"].startswith("broken.mp3: ")
    assert len(failed["error"].splitlines()) == 1
    assert str(page.folder) not in failed["error"]
    done = page.ended(short)
    assert (done["state"], done["model"], done["seconds"]) == ("done", "version 1", 0.5)
    samples, rate = soundfile.read(io.BytesIO(page.ask("GET", f"/songs/{short}/1/files/vocals").content))
    assert (len(samples), rate) == (4000, 8000)
    beyond = page.change("POST", f"/api/songs/{short}/takes", {"start": 3.0}).json()["id"]
    assert "is 2.0 s long" in page.ended(short, beyond)["error"]
    for song in (bad, short):
        assert page.change("DELETE", f"/api/songs/{song}").status == 204
        assert not (page.folder / song).exists()


def test_formats_and_both_models_come_as_takes_of_one_song(page: RunningPage, song: str) -> None:
    options = {"format": "mp3", "bit_rate": 128, "stems": ["vocals"], "model": "bundled"}
    take = page.change("POST", f"/api/songs/{song}/takes", options).json()["id"]
    done = page.ended(song, take)
    assert (done["state"], done["model"], done["files"]) == ("done", "bundled", {"vocals": "vocals.mp3"})
    content = page.ask("GET", f"/songs/{song}/{take}/files/vocals").content
    assert len(content) * 8 / 5 == pytest.approx(128_000, rel=0.1)
    assert page.ask("GET", f"/songs/{song}/{take}/files/accompaniment").status == 404
    # What is not written can be listened to all the same.
    assert page.ask("GET", f"/songs/{song}/{take}/samples/accompaniment/0").status == 200
    impossible = page.change("POST", f"/api/songs/{song}/takes", {"format": "flac", "bit_rate": 128}).json()["id"]
    assert page.ended(song, impossible)["error"] == "曲 & <b>.wav: flac cannot have a bit rate; mp3, ogg and m4a can"
    for number in (take, impossible):
        assert page.change("DELETE", f"/api/songs/{song}/takes/{number}").status == 204
    assert [one["id"] for one in page.songs()[song]["takes"]] == [1]


def test_what_is_being_separated_can_be_cancelled(page: RunningPage, song: str) -> None:
    rng = np.random.default_rng(0)
    long = page.upload("long.wav", wav(rng.uniform(-0.1, 0.1, (1, 8000 * 90)).astype(np.float32), 8000), wiener=True)
    waits = page.upload("waits.wav", wav(music(2, 1, 8000, 1.0), 8000))
    while page.songs()[long]["takes"][0]["state"] == "waiting":
        time.sleep(0.02)
    assert page.change("DELETE", f"/api/songs/{long}/takes/1").status == 204
    assert long not in page.songs()
    assert not (page.folder / long).exists()
    assert page.ended(waits)["state"] == "done"
    page.change("DELETE", f"/api/songs/{waits}")


def test_models_and_reports_are_listed(page: RunningPage) -> None:
    models = page.ask("GET", "/api/models").json()
    assert [(model["name"], model["in_use"]) for model in models] == [("1", True), ("bundled", False)]
    assert models[1]["test"]["model"]["vocals"] == bundled_scores()[1]
    assert [report["id"] for report in page.ask("GET", "/api/reports").json()] == ["20260101-000000-model"]
    answer = page.ask("GET", "/reports/20260101-000000-model")
    assert answer.content == b"<h1>Evaluation</h1>"
    assert "sandbox" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_page_and_what_it_started_and_songs_stay(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "songs"
    with running_page(folder) as first:
        if number == signal.SIGTERM:
            song = first.upload("noise.wav", wav(np.zeros((1, 8000 * 200), np.float32), 8000), wiener=True)
            while first.songs()[song]["takes"][0]["state"] == "waiting":
                time.sleep(0.02)
        children = psutil.Process(first.process.pid).children(recursive=True)
        first.process.send_signal(number)
        assert first.process.wait(PATIENCE_SECONDS) == (130 if number == signal.SIGINT else 128 + number)
        _, alive = psutil.wait_procs(children, timeout=PATIENCE_SECONDS)
        assert alive == []
        assert first.process.stderr is not None
        assert len(first.process.stderr.read().splitlines()) <= 1
    if number == signal.SIGTERM:
        left = Songs(folder).next_waiting()  # as the next page finds it
        assert left is not None
        assert (left[0].id, left[0].name, left[1].id) == (song, "noise.wav", 1)


def test_wrong_ports_and_folders_are_one_line(page: RunningPage, tmp_path: Path) -> None:
    for options, words in (
        (("--port", str(page.port)), f"port {page.port} is taken"),
        (("--port", "0", "--folder", str(page.folder)), "being written by"),
    ):
        command = [sys.executable, "-c", PROGRAM, "page", "--no-browser", *options]
        result = subprocess.run(
            command, cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, timeout=PATIENCE_SECONDS
        )
        assert result.returncode == 2
        assert len(result.stderr.splitlines()) == 1
        assert words in result.stderr
