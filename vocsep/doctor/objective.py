"""The doctor's look at what is learned from what: domains, scaling, bins, trivial answers, first masks."""

import torch
from torch import Tensor

from storage.store import SpectrogramStore
from vocsep.doctor.finding import Finding, judged
from vocsep.models.constant_masks import best_constant_mask, best_mask_per_bin, mask_loss
from vocsep.models.networks import NETWORKS
from vocsep.models.objective import HIGHEST_LOG, LOWEST_LOG, OUTPUTS, distances, fitting_bias, oracle_mask
from vocsep.models.objective_config import Objective
from vocsep.paths import ALL_BINS_STORE
from vocsep.preprocessing.config import spectrogram_config, store_of_all_bins
from vocsep.spectrograms.config import PATCH_FRAMES
from vocsep.training.config import TrainConfig
from vocsep.training.probe import Probe

# Which domain an input is in, and whether it still has its level; and the domain that a target wants.
INPUT_DOMAINS = {
    "raw": ("raw magnitudes", True),
    "root": ("scaled roots of raw magnitudes", True),
    "log": ("logarithms", True),
    "peak": ("magnitudes normalized by each patch's peak", False),
    "log-unit": ("clipped and normalized logarithms", False),
    "raw-unit": ("clipped and normalized magnitudes", False),
}
TARGET_DOMAINS = {
    "in-phase": "raw magnitudes",
    "source": "raw magnitudes",
    "oracle": "ratios of raw magnitudes",
    "log-ratio": "logarithms of ratios",
}
# Inputs whose domain suits a target: the scaled roots belong to the network, a ratio does not care for a common factor.
SUITED = {
    "in-phase": ("raw", "root"),
    "source": ("raw", "root"),
    "oracle": ("raw", "root", "raw-unit", "peak"),
    "log-ratio": ("log", "log-unit"),
}
CLIPPING = {"log-unit", "raw-unit"}
INAUDIBLE_ENERGY = 0.01


def domain_finding(objective: Objective) -> Finding:
    """Whether input and target are in one domain.

    A mask is applied to the raw mixture, so that it can do without the level of what the network sees; a magnitude that
    is predicted without a mask cannot.
    """
    lost = objective.output == "magnitude" and not INPUT_DOMAINS[objective.input][1]
    level = "The level that is to be predicted is no longer in the input: take --input raw, root or log, or a mask."
    way = (
        "The network must find the way from one domain to the other, which costs little where a mask comes out "
        "(docs/explanation/why-loss-falls.md); take --input raw or root, or log for log-ratio."
    )
    return judged(
        "domain",
        f"input: {INPUT_DOMAINS[objective.input][0]}; output: {objective.output}; target: "
        f"{TARGET_DOMAINS[objective.target]}",
        (lost, "fail", level),
        (objective.input not in SUITED[objective.target], "warn", way),
        sound="Input and target are in one domain.",
        values={"input": objective.input, "output": objective.output, "target": objective.target},
    )


def bins_finding(config: TrainConfig, store: SpectrogramStore) -> Finding:
    """What of bins and frames is padded or lost."""
    objective, network = config.objective, NETWORKS[config.network]
    spectrogram, tracks = spectrogram_config(store), store.tracks("train")
    held = spectrogram.bins
    if objective.bins == "all" and spectrogram.dropped_bin != "none":
        return Finding(
            "bins",
            "fail",
            f"the objective wants all {held + 1} bins, the store holds {held}; the other checks were made with {held}",
            f"Make a store with all bins ({store_of_all_bins(ALL_BINS_STORE)}), or take --bins even.",
            {"bins": held, "wanted": held + 1},
            curve={},
        )
    seen = held - (objective.bins == "even" and spectrogram.dropped_bin == "none")
    padded = -seen % network.bin_stride
    short = sum(track.frames < PATCH_FRAMES for track in tracks)
    pad = f"Leave out a bin (--bins even), or take an n_fft whose half is a multiple of {network.bin_stride}."
    silence = "Most songs are shorter than a patch and are filled up with silence: take a preset of shorter patches."
    return judged(
        "bins",
        f"{seen} bins are padded by {padded} to a multiple of {network.bin_stride} "
        f"({padded / (seen + padded):.0%} of the work); {PATCH_FRAMES} frames by "
        f"{-PATCH_FRAMES % network.frame_stride}; {short} of {len(tracks)} songs are shorter than a patch",
        (padded > 0, "warn", pad),
        (short > len(tracks) / 2, "warn", silence),
        sound="Bins and frames are multiples of what the network's strides divide by; nothing is padded or lost.",
        values={"bins": seen, "padded": padded, "short_songs": short},
    )


@torch.no_grad()
def input_finding(probe: Probe) -> Finding:
    """Range of what the first layer sees, and what clipping takes from it."""
    mixture = probe.network.kept(probe.mixture)
    scaled = probe.network.scaled(mixture)
    low, high = float(scaled.min()), float(scaled.max())
    middle = _quantiles(scaled, torch.tensor([0.05, 0.95]))
    clipped, lost = 0.0, 0.0
    if probe.config.objective.input in CLIPPING:
        limit, floor = torch.tensor(HIGHEST_LOG).exp(), torch.tensor(LOWEST_LOG).exp()
        clipped = float(((mixture > limit) | ((mixture > 0) & (mixture < floor))).float().mean())
        energy = mixture.double().square()
        lost = 1 - float(mixture.clamp(max=float(limit)).double().square().sum() / energy.sum().clamp(min=1e-30))
    is_finite = bool(torch.isfinite(scaled).all())
    clipping = "Clipping makes loud and very loud the same, just where the voice is: take --input raw, root or log."
    return judged(
        "input",
        f"from {low:.3g} to {high:.3g}, nine in ten between {middle[0]:.3g} and {middle[1]:.3g}, deviation "
        f"{float(scaled.std()):.3g}; "
        f"{clipped:.1%} of the values are clipped, and with them {lost:.0%} of the energy",
        (not is_finite, "fail", "What the network sees is not finite: look at the scaling."),
        (clipped > 0.01 or lost > 0.1, "warn", clipping),
        sound="Nothing of the input is lost before the network sees it.",
        values={"low": low, "high": high, "clipped_share": clipped, "lost_energy_share": lost},
    )


@torch.no_grad()
def trivial_finding(probe: Probe) -> Finding:
    """Loss at the start compared with answers that need no network, and what the loss measures."""
    objective, network = probe.config.objective, probe.network
    mixture, vocals = network.kept(probe.mixture), network.kept(probe.vocals)
    fixed = {mask: float(mask_loss(objective, mask, mixture, vocals).mean()) for mask in (0.0, 0.5, 1.0)}
    constant, constant_loss = best_constant_mask(objective, mixture, vocals)
    _, per_bin_loss = best_mask_per_bin(objective, mixture, vocals)
    start = probe.start_loss()
    unheard = _unheard_share(objective, constant, mixture, vocals)
    no_loss = "One mask for everything has no loss at all: the targets are silent or all the same."
    silence = (
        "Silence is as good as the best mask per bin: the network will learn to be silent first; take loss mse, "
        "or target source."
    )
    unheard_of = (
        "The loss looks mostly at what nobody hears; take target source, which weighs values by their magnitude."
    )
    return judged(
        "trivial answers",
        f"at the start {start:.3g}; mask 0: {fixed[0.0]:.3g}, 0.5: {fixed[0.5]:.3g}, 1: {fixed[1.0]:.3g}; best "
        f"single mask ({constant:.2f}): {constant_loss:.3g}; best per bin: {per_bin_loss:.3g}; {unheard:.0%} of the "
        f"loss comes from values that hold {INAUDIBLE_ENERGY:.0%} of the energy",
        (constant_loss <= 1e-9 * max(1.0, fixed[1.0]), "fail", no_loss),
        (fixed[0.0] <= 1.05 * per_bin_loss, "fail", silence),
        (unheard > 0.5, "fail", unheard_of),
        (unheard > 0.35, "warn", unheard_of),
        sound="There is something to learn, and silence is no good answer.",
        values={
            "start": start,
            **{f"mask_{mask:g}": loss for mask, loss in fixed.items()},
            "best_mask": constant,
            "best_mask_loss": constant_loss,
            "best_per_bin_loss": per_bin_loss,
            "unheard_share": unheard,
        },
    )


def _unheard_share(objective: Objective, mask: float, mixture: Tensor, vocals: Tensor) -> float:
    """Share of a constant mask's loss in the quietest values, those that hold `INAUDIBLE_ENERGY` of the energy."""
    estimate = OUTPUTS[objective.output].of_mask(torch.full_like(mixture, mask), mixture)
    losses = distances(objective, estimate, vocals).flatten().double()
    power = mixture.flatten().double().square()
    order = power.argsort()
    quiet = order[power[order].cumsum(dim=0) <= INAUDIBLE_ENERGY * power.sum()]
    return float(losses[quiet].sum() / losses.sum().clamp(min=1e-300))


@torch.no_grad()
def start_finding(probe: Probe) -> Finding:
    """Masks of the untrained network compared with the oracle masks."""
    torch.manual_seed(probe.config.seed)
    probe.network.train()
    mixture, _ = probe.batches()[0]
    masks = probe.network.estimates(mixture)[0].mask().clamp(0, 1)
    kept = probe.network.kept(probe.mixture), probe.network.kept(probe.vocals)
    oracle = oracle_mask(*kept)
    saturated = float(((masks < 0.01) | (masks > 0.99)).float().mean())
    begins, best = float(masks.mean()), best_constant_mask(probe.config.objective, *kept)[0]
    bias, is_mask = probe.config.objective.bias, probe.config.objective.output == "mask"
    set_bias = bias if isinstance(bias, float) else float("nan")  # which differs from nothing
    misses = is_mask and abs(float(torch.sigmoid(torch.tensor(set_bias))) - best) > 0.1
    saturation = "The output layer is saturated, so that hardly any gradient comes through: take a bias near 0."
    by_hand = (
        f"The bias {set_bias:g} was set by hand and is not that of the best single mask of this loss: leave it out, "
        f"or take {fitting_bias('mask', best):.1f}."
    )
    quantiles = torch.linspace(0.05, 0.95, 19)
    return judged(
        "masks at the start",
        f"mean {begins:.2f}, the oracle's {float(oracle.mean()):.2f} (median {float(oracle.median()):.2f}); the best "
        f"single mask for this loss is {best:.2f}; {saturated:.0%} of the outputs are saturated",
        (is_mask and saturated > 0.5, "fail", saturation),
        (misses, "warn", by_hand),
        sound="The output layer begins where it can go either way.",
        values={"mean": begins, "oracle_mean": float(oracle.mean()), "best_mask": best, "saturated_share": saturated},
        curve={
            "quantile": quantiles.tolist(),
            "at the start": _quantiles(masks, quantiles),
            "oracle": _quantiles(oracle, quantiles),
        },
    )


def _quantiles(values: Tensor, quantiles: Tensor) -> list[float]:
    # torch.quantile takes no more than 16 million values.
    flat = values.flatten()
    return [float(value) for value in torch.quantile(flat[:: max(1, len(flat) // 1_000_000)].float(), quantiles)]
