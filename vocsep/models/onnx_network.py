"""Networks run by ONNX Runtime from a file that `vocsep export` wrote; torch is not needed."""

import json
from pathlib import Path
from typing import Any

from storage.errors import UserError
from storage.registry import ModelVersion
from vocsep.arrays import Spectrogram
from vocsep.models.architecture import parse_architecture
from vocsep.models.registry import open_registry

METADATA_KEY = "vocsep"
"""Where an exported file holds what its model's `model.json` says."""


def export_path(model: ModelVersion, models: Path, suffix: str) -> Path:
    """Default place of a model's export: next to the versions, with a part of its digest in its name."""
    name = model.path.resolve().name if model.version is None else f"{model.version:04d}"
    return models / "exports" / f"{name}-{model.description['weights_sha256'][:12]}.{suffix}"


def open_onnx(model: str | Path | ModelVersion, models: Path) -> tuple["OnnxNetwork", dict[str, Any], str]:
    """Network of an exported file, or of a model that was exported; its description and the file's name.

    Raises
    ------
    UserError
        If there is no such file, it is damaged or not of vocsep's, or ONNX Runtime is not installed.
    """
    if isinstance(model, ModelVersion) or Path(model).suffix != ".onnx":
        version = model if isinstance(model, ModelVersion) else open_registry(models).open(str(model))
        path = export_path(version, models, "onnx")
        if not path.is_file():
            raise UserError(f"{path}: no export of this model; run `vocsep export --format onnx --model {model}` first")
    else:
        path = Path(model)
        if not path.is_file():
            raise UserError(f"{path}: no such file")
    network = OnnxNetwork(path)
    return network, network.description, str(path)


def _no_network(path: Path, error: Exception) -> UserError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return UserError(f"{path}: not a network that `vocsep export` wrote, or damaged ({reason})")


class OnnxNetwork:
    """An exported network as `vocsep.models.network.MaskNetwork`, on the CPU.

    Attributes
    ----------
    description
        What the model's `model.json` says.

    Raises
    ------
    UserError
        If the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            import onnxruntime
        except ImportError:
            raise UserError("the engine onnx needs ONNX Runtime: pip install 'vocsep[onnx]'") from None
        options = onnxruntime.SessionOptions()
        # The caller already has a thread for each core.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            metadata = self._session.get_modelmeta().custom_metadata_map
            self.description: dict[str, Any] = json.loads(metadata[METADATA_KEY])
            architecture = parse_architecture(self.description["architecture"])
            self._channels, self._targets = architecture.channels, architecture.targets
            self._context_frames = architecture.context_frames
        except Exception as error:  # ONNX Runtime's errors have no common class
            raise _no_network(path, error) from None

    @property
    def channels(self) -> int:
        """Audio channels of one example."""
        return self._channels

    @property
    def targets(self) -> int:
        """Sources that there are masks for."""
        return self._targets

    @property
    def context_frames(self) -> int:
        """Frames before and after a block that decide its masks."""
        return self._context_frames

    def __call__(self, magnitudes: Spectrogram) -> Spectrogram:
        """Masks of raw magnitudes (see `MaskNetwork`)."""
        try:
            masks: Spectrogram = self._session.run(["masks"], {"magnitudes": magnitudes})[0]
            if masks.size != magnitudes.size * self._targets:
                raise ValueError(f"gives masks of shape {masks.shape} for magnitudes of shape {magnitudes.shape}")
        except Exception as error:  # a file from elsewhere may hold any graph
            raise _no_network(self._path, error) from None
        return masks
