"""Run the benchmarks and write docs/benchmarks.md: `python -m benchmarks.report [NAME ...]`.

Results are kept in benchmarks/results/. A benchmark that has a result of this commit is not run again: a stopped call
resumes. With `--page` nothing is run: the page is made from the results, and from the records of trials next to them.
"""

import argparse
import ast
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml

from vocsep.doctor.environment import environment
from vocsep.paths import MODELS, STORE

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
TRIALS = RESULTS / "trials.yaml"
PAGE = HERE.parent / "docs/benchmarks.md"
NAMES = sorted(path.stem for path in HERE.glob("[a-z]*.py") if path.stem != Path(__file__).stem)


def main() -> None:
    """Run what is missing, one benchmark after the other, and write the page after each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--page", action="store_true", help="only write the page")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    # Not whether files differ from it: results do, as soon as one is kept.
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()
    for name in [] if options.page else options.names or NAMES:
        held = read(name)
        if held is not None and held["commit"] == commit:
            print(f"{name}: has a result of this commit")
            continue
        print(f"{name} ...", flush=True)
        if (result := run(name)) is not None:
            RESULTS.mkdir(exist_ok=True)
            content = result | {"commit": commit, "date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine()}
            (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        PAGE.write_text(page(), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")


def run(name: str) -> dict[str, Any] | None:
    """What a benchmark printed, and the figures of its last line; None if it failed, which is told."""
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    done = subprocess.run(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        print(f"{name}: failed, exit code {done.returncode}; no result", flush=True)
        return None
    print(done.stdout, flush=True)
    *printed, last = done.stdout.rstrip().splitlines()
    if dataset := os.environ.get("MUSDB_PATH"):  # where it is, is nobody's business
        printed = [line.replace(dataset, Path(dataset).name) for line in printed]
    figures = json.loads(last)
    return {"values": figures["values"], "ratios": figures["ratios"], "printed": printed}


def machine() -> dict[str, Any]:
    """What figures depend on."""
    found = environment(MODELS, STORE)
    return {
        "processor": found["processor"]["name"],
        "cores": found["processor"]["cores"],
        "instructions": ", ".join(found["processor"]["instructions"]) or "none",
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "Python": platform.python_version(),
        "torch": torch.__version__,
    }


def read(name: str) -> dict[str, Any] | None:
    """The result that is kept of a benchmark, None if there is none."""
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def page() -> str:
    """docs/benchmarks.md, made from all results and records of trials."""
    lines = [
        "# Benchmarks",
        "",
        "Made by `make bench`, which resumes after an interruption; `make bench ARGS=opening` runs one benchmark. "
        "Seconds depend on the machine and on what else it does, so compare ratios: to a limit or a peer, measured in "
        "turns in the same run. [Trials](#trials) took hours and are records. What the figures mean: [quality]"
        "(explanation/quality.md), [speed and memory](explanation/performance.md).",
    ]
    missing = [name for name in NAMES if read(name) is None]
    if missing:
        lines += ["", f"Not run yet: {', '.join(f'`{name}`' for name in missing)}."]
    for name in NAMES:
        lines += ["", f"## {name}", "", about(name), "", *shown(read(name))]
    lines += [
        "",
        "## Trials",
        "",
        "Single runs unless noted. Scores are SDR in dB on MUSDB18's 7-second preview, median (mean) over songs, of "
        'the vocals unless noted: "test" is BSSEval v4 on its 25 test songs, "validation" its 14 validation songs. '
        "Training uses its 80 training songs of 6.8 s.",
    ]
    for trial in yaml.load(TRIALS.read_text(encoding="utf-8"), yaml.BaseLoader):  # every value as it is written
        lines += recorded(trial)
    return "\n".join(lines) + "\n"


def about(name: str) -> str:
    """The first paragraph of a benchmark's docstring."""
    text = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split())


def shown(result: dict[str, Any] | None) -> list[str]:
    """A result for people: where and when, the ratios, and what was printed."""
    if result is None:
        return ["Not run."]
    where = ", ".join(f"{name} {value}" for name, value in result["machine"].items())
    lines = [f"{result['date']}, commit `{result['commit']}`; {where}."]
    if result["ratios"]:
        lines += ["", "| ratio | |", "|---|---|"]
        lines += [f"| {name.replace('_', ' ')} | {value:.3g} |" for name, value in result["ratios"].items()]
    return [*lines, "", "```text", *result["printed"], "```"]


def recorded(trial: dict[str, Any]) -> list[str]:
    """A trial for people: what was run, when it was recorded, its table and notes."""
    date, _, commit = trial["recorded"].partition(", ")
    where = f"; {trial['machine']}" if "machine" in trial else ""
    text = f"Recorded {date}, commit `{commit}`{where}. {trial.get('about', '')}"
    lines = ["", f"### {trial['name']}", "", text.rstrip()]
    if "command" in trial:
        lines += ["", "```", trial["command"], "```"]
    rows = [trial["columns"], ["---"] * len(trial["columns"]), *trial["rows"]]
    lines += ["", *(f"| {' | '.join(row)} |" for row in rows)]
    if "notes" in trial:
        lines += ["", *(f"- {note}" for note in trial["notes"])]
    return lines


if __name__ == "__main__":
    main()
