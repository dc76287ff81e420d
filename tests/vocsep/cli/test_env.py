"""`vocsep env` as a user calls it before reporting a problem."""

import json
from pathlib import Path
from typing import Any

import numpy
import psutil
import pytest
import torch
import zarr
from typer.testing import CliRunner, Result

from tests.vocsep.models.small_models import add_model
from tests.vocsep.training.training_runs import small_store
from vocsep.cli.main import app
from vocsep.cores import usable_cores

SECRET = "hunter2"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's home, which is named by way of a link, with a secret in everything that may hold one."""
    real, home = tmp_path / "real", tmp_path / "link" / "zoe"
    (real / "zoe").mkdir(parents=True)
    (tmp_path / "link").symlink_to(real, target_is_directory=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    for name in ("PREFECT_API_KEY", "AWS_SECRET_ACCESS_KEY", "SOME_TOKEN", "PASSWORD", "PYTHONPATH"):
        monkeypatch.setenv(name, SECRET)
    for name in ("PREFECT_API_URL", "DASK_ADDRESS", "http_proxy", "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(name, f"https://zoe:{SECRET}@host.example")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("MUSDB_PATH", str(home / "songs"))
    return home


def env(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["env", *arguments])
    assert result.exit_code == 0, result.output
    assert SECRET not in result.output
    assert "host.example" not in result.output
    return result


def test_it_tells_versions_machine_model_and_store_and_no_secret(home: Path) -> None:
    add_model(home / "models")
    store = small_store(home / "store.zarr", ("train", "train", "valid"))
    arguments = ("--models", str(home.resolve() / "models"), "--store", str(home / "store.zarr"))
    found: dict[str, Any] = json.loads(env(*arguments, "--json").output)
    assert found["versions"]["torch"] == torch.__version__
    assert (found["versions"]["numpy"], found["versions"]["zarr"]) == (numpy.__version__, zarr.__version__)
    assert {"vocsep", "python", "prefect", "dask"} <= found["versions"].keys()
    assert found["cores"]["usable"] == usable_cores() == min(found["cores"]["limits"].values())
    assert 0 < found["memory"]["usable"] <= found["memory"]["total"] == psutil.virtual_memory().total
    assert found["threads"]["vocsep"] == 3
    has = set(Path("/proc/cpuinfo").read_text().split())
    assert {"amx_bf16", "avx2"} & has == {"amx_bf16", "avx2"} & set(found["processor"]["instructions"])
    assert found["devices"][-1] == "cpu"
    assert (found["models"]["in use"], found["models"]["versions"]) == ("version 1", [1])
    assert found["models"]["registry"] == "~/models"
    assert (found["store"]["path"], found["store"]["songs"]) == ("~/store.zarr", 3)
    assert store.manifest.data_digest.startswith(found["store"]["data"])
    variables = found["variables"]
    assert (variables["OMP_NUM_THREADS"], variables["MUSDB_PATH"]) == ("3", "~/songs")
    assert variables["PREFECT_API_URL"] == variables["PYTHONPATH"] == "(set)"
    assert not {"AWS_SECRET_ACCESS_KEY", "SOME_TOKEN", "PASSWORD"} & variables.keys()
    text = env(*arguments).output
    assert [line.partition(":")[0] for line in text.splitlines()] == list(found)
    assert f"torch {torch.__version__}" in text
    assert str(home) not in text
    assert str(home.resolve()) not in text


def test_what_is_missing_or_damaged_is_said_and_costs_the_rest_nothing(home: Path) -> None:
    found = json.loads(env("--json").output)
    assert (found["models"]["in use"], found["models"]["versions"]) == ("bundled", [])
    assert found["store"] == {"path": "data/spectrograms.zarr", "state": "none"}
    store = small_store(home / "store.zarr", ("train", "valid"))
    (store.path / "manifest.json").write_text("{}")
    add_model(home / "models")
    (home / "models" / "0001" / "model.safetensors").write_bytes(b"")
    found = json.loads(env("--models", "models", "--store", str(home / "store.zarr"), "--json").output)
    assert found["models"]["in use"].startswith("damaged: models/0001")
    assert found["store"]["state"].startswith("damaged: ~/store.zarr")
