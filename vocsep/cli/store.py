"""`vocsep store ...`: inspecting, verifying, repairing and copying a spectrogram store."""

import functools
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from storage.errors import UserError
from storage.manifest import SPECTROGRAMS, SPLITS, Manifest
from storage.remote.bucket import is_url
from vocsep.paths import CACHE, PICTURES, STORE
from vocsep.progress import progress_on_bar

app = typer.Typer(no_args_is_help=True, help="Inspect, verify, repair and copy a spectrogram store.")

StoreArgument = Annotated[
    str, typer.Argument(help="Spectrogram store: a folder, or a URL such as s3://bucket/name.zarr.")
]
UrlArgument = Annotated[str, typer.Argument(help="URL of the store in object storage, such as s3://bucket/name.zarr.")]
_byte_bar = functools.partial(progress_on_bar, unit="B", unit_scale=True)


@app.command("info")
def store_info(store: StoreArgument = str(STORE)) -> None:
    """Show what a store contains: songs, hours, bytes, settings, digests."""
    from vocsep.config import validated
    from vocsep.preprocessing.config import StoreConfig

    manifest = _manifest(store)
    typer.echo(f"{store}: {manifest.kind} songs of {manifest.root}, made by {manifest.tool}")
    table = Table("split", box=box.SIMPLE)
    for column in ("songs", "hours", "frames", "megabytes"):
        table.add_column(column, justify="right")
    tracks = list(manifest.tracks.values())
    for split in (*SPLITS, "all"):
        chosen = [track for track in tracks if split in (track.split, "all")]
        table.add_row(
            split,
            f"{len(chosen):,}",
            f"{sum(track.seconds for track in chosen) / 3600:.2f}",
            f"{sum(track.frames for track in chosen):,}",
            f"{sum(track.bytes for track in chosen) / 1e6:,.1f}",
            style="bold" if split == "all" else "",
        )
    Console().print(table)
    hours = {name: sum(track.seconds for track in tracks if name in track.arrays) / 3600 for name in SPECTROGRAMS}
    typer.echo(f"hours of each source: {', '.join(f'{name} {value:.2f}' for name, value in hours.items())}")
    settings = validated(StoreConfig, manifest.config, f"{store}: configuration").model_dump()
    spectrogram = ", ".join(f"{name} {value}" for name, value in settings.pop("spectrogram").items())
    typer.echo(f"spectrogram: {spectrogram}")
    typer.echo(f"stored: {', '.join(f'{name} {value}' for name, value in settings.items())}")
    typer.echo(f"config digest {manifest.config_digest[:16]}, data digest {manifest.data_digest[:16]}")


@app.command("verify")
def store_verify(store: StoreArgument = str(STORE)) -> None:
    """Read every byte of a store and name everything that has changed; exit code 1 if anything has."""
    with _byte_bar("verify") as on_bytes:
        if is_url(store):
            from storage.remote.store import RemoteStore

            found = RemoteStore.open(store, accept_edited=True).problems(on_bytes)
        else:
            from storage.integrity import problems

            found = problems(Path(store), on_bytes)
    for problem in found:
        typer.echo(problem.what + (f" ({problem.track})" if problem.track else ""))
    if found:
        typer.echo(f"{store}: {len(found)} problems; repair it with: vocsep store repair {store}", err=True)
        raise typer.Exit(1)
    manifest = _manifest(store)
    shards = sum(len(track.arrays) for track in manifest.tracks.values())
    typer.echo(f"{store}: {shards} shards of {len(manifest.tracks)} songs, all intact")


@app.command("repair")
def store_repair(store: StoreArgument = str(STORE)) -> None:
    """Make the damaged songs of a store again; at a URL, drop them, so that they can be made or pushed again."""
    if is_url(store):
        from storage.remote.store import drop_damaged

        with _byte_bar("verify") as on_bytes:
            names = drop_damaged(store, on_bytes)
        done, next_step = "dropped", "; run preprocess or `vocsep store push` to put them back"
    else:
        from vocsep.preprocessing.repair import repair

        with progress_on_bar("repair", "songs") as progress:
            names = repair(Path(store), progress)
        done, next_step = "made again", ""
    for name in names:
        typer.echo(f"{done}: {name}")
    typer.echo(f"{store}: {len(names)} songs {done}{next_step}" if names else f"{store}: no song is damaged")


@app.command("plot")
def store_plot(
    track: Annotated[str, typer.Argument(help="A song's name or id, or a part of it that matches no other song.")],
    store: Annotated[Path, typer.Option(help="Spectrogram store.")] = STORE,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help=f"PNG file; default: {PICTURES}/<track id>.png.")
    ] = None,
    start: Annotated[float, typer.Option(min=0, help="Second to start at.")] = 0.0,
    seconds: Annotated[float | None, typer.Option(help="Length of the picture; default: to the end.")] = None,
) -> None:
    """Draw the spectrograms of a song: mixture, vocals and accompaniment."""
    from storage.store import SpectrogramStore
    from vocsep.preprocessing.plot import find_track, plot_track

    opened = SpectrogramStore.open(store)
    found = find_track(opened.manifest.tracks.values(), track)
    picture = output or PICTURES / f"{found.id}.png"
    plot_track(opened, found, picture, start=start, seconds=seconds)
    typer.echo(f"{found.name}: {picture}")


@app.command("push")
def store_push(store: Annotated[Path, typer.Argument(help="Local spectrogram store.")], url: UrlArgument) -> None:
    """Make the store at a URL equal to a local one; only songs that differ are uploaded."""
    from storage.remote.store import push

    with _byte_bar("push") as on_bytes:
        uploaded = push(store, url, on_bytes)
    typer.echo(f"{url}: {uploaded} songs uploaded, equal to {store}")


@app.command("fetch")
def store_fetch(
    url: UrlArgument,
    cache: Annotated[Path, typer.Option(help="Folder of local copies.")] = CACHE,
    split: Annotated[
        list[str] | None, typer.Option(help="train, valid or test; may be repeated. Default: all.")
    ] = None,
) -> None:
    """Copy a store from a URL into the cache, or bring the copy there up to date, and say where it is."""
    from storage.remote.mirror import fetch

    if unknown := set(split or ()) - set(SPLITS):
        raise UserError(f"--split {unknown.pop()}: no such split; use {', '.join(SPLITS)}")
    with _byte_bar("fetch") as on_bytes:
        folder = fetch(url, cache, splits=split or SPLITS, on_bytes=on_bytes)
    typer.echo(str(folder))


def _manifest(store: str) -> Manifest:
    """Manifest of a store whose shards are all there; at a URL, nothing but the manifest is looked at."""
    if is_url(store):
        from storage.remote.store import RemoteStore

        return RemoteStore.open(store).manifest
    from storage.store import SpectrogramStore

    return SpectrogramStore.open(Path(store)).manifest
