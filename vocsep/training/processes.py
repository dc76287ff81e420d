"""Processes that train together: starting them by torchrun, and which of them this one is."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from storage.files import read_json, write_json

HOST = "127.0.0.1"


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


def meet(file: Path) -> None:
    """Join the processes that `run_in_processes` started, by a file of theirs."""
    rank, count, _ = processes()
    torch.distributed.init_process_group(init_method=f"file://{file}", rank=rank, world_size=count)


def _loopback_only() -> dict[str, str]:
    """Variables with which processes that train together speak on this machine only.

    Torch's own meeting place would be a server that listens on all networks, and asks nobody who he is.
    """
    interfaces = psutil.net_if_addrs().items()
    loopback = next(name for name, addresses in interfaces if HOST in [one.address for one in addresses])
    return {
        "GLOO_SOCKET_IFNAME": loopback,
        "NCCL_SOCKET_IFNAME": loopback,
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }


def leave_group() -> None:
    """End what training together started in this process, its threads included.

    A thread of Gloo that still holds a tensor when Python shuts down aborts the process (seen in one of eight exits on
    a busy machine), and Lightning leaves the group to the exit.
    """
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def run_in_processes(count: int, module: str, job: dict[str, Any]) -> tuple[dict[str, Any] | None, int]:
    """Run `python -m module JOB ANSWER` in several processes, by torchrun; SIGTERM and SIGINT go on to them.

    Returns
    -------
    answer
        What the first process wrote; None if it did not come to it.
    number
        The signal that came, or 0.
    """
    with tempfile.TemporaryDirectory() as folder:
        question, answer = Path(folder) / "job.json", Path(folder) / "answer.json"
        write_json(question, job)
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
        command += ["--rdzv-backend", "c10d", "--rdzv-conf", "store_type=file"]
        command += ["--rdzv-endpoint", str(Path(folder) / "torchrun")]
        received = 0
        # A session of its own: Ctrl-C in a terminal comes here alone, and is passed on once.
        process = subprocess.Popen(
            [*command, "-m", module, str(question), str(answer)],
            env={**_loopback_only(), **os.environ},
            start_new_session=True,
        )

        def pass_on(number: int, frame: FrameType | None) -> None:
            nonlocal received
            received = number
            process.send_signal(signal.SIGTERM)

        is_main = threading.current_thread() is threading.main_thread()
        numbers = (signal.SIGTERM, signal.SIGINT) if is_main else ()
        before = {number: signal.signal(number, pass_on) for number in numbers}
        try:
            process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if process.poll() is None:
                process.terminate()
                process.wait()
        return (read_json(answer) if answer.is_file() else None), received
