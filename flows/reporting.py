"""What a run shows in the Prefect UI."""

import base64
import time
from collections.abc import Callable
from typing import TypeVar, cast
from uuid import UUID

from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate

from vocsep.mapping import SomeFailed

UPDATE_INTERVAL_SECONDS = 1.0

Returned = TypeVar("Returned")


def shown(step: Callable[[], Returned], show: Callable[[Returned], None]) -> Returned:
    """What a step returns, after it was shown; where some songs failed, the rest is shown before that is raised."""
    try:
        result = step()
    except SomeFailed as some:
        show(some.result)
        raise
    show(result)
    return result


class ProgressArtifact:
    """A progress artifact of the running flow, updated at most once a second (each update costs 20 ms)."""

    def __init__(self, key: str, description: str) -> None:
        self._id = create_progress_artifact(0.0, key=key, description=description)
        self._updated = time.monotonic()

    def update(self, done: float, total: float = 1.0) -> None:
        """Show how much of the work is done."""
        now, share = time.monotonic(), done / total if total else 1.0
        if share >= 1.0 or now - self._updated >= UPDATE_INTERVAL_SECONDS:
            assert isinstance(self._id, UUID)
            update_progress_artifact(self._id, progress=100 * share)
            self._updated = now


def picture(png: bytes, title: str) -> str:
    """A picture for a markdown artifact, embedded in it."""
    return f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})"


class PictureArtifact:
    """A picture of the running flow, replaced in place, so that a long run does not fill the database."""

    def __init__(self, key: str, description: str) -> None:
        self._key = key
        self._description = description
        self._id: UUID | None = None

    def show(self, png: bytes) -> None:
        """Show a picture, in the place of the one before."""
        # An artifact of Prefect's type "image" would show the picture's data as a link of 40,000 letters, too.
        text = picture(png, self._description)
        if self._id is None:
            self._id = cast(UUID, create_markdown_artifact(text, key=self._key, description=self._description))
            return
        with get_client(sync_client=True) as client:
            client.update_artifact(self._id, ArtifactUpdate(data=text))
