"""The doctor's look at the network: can it learn one batch, at which rate, and is it the same when it is used?"""

import copy
import functools

import numpy as np
import torch
from torch import Tensor, nn

from storage.store import SpectrogramStore
from vocsep.doctor.finding import Finding, judged
from vocsep.models.constant_masks import mask_loss
from vocsep.models.mask_module import MaskModule
from vocsep.models.masks import predict_mask
from vocsep.models.objective import as_distance, minimized, oracle_mask
from vocsep.models.precision import pick_precision
from vocsep.models.torch_network import TorchNetwork
from vocsep.preprocessing.config import spectrogram_config
from vocsep.separation.separator import Separator
from vocsep.training.optimizer import new_optimizer
from vocsep.training.probe import Probe
from vocsep.training.validation import load_song

# What is to be overfitted, without dropout: half a patch, of which the U-Net's strides leave one frame; and how far its
# loss must fall.
FRAMES, ONE_BATCH_STEPS, ONE_BATCH_FALL = 64, 250, 0.9
# Learning rates of the range test; each starts anew.
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
RANGE_STEPS = 40
# A rate is judged by its share of the best one's progress, and by its remaining loss as a multiple of the best one's.
GOOD_SHARE, POOR_SHARE = 0.8, 0.6
GOOD_REST, POOR_REST = 2.5, 4.0
# Of rates that are as good as the best but for this, the lowest is suggested.
TIE = 1.1


def gradient_finding(probe: Probe) -> Finding:
    """Gradients of every layer on the first batch, and units that are always silent."""
    network = copy.deepcopy(probe.network).train()
    dead = _count_dead(network)
    mixture, vocals = probe.batches()[0]
    torch.manual_seed(probe.config.seed)
    loss = minimized(probe.config.objective, network.estimates(mixture)[0], network.kept(vocals))
    if loss.requires_grad:
        loss.backward()  # type: ignore[no-untyped-call]
    # Of the layers, without biases and the figures of normalizations.
    weights = {name.removesuffix(".weight"): one for name, one in network.named_parameters() if one.dim() == 4}
    ratios = {
        name: 0.0 if one.grad is None else float(one.grad.norm() / one.detach().norm().clamp(min=1e-12))
        for name, one in weights.items()
    }
    none = [name for name, ratio in ratios.items() if ratio == 0]
    finite = all(np.isfinite(ratio) for ratio in ratios.values())
    counted = [ratio for ratio in ratios.values() if ratio > 0] or [1.0]
    span = max(counted) / min(counted)
    dead_share = max(dead.values(), default=0.0)
    hardly = "Some layers hardly learn compared with the others: look at the scaling of the input."
    return judged(
        "gradients",
        f"norm over that of the weights: from {min(counted):.2g} to {max(counted):.2g} over {len(ratios)} layers"
        + (f"; none in {', '.join(none)}" if none else "")
        + f"; at most {dead_share:.0%} of a layer's units are silent throughout the batch",
        (bool(none), "fail", "These layers do not learn: they are frozen, or nothing comes through to them."),
        (not finite, "fail", "Gradients are not finite: look at the input and at the songs."),
        (span > 1e4 or dead_share > 0.5, "warn", hardly),
        sound="Every layer learns.",
        values={"ratios": ratios, "without": none, "dead_share": dead_share},
        curve={"gradient / weight": list(ratios.values())},
    )


def one_batch_findings(probe: Probe, rate: float) -> list[Finding]:
    """Whether the network can overfit one small batch, and whether it then is the same in training and in use."""
    mixture, vocals = (probe.network.kept(part[:1, :, :FRAMES]) for part in (probe.mixture, probe.vocals))
    # Where the vocals are louder than the mixture no mask is enough, and something of the loss always stays.
    least = float(mask_loss(probe.config.objective, oracle_mask(mixture, vocals), mixture, vocals).mean())
    losses, network = _learn_by_heart(probe, rate, ONE_BATCH_STEPS, least=least)
    reachable = losses[0] - least
    fall = (losses[0] - min(losses)) / reachable if reachable > 0 else 0.0
    advice = "A network that cannot overfit one batch cannot learn: look at the target, its domain and its scale."
    overfit = judged(
        "one batch",
        f"loss {losses[0]:.3g} to {min(losses):.3g} in {len(losses)} steps on half a patch: {fall:.0%} of the way to "
        f"the oracle mask's {least:.3g}",
        (fall < 0.5, "fail", advice),
        (not fall >= ONE_BATCH_FALL, "warn", advice),
        sound="The network can learn what it is asked for.",
        values={"start": losses[0], "end": min(losses), "least": least, "fall": fall},
        curve={"loss": losses},
    )
    return [overfit, _statistics_finding(network, probe.mixture[:1, :, :FRAMES])]


@torch.no_grad()
def _statistics_finding(network: MaskModule, mixture: Tensor) -> Finding:
    """Batch norm's running statistics compared with those of the batch that the network has just been trained on."""
    in_training = network.train().estimates(mixture)[0].mask().clamp(0, 1)
    in_use = network.eval().estimates(mixture)[0].mask().clamp(0, 1)
    difference = float((in_training - in_use).abs().mean())
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    smallest = min(float(norm.running_var.min()) for norm in norms if norm.running_var is not None)
    advice = (
        "Running statistics are far from those of the batches: take larger batches, or look at the levels of the songs."
    )
    return judged(
        "batch norm",
        f"masks in training and in use differ by {difference:.3f} on average; smallest running variance {smallest:.2g}",
        (not np.isfinite(difference), "fail", advice),
        (difference > 0.15, "warn", advice),
        sound="The running statistics fit the batches.",
        values={"difference": difference, "smallest_variance": smallest},
    )


def rate_finding(probe: Probe) -> Finding:
    """The configured learning rate compared with others, each tried for some steps on one batch from the same start."""
    rate = probe.config.learning_rate
    rests = {tried: _rest(probe, tried) for tried in (*RATES, rate)}
    lowest = min(rests[tried] for tried in RATES)
    suggested = min(tried for tried in RATES if rests[tried] <= TIE * lowest)
    share = (1 - rests[rate]) / (1 - lowest) if lowest < 1 else 0.0
    more = rests[rate] / lowest if lowest > 0 else 1.0
    advice = f"The learning rate is too {'high' if rate > suggested else 'low'}: take about {suggested:.1g}."
    return judged(
        "learning rate",
        f"of the loss of one batch {rate:g} leaves {rests[rate]:.1%} after {RANGE_STEPS} steps, {suggested:.1g} leaves "
        f"{rests[suggested]:.1%}",
        (share < POOR_SHARE or more > POOR_REST, "fail", advice),
        (share < GOOD_SHARE or more > GOOD_REST, "warn", advice),
        sound="The learning rate suits network and loss.",
        values={"rate": rate, "suggested": suggested, "rest": rests[rate], "suggested_rest": rests[suggested]},
        curve={"learning rate": list(RATES), "loss": [rests[tried] for tried in RATES]},
    )


def _rest(probe: Probe, rate: float) -> float:
    """Share of one batch's loss that is left after some steps; 2 at most."""
    losses, _ = _learn_by_heart(probe, rate, RANGE_STEPS)
    last = float(np.mean(losses[-5:]))
    return min(2.0, last / losses[0]) if np.isfinite(last) and losses[0] > 0 else 2.0


def _learn_by_heart(
    probe: Probe, rate: float, steps: int, least: float | None = None
) -> tuple[list[float], MaskModule]:
    """Losses of this number of steps on one small batch, without dropout, and the network after them.

    Parameters
    ----------
    least
        If given, the rate falls to 0 in a straight line, and the steps end when `ONE_BATCH_FALL` of the way to this
        loss is done.
    """
    network = copy.deepcopy(probe.network).train()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    mixture, vocals = probe.mixture[:1, :, :FRAMES], network.kept(probe.vocals[:1, :, :FRAMES])
    optimizer = new_optimizer(probe.config, network, torch.device("cpu"))
    losses = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate if least is None else rate * (1 - step / steps)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=pick_precision("cpu", "auto") == "bfloat16"):
            estimate = network.estimates(mixture)[0]
        loss = minimized(probe.config.objective, estimate, vocals)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(as_distance(probe.config.objective, float(loss.detach())))
        is_done = least is not None and losses[0] - losses[-1] >= ONE_BATCH_FALL * (losses[0] - least)
        if is_done or not np.isfinite(losses[-1]):
            break
    return losses, network


@torch.inference_mode()
def agreement_finding(probe: Probe, store: SpectrogramStore) -> Finding:
    """The masks of one song from the store and from its waveform, as training and `separate` make them."""
    config = spectrogram_config(store)
    network = TorchNetwork(copy.deepcopy(probe.network).eval())
    track = min(store.tracks("valid"), key=lambda track: track.frames)
    stored = np.array(store.array(track, "mixture"), dtype=np.float32)
    waveform, _ = load_song(store, track)
    trained = predict_mask(network, stored)
    used = Separator(network, config).mask(waveform, config.sample_rate)
    frames = min(trained.shape[1], used.shape[1])
    difference = float(np.abs(trained[:, :frames] - used[:, :frames]).mean())
    spread = float(trained.std()) or 1.0
    is_same = trained.shape == used.shape and difference <= 0.05 * spread
    advice = "What the store holds is not what `separate` computes: bins, hop or scale differ; preprocess again."
    return judged(
        "train and use",
        f"masks of {track.name!r} from the store and from its waveform differ by {difference:.1e} on average (they "
        f"themselves vary by {spread:.1e})",
        (not is_same, "fail", advice),
        sound="The network sees in use what it sees in training.",
        values={"difference": difference, "spread": spread},
    )


def _count_dead(network: MaskModule) -> dict[str, float]:
    """Share of every ReLU's maps that are 0 for the whole batch; filled when the network runs."""
    found: dict[str, float] = {}

    def look(name: str, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found[name] = float((output.detach().amax(dim=(0, 2, 3)) <= 0).float().mean())

    for name, module in network.named_modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(functools.partial(look, name))
    return found
