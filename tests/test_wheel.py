"""The wheel, installed where nothing of the clone is: every command, and no name taken that others may have."""

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

import vocsep.cli.main
from storage.registry import ModelRegistry
from vocsep.cli.serving import SERVING
from vocsep.cli.steps import STEPS

ROOT = Path(vocsep.__file__).parents[1]
COMMANDS = {*STEPS, *SERVING, *vocsep.cli.main.OTHERS}

# Says what is imported under which name.
IMPORTS = """
import sys
import storage
import vocsep
import vocsep.flows.serving.daemon
print(vocsep.__file__)
print(storage.OWNER)
print("flows" in sys.modules)
print(vocsep.UserError.__module__)
"""


class Installed:
    """An environment with the wheel, a package `storage` of somebody else, and the libraries of this one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = folder / "environment"
        paths = {name: str(self.environment) for name in ("base", "platbase")}
        self.packages = Path(sysconfig.get_path("purelib", vars=paths))
        self.wheel = self._built()
        self._call(sys.executable, "-m", "venv", "--without-pip", str(self.environment))
        # Read for its packages alone: a .pth file in there, as of an editable install of the clone, does nothing.
        (self.packages / "libraries.pth").write_text(sysconfig.get_path("purelib"))
        python = str(self.environment / "bin/python")
        self._call(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", str(self.wheel))
        (self.packages / "storage.py").write_text("OWNER = 'somebody else'\n")
        self.work = folder / "work"
        self.work.mkdir()

    def _built(self) -> Path:
        source = self.folder / "source"
        source.mkdir()
        for name in ("build_backend", "flows", "storage", "vocsep"):
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("LICENSE", "README.md", "prefect.yaml", "pyproject.toml"):
            shutil.copy(ROOT / name, source)
        pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(self.folder))
        self._call(*pip, str(source))
        (wheel,) = self.folder.glob("*.whl")
        return wheel

    def _call(self, *command: str) -> "subprocess.CompletedProcess[str]":
        inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MUSDB_PATH")}
        folder = getattr(self, "work", self.folder)
        result = subprocess.run(command, cwd=folder, env=inherited, capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, result.stdout + result.stderr
        return result

    def python(self, program: str) -> list[str]:
        return self._call(str(self.environment / "bin/python"), "-c", program).stdout.splitlines()

    def vocsep(self, *arguments: str) -> str:
        return self._call(str(self.environment / "bin/vocsep"), *arguments).stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("wheel"))


def test_wheel_has_one_package_with_the_model_and_the_deployments(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as wheel:
        names = wheel.namelist()
        deployments = yaml.safe_load(wheel.read("vocsep/flows/prefect.yaml"))["deployments"]
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"vocsep"}
    here = {str(path.relative_to(ROOT)) for room in ("flows", "storage") for path in (ROOT / room).rglob("*.py")}
    here = {f"vocsep/{path}" for path in here}
    here |= {str(path.relative_to(ROOT)) for path in (ROOT / "vocsep").rglob("*.*") if "__pycache__" not in path.parts}
    assert here <= set(names)
    for one in deployments:
        module, _, flow = one["entrypoint"].rpartition(".")
        assert f"{module.replace('.', '/')}.py" in names
        assert module.endswith(f".{flow}")


def test_no_module_imports_rooms_by_the_names_that_they_have_in_the_clone(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as wheel:
        nodes = [
            node for name in wheel.namelist() if name.endswith(".py") for node in ast.walk(ast.parse(wheel.read(name)))
        ]
    roots = {node.module.partition(".")[0] for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    roots |= {alias.name.partition(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert {"vocsep", "prefect", "torch"} <= roots
    assert not {"flows", "storage"} & roots


def test_what_is_imported_is_the_wheel_and_a_foreign_storage_stays_foreign(installed: Installed) -> None:
    assert installed.python(IMPORTS) == [
        str(installed.packages / "vocsep/__init__.py"),
        "somebody else",
        "False",
        "vocsep.storage.errors",
    ]


def test_help_lists_every_command(installed: Installed) -> None:
    text = installed.vocsep("--help")
    assert {command for command in COMMANDS if f" {command} " in text} == COMMANDS
    assert "--port" in installed.vocsep("serve", "--help")


def test_the_main_job_and_separating_with_the_bundled_model(installed: Installed, demo_root: Path) -> None:
    songs = installed.work / "songs"
    for split, number in (("train", 2), ("test", 1)):
        for song in sorted((demo_root / split).iterdir())[:number]:
            (songs / split).mkdir(parents=True, exist_ok=True)
            shutil.copy(song, songs / split)
    (songs / "train" / "Broken.stem.mp4").write_bytes(b"no song")
    small = ("--steps", "2", "--validations", "1", "--batch-size", "2", "--remix", "0")
    network = ("--network", "unet", "--width", "1", "--channels", "1")
    # Preprocesses in separate processes, trains, evaluates.
    told = installed.vocsep("retrain", "--dataset", "songs", "--workers", "2", "--skip-failed", *small, *network)
    # Two steps make no better model than the one that comes with vocsep.
    assert "The bundled model stays in use" in told
    assert "- Broken: " in told
    registry = ModelRegistry(installed.work / "data/models")
    assert (registry.versions(), registry.champion()) == ([1], None)
    assert (installed.work / "data/reports/latest/report.html").is_file()

    noise = 0.1 * np.random.default_rng(0).standard_normal((22050, 2))
    soundfile.write(installed.work / "song.wav", noise, 22050, subtype="FLOAT")
    installed.vocsep("separate", "song.wav", "-o", "out", "--model", "bundled")
    stems = [soundfile.read(installed.work / f"out/song/{name}.wav")[0] for name in ("vocals", "accompaniment")]
    np.testing.assert_allclose(sum(stems), noise, atol=1e-6)
    assert np.abs(stems[0]).max() > 0
