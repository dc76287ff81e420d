import numpy as np
import pytest
import torch
from torch import nn

from vocsep.training.ema import FIRST_STEPS, STEPS_PER_UPDATE, AveragedNetwork


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def set_to(module: nn.Module, value: float) -> None:
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.fill_(value)


def values_of(module: nn.Module) -> set[float]:
    return {float(value) for tensor in module.state_dict().values() for value in tensor.flatten()}


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.998])
def test_average_is_that_of_the_sum_over_all_steps_while_it_is_young(decay: float) -> None:
    random = np.random.default_rng(0)
    trained = network()
    set_to(trained, 10.0)
    average = AveragedNetwork(trained, decay)
    expected = 10.0
    for step in range(1, FIRST_STEPS + 1):
        value = float(random.normal())
        set_to(trained, value)
        average.update(step)
        kept = min(decay, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * value
        weight = average.network.state_dict()["0.weight"]
        torch.testing.assert_close(weight, torch.full((2, 3), expected), rtol=1e-5, atol=1e-6)


def test_old_average_moves_once_in_some_steps_by_as_much_as_in_all_of_them() -> None:
    decay, steps = 0.5, FIRST_STEPS + 2 * STEPS_PER_UPDATE
    trained = network()
    set_to(trained, 1.0)
    average = AveragedNetwork(trained, decay)
    for step in range(1, FIRST_STEPS + 1):
        average.update(step)
    set_to(trained, 5.0)
    moved = []
    for step in range(FIRST_STEPS + 1, steps + 1):
        before = values_of(average.network)
        average.update(step)
        moved += [step] if values_of(average.network) != before else []
    assert moved == list(range(FIRST_STEPS + STEPS_PER_UPDATE, steps + 1, STEPS_PER_UPDATE))
    # The distance to constant weights shrinks by the decay per step.
    expected = 5.0 - 4.0 * decay ** (steps - FIRST_STEPS)
    weight = average.network.state_dict()["0.weight"]
    torch.testing.assert_close(weight, torch.full((2, 3), expected), rtol=1e-4, atol=0)


def test_batch_statistics_are_averaged_too_and_their_count_is_copied() -> None:
    trained = network()
    set_to(trained, 0.0)
    average = AveragedNetwork(trained, 0.998)
    set_to(trained, 11.0)
    average.update(1)
    state = average.network.state_dict()
    # Decay of the first step: 2 / 11.
    for name in ("0.weight", "0.bias", "1.weight", "1.running_mean", "1.running_var"):
        torch.testing.assert_close(state[name], torch.full_like(state[name], 9.0))
    assert int(state["1.num_batches_tracked"]) == 11


def test_average_is_a_network_of_its_own_in_evaluation_mode() -> None:
    trained = network().train()
    average = AveragedNetwork(trained, 0.9)
    assert average.network is not trained
    assert not average.network.training
    assert trained.training
    set_to(trained, 3.0)
    assert 3.0 not in values_of(average.network)
    average.update(1)
    assert values_of(trained) == {3.0}


def test_without_decay_the_average_is_the_network_itself() -> None:
    trained = network()
    average = AveragedNetwork(trained, 0.0)
    set_to(trained, 7.0)
    average.update(1)
    assert average.network is trained
    assert values_of(trained) == {7.0}
