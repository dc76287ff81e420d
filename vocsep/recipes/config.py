"""What a recipe says: which songs from where, how they are trained on, and where the model goes."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from vocsep.config import Settings, load_yaml, validated
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
    kind: str = "auto"

    @model_validator(mode="after")
    def _check(self) -> "Music":
        if (self.path is None) == (not self.packages):
            raise ValueError(f"{self.name}: needs a path, or packages, and not both")
        return self


class SongSource(Music):
    """Songs to train on.

    Attributes
    ----------
    licence
        For the model card: on what terms.
    vocals, accompaniment
        Share of all drawn vocals and accompaniments; not of the first set.
    """

    licence: str
    vocals: float | None = Field(default=None, ge=0, le=1)
    accompaniment: float | None = Field(default=None, ge=0, le=1)


class MusicCheck(Music):
    """Songs that the finished model is tried on, for its card: scored, or, of kind `accompaniment`, listened to.

    Attributes
    ----------
    split
        The songs that are scored: test, or valid.
    """

    split: Literal["valid", "test"] = "test"


class Recipe(Settings):
    """How a model is made, from nothing to the file.

    Attributes
    ----------
    sets
        The first is the one whose validation and test songs the model is scored on.
    training
        Its `extra` stores are those of the other sets.
    checks
        Other kinds of music, none of which the model is trained on.
    """

    title: str
    preset: str = "fine"
    sets: tuple[SongSource, ...] = Field(min_length=1)
    training: TrainConfig = TrainConfig()
    checks: tuple[MusicCheck, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        if len({one.name for one in (*self.sets, *self.checks)}) < len(self.sets) + len(self.checks):
            raise ValueError("two sets have the same name")
        if self.training.extra:
            raise ValueError("training.extra: the further stores of a recipe are its other sets")
        return self


def load_recipe(path: Path) -> Recipe:
    """The recipe of a YAML file; its folders are relative to the working directory.

    Raises
    ------
    UserError
        If there is no such file, or it is no recipe.
    """
    return validated(Recipe, load_yaml(str(path)), str(path))
