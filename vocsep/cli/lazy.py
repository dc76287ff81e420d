"""Command groups whose commands are imported when they are called: help and completion stay fast."""

from collections.abc import Callable, Mapping
from typing import Any

from typer.core import TyperCommand, TyperGroup


def lazy_group(commands: Mapping[str, str], load: Callable[[str], Any]) -> type[TyperGroup]:
    """A group class with `commands`, each name with its short help; `load(name)` gives the command itself.

    A command without help is hidden.
    """

    class LazyGroup(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            return list(commands)

        def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
            """The command as lists of commands show it."""
            if cmd_name not in commands:
                return None
            return TyperCommand(cmd_name, help=commands[cmd_name], hidden=not commands[cmd_name])

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            """The command itself: it is about to be called, or its options completed."""
            name, stub, rest = super().resolve_command(ctx, args)
            return name, None if stub is None or name is None else load(str(stub.name)), rest

    return LazyGroup
