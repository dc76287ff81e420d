"""Flow `separate`: separate files and folders of songs on Dask."""

import contextlib
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows.cluster import dask_map
from flows.failures import HOOKS, failing_in_one_line, result_of
from flows.naming import flow_run_name, task_run_name
from flows.reporting import ProgressArtifact, shown
from storage.errors import UserError
from vocsep.separation import step
from vocsep.separation.outputs import inputs_to_separate
from vocsep.separation.step import SeparateConfig, SeparateResult
from vocsep.tables import plain_rows


def _name(config: SeparateConfig) -> str:
    """As in `separate song.mp3` or `separate 12 songs`."""
    songs = list(config.inputs)
    with contextlib.suppress(UserError, OSError):  # the run itself says what is wrong
        songs = inputs_to_separate(config.inputs, config.output, config.settings.name).songs
    return f"separate {songs[0].name if len(songs) == 1 else f'{len(songs)} songs'}"


@task(name="separate songs", task_run_name=task_run_name(_name), cache_policy=NO_CACHE)
@failing_in_one_line
def separate_songs(config: SeparateConfig) -> SeparateResult:
    """Separate every file on a Dask worker; paths go there and come back."""
    artifact = ProgressArtifact("separate-progress", "Share of the files that are separated")
    with dask_map(config.workers, "separate") as mapped:
        return shown(lambda: step.separate(config, progress=artifact.update, map=mapped), _show)


def _show(result: SeparateResult) -> None:
    rows = plain_rows(map(_row, result.songs))
    create_table_artifact(rows, key="separated-files", description="What became of every file")


def _row(song: dict[str, Any]) -> dict[str, str]:
    if song["state"] != "separated":
        return {"file": song["input"], "state": song.get("error") or song["state"]}
    return {
        "file": song["input"],
        "state": "separated",
        "length": f"{song['seconds']:.1f} s",
        "took": f"{song['wall_seconds']:.1f} s",
        "cut off": f"{song['clipped_samples']} samples",
    }


@flow(name="separate", flow_run_name=flow_run_name(_name), **HOOKS)
@failing_in_one_line
def separate(config: SeparateConfig) -> SeparateResult:
    """Separate songs into vocals and accompaniment with a trained model."""
    return result_of(separate_songs, config)
