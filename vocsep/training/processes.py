"""Which of several processes this one is, when torchrun or SLURM started them to train together."""

import os

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment


def is_one_of_several() -> bool:
    """Whether torchrun or SLURM started this process."""
    return bool(TorchElasticEnvironment.detect() or SLURMEnvironment.detect())


def processes() -> tuple[int, int, int]:
    """This process's number, how many train together, and how many of these on this machine; by torchrun or SLURM."""
    if TorchElasticEnvironment.detect():
        torchrun = TorchElasticEnvironment()
        return torchrun.global_rank(), torchrun.world_size(), int(os.environ["LOCAL_WORLD_SIZE"])
    if SLURMEnvironment.detect():
        slurm = SLURMEnvironment()
        nodes = int(os.environ.get("SLURM_NNODES", "1"))
        return slurm.global_rank(), slurm.world_size(), max(1, slurm.world_size() // nodes)
    return 0, 1, 1


def leave_group() -> None:
    """End what training together started in this process, its threads included.

    A thread of Gloo that still holds a tensor when Python shuts down aborts the process (seen in one of eight exits on
    a busy machine), and Lightning leaves the group to the exit.
    """
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
