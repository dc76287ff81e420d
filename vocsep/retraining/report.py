"""The report of a retraining."""

from collections.abc import Collection

from storage.files import write_atomically
from storage.registry import ModelVersion
from vocsep.retraining.changes import Changes
from vocsep.retraining.job import Job
from vocsep.tables import plain

REPORT_NAME = "report.md"


def nothing_to_do_markdown(model: ModelVersion, failures: dict[str, str]) -> str:
    """The report where a model has all that a retraining would give, in markdown; `failures` are songs that failed."""
    lines = [
        "# Retraining",
        f"**Nothing to do**: model {model.version} was trained on these very training songs with these settings, and "
        "with no smaller budget.",
    ]
    return "\n\n".join([*lines, *_failed(failures)]) + "\n"


def retraining_markdown(changes: Changes, job: Job, failures: dict[str, str], details: Collection[str]) -> str:
    """The report of a retraining, in markdown.

    Parameters
    ----------
    failures
        Songs that failed, and why.
    details
        More lines: what was pruned, where the evaluation is.
    """
    lines = ["# Retraining"]
    decision = job.decision
    assert decision is not None
    if decision.promote:
        lines.append(f"**Model {decision.challenger} is the new champion**: {decision.reason}.")
    else:
        held = (
            "The bundled model stays in use"
            if decision.champion is None
            else f"Model {decision.champion} stays the champion"
        )
        lines.append(f"**{held}** before {decision.challenger}: {decision.reason}.")
    lines.append(f"Songs since the last retraining: {changes}.")
    for word, names in (("New", changes.new), ("Changed", changes.changed), ("Removed", changes.removed)):
        if names:
            lines.append(f"{word}: {', '.join(map(plain, names))}")
    base = job.training.fine_tune
    lines.append(f"Trained from {'scratch' if base is None else f'model {base}'}; job: `{job.folder}`.")
    return "\n\n".join([*lines, *details, *_failed(failures)]) + "\n"


def _failed(failures: dict[str, str]) -> list[str]:
    listed = "\n".join(f"- {plain(name)}: {plain(why)}" for name, why in failures.items())
    return [f"**Failed songs:**\n\n{listed}"] if failures else []


def finish(job: Job, songs: dict[str, str], report: str) -> None:
    """Write the report, and close the job: the next one begins with these songs."""
    write_atomically(job.folder / REPORT_NAME, report.encode(errors="replace"))
    job.finished, job.songs = True, songs
    job.write()
