"""Loss and gradients of a batch that is computed in parts, each by one thread, shared by all processes.

Threads that meet at the end of every layer wait for the slowest, and on a busy machine one of them always is; threads
that each take the next part through the whole network meet once per step. What a part gives depends on nothing but its
patches and its seed, and the parts are added in order, so that the number of threads changes nothing (as long as there
are no more threads than parts).

On a busy machine whose kernel divides the cores among sessions (`vocsep.sessions`) all threads but one have their parts
computed by processes in sessions of their own.
"""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from queue import SimpleQueue

import torch
from torch import Tensor, distributed

from vocsep.memory import usable_memory
from vocsep.models.mask_module import MaskModule
from vocsep.patches.batch import Batch
from vocsep.sessions import cores_are_divided_among_sessions
from vocsep.training.group import Group
from vocsep.training.remote_replica import RemoteReplica
from vocsep.training.replica import Loss, Replica, batch_norms, learned_weights

# Smaller parts read the weights more often, larger ones leave too little to share. Devices take whole batches.
PART_PATCHES = 4

# Threads that have less than this share of their cores for so long are next to other programs.
CROWDED_SHARE = 0.7
JUDGED_SECONDS = 3.0
# Of a process that computes parts.
REMOTE_BYTES = 600 << 20


def parts_of(patches: int, device: torch.device) -> int:
    """How many parts a process's share of a batch is cut into."""
    return max(1, patches // PART_PATCHES) if device.type == "cpu" else 1


class BatchParts:
    """Gives a network the gradients of whole batches.

    A process's share of a batch is cut into parts of about `PART_PATCHES` patches (a device takes it whole); batch norm
    sees one part at a time (Hoffer, Hubara, Soudry: "Train longer, generalize better", NeurIPS 2017), and its running
    averages take in the mean of the parts. Several processes have the parts that one would have, as long as there are
    no more processes than parts.

    Parameters
    ----------
    loss
        Mean loss of a batch's patches.
    patches
        Of this process's share.
    threads
        How many there are for the parts: one for each, or several where there are more than parts.
    """

    def __init__(self, group: Group, network: MaskModule, loss: Loss, patches: int, threads: int) -> None:
        self._group, self._network = group, network
        self._weights = learned_weights(network)
        self._parts = parts_of(patches, group.device)
        workers = min(threads, self._parts)
        self._threads_each = threads // workers
        self._local = [Replica(group, network, loss) for _ in range(workers)]
        self._replicas: list[Replica | RemoteReplica] = [*self._local]
        self._starting: list[RemoteReplica] = []
        # Sessions do not matter elsewhere.
        self._is_judged = workers > 1 and cores_are_divided_among_sessions()
        self._seconds = self._used_seconds = 0.0
        each = (self._threads_each,)
        self._workers = ThreadPoolExecutor(workers, "parts", initializer=torch.set_num_threads, initargs=each)

    def close(self) -> None:
        """End the threads, and processes that were started."""
        self._workers.shutdown()
        for replica in [*self._replicas, *self._starting]:
            if isinstance(replica, RemoteReplica):
                replica.close()

    def backward(self, batch: Batch, seed: int) -> float:
        """Leave the gradients of the whole batch in the network's weights; the mean loss of this process's share.

        Parameters
        ----------
        batch
            This process's share of the batch.
        seed
            Of the step: dropouts depend on it and on the number of the part.
        """
        started, used = time.perf_counter(), time.process_time()
        loss = self._backward(batch, seed)
        if self._is_judged:
            self._seconds += time.perf_counter() - started
            self._used_seconds += time.process_time() - used
            if self._seconds >= JUDGED_SECONDS:
                self._judge()
        for remote in [remote for remote in self._starting if remote.is_ready()]:
            self._starting.remove(remote)
            self._replicas[self._replicas.index(remote.local)] = remote
        return loss

    def _judge(self) -> None:
        """Start processes in other sessions, for all threads but one, if others take the cores."""
        workers = len(self._local)
        computing = self._parts / ceil(self._parts / workers)  # some have nothing left to do at the end
        count = min(workers - 1, usable_memory() // REMOTE_BYTES)
        if count and self._used_seconds < CROWDED_SHARE * self._seconds * computing * self._threads_each:
            self._is_judged = False
            with contextlib.suppress(OSError):  # no more processes can be started here: threads compute all
                for local in self._local[-count:]:
                    self._starting.append(RemoteReplica(local, self._threads_each))
        self._seconds = self._used_seconds = 0.0

    def _backward(self, batch: Batch, seed: int) -> float:
        processes, rank = self._group.size, self._group.rank
        size = len(batch.mixture)
        parts = [batch.items(slice(part, None, self._parts)) for part in range(self._parts)]
        # The parts of process r are numbers r, r + processes, ...: those that one process would number so.
        idle: SimpleQueue[Replica | RemoteReplica] = SimpleQueue()
        for replica in self._replicas:
            idle.put(replica)
        futures = [
            self._workers.submit(_computed, idle, part, seed + rank + number * processes)
            for number, part in enumerate(parts)
        ]
        # Each set of gradients is as large as the network: none is held for longer than it is needed.
        for weight in self._weights:
            weight.grad = None
        total: list[Tensor] = []
        loss = 0.0
        for part in parts:
            share = len(part.mixture) / size
            part_loss, values = futures.pop(0).result()
            loss += share * part_loss
            torch._foreach_mul_(values, share / processes)
            if total:
                torch._foreach_add_(total, values)
            else:
                total = values
            del values
        if processes > 1:
            total = _summed_over_processes(total)
        for weight, gradient in zip(self._weights, total, strict=False):
            # In the memory format of the weight: fused optimizers read both as one run of numbers.
            weight.grad = torch.empty_like(weight).copy_(gradient)
        means = iter(total[len(self._weights) :])
        for norm in batch_norms(self._network):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            assert norm.num_batches_tracked is not None
            assert norm.momentum is not None
            norm.running_mean.lerp_(next(means), norm.momentum)
            norm.running_var.lerp_(next(means), norm.momentum)
            norm.num_batches_tracked += 1
        return loss


def _computed(idle: "SimpleQueue[Replica | RemoteReplica]", part: Batch, seed: int) -> tuple[float, list[Tensor]]:
    replica = idle.get()
    try:
        return replica.computed(part, seed)
    finally:
        idle.put(replica)


def _summed_over_processes(values: list[Tensor]) -> list[Tensor]:
    """The sum of every tensor over all processes, in one message."""
    flat = torch.cat([value.flatten() for value in values])
    distributed.all_reduce(flat)
    pieces = torch.split(flat, [value.numel() for value in values])
    return [piece.view(value.shape) for value, piece in zip(values, pieces, strict=True)]
