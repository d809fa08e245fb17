"""The heads by name, the settings of a run, and which head a setting belongs to; torch-free."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pcmci.errors import UsageError
from pcmci.heads.comparators.config import (
    ExpertsConfig,
    LinearConfig,
    MemoryBankConfig,
    MLPConfig,
    TemporalConfig,
    TimeceptionConfig,
    TwoStreamConfig,
    ViS4merConfig,
    ZeroShotConfig,
)
from pcmci.heads.config import (
    STAGES,
    ModelConfig,
    TrainConfig,
    TransportConfig,
    order_name,
    parse_order,
)
from pcmci.heads.settings import HeadConfig, flag_name

if TYPE_CHECKING:
    from pcmci.heads.head import Head

Setting = tuple[type, dataclasses.Field[Any]]
"""A config class and a field of it."""


@dataclass(frozen=True)
class Entry:
    """about: the head in one line. config: its settings. where: its Module, `module:class`.
    after: the published method whose idea it is, on features alone."""

    about: str
    config: type[HeadConfig]
    where: str
    after: str = ""

    @property
    def module(self) -> type[Head]:
        """Imported when it is first needed: with it comes torch."""
        name, _, attribute = self.where.partition(":")
        found: type[Head] = getattr(import_module(name), attribute)
        return found


HEADS: dict[str, Entry] = {
    "pcmci": Entry(
        "the paper: stages in any order (--order), a label a query of its decoder",
        ModelConfig,
        "pcmci.heads.method.model:PCMCI",
    ),
    "experts": Entry(
        "the paper's decoder on several views, a loss for each; their product is the answer",
        ExpertsConfig,
        "pcmci.heads.comparators.experts:Experts",
    ),
    "linear": Entry(
        "one linear layer on the means over time of both encoders",
        LinearConfig,
        "pcmci.heads.comparators.means:LinearHead",
    ),
    "mlp": Entry(
        "one hidden layer on the means over time of both encoders",
        MLPConfig,
        "pcmci.heads.comparators.means:MLPHead",
    ),
    "temporal": Entry(
        "one transformer layer over the tokens of both encoders, which know their place",
        TemporalConfig,
        "pcmci.heads.comparators.temporal:TemporalHead",
    ),
    "timeception": Entry(
        "depthwise convolutions over time at several scales, in groups, shuffled",
        TimeceptionConfig,
        "pcmci.heads.comparators.timeception:TimeceptionHead",
        after="Timeception",
    ),
    "vis4mer": Entry(
        "diagonal state spaces over time, at each level half the frames and half the width",
        ViS4merConfig,
        "pcmci.heads.comparators.vis4mer:ViS4merHead",
        after="ViS4mer",
    ),
    "memory-bank": Entry(
        "queries walk through the frames with a memory of fixed length",
        MemoryBankConfig,
        "pcmci.heads.comparators.memory_bank:MemoryBankHead",
        after="MA-LMM",
    ),
    "two-stream": Entry(
        "queries with a short memory under queries with a long one, both in the light of the texts",
        TwoStreamConfig,
        "pcmci.heads.comparators.two_stream:TwoStreamHead",
        after="HierarQ",
    ),
    "zero-shot": Entry(
        "cosines of label prompts and frames; nothing is trained",
        ZeroShotConfig,
        "pcmci.heads.comparators.zero_shot:ZeroShotHead",
    ),
}
"""A new head is its file, its settings and a line here. The first is the default."""

DEFAULT = next(iter(HEADS))


def shown_name(head: str) -> str:
    """What a head is called where people read: `mlp`, or `memory bank (after MA-LMM; head only)`,
    so that nobody takes it for the original. One that is not known here has its name."""
    after = HEADS[head].after if head in HEADS else ""
    return f"{head.replace('-', ' ')} (after {after}; head only)" if after else head


def check_head(name: str) -> str:
    """`name` itself. Raises UsageError for one that no head has."""
    if name not in HEADS:
        near = difflib.get_close_matches(name, HEADS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"--head {name!r}: there are {', '.join(HEADS)}{hint}")
    return name


def check_stages(head: str, order: tuple[str, ...] | str | None) -> tuple[str, ...]:
    """The order that is meant: the paper's where none is given, none for another head than
    `pcmci`. Raises UsageError where another head is given one."""
    if check_head(head) != DEFAULT:
        if order is not None:
            shown = order if isinstance(order, str) else order_name(order)
            raise UsageError(f"--order {shown}: only the head {DEFAULT} has stages, not {head}")
        return ()
    if order is None:
        return STAGES
    return parse_order(order) if isinstance(order, str) else order


def head_name(config: HeadConfig) -> str:
    """The name of the head whose settings these are."""
    return next(name for name, entry in HEADS.items() if entry.config is type(config))


def head_config(name: str, raw: dict[str, Any]) -> HeadConfig:
    """A head's settings from what config.json says of them."""
    return HEADS[check_head(name)].config.from_record(raw)


def _fields(config: type) -> dict[str, Setting]:
    """The settings of a config class by their flags' names, those of `transport` with that
    before them."""
    entries = dataclasses.fields(config)
    own = {
        flag_name(entry).replace("-", "_"): (config, entry)
        for entry in entries
        if "help" in entry.metadata
    }
    if any(entry.name == "transport" for entry in entries):
        own |= {f"transport_{name}": setting for name, setting in _fields(TransportConfig).items()}
    return own


def head_settings(head: str) -> dict[str, Setting]:
    """The settings of a head by the name that they have in it: `dropout`, `transport_lambda`."""
    return _fields(HEADS[head].config)


def train_settings() -> dict[str, Setting]:
    """The settings of the training, which are the same for every head."""
    return _fields(TrainConfig)


def _prefix(head: str) -> str:
    return head.replace("-", "_") + "_"


def settings() -> dict[str, Setting]:
    """Every setting of a run by the name it has on the command line and in a grid.

    `lr`, `batch_size`, `relations`, and with their prefix `transport_lambda`, ...; the value is
    the dataclass and its field. A setting that several heads have stands there once as `dropout`,
    meant for whichever head is trained, and once more for each head but the first that has it, as
    `mlp_dropout`. `order` and `labels` are left out: they have arguments of their own everywhere.
    """
    found: dict[str, Setting] = {**head_settings(DEFAULT), **train_settings()}
    for head in HEADS:
        for name, setting in head_settings(head).items():
            if found.setdefault(name, setting) != setting:
                found[_prefix(head) + name] = setting
    return found


def flags() -> dict[str, str]:
    """Of every setting of `settings` its flag without the dashes: `mlp_dropout` is `mlp.dropout`,
    `batch_size` `batch-size`."""
    spelled = {}
    for name in settings():
        spelled[name] = name.replace("_", "-")
        for head in HEADS:
            rest = name.removeprefix(_prefix(head))
            if rest != name and rest in head_settings(head):
                spelled[name] = f"{head}.{rest.replace('_', '-')}"
    return spelled


def setting_name(text: str) -> str:
    """`transport.lambda` and `batch-size` as `settings` has them."""
    return text.replace(".", "_").replace("-", "_")


def setting(name: str) -> Setting:
    """The setting of a name that `owners` knows, `mlp_hidden` too, which `settings` has as
    `hidden`."""
    known = settings()
    if name in known:
        return known[name]
    owner = owners(name)[0]
    return head_settings(owner)[name.removeprefix(_prefix(owner))]


def overruled(name: str, head: str, names: Iterable[str]) -> bool:
    """Whether a head's own spelling of a setting is among `names`, which counts before it."""
    return name in head_settings(head) and _prefix(head) + name in map(setting_name, names)


def owners(name: str) -> tuple[str, ...]:
    """The heads that a setting is for; () for one of the training. Raises UsageError for an
    unknown one, with the nearest known one."""
    name = setting_name(name)
    if name in train_settings():
        return ()
    found = tuple(
        head
        for head in HEADS
        if name in head_settings(head) or name.removeprefix(_prefix(head)) in head_settings(head)
    )
    if not found:
        known = settings()
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
        raise UsageError(f"no setting is called {name!r}{hint}")
    return found


def check_owned(values: Mapping[str, Any], heads: tuple[str, ...]) -> None:
    """Raises UsageError for a setting that none of these heads has, or that nobody has."""
    for key in values:
        owning = owners(key)
        if owning and not set(owning) & set(heads):
            asked = ", ".join(heads)
            has = sorted({name for head in heads for name in head_settings(head)})
            raise UsageError(
                f"{key} is a setting of {', '.join(owning)} and not of {asked}, which has "
                + (", ".join(has) or "none")
            )


def configure(
    order: tuple[str, ...],
    labels: tuple[str, ...],
    values: Mapping[str, Any],
    head: str = DEFAULT,
) -> tuple[HeadConfig, TrainConfig]:
    """The configs of a run from flat settings, `transport.lambda` or `transport_lambda` alike.

    A setting that several heads have may be named as `mlp.dropout`, which counts before `dropout`.
    order: of the head `pcmci`.
    Raises UsageError for an unknown setting (with the nearest known one), one that the head does
    not have, or a refused value.
    """
    check_owned(values, (check_head(head),))
    mine = head_settings(head)
    train = train_settings()
    learning: dict[str, Any] = {}
    own: dict[str, Any] = {}
    nested: dict[str, Any] = {}
    # the head's own spelling comes last, and wins
    for key in sorted(values, key=lambda key: setting_name(key).startswith(_prefix(head))):
        name, value = setting_name(key), values[key]
        if name in train:
            learning[train[name][1].name] = value
            continue
        name = name if name in mine else name.removeprefix(_prefix(head))
        config, entry = mine[name]
        (nested if config is TransportConfig else own)[entry.name] = value
    if head == DEFAULT:
        own["order"] = tuple(order)
    if nested:
        own["transport"] = TransportConfig(**nested)
    return HEADS[head].config(**own), TrainConfig(labels=tuple(labels), **learning)
