"""A replica that computes in another process, in its own session, where other programs' sessions take the cores.

    python -P -m vocsep.training.remote_replica SOCKET

is that process. It answers on a socket that it inherits, and ends with the process at the other end.
"""

import contextlib
import pickle
import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from vocsep.patches.batch import Batch
from vocsep.training.replica import Replica


class RemoteReplica:
    """What a local replica computes, bit for bit, by another process; by the local one should that process end.

    Parameters
    ----------
    threads
        Of the other process.

    Raises
    ------
    OSError
        If no process can be started.
    """

    def __init__(self, local: Replica, threads: int) -> None:
        self.local, self._threads = local, threads
        ours, theirs = socket.socketpair()
        self._connection = Connection(ours.detach())
        with theirs:
            number = str(theirs.fileno())
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, number],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def is_ready(self) -> bool:
        """Whether the process has started; it takes some seconds. One that has ended is ready, too."""
        if not self._connection.poll():
            return False
        local = self.local
        with contextlib.suppress(EOFError, OSError):
            _received(self._connection)
            _send(self._connection, (local.group, local.original, local.loss, self._threads))
        return True

    def computed(self, part: Batch, seed: int) -> tuple[float, list[Tensor]]:
        """See `Replica`."""
        weights = [weight.detach().numpy() for weight in self.local.weights]
        sources = [None if source is None else source.numpy() for source in part]
        try:
            _send(self._connection, (weights, sources, seed))
            loss, values = _received(self._connection)
        except (EOFError, OSError):
            return self.local.computed(part, seed)
        return loss, [torch.from_numpy(value) for value in values]

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.kill()
        self._process.wait()


def _send(connection: Connection, message: Any) -> None:
    """Everything in one message: what `Connection.send` makes of tensors is shared memory, of which containers have
    little."""
    connection.send_bytes(pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL))


def _received(connection: Connection) -> Any:
    return pickle.loads(connection.recv_bytes())


def main() -> None:
    """Compute parts until the other end is closed."""
    with contextlib.suppress(EOFError, OSError), Connection(int(sys.argv[1])) as connection:
        _send(connection, "ready")
        group, network, loss, threads = _received(connection)
        torch.set_num_threads(threads)
        replica = Replica(group, network, loss)
        while True:
            weights, sources, seed = _received(connection)
            with torch.no_grad():
                for weight, value in zip(replica.weights, weights, strict=True):
                    weight.copy_(torch.from_numpy(value))
            mixture, vocals, accompaniment = sources
            others = None if accompaniment is None else torch.from_numpy(accompaniment)
            part = Batch(torch.from_numpy(mixture), torch.from_numpy(vocals), others)
            part_loss, values = replica.computed(part, seed)
            _send(connection, (part_loss, [value.numpy() for value in values]))


if __name__ == "__main__":
    main()
