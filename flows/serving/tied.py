"""`python -m flows.serving.tied MODULE ...`: `python -m MODULE ...` for no longer than the starting process lives.

The starting process keeps the other end of this one's standard input, which the system closes when it dies.
"""

import os
import runpy
import signal
import sys
import threading
import time

GRACE_SECONDS = 60


def _end_with_starter() -> None:
    while os.read(0, 1 << 10):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_starter, daemon=True).start()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
