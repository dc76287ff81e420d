import itertools
import math
from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from vocsep.models.objective import (
    EPSILON,
    INPUTS,
    OUTPUTS,
    TARGETS,
    Estimate,
    LogMask,
    Magnitude,
    SigmoidMask,
    as_distance,
    distance,
    distances,
    fitting_bias,
    in_phase,
    l1,
    minimized,
    mse,
    oracle_mask,
    truth,
)
from vocsep.models.objective_config import Objective


def random_patches(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers of a last layer, mixture and source: `(2, 1, 5, 7)`, the mixture never silent."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(2, 1, 5, 7, generator=generator)
    mixture, source = 0.05 + 3 * torch.rand(2, 2, 1, 5, 7, generator=generator)
    return values, mixture, source


# Inputs


def one_by_one(function: Callable[[float], float], magnitudes: Tensor) -> Tensor:
    return torch.tensor([function(value) for value in magnitudes.flatten().tolist()]).view_as(magnitudes)


def unit_of_log(x: float) -> float:
    return (min(max(math.log(x + 1e-8), -12), 2) + 12) / 14


def unit_of_raw(x: float) -> float:
    low, high = math.exp(-12), math.exp(2)
    return (min(max(x, low), high) - low) / (high - low)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("raw", lambda x: x),
        ("log", lambda x: math.log(x + 1e-8)),
        ("log-unit", unit_of_log),
        ("raw-unit", unit_of_raw),
    ],
)
def test_inputs_are_their_formulas_value_by_value(name: str, function: Callable[[float], float]) -> None:
    magnitudes = torch.tensor([0.0, 1e-9, 1e-5, math.exp(-12), 0.3, 1.0, math.exp(2), 20.0, 300.0]).view(1, 1, 3, 3)
    torch.testing.assert_close(INPUTS[name](magnitudes), one_by_one(function, magnitudes), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["log-unit", "raw-unit"])
def test_unit_inputs_reach_0_and_1_exactly_at_their_limits(name: str) -> None:
    limits = INPUTS[name](torch.tensor([[[[0.0, math.exp(2) * 1.001]]]]))
    assert limits.tolist() == [[[[0.0, 1.0]]]]


def test_peak_divides_every_patch_by_its_own_largest_value() -> None:
    patches = torch.rand(3, 2, 128, 6) * torch.tensor([1.0, 50.0, 0.01]).view(3, 1, 1, 1)
    scaled = INPUTS["peak"](patches)
    for patch, one in zip(patches, scaled, strict=True):
        torch.testing.assert_close(one, patch / (patch.max() + 1e-8))
    assert not INPUTS["peak"](torch.zeros(1, 1, 128, 4)).any()


def test_peak_of_a_long_song_is_that_of_the_patch_around_each_frame() -> None:
    song = torch.rand(1, 2, 300, 5)
    scaled = INPUTS["peak"](song)
    for frame in (0, 30, 64, 150, 299):
        around = song[:, :, max(0, frame - 64) : frame + 65]
        torch.testing.assert_close(scaled[:, :, frame], song[:, :, frame] / (around.max() + 1e-8))


# Outputs


@pytest.mark.parametrize("kind", OUTPUTS.values())
def test_mask_magnitude_and_log_mask_of_an_estimate_belong_together(kind: type[Estimate]) -> None:
    values, mixture, _ = random_patches(0)
    estimate = kind(values, mixture)
    torch.testing.assert_close(estimate.magnitude(), estimate.mask() * mixture, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(estimate.log_mask(), estimate.mask().log(), rtol=1e-4, atol=1e-5)
    assert (estimate.mask() >= 0).all()


def test_outputs_are_their_formulas() -> None:
    values, mixture, _ = random_patches(1)
    torch.testing.assert_close(SigmoidMask(values, mixture).mask(), 1 / (1 + torch.exp(-values)))
    torch.testing.assert_close(LogMask(values, mixture).mask(), torch.exp(values))
    torch.testing.assert_close(Magnitude(values, mixture).magnitude(), torch.log(1 + torch.exp(values)))


@pytest.mark.parametrize("kind", OUTPUTS.values())
@pytest.mark.parametrize("mask", [0.0, 1e-3, 0.5, 0.9, 1.0])
def test_an_estimate_can_be_made_of_any_mask(kind: type[Estimate], mask: float) -> None:
    _, mixture, _ = random_patches(2)
    estimate = kind.of_mask(torch.full_like(mixture, mask), mixture)
    torch.testing.assert_close(estimate.mask(), torch.full_like(mixture, mask), rtol=1e-4, atol=1e-6)


def test_silent_mixture_gives_no_nan_whatever_the_choices() -> None:
    silence = torch.zeros(1, 1, 4, 4)
    for kind, target, loss in itertools.product(OUTPUTS.values(), TARGETS, ("l1", "mse")):
        values = torch.zeros(1, 1, 4, 4, requires_grad=True)
        found = distance(Objective(target=target, loss=loss), kind(values, silence), silence)  # type: ignore[arg-type]
        found.backward()  # type: ignore[no-untyped-call]
        assert values.grad is not None
        assert torch.isfinite(found)
        assert torch.isfinite(values.grad).all()


# Targets and losses


def random_spectra(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Vocals and rest, complex, and far apart in level in many places."""
    generator = torch.Generator().manual_seed(seed)
    levels = 10 ** (2 * torch.randn((2, 3, 2, 8, 16), generator=generator))
    vocals, rest = levels * torch.randn((2, 3, 2, 8, 16), dtype=torch.complex64, generator=generator)
    return vocals, rest


def test_in_phase_is_the_real_part_of_the_source_along_the_mixture() -> None:
    vocals, rest = random_spectra(7)
    mixture = vocals + rest
    expected = (vocals * mixture.conj()).real / mixture.abs()
    found = in_phase(mixture.abs(), vocals.abs(), rest.abs())
    # Where one of the two is far louder, the difference of their squares keeps few digits of the other.
    torch.testing.assert_close(found, expected, rtol=0, atol=float(mixture.abs().max()) * 1e-6)
    assert (found < 0).any()


def test_no_mask_leaves_a_smaller_error_of_the_complex_source_than_in_phase() -> None:
    vocals, rest = random_spectra(8)
    mixture = vocals + rest
    best = (in_phase(mixture.abs(), vocals.abs(), rest.abs()) / mixture.abs()).clamp(0, 1)

    def error(mask: torch.Tensor) -> torch.Tensor:
        return (mask * mixture - vocals).abs().double()

    for mask in torch.linspace(0, 1, 101):
        assert (error(best) <= error(mask.expand_as(best)) * (1 + 1e-3) + 1e-3 * mixture.abs()).all()


def test_in_phase_of_silence_is_zero_and_never_more_than_the_source() -> None:
    mixture = torch.tensor([0.0, 0.0, 1.0, 1e-6, 2.0])
    source = torch.tensor([0.0, 3.0, 5.0, 1.0, 2.0])
    rest = torch.tensor([0.0, 3.0, 0.0, 0.0, 0.0])
    found = in_phase(mixture, source, rest)
    assert found[0] == found[1] == 0
    assert (found.abs() <= source).all()
    assert found[4] == pytest.approx(2, rel=1e-6)


@pytest.mark.parametrize("target", ["source", "oracle", "log-ratio"])
def test_truth_of_other_targets_is_the_source(target: str) -> None:
    mixture, source = torch.rand(2, 1, 2, 3, 4)
    objective = Objective.model_validate({"target": target, "loss": "l1"})
    assert truth(objective, mixture, source, None) is source


def test_truth_of_in_phase_is_that_part() -> None:
    mixture, source, rest = torch.rand(3, 1, 2, 3, 4)
    assert torch.equal(truth(Objective(), mixture, source, rest), in_phase(mixture, source, rest))


def test_oracle_mask_is_the_clipped_ratio() -> None:
    mixture = torch.tensor([4.0, 2.0, 0.0, 0.0, 5.0])
    source = torch.tensor([1.0, 3.0, 0.0, 1.0, 5.0])
    torch.testing.assert_close(oracle_mask(mixture, source), torch.tensor([0.25, 1.0, 0.0, 1.0, 1.0]))


@pytest.mark.parametrize("loss", ["l1", "mse"])
@pytest.mark.parametrize("target", ["source", "oracle", "log-ratio"])
@pytest.mark.parametrize("output", ["mask", "log-mask", "magnitude"])
def test_distance_is_the_mean_of_a_loop_over_every_value(output: str, target: str, loss: str) -> None:
    values, mixture, source = random_patches(3)
    terms = []
    for z, x, v in zip(*(part.flatten().tolist() for part in (values, mixture, source)), strict=True):
        m = {"mask": 1 / (1 + math.exp(-z)), "log-mask": math.exp(z), "magnitude": math.log1p(math.exp(z)) / x}[output]
        pairs = {
            "source": (m * x, v),
            "oracle": (m, min(v / x, 1.0)),
            "log-ratio": (math.log(m), math.log(v) - math.log(x)),
        }
        difference = abs(pairs[target][0] - pairs[target][1])
        terms.append(difference if loss == "l1" else difference**2)
    objective = Objective.model_validate({"output": output, "target": target, "loss": loss})
    estimate = OUTPUTS[output](values, mixture)
    assert distance(objective, estimate, source).item() == pytest.approx(sum(terms) / len(terms), rel=1e-4)
    assert distances(objective, estimate, source).shape == mixture.shape


@pytest.mark.parametrize("output", ["mask", "log-mask", "magnitude"])
@pytest.mark.parametrize("target", ["source", "oracle", "log-ratio"])
@pytest.mark.parametrize("loss", ["l1", "mse"])
def test_the_true_mask_has_no_distance_and_any_other_has(output: str, target: str, loss: str) -> None:
    _, mixture, _ = random_patches(4)
    true = 0.1 + 0.8 * torch.rand(mixture.shape, generator=torch.Generator().manual_seed(0))
    objective = Objective.model_validate({"output": output, "target": target, "loss": loss})
    found = [
        distance(objective, OUTPUTS[output].of_mask(mask, mixture), true * mixture).item()
        for mask in (true, true + 0.05, true - 0.05)
    ]
    assert found[0] < 1e-5
    assert min(found[1:]) > 1e-4


def test_gradients_of_the_losses_have_their_closed_forms() -> None:
    mask, mixture = torch.tensor([0.5, 0.25, 1.0, 1.0]), torch.tensor([4.0, 8.0, 5.0, 3.0])
    vocals = torch.tensor([1.0, 4.0, 5.0, 0.0])
    for loss, expected in (
        (l1, torch.tensor([4.0, -8.0, 0.0, 3.0]) / 4),
        (mse, 2 * torch.tensor([1.0, -2.0, 0.0, 3.0]) * mixture / 4),
    ):
        leaf = mask.clone().requires_grad_()
        loss(leaf * mixture, vocals, mixture).mean().backward()  # type: ignore[no-untyped-call]
        torch.testing.assert_close(leaf.grad, expected, rtol=0, atol=0)


def test_snr_is_the_geometric_mean_over_patches_of_error_to_mixture() -> None:
    values, mixture, source = random_patches(5)
    ratios = []
    for z, x, v in zip(values, mixture, source, strict=True):
        error = sum(
            (float(v_) - float(m) * float(x_)) ** 2
            for m, x_, v_ in zip(torch.sigmoid(z).flatten(), x.flatten(), v.flatten(), strict=True)
        )
        ratios.append(error / sum(float(x_) ** 2 for x_ in x.flatten()) + 1e-3)
    found = distance(Objective(loss="snr"), SigmoidMask(values, mixture), source)
    assert found.item() == pytest.approx(math.prod(ratios) ** (1 / len(ratios)), rel=1e-4)


@pytest.mark.parametrize("level", [0.01, 100.0])
def test_snr_learns_as_much_from_quiet_patches_as_from_loud_ones(level: float) -> None:
    values, mixture, source = random_patches(6)
    plain, changed = values.clone().requires_grad_(), values.clone().requires_grad_()
    factor = torch.tensor([1.0, level]).view(2, 1, 1, 1)
    objective = Objective(loss="snr")
    minimized(objective, SigmoidMask(plain, mixture), source).backward()  # type: ignore[no-untyped-call]
    loss = minimized(objective, SigmoidMask(changed, factor * mixture), factor * source)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(changed.grad, plain.grad, rtol=1e-3, atol=1e-7)
    here = distance(objective, SigmoidMask(values, mixture), source).item()
    assert as_distance(objective, loss.item()) == pytest.approx(here, rel=1e-4)


def test_snr_of_a_silent_patch_is_finite_and_of_other_targets_refused() -> None:
    silence = torch.zeros(1, 1, 2, 3)
    values = torch.zeros(1, 1, 2, 3, requires_grad=True)
    loss = minimized(Objective(loss="snr"), SigmoidMask(values, silence), silence)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(math.log(1e-3))
    assert values.grad is not None
    assert not values.grad.any()
    with pytest.raises(ValidationError, match="loss snr compares magnitudes"):
        Objective(loss="snr", target="oracle")


# The bias that fits


@pytest.mark.parametrize("mean", [0.01, 0.3, 0.7])
def test_fitting_bias_begins_at_the_mean_mask(mean: float) -> None:
    mixture = torch.ones(1, 1, 1, 1)
    for output in ("mask", "log-mask"):
        values = torch.full((1, 1, 1, 1), fitting_bias(output, mean))
        assert OUTPUTS[output](values, mixture).mask().item() == pytest.approx(mean, rel=1e-5)


def test_bias_that_fits_masks_is_refused_where_the_output_is_none() -> None:
    with pytest.raises(ValidationError, match="bias"):
        Objective(output="magnitude", bias="oracle")
    assert Objective(output="magnitude", bias=0.5).bias == 0.5


def test_epsilon_lies_below_what_float16_can_hold() -> None:
    assert EPSILON < 2.0**-24
