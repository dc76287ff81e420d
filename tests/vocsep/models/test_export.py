import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from storage.errors import UserError
from storage.registry import ModelRegistry
from tests.vocsep.models.small_models import add_model, lively, music, unet
from vocsep.models import export
from vocsep.models.architecture import UNetArchitecture
from vocsep.models.export import export_model
from vocsep.models.mask_module import MaskModule
from vocsep.models.onnx_network import METADATA_KEY, OnnxNetwork, open_onnx
from vocsep.separation.separator import Separator
from vocsep.spectrograms.config import load_spectrogram_config


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry: version 1 sees mono, 2 stereo with two targets; both are exported to ONNX."""
    folder = tmp_path_factory.mktemp("registry") / "models"
    add_model(folder, channels=1)
    add_model(folder, channels=2, targets=2)
    for version in ("1", "2"):
        export_model(version, folder, "onnx")
    return folder


@pytest.mark.parametrize(("version", "channels", "targets"), [("1", 1, 1), ("2", 2, 2)])
def test_exported_network_has_the_models_masks_for_any_batch_and_number_of_frames(
    models: Path, version: str, channels: int, targets: int
) -> None:
    network, description, _ = open_onnx(version, models)
    assert (network.channels, network.targets) == (channels, targets)
    assert description == ModelRegistry(models).open(version).description
    for batch, frames in ((1, 1), (3, 64), (2, 200)):
        magnitudes = 10 * np.random.default_rng(frames).random((batch, channels, frames, 512), dtype=np.float32) ** 4
        with torch.inference_mode():
            expected = lively(channels, targets=targets)(torch.from_numpy(magnitudes)).numpy()
        masks = network(magnitudes)
        assert masks.dtype == np.float32
        np.testing.assert_allclose(masks, expected, rtol=0, atol=1e-4)


def test_file_is_an_ordinary_onnx_file_with_named_input_and_output(models: Path) -> None:
    (path,) = (models / "exports").glob("0001-*.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["magnitudes"]
    assert [each.name for each in session.get_outputs()] == ["masks"]
    assert json.loads(session.get_modelmeta().custom_metadata_map["vocsep"])["targets"] == ["vocals"]


@pytest.mark.parametrize("version", ["1", "2"])
def test_songs_separated_by_onnx_are_those_separated_by_torch(models: Path, version: str) -> None:
    waveform = music(0, 2, 44100, seconds=1.5)
    by_torch = Separator.load(version, models, device="cpu", precision="32").separate(waveform, 44100)
    by_onnx = Separator.load(version, models, engine="onnx").separate(waveform, 44100)
    for stem, expected in by_torch.items():
        np.testing.assert_allclose(by_onnx[stem], expected, rtol=0, atol=1e-5)


def test_torch_program_is_loaded_by_torch_alone_and_has_the_models_masks(models: Path, tmp_path: Path) -> None:
    exported = export_model("2", models, "torch", tmp_path / "network.pt2")
    assert exported.path == tmp_path / "network.pt2"
    assert exported.largest_difference <= 1e-4
    program = torch.export.load(exported.path).module()
    magnitudes = 10 * torch.rand(3, 2, 320, 512) ** 4
    with torch.inference_mode():
        torch.testing.assert_close(program(magnitudes), lively(2, targets=2)(magnitudes), rtol=0, atol=1e-4)


def test_export_that_differs_from_the_model_is_refused_and_leaves_no_file(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The exporter gets another network than the one that it is compared with.
    monkeypatch.setattr(export, "folded", lambda network: lively(1, seed=5))
    with pytest.raises(UserError, match="differ") as error:
        export_model("1", models, "torch", tmp_path / "wrong.pt2")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_model_that_was_not_exported_is_one_line_that_says_how(tmp_path: Path) -> None:
    add_model(tmp_path / "models")
    with pytest.raises(UserError, match="vocsep export --format onnx --model champion") as error:
        Separator.load("champion", tmp_path / "models", engine="onnx")
    assert "\n" not in str(error.value)


def test_model_that_was_trained_again_does_not_use_the_export_of_another(models: Path, tmp_path: Path) -> None:
    add_model(tmp_path / "models", channels=1, seed=3)
    (tmp_path / "models" / "exports").mkdir()
    (other,) = (models / "exports").glob("0001-*.onnx")
    (tmp_path / "models" / "exports" / other.name).write_bytes(other.read_bytes())
    with pytest.raises(UserError, match="no export"):
        Separator.load("1", tmp_path / "models", engine="onnx")


@pytest.mark.parametrize("damage", ["empty", "words", "cut", "of another program"])
def test_file_that_is_no_export_is_one_line_that_names_it(models: Path, tmp_path: Path, damage: str) -> None:
    (path,) = (models / "exports").glob("0001-*.onnx")
    content = path.read_bytes()
    if damage == "of another program":
        import onnx

        model = onnx.load(path)
        del model.metadata_props[:]
        content = model.SerializeToString()
    broken = tmp_path / "broken.onnx"
    broken.write_bytes({"empty": b"", "words": b"words", "cut": content[: len(content) // 2]}.get(damage, content))
    with pytest.raises(UserError, match=str(broken)) as error:
        OnnxNetwork(broken)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("channels", "name", "kept"), [(1, "other", 1), (1, "masks", 0), (10**9, "masks", 1), ("x", "masks", 1)]
)
def test_graph_that_is_not_what_it_says_is_one_line_that_names_it(
    tmp_path: Path, channels: Any, name: str, kept: int
) -> None:
    from onnx import ModelProto, TensorProto, helper, save

    description = {
        "architecture": {"name": "unet", "channels": channels, "width": 2, "targets": 1, "scaled_bins": None},
        "spectrogram": load_spectrogram_config("fine").model_dump(mode="json"),
    }
    given = helper.make_tensor_value_info("magnitudes", TensorProto.FLOAT, ["n", "c", "f", "b"])
    wanted = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    mean = helper.make_node("ReduceMean", ["magnitudes"], [name], axes=[3], keepdims=1)
    node = helper.make_node("Sigmoid", ["magnitudes"], [name]) if kept else mean
    made: ModelProto = helper.make_model(
        helper.make_graph([node], "graph", [given], [wanted]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    helper.set_model_props(made, {METADATA_KEY: json.dumps(description)})
    odd = tmp_path / "odd.onnx"
    save(made, odd)
    waveform = music(1, 2, 44100)
    with pytest.raises(UserError, match=str(odd)) as error:
        Separator.load(odd, tmp_path, engine="onnx").separate(waveform, 44100)
    assert "\n" not in str(error.value)


def test_network_that_treats_short_songs_otherwise_is_refused(tmp_path: Path) -> None:
    network = unet(1, width=2, input="peak")
    description = {
        "architecture": {"name": "unet", "channels": 1, "width": 2, "input": "peak"},
        "spectrogram": load_spectrogram_config("fine").model_dump(mode="json"),
    }
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    ModelRegistry(tmp_path / "models").add(weights, description)
    with pytest.raises(UserError, match="peak"):
        export_model("1", tmp_path / "models", "onnx")
    assert not (tmp_path / "models" / "exports").exists()


class OneLayer(MaskModule):
    """The least that can be between input and masks; exporting all layers of a network takes ten times as long."""

    frame_stride, bin_stride = 4, 2

    def __init__(self, architecture: UNetArchitecture) -> None:
        super().__init__(architecture)
        self.fold = torch.nn.Conv2d(1, 3, (4, 2), stride=(4, 2))
        self.to_mask = torch.nn.ConvTranspose2d(3, 1, (4, 2), stride=(4, 2))

    def layers(self, hidden: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = self.to_mask(self.fold(hidden).relu())
        return values


@pytest.mark.parametrize(
    ("options", "bins"),
    [
        ({"input": "log-unit", "output": "mask"}, 513),
        ({"input": "log", "output": "log-mask", "drops_dc": True}, 513),
        ({"input": "raw", "output": "magnitude"}, 512),
        ({"input": "root", "output": "mask", "scaled_bins": 512}, 512),
        ({"input": "raw-unit", "output": "mask"}, 512),
    ],
)
def test_network_of_any_objective_is_exported(tmp_path: Path, options: dict[str, Any], bins: int) -> None:
    torch.manual_seed(0)
    architecture = UNetArchitecture.model_validate({"channels": 1} | options)
    network = OneLayer(architecture).eval()
    export.write_onnx(network, bins, {"architecture": architecture.model_dump(mode="json")}, tmp_path / "n.onnx")
    exported = OnnxNetwork(tmp_path / "n.onnx")
    for frames in (64, 199, 500):
        magnitudes = 10 * np.random.default_rng(0).random((2, 1, frames, bins), dtype=np.float32) ** 4
        with torch.inference_mode():
            expected = network(torch.from_numpy(magnitudes)).numpy()
        assert expected.std() > 1e-3
        np.testing.assert_allclose(exported(magnitudes), expected, rtol=0, atol=1e-4)
