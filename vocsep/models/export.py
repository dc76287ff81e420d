"""Trained networks as files for other programs: ONNX, and torch.export programs."""

import json
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from storage.errors import UserError, one_line
from storage.files import writing
from vocsep.arrays import Spectrogram
from vocsep.config import validated
from vocsep.models.mask_module import MaskModule
from vocsep.models.onnx_network import METADATA_KEY, OnnxNetwork, export_path
from vocsep.models.registry import open_registry
from vocsep.models.torch_network import TorchNetwork, folded, load_network
from vocsep.spectrograms.config import SpectrogramConfig

ExportFormat = Literal["onnx", "torch"]
SUFFIXES: dict[str, str] = {"onnx": "onnx", "torch": "pt2"}
LARGEST_DIFFERENCE = 1e-4
"""Of masks, between the exported network and the model; more is refused."""

# Of all networks' strides; what torch.export makes takes multiples of it.
FRAMES_MULTIPLE = 64
_CHECKED_STRIDES = (2, 3, 36)

_Masks = Callable[[Spectrogram], Spectrogram]


@dataclass(frozen=True)
class Exported:
    """The file that was written, and the largest difference of its masks from the model's own."""

    path: Path
    largest_difference: float


def export_model(name: str, models: Path, export_format: ExportFormat, output: Path | None = None) -> Exported:
    """Export a model and compare what it computes with the model itself.

    The exported network maps raw magnitudes `(batch, channels, frames, bins)` float32, named `magnitudes`, to `masks`
    `(batch, targets * channels, frames, bins)`; batch and frames are free, for `torch` in multiples of 64 frames.

    Parameters
    ----------
    name
        `champion`, `latest`, a version's number or a model folder.
    output
        None takes `<models>/exports/<version>-<digest>.<suffix>`, where the engine `onnx` looks.

    Raises
    ------
    UserError
        If the model cannot be read or is of a kind that has no export, the export differs from it by more than
        `LARGEST_DIFFERENCE`, or the file cannot be written; no file is left then.
    """
    model = open_registry(models).open(name)
    spectrogram = validated(SpectrogramConfig, model.description.get("spectrogram"), str(model.path))
    network = load_network(model)
    if network.input == "peak":
        raise UserError(f"{model.path}: input peak cannot be exported: short songs are handled differently")
    path = output or export_path(model, models, SUFFIXES[export_format])
    write = write_onnx if export_format == "onnx" else write_torch
    read: Callable[[Path], _Masks] = OnnxNetwork if export_format == "onnx" else _TorchProgram
    try:
        with writing(path) as temporary:
            write(folded(network), spectrogram.bins, model.description, temporary)
            difference = _largest_difference(TorchNetwork(network), read(temporary), network.channels, spectrogram.bins)
            if not difference <= LARGEST_DIFFERENCE:
                raise UserError(
                    f"{path}: not written; the exported network's masks differ from the model's by {difference:.2g}, "
                    f"more than {LARGEST_DIFFERENCE:g}"
                )
    except OSError as error:
        raise one_line(path, "written", error) from None
    return Exported(path, difference)


def write_onnx(network: MaskModule, bins: int, description: dict[str, Any], path: Path) -> None:
    """Write a network as ONNX; `description` goes into the file's metadata as JSON, under `METADATA_KEY`.

    Raises
    ------
    UserError
        If the packages that this needs are not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError:
        raise UserError("exporting to ONNX needs its packages: pip install 'vocsep[onnx]'") from None
    # The exporter warns about its own internals.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (torch.zeros(2, network.channels, 3 * FRAMES_MULTIPLE, bins),),
            input_names=["magnitudes"],
            output_names=["masks"],
            dynamic_shapes=({0: torch.export.Dim("batch"), 2: torch.export.Dim("frames")},),
            dynamo=True,
            # Its optimizer takes what is added to a magnitude before a logarithm, 1e-8, for nothing.
            optimize=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(description)})
    path.write_bytes(model.SerializeToString())


def write_torch(network: MaskModule, bins: int, description: dict[str, Any], path: Path) -> None:
    """Write a network as a program of torch.export, with `description` as an extra file of JSON."""
    shapes = ({0: torch.export.Dim("batch"), 2: FRAMES_MULTIPLE * torch.export.Dim("strides", min=2)},)
    example = torch.zeros(2, network.channels, 3 * FRAMES_MULTIPLE, bins)
    program = torch.export.export(network, (example,), dynamic_shapes=shapes)
    torch.export.save(program, path, extra_files={f"{METADATA_KEY}.json": json.dumps(description)})


class _TorchProgram:
    """A saved program, as any other program would load it."""

    def __init__(self, path: Path) -> None:
        self._module = torch.export.load(path).module()

    @torch.inference_mode()
    def __call__(self, magnitudes: Spectrogram) -> Spectrogram:
        masks: Spectrogram = self._module(torch.from_numpy(magnitudes)).numpy()
        return masks


def _largest_difference(model: _Masks, exported: _Masks, channels: int, bins: int) -> float:
    """Of the masks for noise whose power falls towards high bins as that of music does, in places to silence."""
    random = np.random.default_rng(0)
    differences = []
    for examples, strides in enumerate(_CHECKED_STRIDES, start=1):
        noise = random.rayleigh(size=(examples, channels, strides * FRAMES_MULTIPLE, bins))
        magnitudes = (30 * np.exp(-np.arange(bins) / 60) * noise).astype(np.float32)
        magnitudes[..., ::7] *= np.float32(1e-9)
        magnitudes[..., ::11, :] = 0
        differences.append(float(np.abs(model(magnitudes) - exported(magnitudes)).max()))
    return float(np.max(differences))
