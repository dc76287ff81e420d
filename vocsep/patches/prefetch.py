"""Making things in a thread ahead of their use."""

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

PREFETCH_DEPTH = 2

Item = TypeVar("Item")


def prefetched(items: Iterator[Item], depth: int = PREFETCH_DEPTH) -> Iterator[Item]:
    """The same items, made by a thread up to `depth` ahead of their use; what it raises is raised here."""
    ready: queue.Queue[Item | BaseException | None] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(item: Item | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def fill() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=fill, name="patches", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
