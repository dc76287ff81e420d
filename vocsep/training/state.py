"""All that a training run is at one step, to and from a checkpoint's arrays and JSON-like state."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from storage.registry import Weights
from vocsep.training.ema import AveragedNetwork

Arrays = dict[str, npt.NDArray[Any]]

_NETWORK, _AVERAGE, _BEST, _OPTIMIZER = "network/", "average/", "best/", "optimizer/"


def weights_of(network: nn.Module) -> Weights:
    """Copy of a network's weights and buffers as arrays."""
    return {name: _array(value) for name, value in network.state_dict().items()}


def to_arrays(network: nn.Module, average: AveragedNetwork, optimizer: torch.optim.Optimizer, best: Weights) -> Arrays:
    """Weights, their average, the optimiser's moments and the best weights so far, as named arrays."""
    arrays = {_NETWORK + name: value for name, value in weights_of(network).items()}
    if average.network is not network:
        arrays |= {_AVERAGE + name: value for name, value in weights_of(average.network).items()}
    arrays |= {_BEST + name: value for name, value in best.items()}
    for index, moments in optimizer.state_dict()["state"].items():
        arrays |= {f"{_OPTIMIZER}{index}/{name}": _array(value) for name, value in moments.items()}
    return arrays


def from_arrays(
    arrays: Arrays, network: nn.Module, average: AveragedNetwork, optimizer: torch.optim.Optimizer
) -> Weights:
    """Bring network, average and optimiser to the state of `to_arrays`; returns the best weights so far."""
    network.load_state_dict(_tensors(arrays, _NETWORK))
    if average.network is not network:
        average.network.load_state_dict(_tensors(arrays, _AVERAGE))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _tensors(arrays, _OPTIMIZER).items():
        index, moment = name.split("/")
        state.setdefault(int(index), {})[moment] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if value.shape == parameter.shape:
                # In the memory format of the weights (channels_last): fused optimisers read both as one run of numbers.
                moments[name] = torch.empty_like(parameter).copy_(value)
    return {name: np.array(value) for name, value in _part(arrays, _BEST).items()}


def _array(value: Tensor) -> npt.NDArray[Any]:
    # Contiguous: the networks are kept in channels_last, files are not.
    array: npt.NDArray[Any] = value.detach().cpu().contiguous().clone().numpy()
    return array


def _part(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _tensors(arrays: Arrays, prefix: str) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(value)) for name, value in _part(arrays, prefix).items()}
