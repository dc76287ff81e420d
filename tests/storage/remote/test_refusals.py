"""What cannot be copied or reached is one line, without secrets."""

import socket
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

import storage.remote.bucket
import storage.remote.mirror
import storage.remote.store
from storage.manifest import MANIFEST_NAME
from storage.remote.mirror import fetch, mirror_path
from storage.remote.store import RemoteStore, push
from storage.store import SpectrogramStore
from tests.helpers import free_port
from tests.storage.remote.buckets import (
    CONFIG,
    DATASET,
    SECRET,
    add_track,
    local_store,
    objects,
    one_line,
    s3_server,
    use,
)


def test_a_store_of_other_settings_or_other_songs_is_not_overwritten(
    local: SpectrogramStore, url: str, tmp_path: Path
) -> None:
    push(local.path, url)
    before = objects(url)
    other = SpectrogramStore.open_or_create(
        tmp_path / "other.zarr", config={**CONFIG, "dtype": "float32"}, dataset=DATASET, tool="test"
    )
    one_line(lambda: push(other.path, url), url, "another configuration", "'float16'", "'float32'")
    strangers = local_store(tmp_path / "strangers.zarr")
    add_track(strangers, "z-1", 1)
    one_line(lambda: push(strangers.path, url), url, "other URL")
    part = fetch(url, tmp_path / "cache", splits=("train", "valid"))
    one_line(lambda: push(part, url), url, "test songs")
    assert objects(url) == before


@pytest.mark.parametrize("action", ["open", "push", "fetch"])
@pytest.mark.parametrize("case", ["no bucket", "refused", "no credentials", "denied"])
def test_what_cannot_be_reached_is_one_line_without_secrets(
    local: SpectrogramStore, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, action: str
) -> None:
    address = f"127.0.0.1:{free_port()}"
    if case == "no bucket":
        url, parts = "s3://no-such-bucket/name.zarr", ["no such bucket"]
    elif case == "refused":
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{SECRET}@{address}")
        parts = ["no answer", address, "AWS_ENDPOINT_URL"]
    elif case == "no credentials":
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://{address}")
        parts = ["no credentials", "AWS_ACCESS_KEY_ID"]
    else:
        monkeypatch.setenv("AWS_ENDPOINT_URL", denying_server())
        parts = ["access denied", "credentials"]
    actions: dict[str, Callable[[], object]] = {
        "open": lambda: RemoteStore.open(url),
        "push": lambda: push(local.path, url),
        "fetch": lambda: fetch(url, tmp_path / "cache"),
    }
    one_line(actions[action], url, *parts)


def denying_server() -> str:
    """Address of a server that answers every request with 403."""
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Denying(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    listener = HTTPServer(("127.0.0.1", 0), Denying)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{listener.server_port}"


def test_a_server_that_never_answers_is_given_up(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(storage.remote.bucket._CLIENT, "read_timeout", "300ms")
    monkeypatch.setitem(storage.remote.bucket._RETRIES, "retry_timeout", timedelta(seconds=1))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
        one_line(lambda: RemoteStore.open(url), "no answer")


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ("s3://bucket", "s3://bucket/name.zarr"),
        ("s3:///name.zarr", "s3://bucket/name.zarr"),
        ("ftp://host/name.zarr", "s3://bucket/name.zarr"),
        (f"s3://someone:{SECRET}@bucket/name.zarr", "no credentials in URLs"),
    ],
)
def test_a_wrong_url_is_one_line(wrong: str, part: str) -> None:
    one_line(lambda: RemoteStore.open(wrong), part)


def test_no_store_is_one_line_and_leaves_no_copy(url: str, tmp_path: Path) -> None:
    one_line(lambda: fetch(url, tmp_path / "cache"), url, "no spectrogram store")
    one_line(lambda: RemoteStore.open(url), url, "no spectrogram store")
    assert not (tmp_path / "cache").exists()
    assert objects(url) == {}


def test_a_server_that_dies_in_the_middle_is_one_line_and_costs_nothing_that_arrived(
    many: SpectrogramStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server() as (address, process):
        url = f"{use(address, monkeypatch)}/name.zarr"
        push(many.path, url)

        def stop(done: int, total: int) -> None:
            if done > total / 4:
                process.kill()

        one_line(lambda: fetch(url, tmp_path, on_bytes=stop), url, "no answer")
    copy = mirror_path(url, tmp_path)
    assert not (copy / MANIFEST_NAME).exists()
    assert list(copy.rglob("c/0/0/0"))


def test_no_room_for_the_copy_is_one_line_with_the_need(
    local: SpectrogramStore, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(local.path, url)
    monkeypatch.setattr(storage.remote.mirror, "free_bytes", lambda path: 1000)
    one_line(lambda: fetch(url, tmp_path / "cache"), str(tmp_path), "0 MB are free")
    assert not list((tmp_path / "cache").rglob("c/0/0/0"))
    monkeypatch.undo()
