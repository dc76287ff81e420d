"""What the doctor found, for a terminal, for programs, and as one HTML page with its pictures."""

import io
from datetime import datetime
from typing import Any

from matplotlib.figure import Figure

from vocsep.doctor.diagnosis import Diagnosis
from vocsep.doctor.finding import Finding, Status
from vocsep.doctor.meanings import MEANINGS
from vocsep.html.pages import rendered

MARKS = {"pass": "ok  ", "warn": "warn", "fail": "FAIL"}


def as_lines(finding: Finding) -> list[str]:
    """One check for a terminal."""
    return [f"{MARKS[finding.status]}  {finding.check}: {finding.figure}", f"      {finding.advice}"]


def in_short(diagnosis: Diagnosis) -> str:
    """The last line."""
    grave: tuple[Status, ...] = ("fail", "warn")
    parts = [f"{status}: {', '.join(diagnosis.of(status))}" for status in grave if diagnosis.of(status)]
    return f"{len(diagnosis.findings)} checks" + ("; " + "; ".join(parts) if parts else ", nothing is wrong")


def as_json(diagnosis: Diagnosis, about: dict[str, Any]) -> dict[str, Any]:
    """Everything as JSON-like values; what is not finite becomes null."""
    checks = [_finite(vars(finding)) for finding in diagnosis.findings]
    return {**about, "status": diagnosis.status, "checks": checks}


def as_html(diagnosis: Diagnosis, about: dict[str, Any]) -> str:
    """A page that needs nothing from elsewhere: what fails first, and what is fine folded away."""
    gravest_first = sorted(diagnosis.findings, key=lambda finding: ("fail", "warn", "pass").index(finding.status))
    return rendered(
        "doctor/report.html.j2",
        about={**about, "date": datetime.now().astimezone().isoformat(sep=" ", timespec="minutes")},
        status=diagnosis.status,
        findings=gravest_first,
        marks={status: mark.strip() for status, mark in MARKS.items()},
        meanings=MEANINGS,
        summary=in_short(diagnosis),
        pictures={finding.check: _picture(finding) for finding in diagnosis.findings if finding.curve},
    )


def _picture(finding: Finding) -> bytes:
    """A PNG: curves over the first of them where its name is an axis, else over their number."""
    curve = dict(finding.curve)
    figure = Figure(figsize=(5.6, 2.8), layout="constrained")
    axis = figure.subplots()
    if "learning rate" in curve:
        axis.semilogx(curve["learning rate"], curve["loss"])
        axis.axvline(finding.values["rate"], color="tab:red", label="set")
        axis.axvline(finding.values["suggested"], color="tab:green", linestyle="--", label="suggested")
        axis.set_xlabel("learning rate")
        axis.set_ylabel("loss / loss at the start")
        axis.legend()
    elif "quantile" in curve:
        places = curve.pop("quantile")
        for name, values in curve.items():
            axis.plot(values, places, label=name)
        axis.set_xlabel("mask")
        axis.set_ylabel("share of values below")
        axis.legend()
    else:
        for name, values in curve.items():
            axis.semilogy(values, "o-", markersize=3)
            axis.set_ylabel(name)
        axis.set_xlabel("step" if "loss" in curve else "layer")
    axis.grid(alpha=0.3)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    return content.getvalue()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value
