"""Pictures of a comparison: learning curves, and what each problem gave."""

from collections.abc import Mapping
from pathlib import Path
from statistics import mean

from matplotlib.figure import Figure

from vocsep.comparison.effects import Effect
from vocsep.comparison.runs import RunResult


def plot_curves(path: Path, curves: Mapping[str, list[RunResult]], lines: Mapping[str, float]) -> None:
    """Validation SDR over the steps, and training loss against that of the best single mask; a thin line per seed."""
    figure = Figure(figsize=(9, 9), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for index, (name, found) in enumerate(curves.items()):
        color = f"C{index}"
        steps = [point.step for point in found[0].history]
        for axis, values in (
            (above, [[point.valid_sdr_db for point in result.history] for result in found]),
            (below, [[point.train_loss / result.constant_loss for point in result.history] for result in found]),
        ):
            for one in values:
                axis.plot(steps[: len(one)], one, color=color, linewidth=0.6, alpha=0.6)
            average = [mean(points) for points in zip(*values, strict=True)]
            axis.plot(steps[: len(average)], average, "o-", color=color, markersize=3, label=name)
    for name, value in lines.items():
        above.axhline(value, color="gray", linestyle=":", linewidth=1)
        above.annotate(name, (0.01, value), xycoords=("axes fraction", "data"), fontsize=8, va="bottom")
    below.axhline(1.0, color="gray", linestyle=":", linewidth=1)
    above.set_ylabel("validation SDR of the vocals, dB")
    below.set_ylabel("training loss / loss of the best single mask")
    below.set_ylim(bottom=0)
    below.set_xlabel("steps")
    if curves:
        above.legend(fontsize=8)
    for axis in (above, below):
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=100)


def plot_problems(path: Path, effects: Mapping[str, Mapping[str, Effect | None]]) -> None:
    """What solving each problem gives, in dB: a dot per seed, a bar for their mean."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axis = figure.subplots()
    titles = list(next(iter(effects.values())))
    for index, title in enumerate(titles):
        # What bringing a problem costs is shown as what its absence gives.
        sign = -1 if title.startswith("brought") else 1
        places = [number + 0.25 * (index - 1) for number in range(len(effects))]
        found = [row[title] for row in effects.values()]
        means = [0.0 if effect is None else sign * effect.mean for effect in found]
        axis.bar(places, means, width=0.22, alpha=0.5, color=f"C{index}", label=title)
        for place, effect in zip(places, found, strict=True):
            if effect is not None:
                dots = [sign * value for value in effect.per_seed]
                axis.plot([place] * len(dots), dots, "o", color=f"C{index}", markersize=4)
    axis.set_xticks(range(len(effects)), list(effects))
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_ylabel("dB of SDR that its absence gives")
    axis.legend(fontsize=8)
    axis.grid(axis="y", alpha=0.3)
    figure.savefig(path, dpi=100)
