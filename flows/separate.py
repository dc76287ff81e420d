"""Flow `separate`: separate files and folders of songs on Dask."""

from typing import Any

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows.cluster import dask_map
from flows.failures import HOOKS, failing_in_one_line, result_of
from flows.reporting import ProgressArtifact, shown
from vocsep.separation import step
from vocsep.separation.step import SeparateConfig, SeparateResult
from vocsep.tables import plain_rows


@task(name="separate songs", cache_policy=NO_CACHE)
@failing_in_one_line
def separate_songs(config: SeparateConfig) -> SeparateResult:
    """Separate every file on a Dask worker; paths go there and come back."""
    artifact = ProgressArtifact("separate-progress", "Share of the files that are separated")
    with dask_map(config.workers, "separate") as mapped:
        return shown(lambda: step.separate(config, progress=artifact.update, map=mapped), _show)


def _show(result: SeparateResult) -> None:
    create_table_artifact(plain_rows(map(_row, result.songs)), key="separated-files")


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


@flow(name="separate", **HOOKS)
@failing_in_one_line
def separate(config: SeparateConfig) -> SeparateResult:
    """Separate songs into vocals and accompaniment with a trained model."""
    return result_of(separate_songs, config)
