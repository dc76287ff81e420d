"""What a set-up is made of: versions, machine, settings, model and store, to be shown to others."""

import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import av
import psutil
import soundfile

from storage.errors import UserError
from storage.registry import WEIGHTS_DIGEST
from storage.store import SpectrogramStore
from vocsep.control_groups import lines
from vocsep.cores import core_limits, usable_cores, usable_threads
from vocsep.memory import memory_limits
from vocsep.models.registry import BUNDLED, open_registry
from vocsep.tables import visible

# Variables that decide how vocsep runs, whose values are numbers, choices or paths.
SHOWN_VARIABLES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "NUMBA_CPU_NAME"),
    *("CUDA_VISIBLE_DEVICES", "SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "SLURM_STEP_TASKS_PER_NODE", "WORLD_SIZE"),
    *("MUSDB_PATH", "PREFECT_HOME", "MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "LANG", "LC_ALL", "TZ"),
)
# Those whose values may hold a password or the name of a host: only that they are set is said.
NAMED_VARIABLES = (
    *("PREFECT_API_URL", "PREFECT_API_KEY", "DASK_ADDRESS", "AWS_ENDPOINT_URL", "AWS_PROFILE", "PYTHONPATH"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
)
# By torch's names: what matrix products are fast with.
_INSTRUCTIONS = ("avx2", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16", "sve", "bf16")
_MOST_LETTERS = 300


def environment(models: Path, store_path: Path, variables: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """All of it, as JSON-like values; nothing secret, and folders in the user's home begin with `~`."""
    found = {
        "versions": _versions(),
        "system": _system(),
        "processor": _processor(),
        "devices": _devices(),
        "cores": {"usable": usable_cores(environment=variables), "limits": core_limits(environment=variables)},
        "memory": _memory(),
        "threads": _threads(variables),
        "variables": _variables(variables),
        "models": _models(models),
        "store": _store(store_path),
    }
    home = Path("~").expanduser()
    shown: dict[str, Any] = _shown(found, [str(home), str(home.resolve())] if home.is_absolute() else [])
    return shown


def _versions() -> dict[str, str]:
    """Of vocsep, Python, the packages that vocsep asks for, and the libraries in them."""
    import torch

    from vocsep.training.description import code_digest

    found = {"vocsep": f"{version('vocsep')} (code {code_digest()})", "python": platform.python_version()}
    for requirement in requires("vocsep") or ():
        name = re.match(r"[\w.-]+", requirement)
        if name is None or "extra == 'dev'" in requirement or 'extra == "dev"' in requirement:
            continue
        try:
            found[name.group()] = version(name.group())
        except PackageNotFoundError:
            found[name.group()] = "not installed"
    found["torch"] = torch.__version__  # says, too, what it was built for
    found["libavcodec"] = ".".join(map(str, av.library_versions["libavcodec"]))
    found["libsndfile"] = soundfile.__libsndfile_version__
    return found


def _system() -> dict[str, Any]:
    return {
        "platform": platform.platform(),
        "python": f"{platform.python_implementation()}, {sys.executable}",
        "container": Path("/.dockerenv").exists() or Path("/run/.containerenv").exists(),
    }


def _processor() -> dict[str, Any]:
    """Its name, and the instructions that torch may use."""
    import torch

    from vocsep.models.precision import pick_precision

    names = [line.partition(":")[2].strip() for line in lines(Path("/proc/cpuinfo")) if line.startswith("model name")]
    can = torch.cpu.get_capabilities()
    return {
        "name": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "instructions": [name for name in _INSTRUCTIONS if can.get(name)],
        "precision": pick_precision("cpu", "auto"),
    }


def _memory() -> dict[str, Any]:
    total = psutil.virtual_memory().total
    # Control groups of version 1 without a limit have one of 2^63 bytes.
    limits = {name: left for name, left in memory_limits().items() if left < total}
    return {"usable": min(limits.values(), default=total), "limits": limits, "total": total}


def _devices() -> list[str]:
    """What networks can run on, the one that `auto` takes first."""
    import torch

    found = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            found.append(f"cuda:{index} {about.name}, {about.total_memory / 2**30:.1f} GiB")
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def _threads(variables: Mapping[str, str]) -> dict[str, int]:
    """Of this process, and of torch where nobody limits it."""
    import torch

    return {"vocsep": usable_threads(environment=variables), "torch": torch.get_num_threads()}


def _variables(variables: Mapping[str, str]) -> dict[str, str]:
    shown = {name: variables[name] for name in SHOWN_VARIABLES if name in variables}
    return shown | {name: "(set)" for name in NAMED_VARIABLES if variables.get(name)}


def _models(path: Path) -> dict[str, Any]:
    """The model in use, and the versions in the registry."""
    registry = open_registry(path)
    found: dict[str, Any] = {"registry": str(path), "versions": registry.versions()}
    try:
        model = registry.in_use()
        if model is None:
            return found | {"in use": None}
        model.verify()
    except UserError as error:
        return found | {"in use": f"damaged: {error}"}
    found["in use"] = "bundled" if model.path == BUNDLED else f"version {model.version}"
    found["weights"] = str(model.description[WEIGHTS_DIGEST])[:16]
    for title, name in (("network", "architecture"), ("spectrogram", "spectrogram"), ("made with", "versions")):
        if isinstance(part := model.description.get(name), dict):
            found[title] = part
    return found


def _store(path: Path) -> dict[str, Any]:
    """How much is in the spectrogram store, and by what it was made."""
    if not path.exists():
        return {"path": str(path), "state": "none"}
    try:
        manifest = SpectrogramStore.open(path).manifest
    except UserError as error:
        return {"path": str(path), "state": f"damaged: {error}"}
    tracks = manifest.tracks.values()
    return {
        "path": str(path),
        "made by": manifest.tool,
        "kind": manifest.dataset.get("kind"),
        "songs": len(tracks),
        "hours": round(sum(track.seconds for track in tracks) / 3600, 2),
        "config": manifest.config_digest[:16],
        "data": manifest.data_digest[:16],
    }


def _shown(value: Any, homes: Sequence[str]) -> Any:
    """The same with texts as others may see them: in one short line, the home folder, by each of its names, as `~`."""
    if isinstance(value, dict):
        return {name: _shown(inner, homes) for name, inner in value.items()}
    if isinstance(value, list):
        return [_shown(inner, homes) for inner in value]
    if not isinstance(value, str):
        return value
    for home in homes:
        if len(home) > 1:
            value = re.sub(rf"{re.escape(home)}(?=/|$|[\s,:;)])", "~", value)
    return visible(value)[:_MOST_LETTERS]


def as_lines(found: Mapping[str, Any]) -> list[str]:
    """For people: a line per part, with its figures behind it."""
    cores, memory = found["cores"], found["memory"]
    shown = {
        **found,
        "cores": f"{cores['usable']} usable ({_pairs(cores['limits'])})",
        "memory": f"{_gigabytes(memory['usable'])} usable ({_pairs(memory['limits'], _gigabytes)}), "
        f"{_gigabytes(memory['total'])} in all",
        "devices": ", ".join(found["devices"]),
    }
    return [f"{name}: {_pairs(part) or '-' if isinstance(part, dict) else part}" for name, part in shown.items()]


def _pairs(part: Mapping[str, Any], text: Any = None) -> str:
    return ", ".join(f"{name} {_text(value) if text is None else text(value)}" for name, value in part.items())


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return f"({_pairs(value)})"
    return " ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
