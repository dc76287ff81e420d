"""What the page tells of models and reports that say anything."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from storage.registry import WEIGHTS_DIGEST
from vocsep.evaluation.report.facts import model_facts
from vocsep.page.catalogue import models, reports

NO_FIGURES: tuple[Any, ...] = (math.nan, math.inf, 10**400, "8.0", True, None, [1.0])


@pytest.mark.parametrize("value", NO_FIGURES)
def test_what_is_no_figure_is_left_out_of_models_and_reports(value: Any, tmp_path: Path) -> None:
    point = {"step": 1, "valid_sdr_db": 3.5, "train_loss": 0.5}
    description: dict[str, Any] = {
        "metrics": {"valid_sdr_db": value},
        "training": {"seconds": value},
        "history": [point, point | {"train_loss": value}],
    }
    folder = tmp_path / "models" / "0001"
    folder.mkdir(parents=True)
    (folder / "model.json").write_text(json.dumps(description | {WEIGHTS_DIGEST: "0" * 64}))
    model = json.loads(json.dumps(models(tmp_path / "models"), allow_nan=False))[0]
    assert (model["valid_sdr_db"], model["minutes"], model["history"]) == (None, 0, [point])
    assert "training" not in model_facts(description) or isinstance(value, str)

    description["training"], description["earlier_trainings"] = {"seconds": 60, "steps_done": 5}, [{"seconds": value}]
    (folder / "model.json").write_text(json.dumps(description | {WEIGHTS_DIGEST: "0" * 64}))
    model = json.loads(json.dumps(models(tmp_path / "models"), allow_nan=False))[0]
    assert (model["steps"], model["minutes"]) == (5, 1)

    report = tmp_path / "reports" / "one"
    report.mkdir(parents=True)
    (report / "report.html").touch()
    rows = {"model": {"vocals": {"SDR": {"median": 3.5}}, "accompaniment": {"SDR": {"median": value}}}}
    (report / "summary.json").write_text(json.dumps({"rows": rows}))
    (found,) = json.loads(json.dumps(reports(tmp_path / "reports"), allow_nan=False))
    assert found["scores"] == {"vocals": 3.5}
