"""Frozen config dataclasses as Typer options: a default stands in one place, the dataclass."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_type_hints

import typer

Command = Callable[..., None]


def with_flags(
    settings: Mapping[str, tuple[type, dataclasses.Field[Any]]],
) -> Callable[[Command], Command]:
    """Give a command one option a setting; their values reach its parameter `settings` as a dict.

    settings: a flag's name with underscores -> the config class and the field it belongs to. The
    field's metadata holds its `help` and, where there are few right values, its `choices`.
    """

    def decorate(command: Command) -> Command:
        def wrapper(**arguments: Any) -> None:
            typed = {name: arguments.pop(name) for name in settings}
            command(**arguments, settings=typed)

        own = [p for p in _parameters(command) if p.name != "settings"]
        options = [_option(name, *entry) for name, entry in settings.items()]
        # Typer reads a function's signature: give it the one that the user should see.
        wrapper.__name__, wrapper.__doc__ = command.__name__, command.__doc__
        wrapper.__annotations__ = {p.name: p.annotation for p in [*own, *options]}
        wrapper.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
        return wrapper

    return decorate


def _parameters(command: Command) -> list[inspect.Parameter]:
    hints = get_type_hints(command, include_extras=True)
    return [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[parameter.name])
        for parameter in inspect.signature(command).parameters.values()
    ]


def _option(name: str, config: type, entry: dataclasses.Field[Any]) -> inspect.Parameter:
    choices = entry.metadata.get("choices")
    help = entry.metadata["help"] + (f" One of {', '.join(choices)}." if choices else "")
    kind = get_type_hints(config)[entry.name]
    flag = name.replace("_", "-")
    spelled = f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}"
    panel = config.__name__.removesuffix("Config") + " settings"
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=entry.default,
        annotation=Annotated[kind, typer.Option(spelled, help=help, rich_help_panel=panel)],
    )
