"""Command-line options from a settings model: one option per field, with its description and default."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from storage.errors import UserError
from vocsep.config import Settings


def command_with_settings(
    model: type[Settings],
    command: Callable[..., None],
    *,
    load: Callable[[str], dict[str, Any]],
    declarations: Mapping[str, Callable[[], Any]],
) -> Callable[..., None]:
    """A typer command with its own options and one for every field of `model` and of the models inside it.

    Parameters
    ----------
    command
        Called with its own options and with `values`: what was given, nested as `model` takes it.
    load
        Settings of the file or the name given with `--config`; they may set any of the fields, and options go before
        them.
    declarations
        Field to what makes typer's declaration (an argument, a short name) where a plain option does not do.
    """
    own = dict(inspect.signature(command, eval_str=True).parameters)
    own.pop("values")
    paths = {name: path for name, path, _ in _fields(model)}
    options = {name: field for name, _, field in _fields(model) if _model_of(field) is None}
    parameters = []
    for name, field in options.items():
        declaration = declarations.get(name, typer.Option)()
        declaration.help = _help(field)
        # Text that the settings read themselves.
        is_text = any(isinstance(one, BeforeValidator) for one in field.metadata)
        parameters.append(_parameter(name, _plain(str if is_text else field.annotation), declaration))

    def run(**given: Any) -> None:
        config = given.pop("config")
        values: dict[str, Any] = {}
        for name, value in ({} if config is None else load(config)).items():
            _put(values, paths.get(name, ()), name, value)  # an unknown one at the top, which refuses it
        for name in options:
            value = given.pop(name)
            if value not in (None, []):
                if isinstance(value, list) and not isinstance(value[0], Path):
                    value = [part for one in value for part in one.split(",")]
                _put(values, paths[name], name, value)
        command(values=values, **given)

    parameters.append(_parameter("config", str | None, typer.Option(help="YAML file with any of these settings.")))
    parameters += own.values()
    run.__doc__ = command.__doc__
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    )
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _fields(model: type[Settings], path: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[str, ...], FieldInfo]]:
    """Name, place and description of every field, also of those in the models inside."""
    for name, field in model.model_fields.items():
        yield name, path, field
        if (inner := _model_of(field)) is not None:
            yield from _fields(inner, (*path, name))


def _model_of(field: FieldInfo) -> type[Settings] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Settings) else None


def _put(values: dict[str, Any], path: tuple[str, ...], name: str, value: Any) -> None:
    for one in path:
        values = values.setdefault(one, {})
        if not isinstance(values, dict):
            raise UserError(f"--config: {one} must hold settings by name")
    if isinstance(value, dict) and isinstance(values.get(name), dict):
        value = values[name] | value
    values[name] = value


def _parameter(name: str, kind: Any, declaration: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, declaration]
    )


def _plain(kind: Any) -> Any:
    """What typer reads an option as, or None; everything that is no number is text, and checked by the model."""
    members = (
        [one for one in get_args(kind) if one is not type(None)] if get_origin(kind) in (Union, UnionType) else [kind]
    )
    if len(members) == 1 and members[0] in (int, float, bool, Path):
        return members[0] | None
    if get_origin(members[0]) is tuple:
        return list[Path] | None if get_args(members[0])[0] is Path else list[str] | None
    if get_origin(members[0]) is Literal and all(isinstance(value, int) for value in get_args(members[0])):
        return int | None
    return str | None


def _help(field: FieldInfo) -> str:
    default = None if field.is_required() else field.default
    if isinstance(default, tuple):
        default = ",".join(map(str, default))
    text = field.description or ""
    return text if default is None or isinstance(default, bool) else f"{text} (default {default})".strip()
