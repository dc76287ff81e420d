"""Batches computed in parts, by several threads, compared with the same parts one after the other in plain torch."""

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from tests.vocsep.models.small_models import unet
from vocsep.models.mask_module import MaskModule
from vocsep.models.objective_config import Objective
from vocsep.patches.batch import Batch
from vocsep.training.group import Group
from vocsep.training.loss import batch_loss
from vocsep.training.parts import PART_PATCHES, BatchParts
from vocsep.training.replica import SeededDropout, batch_norms

LOSS = partial(batch_loss, Objective())


def network_of(dropout: float = 0.0) -> MaskModule:
    torch.manual_seed(0)
    network = unet(channels=1, width=2)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
    return network


def batch_of(size: int) -> Batch:
    mixture = torch.rand(size, 1, 64, 128, generator=torch.Generator().manual_seed(1))
    share = torch.linspace(0.1, 0.9, size)[:, None, None, None]
    return Batch(mixture, mixture * share, mixture * (1 - share).sqrt())


def learned(network: MaskModule, batch: Batch, threads: int, seed: int = 5) -> tuple[float, dict[str, Tensor]]:
    """The loss, gradients, and all buffers after it."""
    parts = BatchParts(Group(torch.device("cpu"), "float32"), network, LOSS, len(batch.mixture), threads)
    loss = parts.backward(batch, seed)
    parts.close()
    gradients = {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}
    return loss, gradients | dict(network.named_buffers())


@pytest.mark.parametrize("size", [1, 8, 16, 21, 24])
def test_gradients_and_statistics_are_the_means_of_parts_in_plain_torch(size: int) -> None:
    network = network_of().double()
    batch = Batch(*(part.double() for part in batch_of(size) if part is not None))
    count = max(1, size // PART_PATCHES)
    loss, expected = 0.0, {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    for part in range(count):
        alone = copy.deepcopy(network).train()
        for norm in batch_norms(alone):
            norm.momentum = 0.1 * len(range(part, size, count)) / size  # shares of one step of 0.1
        own = Batch(*(each[part::count] for each in batch if each is not None))
        part_loss = LOSS(alone, own)
        part_loss.backward()  # type: ignore[no-untyped-call]
        share = len(own.mixture) / size
        loss += share * float(part_loss.detach())
        for name, weight in alone.named_parameters():
            assert weight.grad is not None
            expected[name] += share * weight.grad
        for name, value in alone.named_buffers():
            if value.is_floating_point():
                before = network.get_buffer(name)
                expected[name] += value - before + before * share
            else:
                expected[name] = value
    found_loss, found = learned(network, batch, threads=1)
    assert found_loss == pytest.approx(loss, rel=1e-9)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-12)


def test_number_of_threads_changes_no_bit() -> None:
    found = [learned(network_of(dropout=0.5), batch_of(32), threads) for threads in (1, 2, 3)]
    for loss, values in found[1:]:
        assert loss == found[0][0]
        assert all(torch.equal(value, found[0][1][name]) for name, value in values.items())


def test_dropouts_change_with_the_seed_alone() -> None:
    first, again, other = (learned(network_of(dropout=0.5), batch_of(8), 1, seed)[0] for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_dropout_keeps_the_mean_and_is_torchs_in_evaluation() -> None:
    dropout = SeededDropout(0.25, torch.Generator().manual_seed(0))
    left = dropout(torch.ones(200, 500))
    assert left.unique().tolist() == pytest.approx([0, 4 / 3])
    assert float(left.mean()) == pytest.approx(1, abs=0.01)
    assert torch.equal(dropout.eval()(left), left)
