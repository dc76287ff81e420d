"""Parts that other processes compute: the same bits, whatever becomes of these processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
from torch import Tensor

from benchmarks.neighbours import busy_loops
from tests.vocsep.training.test_parts import LOSS, batch_of, learned, network_of
from vocsep.models.objective_config import Objective
from vocsep.patches.batch import Batch
from vocsep.sessions import cores_are_divided_among_sessions
from vocsep.training.group import Group
from vocsep.training.loss import batch_loss
from vocsep.training.parts import BatchParts
from vocsep.training.remote_replica import RemoteReplica
from vocsep.training.replica import Loss, Replica

GROUP = Group(torch.device("cpu"), "float32")
LONGEST_WAIT = 600


def others() -> list[psutil.Process]:
    """Processes of replicas that this one started."""
    return [one for one in psutil.Process().children() if "vocsep.training.remote_replica" in " ".join(one.cmdline())]


@contextmanager
def remote(loss: Loss = LOSS) -> Iterator[tuple[Replica, RemoteReplica, psutil.Process]]:
    """A local replica, another of the same network whose process has started, and that process."""
    torch.set_num_threads(1)
    network = network_of(dropout=0.5)
    found = RemoteReplica(Replica(GROUP, network, loss), 1)
    with closing(found):
        (process,) = others()
        deadline = time.monotonic() + LONGEST_WAIT
        while not found.is_ready():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield Replica(GROUP, network, loss), found, process
    assert not process.is_running()


def assert_same(found: tuple[float, list[Tensor]], expected: tuple[float, list[Tensor]]) -> None:
    assert found[0] == expected[0]
    assert len(found[1]) == len(expected[1])
    assert all(torch.equal(one, other) for one, other in zip(found[1], expected[1], strict=True))


@pytest.mark.parametrize("with_accompaniment", [True, False])
def test_another_process_gives_the_same_bits_with_the_weights_of_the_moment(with_accompaniment: bool) -> None:
    batch, loss = batch_of(4), LOSS
    if not with_accompaniment:
        batch, loss = Batch(batch.mixture, batch.vocals, None), partial(batch_loss, Objective(target="source"))
    with remote(loss) as (local, other, process):
        assert os.getsid(process.pid) == process.pid
        for seed in (1, 2):
            assert_same(other.computed(batch, seed), local.computed(batch, seed))
            with torch.no_grad():
                for weight in local.original.parameters():
                    weight.mul_(0.9)
        before = process.cpu_times().user
        other.computed(batch_of(64), 3)
        assert process.cpu_times().user > before


def test_parts_of_a_process_that_is_killed_are_computed_here() -> None:
    with remote() as (local, other, process):
        process.kill()
        process.wait()
        for seed in (1, 2):
            assert_same(other.computed(batch_of(4), seed), local.computed(batch_of(4), seed))


def test_where_no_process_can_be_started_threads_compute_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vocsep.training.parts.cores_are_divided_among_sessions", lambda: True)
    # Any machine is taken for a crowded one, from the first step on.
    monkeypatch.setattr("vocsep.training.parts.CROWDED_SHARE", 1e9)
    monkeypatch.setattr("vocsep.training.parts.JUDGED_SECONDS", 0.0)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    batch = batch_of(8)
    expected_loss, expected = learned(network_of(), batch, threads=1)
    network = network_of()
    with closing(BatchParts(GROUP, network, LOSS, 8, threads=2)) as parts:
        assert [parts.backward(batch, 5), parts.backward(batch, 5)] == [expected_loss] * 2
    gradients = {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}
    assert gradients
    assert all(torch.equal(gradient, expected[name]) for name, gradient in gradients.items())


def test_process_ends_with_the_one_that_started_it() -> None:
    script = (
        "import time; from tests.vocsep.training.test_remote_replica import remote\n"
        "with remote() as (_, _, process): print(process.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        process = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
    psutil.wait_procs([process], timeout=LONGEST_WAIT)
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.skipif(not cores_are_divided_among_sessions(), reason="this kernel does not divide cores among sessions")
def test_next_to_busy_programs_parts_move_to_other_sessions_and_change_no_bit() -> None:
    batch = batch_of(64)
    expected_loss, expected = learned(network_of(dropout=0.5), batch, threads=1)
    network = network_of(dropout=0.5)
    start = {name: value.clone() for name, value in network.named_buffers()}
    with ExitStack() as stack:
        parts = stack.enter_context(closing(BatchParts(GROUP, network, LOSS, 64, threads=2)))
        stack.enter_context(busy_loops(os.cpu_count() or 1))
        deadline = time.monotonic() + LONGEST_WAIT
        # Starting takes two or three of these seconds.
        while not others() or others()[0].cpu_times().user < 10:
            assert time.monotonic() < deadline
            parts.backward(batch, 5)
        for name, value in network.named_buffers():
            value.copy_(start[name])
        assert parts.backward(batch, 5) == expected_loss
        gradients = {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}
        found = gradients | dict(network.named_buffers())
        assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert not others()
