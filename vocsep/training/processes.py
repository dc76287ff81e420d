"""Processes that train together: starting them by torchrun, and which of them this one is."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import torch

from storage.files import read_json, write_json

HOST = "127.0.0.1"
# Names the file by which processes that `run_in_processes` started meet.
_MEETING = "VOCSEP_MEETING"


@dataclass(frozen=True)
class Place:
    """A process's place among those that train together.

    Attributes
    ----------
    rank, count
        Its number, from 0, and how many there are.
    on_machine
        Its number among those on its machine.
    meeting
        Where they find each other, for `torch.distributed`.
    """

    rank: int = 0
    count: int = 1
    on_machine: int = 0
    meeting: str = ""


def place() -> Place:
    """This process's place, as torchrun or `srun` tell it in the environment; alone without them.

    In an allocation of SLURM a script or a shell that `srun` did not start is alone, however many tasks were asked for.
    """
    environment = os.environ
    if torch.distributed.is_torchelastic_launched():
        rank, count, on_machine = (int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        return Place(rank, count, on_machine, environment.get(_MEETING, "env://"))
    if "SLURM_STEP_NUM_TASKS" in environment and environment.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
        rank, count, on_machine = (int(environment[name]) for name in names)
        host = environment.get("MASTER_ADDR") or first_host(environment.get("SLURM_STEP_NODELIST", HOST))
        # Jobs that share a machine use separate ports.
        port = environment.get("MASTER_PORT") or 15000 + int(environment.get("SLURM_JOB_ID", "0")) % 10000
        return Place(rank, count, on_machine, f"tcp://{host}:{port}")
    return Place()


def first_host(hosts: str) -> str:
    """The first of SLURM's list of hosts, such as `gpu[03-05,9],login`."""
    start, bracket, rest = hosts.partition("[")
    if not bracket or "," in start:
        return start.split(",")[0]
    return start + re.split("[],-]", rest)[0]


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


def run_in_processes(count: int, module: str, job: dict[str, Any]) -> tuple[dict[str, Any] | None, int]:
    """Run `python -m module JOB ANSWER` in several processes, by torchrun; SIGTERM and SIGINT are passed on to them.

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
        # Its own session: Ctrl-C in a terminal comes here alone, and is passed on once.
        process = subprocess.Popen(
            [*command, "-m", module, str(question), str(answer)],
            env={**_loopback_only(), **os.environ, _MEETING: (Path(folder) / "meeting").as_uri()},
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
