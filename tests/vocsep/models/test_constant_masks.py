import numpy as np
import pytest
import torch
from torch import Tensor

from vocsep.models.constant_masks import best_constant_mask, best_mask_per_bin, mask_loss
from vocsep.models.objective_config import Objective


def patches(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Mixture and source, `(4, 1, 8, 6)`: a separate mask for every bin, and noise."""
    generator = torch.Generator().manual_seed(seed)
    mixture = 0.1 + torch.rand(4, 1, 8, 6, generator=generator)
    share = torch.linspace(0.1, 0.9, 6) + 0.1 * torch.rand(mixture.shape, generator=generator)
    return mixture, share.clamp(0, 1) * mixture


def test_best_constant_mask_of_squared_magnitudes_has_its_closed_form() -> None:
    mixture, source = patches()
    mask, loss = best_constant_mask(Objective(loss="mse"), mixture, source)
    expected = float((mixture * source).sum() / mixture.square().sum())
    assert mask == pytest.approx(expected, abs=1e-4)
    assert loss == pytest.approx(float((expected * mixture - source).square().mean()), rel=1e-5)


def test_best_constant_mask_of_oracle_masks_is_their_mean_or_their_median() -> None:
    mixture, source = patches()
    oracle = (source / mixture).flatten()
    squares, _ = best_constant_mask(Objective(target="oracle", loss="mse"), mixture, source)
    assert squares == pytest.approx(float(oracle.mean()), abs=1e-4)
    absolute, loss = best_constant_mask(Objective(target="oracle", loss="l1"), mixture, source)
    assert loss == pytest.approx(float((oracle - oracle.median()).abs().mean()), rel=1e-4)
    assert (oracle < absolute + 1e-3).float().mean() >= 0.5


def test_best_constant_log_mask_is_the_geometric_mean() -> None:
    mixture, source = patches()
    objective = Objective(target="log-ratio", output="log-mask", loss="mse")
    mask, _ = best_constant_mask(objective, mixture, source)
    assert mask == pytest.approx(float((source / mixture).log().mean().exp()), abs=1e-3)


@pytest.mark.parametrize("loss", ["l1", "mse"])
@pytest.mark.parametrize("target", ["source", "oracle", "log-ratio"])
@pytest.mark.parametrize("output", ["mask", "log-mask", "magnitude"])
def test_no_constant_of_a_fine_grid_is_better_and_no_mask_of_a_bin(output: str, target: str, loss: str) -> None:
    objective = Objective.model_validate({"output": output, "target": target, "loss": loss})
    mixture, source = patches(1)
    grid = torch.stack([mask_loss(objective, mask, mixture, source) for mask in np.linspace(0.001, 1, 400)])
    _, constant = best_constant_mask(objective, mixture, source)
    assert constant <= float(grid.mean(dim=1).min()) * 1.0001
    masks, per_bin = best_mask_per_bin(objective, mixture, source)
    assert masks.shape == (6,)
    assert per_bin <= float(grid.min(dim=0).values.mean()) * 1.0001
    assert per_bin < constant


def test_best_mask_of_silent_vocals_is_0_and_of_vocals_alone_is_1() -> None:
    mixture, _ = patches()
    for source, expected in ((torch.zeros_like(mixture), 0.0), (mixture, 1.0)):
        mask, loss = best_constant_mask(Objective(), mixture, source)
        assert mask == pytest.approx(expected, abs=1e-6)
        assert loss == pytest.approx(0.0, abs=1e-6)
