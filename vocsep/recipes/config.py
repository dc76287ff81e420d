"""What a recipe says: which songs from where, how they are trained on, and where the model goes."""

import contextlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from storage.errors import UserError
from vocsep.config import Settings, load_yaml, validated
from vocsep.datasets.layouts import Kind
from vocsep.training.config import TrainConfig

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]*$")]
PackageName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+.-]+$")]


class Music(Settings):
    """A data set that a recipe names.

    Attributes
    ----------
    name
        Of its folder or store in the work folder.
    source
        For the model card: what it is, and where it comes from.
    path
        Its folder; None where the songs come in `packages`.
    packages
        Debian packages whose sound files are the songs.
    kind
        See `vocsep.datasets.layouts.open_dataset`.
    """

    name: Slug
    source: str
    path: Path | None = None
    packages: tuple[PackageName, ...] = ()
    kind: Literal["auto", Kind] = "auto"

    @model_validator(mode="after")
    def _check(self) -> "Music":
        if (self.path is None) == (not self.packages):
            raise ValueError(f"{self.name}: needs a path, or packages, and not both")
        return self


class Shares(Settings):
    """Share of all drawn vocals and accompaniments that comes from a set; None: by hours."""

    vocals: float | None = Field(default=None, ge=0, le=1)
    accompaniment: float | None = Field(default=None, ge=0, le=1)


class SongSource(Music, Shares):
    """Songs to train on; the first set has what the shares of the others leave.

    Attributes
    ----------
    licence
        For the model card: on what terms.
    """

    licence: str


class MusicCheck(Music):
    """Songs that the finished model is tried on, for its card: scored, or, of kind `accompaniment`, listened to.

    Attributes
    ----------
    split
        The songs that are scored: test, or valid.
    over
        Of kind `vocals`: name of a check of kind `accompaniment` whose music the voices are laid over, as loud as it.
    """

    split: Literal["valid", "test"] = "test"
    over: Slug | None = None

    @model_validator(mode="after")
    def _check_over(self) -> "MusicCheck":
        if (self.kind == "vocals") != (self.over is not None):
            raise ValueError(f"{self.name}: kind vocals and over go together")
        return self


class FurtherTraining(Settings):
    """A training that starts from the model of the one before.

    Attributes
    ----------
    shares
        Of sets that are drawn from more or less often than before, by name.
    """

    training: TrainConfig
    shares: dict[Slug, Shares] = Field(default_factory=dict)


class Recipe(Settings):
    """How a model is made, from nothing to the file.

    Attributes
    ----------
    sets
        The first is the one whose validation and test songs the model is scored on.
    training
        Its `extra` stores are those of the other sets.
    further
        Trainings after the first, in order; the model is that of the last.
    checks
        Other kinds of music, none of which the model is trained on.
    """

    title: str
    preset: str = "fine"
    sets: tuple[SongSource, ...] = Field(min_length=1)
    training: TrainConfig = TrainConfig()
    further: tuple[FurtherTraining, ...] = ()
    checks: tuple[MusicCheck, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        if len({one.name for one in (*self.sets, *self.checks)}) < len(self.sets) + len(self.checks):
            raise ValueError("two sets have the same name")
        if any(training.extra for training, _ in self.trainings()):
            raise ValueError("training.extra: the further stores of a recipe are its other sets")
        if any(one.training.fine_tune is not None for one in self.further):
            raise ValueError("further.training.fine_tune: always starts from the training before; leave it out")
        music = {one.name for one in self.checks if one.kind == "accompaniment"}
        if without := [one for one in self.checks if one.over is not None and one.over not in music]:
            raise ValueError(f"{without[0].name}: over {without[0].over}: no check of kind accompaniment")
        others = {one.name for one in self.sets[1:]}
        if unknown := sorted({name for one in self.further for name in one.shares} - others):
            raise ValueError(f"further.shares: {unknown[0]} is none of the sets after the first")
        if self.sets[0].vocals is not None or self.sets[0].accompaniment is not None:
            raise ValueError(f"{self.sets[0].name}: the first set has what the others leave; it takes no shares")
        for _, shares in self.trainings():
            for source in ("vocals", "accompaniment"):
                total = sum(getattr(one, source) or 0.0 for one in shares.values())
                if total >= 1:
                    raise ValueError(f"shares of {source} sum to {total:g}; they must leave some for the first set")
        return self

    def trainings(self) -> list[tuple[TrainConfig, dict[str, Shares]]]:
        """Settings of all trainings, and the shares of the sets after the first in each."""
        shares: dict[str, Shares] = {one.name: one for one in self.sets[1:]}
        found = [(self.training, shares)]
        for one in self.further:
            shares = shares | one.shares
            found.append((one.training, shares))
        return found


def load_recipe(path: Path) -> Recipe:
    """The recipe of a YAML file; its folders are relative to the working directory.

    Raises
    ------
    UserError
        If there is no such file, or it is no recipe.
    """
    with contextlib.suppress(OSError):  # of a name that cannot be looked up
        if path.is_dir():
            raise UserError(f"{path}: a folder; give the recipe, a YAML file")
    return validated(Recipe, load_yaml(str(path)), str(path))
