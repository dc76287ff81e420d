"""`vocsep store ...`: looking at a spectrogram store and checking it."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Look at a spectrogram store and check it.")

STORE = Path("data/spectrograms.zarr")

StoreArgument = Annotated[Path, typer.Argument(help="Spectrogram store.")]


@app.command("info")
def store_info(store: StoreArgument = STORE) -> None:
    """Say what a store holds: songs, hours, bytes, settings, digests."""
    from rich.console import Console
    from rich.table import Table

    from storage.store import SPLITS, SpectrogramStore

    opened = SpectrogramStore.open(store)
    manifest = opened.manifest
    typer.echo(f"{store}: {manifest.dataset['kind']} songs of {manifest.dataset['root']}, made by {manifest.tool}")
    table = Table("split", "songs", "hours", "frames", "gigabytes")
    for split in SPLITS:
        tracks = opened.tracks(split)
        table.add_row(
            split,
            str(len(tracks)),
            f"{sum(track.seconds for track in tracks) / 3600:.3f}",
            str(sum(track.frames for track in tracks)),
            f"{sum(track.bytes for track in tracks) / 1e9:.3f}",
        )
    Console().print(table)
    settings = ", ".join(f"{name} {value}" for name, value in manifest.config["spectrogram"].items())
    typer.echo(f"spectrogram: {settings}; stored as {manifest.config['dtype']}")
    typer.echo(f"config digest {manifest.config_digest[:16]}, data digest {manifest.data_digest[:16]}")


@app.command("verify")
def store_verify(store: StoreArgument = STORE) -> None:
    """Read every byte of a store and compare it with the checksums in the manifest; exit code 1 if any differs."""
    from storage.manifest import Manifest
    from storage.store import SpectrogramStore

    opened = SpectrogramStore(store, Manifest.load(store))
    damaged = opened.damaged_shards()
    names = {record.shard: track.name for track in opened.manifest.tracks.values() for record in track.arrays.values()}
    for shard in damaged:
        typer.echo(f"damaged: {shard} ({names[shard]})")
    if damaged:
        typer.echo(f"{len(damaged)} of {len(names)} shards are damaged; delete them and run make preprocess", err=True)
        raise typer.Exit(1)
    typer.echo(f"{store}: {len(names)} shards of {len(opened.manifest.tracks)} songs, all intact")
