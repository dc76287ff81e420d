"""What a retraining tells people."""

from collections.abc import Collection

from storage.files import write_atomically
from vocsep.retraining.changes import Changes
from vocsep.retraining.job import Job
from vocsep.tables import plain

REPORT_NAME = "report.md"


def retraining_markdown(changes: Changes, job: Job | None, failures: dict[str, str], details: Collection[str]) -> str:
    """The report of a retraining, in markdown.

    Parameters
    ----------
    job
        None if nothing changed.
    failures
        Songs that failed, and why.
    details
        More lines: what was pruned, where the evaluation is.
    """
    lines = ["# Retraining"]
    decision = job.decision if job else None
    if decision is None:
        lines.append("**Nothing to do**: a model was trained on these very songs with these settings already.")
    elif decision.promote:
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
    if job is not None:
        base = job.training.fine_tune
        lines.append(f"Trained from {'scratch' if base is None else f'model {base}'}; job: `{job.folder}`.")
    lines += details
    if failures:
        lines.append(
            "**Failed songs:**\n\n" + "\n".join(f"- {plain(name)}: {plain(why)}" for name, why in failures.items())
        )
    return "\n\n".join(lines) + "\n"


def finish(job: Job, songs: dict[str, str], report: str) -> None:
    """Write the report, and close the job: the next one begins with these songs."""
    write_atomically(job.folder / REPORT_NAME, report.encode())
    job.write(finished=True, songs=songs)
