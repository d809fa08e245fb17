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
    flags: Mapping[str, str] | None = None,
) -> Callable[[Command], Command]:
    """Give a command one option a setting; what was given of them, even with a default's value,
    reaches its parameter `settings` as a dict.

    settings: by name -> the config class and the field it belongs to. The field's metadata holds
    its `help` and, where there are few right values, its `choices`. flags: a setting's name -> its
    flag without the dashes; by default the name with dashes for underscores.
    """

    def decorate(command: Command) -> Command:
        def wrapper(context: typer.Context, **arguments: Any) -> None:
            values = {name: arguments.pop(name) for name in settings}
            given = {name: value for name, value in values.items() if _was_given(context, name)}
            command(**arguments, settings=given)

        context = inspect.Parameter(
            "context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context
        )
        own = [context, *(p for p in _parameters(command) if p.name != "settings")]
        spelled = flags or {}
        options = [
            _option(name, spelled.get(name, name.replace("_", "-")), *entry)
            for name, entry in settings.items()
        ]
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


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _option(name: str, flag: str, config: type, entry: dataclasses.Field[Any]) -> inspect.Parameter:
    choices = entry.metadata.get("choices")
    help = entry.metadata["help"] + (f" One of {', '.join(choices)}." if choices else "")
    kind = get_type_hints(config)[entry.name]
    spelled = f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}"
    panel = config.__name__.removesuffix("Config") + " settings"
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=entry.default,
        annotation=Annotated[kind, typer.Option(spelled, help=help, rich_help_panel=panel)],
    )
