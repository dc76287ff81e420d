"""A spectrogram store in an object store: the same files under a URL, and the manifest, put last, on condition.

What the manifest does not name does not exist, there as on disk. A track that is to be replaced or dropped leaves the
manifest before its objects change, so that at every instant all that the manifest names is whole.
"""

import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import AlreadyExistsError, PreconditionError

from storage.errors import DamagedError, NotFound, UserError
from storage.files import MOST_READ_BYTES
from storage.integrity import EDITED, Problem, record_problems
from storage.manifest import (
    MANIFEST_NAME,
    SPLITS,
    ArrayRecord,
    Manifest,
    TrackRecord,
    parse_manifest,
    require_usable_records,
)
from storage.metadata import Metadata, group_metadata, store_metadata, track_metadata
from storage.remote.bucket import connect, reported
from storage.remote.transfer import OnBytes, checked, checked_metadata, in_parallel, local_blocks, remote_blocks
from storage.store import SpectrogramStore, Store, require_config, write_groups

if TYPE_CHECKING:
    from obstore import UpdateVersion
    from obstore.store import ObjectStore

STRAY_AGE = timedelta(days=1)

# Parts that are under way at once must pass a slow line before the read timeout: eight of `push`, four of a worker.
_PART_BYTES = 5 << 20
_PARTS_OF_ONE_TRACK = 4
_PARTS_OF_ONE_AMONG_MANY = 1


def same_tracks(held: dict[str, TrackRecord], wanted: dict[str, TrackRecord]) -> dict[str, TrackRecord]:
    """The wanted tracks that are held already, byte for byte."""
    return {key: track for key, track in wanted.items() if key in held and held[key].arrays == track.arrays}


class RemoteStore(Store):
    """A spectrogram store at a URL, and its manifest.

    One process adds tracks at a time; a second one is refused when it saves the manifest.

    Attributes
    ----------
    url
        Such as `s3://bucket/name.zarr`.
    bucket
        The connection to it.
    """

    save_interval_seconds = 10.0

    def __init__(
        self,
        url: str,
        bucket: "ObjectStore",
        manifest: Manifest,
        version: "UpdateVersion | None",
        *,
        is_as_written: bool = True,
    ) -> None:
        super().__init__(manifest)
        self.url = url
        self.bucket = bucket
        self._version = version
        self._is_as_written = is_as_written
        self._dropped: set[str] = set()

    @classmethod
    def open(cls, url: str, *, accept_edited: bool = False) -> "RemoteStore":
        """Open the store at `url`; only its manifest is read.

        Parameters
        ----------
        accept_edited
            Whether to open a store whose manifest was edited; `problems` names what was.

        Raises
        ------
        UserError
            If there is none, it cannot be reached, or its manifest is damaged.
        """
        opened = cls.find(url, accept_edited=accept_edited)
        if opened is None:
            raise NotFound(f"{url}: no spectrogram store here; run preprocess, or `vocsep store push`")
        return opened

    @classmethod
    def open_or_create(cls, url: str, *, config: dict[str, Any], dataset: dict[str, str], tool: str) -> "RemoteStore":
        """Open the store at `url` to continue it, or make an empty one.

        Raises
        ------
        UserError
            As `open`; if an existing store was made with another configuration.
        """
        held = cls.find(url)
        if held is not None:
            require_config(url, held.manifest, config)
            return held
        bucket = connect(url)
        with tempfile.TemporaryDirectory() as folder:
            empty = SpectrogramStore.open_or_create(Path(folder) / "empty", config=config, dataset=dataset, tool=tool)
        created = cls(url, bucket, empty.manifest, None)
        created.put_groups()
        created.save()
        return created

    @classmethod
    def find(cls, url: str, *, accept_edited: bool = False) -> "RemoteStore | None":
        """As `open`, but None where there is no store."""
        bucket = connect(url)
        found = _get_manifest(bucket, url)
        if found is None:
            return None
        content, version = found
        manifest, is_as_written = parse_manifest(content, f"{url}/{MANIFEST_NAME}")
        if not accept_edited:
            require_usable_records(f"{url}/{MANIFEST_NAME}", manifest, is_as_written)
        return cls(url, bucket, manifest, version, is_as_written=is_as_written)

    def drop(self, track_ids: Iterable[str]) -> None:
        """Drop tracks and save the manifest, if it named any of them; needed before they are uploaded again."""
        dropped = [self.manifest.tracks.pop(track_id) for track_id in track_ids if track_id in self.manifest.tracks]
        self._dropped.update(track.folder for track in dropped)
        if dropped:
            self.save()

    def put_groups(self) -> None:
        """Put the metadata that belongs to no track, as it should be; the manifest is the caller's to save."""
        with tempfile.TemporaryDirectory() as folder:
            write_groups(Path(folder), self.manifest)
            for key in store_metadata():
                with reported(self.url):
                    obstore.put(self.bucket, key, (Path(folder) / key).read_bytes())

    def _put(self, manifest: bytes) -> None:
        """Put the manifest, provided that nobody else put one since it was read; else raise `UserError`."""
        with reported(self.url):
            try:
                put = obstore.put(self.bucket, MANIFEST_NAME, manifest, mode=self._version or "create")
                self._version = _version(put["e_tag"], put["version"])
                return
            except (AlreadyExistsError, PreconditionError):
                is_conditional = True
            except NotImplementedError:
                is_conditional = False
        found = _get_manifest(self.bucket, self.url)
        # After a lost answer a repeated request meets what the first one put.
        if found is not None and found[0] == manifest:
            self._version = found[1]
            return
        if is_conditional or (found and found[1]) != self._version:
            raise UserError(f"{self.url}: another process changed the store meanwhile; run again when it has ended")
        with reported(self.url):
            put = obstore.put(self.bucket, MANIFEST_NAME, manifest)
            self._version = _version(put["e_tag"], put["version"])

    def sweep(self) -> None:
        """Delete objects that the manifest does not name: those of dropped tracks, and any that is a day old.

        Younger ones may belong to a track that is being uploaded.
        """
        named = set(store_metadata())
        for track in self.manifest.tracks.values():
            named.update(track_metadata(track), (array.shard for array in track.arrays.values()))
        oldest = datetime.now(UTC) - STRAY_AGE
        with reported(self.url):
            for split in SPLITS:
                strays = [
                    entry["path"]
                    for entries in obstore.list(self.bucket, f"{split}/", chunk_size=1000)
                    for entry in entries
                    if entry["path"] not in named
                    and (entry["last_modified"] < oldest or "/".join(entry["path"].split("/")[:2]) in self._dropped)
                ]
                if strays:
                    obstore.delete(self.bucket, strays)

    def problems(self, on_bytes: OnBytes | None = None) -> list[Problem]:
        """Read every byte of every track, and say what is missing or not as it was written."""
        found = {key: record_problems(key, track) for key, track in self.manifest.tracks.items()}
        in_parallel(
            self._track_problems,
            [track for key, track in self.manifest.tracks.items() if not found[key]],
            on_bytes,
            lambda track, problems: found.update({track.id: problems}),
        )
        named = [] if self._is_as_written else [EDITED]
        named += self._problems_of("", group_metadata(self.manifest))
        return named + [problem for track_id in sorted(found) for problem in found[track_id]]

    def _track_problems(self, track: TrackRecord) -> list[Problem]:
        shards = {array.shard: array for array in track.arrays.values()}
        return self._problems_of(track.name, {**track_metadata(track), **shards})

    def _problems_of(self, name: str, records: Mapping[str, Metadata | ArrayRecord]) -> list[Problem]:
        found = []
        for key, record in records.items():
            try:
                blocks = remote_blocks(self.bucket, self.url, key)
                if isinstance(record, Metadata):
                    checked_metadata(blocks, record, key)
                else:
                    for _ in checked(blocks, record, key):
                        pass
            except DamagedError as error:
                found.append(Problem(str(error), name))
        return found


def _get_manifest(bucket: "ObjectStore", url: str) -> "tuple[bytes, UpdateVersion] | None":
    try:
        with reported(url):
            found = obstore.get(bucket, MANIFEST_NAME)
            if found.meta["size"] > MOST_READ_BYTES:
                raise DamagedError(f"{url}/{MANIFEST_NAME}: {found.meta['size']:,} bytes are no manifest")
            return bytes(found.bytes()), _version(found.meta["e_tag"], found.meta["version"])
    except FileNotFoundError:
        return None


def _version(e_tag: str | None, version: str | None) -> "UpdateVersion":
    both: UpdateVersion = {}
    if e_tag is not None:
        both["e_tag"] = e_tag
    if version is not None:
        both["version"] = version
    return both


def upload_track(folder: Path, url: str, record: TrackRecord) -> None:
    """Upload a finished track; the manifest stays as it is, and must not name another track of this id meanwhile.

    Parameters
    ----------
    folder
        Local folder of the track, `<store>/<split>/<track id>`.

    Raises
    ------
    UserError
        If a file is missing or is not what `record` says, or the object store cannot be reached.
    """
    _upload_track(connect(url), url, folder, record, _PARTS_OF_ONE_TRACK)


def _upload_track(bucket: "ObjectStore", url: str, folder: Path, record: TrackRecord, parts: int) -> None:
    for array in record.arrays.values():
        path = folder / Path(array.shard).relative_to(record.folder)
        # Where a byte differs, the end is never sent, so that no object appears.
        blocks = checked(local_blocks(path), array, str(path))
        with reported(url):
            if array.bytes <= _PART_BYTES:
                obstore.put(bucket, array.shard, b"".join(blocks))
            else:
                obstore.put(bucket, array.shard, blocks, chunk_size=_PART_BYTES, max_concurrency=parts)
    for key in track_metadata(record):
        content = b"".join(local_blocks(folder / Path(key).relative_to(record.folder)))
        with reported(url):
            obstore.put(bucket, key, content)


def drop_damaged(url: str, on_bytes: OnBytes | None = None) -> list[str]:
    """Drop the damaged tracks of the store at `url`, so that they are made or pushed again; returns their names.

    Raises
    ------
    UserError
        If there is no store at `url`, it cannot be reached, or another process changes it.
    """
    remote = RemoteStore.open(url, accept_edited=True)
    found = remote.problems(on_bytes)
    names = {problem.track for problem in found if problem.track}
    if any(not problem.track for problem in found):
        remote.put_groups()
    remote.drop([key for key, track in remote.manifest.tracks.items() if track.name in names])
    remote.save()
    remote.sweep()
    return sorted(names)


def push(path: Path, url: str, on_bytes: OnBytes | None = None) -> int:
    """Make the store at `url` equal to the one at `path`; only tracks that differ are uploaded.

    A killed push resumes where it was at most `save_interval_seconds` before.

    Returns
    -------
    uploaded
        Number of tracks that were uploaded.

    Raises
    ------
    UserError
        If the store at `url` is of another configuration or of other songs, is written by another process or cannot be
        reached. Where single tracks of the local store are damaged, all others were uploaded.
    """
    manifest = SpectrogramStore.open(path).manifest
    remote = RemoteStore.open_or_create(url, config=manifest.config, dataset=manifest.dataset, tool=manifest.tool)
    held, wanted = remote.manifest.tracks, manifest.tracks
    for split in {track.split for track in held.values()} - {held[key].split for key in held.keys() & wanted.keys()}:
        raise UserError(f"{url}: none of its {split} songs is in {path}, and all would be deleted; give another URL")
    same = same_tracks(held, wanted)
    remote.drop(held.keys() - same.keys())
    remote.manifest = manifest.model_copy(update={"tracks": same, "metadata": remote.manifest.metadata})
    missing = [track for track in wanted.values() if track.id not in same]
    failures: list[str] = []

    def upload(track: TrackRecord) -> str | None:
        try:
            _upload_track(remote.bucket, url, path / track.folder, track, _PARTS_OF_ONE_AMONG_MANY)
        except DamagedError as error:
            return str(error)
        return None

    def on_result(track: TrackRecord, failure: str | None) -> None:
        if failure is None:
            remote.add(track)
        else:
            failures.append(failure)

    in_parallel(upload, missing, on_bytes, on_result)
    remote.save()
    remote.sweep()
    if failures:
        raise UserError(f"{path}: {len(failures)} tracks not uploaded, first {failures[0]}; run `vocsep store repair`")
    return len(missing)
