"""Command-line options from a settings model: one option per field, with its description and default."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from storage.errors import UserError
from vocsep.config import Settings


def command_with_settings(
    model: type[Settings],
    command: Callable[..., None],
    *,
    load: Callable[[str], dict[str, Any]],
    declarations: Mapping[str, Callable[[], Any]] | None = None,
) -> Callable[..., None]:
    """A typer command that has, beside its own options, one for every field of `model` and of the models inside it.

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
    places = {name: (path, field) for name, path, field in _fields(model)}
    declared = {
        name: _declared(name, field, (declarations or {}).get(name, typer.Option))
        for name, (_, field) in places.items()
    }

    def run(**given: Any) -> None:
        config = given.pop("config")
        values: dict[str, Any] = {}
        for name, value in ({} if config is None else load(config)).items():
            path = places[name][0] if name in places else _inner(model, name)
            _put(values, path, name, value)
        for name, (path, field) in places.items():
            value = given.pop(name)
            if value not in (None, []):
                if _is_tuple(field) and not isinstance(value[0], Path):
                    value = [part for one in value for part in one.split(",")]
                _put(values, path, name, value)
        command(values=values, **given)

    config = _parameter("config", str | None, typer.Option(help="YAML file with any of these settings."))
    parameters = [*declared.values(), config, *own.values()]
    run.__doc__ = command.__doc__
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    )
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _fields(model: type[Settings], path: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[str, ...], FieldInfo]]:
    """Name, place and description of every field that is no model of its own."""
    for name, field in model.model_fields.items():
        if (inner := _model_of(field)) is not None:
            yield from _fields(inner, (*path, name))
        else:
            yield name, path, field


def _inner(model: type[Settings], name: str, path: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Where a file's entry `name` goes that is no option: to the model that has it, or to the top, which refuses it."""
    for one, field in model.model_fields.items():
        if one == name:
            return path
        if (inner := _model_of(field)) is not None and (found := _inner(inner, name, (*path, one))):
            return found
    return ()


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


def _declared(name: str, field: FieldInfo, declare: Callable[[], Any]) -> inspect.Parameter:
    declaration = declare()
    declaration.help = _help(field)
    return _parameter(name, _plain(field.annotation), declaration)


def _parameter(name: str, kind: Any, declaration: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, declaration]
    )


def _plain(kind: Any) -> Any:
    """What typer reads an option as, or None; everything that is no number is text, and checked by the model."""
    members = [one for one in get_args(kind) if one is not type(None)] if _is_union(kind) else [kind]
    if len(members) == 1 and members[0] in (int, float, bool, Path):
        return members[0] | None
    if get_origin(members[0]) is tuple:
        return list[Path] | None if get_args(members[0])[0] is Path else list[str] | None
    if get_origin(members[0]) is Literal and all(isinstance(value, int) for value in get_args(members[0])):
        return int | None
    return str | None


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType)


def _is_tuple(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is tuple


def _help(field: FieldInfo) -> str:
    default = None if field.is_required() else field.default
    if isinstance(default, tuple):
        default = ",".join(map(str, default))
    text = field.description or ""
    return text if default is None or isinstance(default, bool) else f"{text} (default {default})".strip()
