"""The optimizers: Muon against its definition, torch's own on matrices, and Adam on all else."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vocsep.training.config import TrainConfig
from vocsep.training.optimizer import Muon, new_optimizer, orthogonal

STEPS = 4


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def moved(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, gradients: list[Tensor]) -> Tensor:
    """The parameter after a step with each of the gradients."""
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


@pytest.mark.parametrize("shape", [(5, 5), (3, 40), (40, 3), (1, 7), (24, 216)])
def test_singular_vectors_stay_and_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    u, _, vh = torch.linalg.svd(random(*shape), full_matrices=False)
    values = torch.logspace(0, -1.5, min(shape))
    found = u.T @ orthogonal(u @ torch.diag(values) @ vh) @ vh.T
    diagonal = torch.diagonal(found)
    np.testing.assert_allclose(found - torch.diag(diagonal), 0, atol=1e-4)
    assert 0.6 < diagonal.min() <= diagonal.max() < 1.3


@pytest.mark.parametrize("shape", [(8, 8), (6, 30), (30, 6)])
def test_a_matrix_moves_as_by_the_muon_of_torch(shape: tuple[int, int]) -> None:
    gradients = [random(*shape, seed=step) for step in range(STEPS)]
    ours, theirs = (nn.Parameter(random(*shape, seed=9)) for _ in range(2))
    start = ours.detach().clone()
    # By its rule, the root mean square of an update is a fifth of the rate.
    reference = torch.optim.Muon([theirs], lr=0.05, weight_decay=0, adjust_lr_fn="match_rms_adamw")
    expected = moved(reference, theirs, gradients) - start
    found = moved(Muon([ours], lr=0.01), ours, gradients) - start
    # Theirs is computed in bfloat16, of 8 bits.
    assert float((found - expected).norm() / expected.norm()) < 0.02


def test_a_convolution_moves_as_the_matrix_with_a_row_for_each_output() -> None:
    shape = (6, 4, 3, 3)
    gradients = [random(*shape, seed=step) for step in range(STEPS)]
    kernel = nn.Parameter(random(*shape, seed=9).to(memory_format=torch.channels_last))
    matrix = nn.Parameter(random(*shape, seed=9).flatten(1))
    found = moved(Muon([kernel], lr=0.01), kernel, gradients)
    expected = moved(Muon([matrix], lr=0.01), matrix, [gradient.flatten(1) for gradient in gradients])
    np.testing.assert_allclose(found.flatten(1), expected, atol=1e-6)


def test_all_else_moves_as_by_adam() -> None:
    gradients = [random(7, seed=step) for step in range(STEPS)]
    ours, theirs = nn.Parameter(random(7, seed=9)), nn.Parameter(random(7, seed=9))
    found = moved(Muon([ours], lr=0.01), ours, gradients)
    np.testing.assert_allclose(found, moved(torch.optim.Adam([theirs], lr=0.01), theirs, gradients), atol=1e-6)


def test_without_a_gradient_or_with_a_zero_one_nothing_moves() -> None:
    layer = nn.Linear(3, 3)
    before = [weight.detach().clone() for weight in layer.parameters()]
    optimizer = Muon(layer.parameters(), lr=0.1)
    optimizer.step()
    for weight in layer.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    for weight, old in zip(layer.parameters(), before, strict=True):
        assert torch.equal(weight, old)


def test_muon_is_for_the_small_network_unless_said_otherwise() -> None:
    layer, device = nn.Linear(2, 2), torch.device("cpu")
    made = [
        type(new_optimizer(TrainConfig.model_validate(settings), layer, device))
        for settings in ({}, {"network": "unet"}, {"optimizer": "adamw"}, {"network": "unet", "optimizer": "muon"})
    ]
    assert made == [Muon, torch.optim.Adam, torch.optim.AdamW, Muon]
