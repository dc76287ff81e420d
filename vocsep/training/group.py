"""The processes that train together: where each computes, and what they tell each other."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from vocsep.models.precision import Precision
from vocsep.patches.batch import Batch
from vocsep.training.processes import Place, place

# While the first process validates, the others wait.
LONGEST_WAIT = timedelta(hours=1)


@dataclass(frozen=True)
class Group:
    """This process among those that train together, often the only one.

    Attributes
    ----------
    device
        What this process computes on.
    rank, size
        Its number, from 0, and how many there are.
    """

    device: torch.device
    precision: Precision
    rank: int = 0
    size: int = 1

    def autocast(self) -> AbstractContextManager[None]:
        """Where forward passes are computed in the group's precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def on_device(self, batch: Batch) -> Batch:
        """A batch on this process's device."""
        moved = (None if source is None else source.to(self.device, non_blocking=True) for source in batch)
        return Batch(*moved)  # type: ignore[arg-type]

    def from_first(self, value: Any) -> Any:
        """What the first process has for `value`, in all processes."""
        values = [value]
        if self.size > 1:
            distributed.broadcast_object_list(values, device=self.device)
        return values[0]

    def gathered(self, numbers: tuple[float, ...]) -> Tensor:
        """The numbers of all processes, `(processes, numbers)` float64 on the CPU."""
        own = torch.tensor([numbers], dtype=torch.float64)
        if self.size == 1:
            return own
        own = own.to(self.device)
        every = [torch.empty_like(own) for _ in range(self.size)]
        distributed.all_gather(every, own)
        return torch.cat(every).cpu()

    def gathered_names(self, names: list[str]) -> list[str]:
        """The names of all processes."""
        if self.size == 1:
            return names
        every: list[list[str]] = [[] for _ in range(self.size)]
        distributed.all_gather_object(every, names)
        return [name for own in every for name in own]


def join_group(device: torch.device, precision: Precision) -> Group:
    """Meet the other processes, if torchrun or SLURM started several; of several GPUs each takes the next one."""
    here: Place = place()
    if here.count == 1:
        return Group(device, precision)
    if device.type == "cuda":
        device = torch.device("cuda", here.on_machine)
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group(
            init_method=here.meeting, rank=here.rank, world_size=here.count, timeout=LONGEST_WAIT
        )
    return Group(device, precision, here.rank, here.count)


def leave_group() -> None:
    """End what training together started in this process, its threads included.

    A thread of Gloo that still holds a tensor when Python shuts down aborts the process (seen in one of eight exits on
    a busy machine).
    """
    if distributed.is_initialized():
        distributed.destroy_process_group()
