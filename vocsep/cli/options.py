"""Command-line options from a settings model: one option per field, with its description and default."""

import inspect
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from storage.errors import UserError
from vocsep.config import Settings
from vocsep.training.settings_files import load_settings


def command_with_settings(model: type[Settings], command: Callable[..., None]) -> Callable[..., None]:
    """A typer command that has, beside its own options, one for every field of `model` and of the models inside it.

    `command` is called with its own options and with `settings`: the values that were given, as `model` takes them.
    A YAML file given with `--config` sets any of the fields; options go before it.
    """
    own = dict(inspect.signature(command, eval_str=True).parameters)
    own.pop("settings")
    options = _options(model)

    def run(**given: Any) -> None:
        config = given.pop("config")
        settings = {} if config is None else load_settings(config)
        for name in options.keys() - own.keys():
            value = given.pop(name)
            if value is not None:
                _set(model, settings, name, value)
        command(settings=settings, **given)

    config = inspect.Parameter(
        "config",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            str | None, typer.Option(help="YAML file with any of these settings, or the name of a system.")
        ],
    )
    parameters = [config, *(option for name, option in options.items() if name not in own), *own.values()]
    run.__doc__ = command.__doc__
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    )
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _options(model: type[Settings]) -> dict[str, inspect.Parameter]:
    options: dict[str, inspect.Parameter] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Settings):
            options |= _options(kind)
            continue
        annotation = Annotated[_plain(kind), typer.Option(help=_help(field))]  # type: ignore[valid-type]
        options[name] = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
    return options


def _plain(kind: Any) -> Any:
    """What typer reads an option as, or None; everything that is no number is text, and checked by the model."""
    members = [one for one in get_args(kind) if one is not type(None)] if _is_union(kind) else [kind]
    if len(members) == 1 and members[0] in (int, float, bool, Path):
        return members[0] | None
    if get_origin(members[0]) is Literal and all(isinstance(value, int) for value in get_args(members[0])):
        return int | None
    return str | None


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType)


def _help(field: FieldInfo) -> str:
    default = field.default
    if isinstance(default, tuple):
        default = ",".join(default)
    return (field.description or "") + ("" if default is None else f" (default {default})")


def _set(model: type[Settings], settings: dict[str, Any], name: str, value: Any) -> None:
    if name in model.model_fields:
        is_tuple = get_origin(model.model_fields[name].annotation) is tuple
        settings[name] = value.split(",") if is_tuple else value
        return
    for field_name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Settings) and name in kind.model_fields:
            inner = settings.setdefault(field_name, {})
            if not isinstance(inner, dict):
                raise UserError(f"--config: {field_name} must hold settings by name")
            _set(kind, inner, name, value)
