"""Whether a challenger takes the champion's place."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from storage.registry import ModelRegistry, ModelVersion
from vocsep.evaluation.scores import SongScores
from vocsep.metrics.statistics import lower_bound, paired_difference


@dataclass(frozen=True)
class Decision:
    """Whether a challenger becomes the champion, and why.

    Attributes
    ----------
    champion
        The model that it was compared with; None if there was none.
    songs, better
        Test songs that both have a score for, and on how many of them the challenger is better.
    mean_db, least_db
        Mean difference, challenger minus champion, in dB of vocals SDR, and what it is at least with `confidence`.
    """

    challenger: int
    champion: int | None
    promote: bool
    reason: str
    songs: int = 0
    better: int = 0
    mean_db: float | None = None
    least_db: float | None = None
    confidence: float | None = None


def decide(
    challenger: ModelVersion, champion: ModelVersion | None, scores: Sequence[SongScores], confidence: float
) -> Decision:
    """Whether the challenger becomes the champion: if no model is in use, or if its vocals SDR is surely higher.

    The songs' differences are compared, by `statistics.lower_bound`. Songs that either model was trained or validated
    on do not count.

    Parameters
    ----------
    champion
        The model in use; one without a number is the bundled one.
    scores
        Of test songs, with the rows `model` (the challenger) and `champion` or `bundled`.
    """
    assert challenger.version is not None
    if champion is None:
        return Decision(challenger.version, None, promote=True, reason="there was no champion")
    row = "bundled" if champion.version is None else "champion"
    seen = _songs_of(challenger) | _songs_of(champion)
    counted = [song for song in scores if song.name not in seen]
    pairs = [(song.median("model", "vocals", "SDR"), song.median(row, "vocals", "SDR")) for song in counted]
    pairs = [pair for pair in pairs if all(map(math.isfinite, pair))]
    difference = paired_difference([new for new, _ in pairs], [old for _, old in pairs])
    least = lower_bound([new - old for new, old in pairs], confidence)
    left_out = len(scores) - len(counted)
    note = f" ({left_out} test songs do not count: one of the models was trained on them)" if left_out else ""
    if difference is None or least is None:
        reason = f"fewer than two test songs can be compared{note}"
        return Decision(challenger.version, champion.version, promote=False, reason=reason, songs=len(pairs))
    verdict = "better" if least > 0 else "not surely better"
    return Decision(
        challenger.version,
        champion.version,
        promote=least > 0,
        reason=f"{verdict}: {difference.mean:+.2f} dB vocals SDR on average over {len(pairs)} test songs, better on "
        f"{difference.better}; with {confidence:.0%} confidence at least {least:+.2f} dB{note}",
        songs=len(pairs),
        better=difference.better,
        mean_db=difference.mean,
        least_db=least,
        confidence=confidence,
    )


def _songs_of(model: ModelVersion) -> set[str]:
    return {*model.songs("train"), *model.songs("valid")}


def apply(decision: Decision, registry: ModelRegistry) -> None:
    """Promote the challenger if that was decided; doing it again changes nothing.

    Raises
    ------
    UserError
        If the champion is neither the one it was compared with nor the challenger, or the challenger is damaged.
    """
    if decision.promote and registry.champion() != decision.challenger:
        registry.promote(decision.challenger, f"retrained: {decision.reason}", replacing=decision.champion)


def still_holds(decision: Decision | None, registry: ModelRegistry) -> bool:
    """Whether a decision was made, and about the champion that there is, or that it made."""
    return decision is not None and registry.champion() in (decision.champion, decision.challenger)
