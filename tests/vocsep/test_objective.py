import pytest
import torch
from torch import Tensor

from vocsep.objective import LOSSES, l1, mse


def example() -> tuple[Tensor, Tensor, Tensor]:
    """mask * mixture - vocals is 1, -2, 0, 3."""
    mask = torch.tensor([0.5, 0.25, 1.0, 1.0])
    mixture = torch.tensor([4.0, 8.0, 5.0, 3.0])
    vocals = torch.tensor([1.0, 4.0, 5.0, 0.0])
    return mask, mixture, vocals


def random_patches(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask, mixture, vocals = torch.rand(3, 2, 1, 5, 7, generator=generator)
    return mask, mixture, vocals


def test_losses_are_known_by_their_names() -> None:
    assert set(LOSSES) == {"l1", "mse"}
    assert LOSSES["l1"] is l1
    assert LOSSES["mse"] is mse


def test_l1_is_the_mean_of_the_absolute_differences() -> None:
    assert l1(*example()).item() == (1 + 2 + 0 + 3) / 4


def test_mse_is_the_mean_of_the_squared_differences() -> None:
    assert mse(*example()).item() == (1 + 4 + 0 + 9) / 4


@pytest.mark.parametrize("name", ["l1", "mse"])
def test_loss_equals_a_loop_over_every_value(name: str) -> None:
    mask, mixture, vocals = random_patches(0)
    power = {"l1": 1, "mse": 2}[name]
    triples = zip(mask.flatten().tolist(), mixture.flatten().tolist(), vocals.flatten().tolist(), strict=True)
    terms = [abs(m * x - v) ** power for m, x, v in triples]
    assert LOSSES[name](mask, mixture, vocals).item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


@pytest.mark.parametrize("name", ["l1", "mse"])
def test_oracle_mask_has_no_loss_and_any_other_has(name: str) -> None:
    mask, mixture, _ = random_patches(1)
    assert LOSSES[name](mask, mixture, mask * mixture).item() == 0
    assert LOSSES[name](mask + 0.1, mixture, mask * mixture).item() > 0


@pytest.mark.parametrize("name", ["l1", "mse"])
def test_silent_patch_has_no_loss_whatever_the_mask(name: str) -> None:
    silence = torch.zeros(2, 1, 5, 7)
    assert LOSSES[name](torch.rand_like(silence), silence, silence).item() == 0


@pytest.mark.parametrize("name", ["l1", "mse"])
def test_gradient_of_the_mask_points_away_from_the_oracle(name: str) -> None:
    mask, mixture, vocals = example()
    mask.requires_grad_()
    LOSSES[name](mask, mixture, vocals).backward()  # type: ignore[no-untyped-call]
    assert mask.grad is not None
    assert torch.sign(mask.grad).tolist() == [1, -1, 0, 1]


def test_gradients_have_their_closed_forms() -> None:
    mask, mixture, vocals = example()
    for loss, expected in (
        (l1, torch.tensor([4.0, -8.0, 0.0, 3.0]) / 4),
        (mse, 2 * torch.tensor([1.0, -2.0, 0.0, 3.0]) * mixture / 4),
    ):
        leaf = mask.clone().requires_grad_()
        loss(leaf, mixture, vocals).backward()  # type: ignore[no-untyped-call]
        torch.testing.assert_close(leaf.grad, expected, rtol=0, atol=0)
