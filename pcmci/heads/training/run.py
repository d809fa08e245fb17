"""One run: from a store to a folder that holds everything the run found.

    config.json  model.safetensors  metrics.json  predictions.npz  coprediction.npz  tensorboard/

The folder's name is made from the run's content: the store's, every setting, the seed. A run that
is there already is not trained again. The folder appears whole or not at all; of a run that
diverged there is a `<folder>.failed.json` instead.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tqdm import tqdm

from pcmci.cache.schema import NO_VLM, StoreSpec
from pcmci.cache.store import Store
from pcmci.device import choose_device, choose_precision
from pcmci.errors import PcmciError, UsageError
from pcmci.heads.catalogue import DEFAULT, HEADS, check_stages, configure, shown_name
from pcmci.heads.config import order_name, parse_labels
from pcmci.heads.head import Head
from pcmci.heads.scoring.disagreement import disagreement
from pcmci.heads.scoring.predictions import Predictions
from pcmci.heads.scoring.scores import Scores, sigmoid, softmax
from pcmci.heads.training.fit import DivergedError, build_model
from pcmci.heads.training.folders import RUN_FORMAT, folder_bytes
from pcmci.heads.training.held import held
from pcmci.heads.training.learning import Learner, OnEpoch, run_effects
from pcmci.heads.training.recipe import Recipe, model_config
from pcmci.plain import is_utf8
from pcmci.stopping import Stop, StoppedError, stop_signals

VIDEOS_A_PASS = 32
"""In `Run.predict`."""


@dataclass(frozen=True)
class Answer:
    """What a head thinks of m new videos.

    probabilities: [m, N], softmax over activities, a sigmoid a step. voices: [E] the names of its
    experts, where it has such. said: [m, E, N] the probabilities of each. disagreement: [m] from 0
    to 1, see `pcmci.heads.scoring.disagreement`; NaN where there are no two voices.
    """

    probabilities: np.ndarray
    voices: tuple[str, ...]
    said: np.ndarray
    disagreement: np.ndarray


@dataclass(frozen=True)
class Run:
    """A finished run.

    metrics: split -> scores, see `pcmci.heads.scoring.scores.score`. heads: label set -> what is
    known of its training. config: what config.json says. reused: whether it was there already.
    effects: label set -> split of twins -> `effects_report`; empty where there are no twins, and in
    a run of before they were measured, see `effects_on`.
    """

    path: Path
    config: dict[str, Any]
    metrics: dict[str, Scores]
    heads: dict[str, dict[str, Any]]
    reused: bool = False
    effects: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def effects_on(self, store: Store) -> dict[str, dict[str, dict[str, Any]]]:
        """`effects`, measured now where the run was made before they were. store: that it was
        trained on."""
        return self.effects or run_effects(store, self.predictions)

    @property
    def spec(self) -> StoreSpec:
        """The spec of the store that the run was trained on: it says which encoders."""
        return StoreSpec.from_json(json.dumps(self.config["store"]["spec"]))

    @property
    def described(self) -> str:
        """`order ich,ici`, `head mlp`, or `head memory bank (after MA-LMM; head only)`."""
        if "head" in self.config:
            return f"head {shown_name(self.config['head'])}"
        return f"order {order_name(tuple(self.config['model']['order']))}"

    @property
    def bytes(self) -> int:
        """Of all files in its folder."""
        return folder_bytes(self.path)

    @property
    def predictions(self) -> Predictions:
        """The saved predictions."""
        return Predictions.load(self.path / "predictions.npz")

    def models(self, device: str | torch.device = "cpu") -> dict[str, Head]:
        """Label set -> the trained model. Raises PcmciError for a damaged weights file."""
        path = self.path / "model.safetensors"
        try:
            tensors = load_file(path)
            return {labels: self._model(labels, tensors).to(device) for labels in self.heads}
        except (OSError, SafetensorError, KeyError, RuntimeError, TypeError) as error:
            raise PcmciError(f"{path}: weights cannot be read: {error}") from error

    def _model(self, labels: str, tensors: dict[str, torch.Tensor]) -> Head:
        prefix = f"{labels}."
        state = {
            name.removeprefix(prefix): tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }
        config, width = model_config(self.config), self.spec.video.width
        words = state.get("entity_text")
        entities = None if words is None else words.numpy()
        model = build_model(config, state["text"].numpy(), width, 0, labels, entities)
        model.load_state_dict(state)
        return model.eval()

    def predict(
        self, vlm: np.ndarray, video: np.ndarray, device: str | torch.device = "cpu"
    ) -> dict[str, np.ndarray]:
        """Label set -> probabilities [m, N] of new videos: softmax over activities, a sigmoid a
        step. vlm: [m, L, D]. video: [m, Lv, Dv]."""
        answers = self.ask(vlm, video, device).items()
        return {labels: answer.probabilities for labels, answer in answers}

    def ask(
        self, vlm: np.ndarray, video: np.ndarray, device: str | torch.device = "cpu"
    ) -> dict[str, Answer]:
        """`predict` with what each expert says, where the head has such."""
        batches = list(
            zip(*(torch.from_numpy(x).split(VIDEOS_A_PASS) for x in (vlm, video)), strict=True)
        )
        answers = {}
        for labels, model in self.models(device).items():
            with torch.inference_mode():
                heard = [
                    model.opinions(frames.float().to(device), tokens.float().to(device), None, None)
                    for frames, tokens in batches
                ]
                logits = torch.cat([model.answer(opinions) for opinions in heard]).cpu().numpy()
                said = np.zeros((len(logits), 0, logits.shape[1]), np.float32)
                if model.voices:
                    said = torch.cat([model.said(opinions) for opinions in heard]).cpu().numpy()
            one_label = labels == "activity"
            chosen = softmax if one_label else sigmoid
            apart = disagreement(said, one_label=one_label)
            answers[labels] = Answer(chosen(logits), model.voices, chosen(said), apart)
        return answers


def train_heads(
    store: Store,
    order: tuple[str, ...] | str | None = None,
    *,
    head: str = DEFAULT,
    labels: tuple[str, ...] | str | None = None,
    out: str | Path = "runs",
    device: str = "auto",
    precision: str = "auto",
    memory: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
    **values: Any,
) -> Run:
    """Train a head on a store, score it, and write a run folder.

    head: its name, see `pcmci.heads.catalogue.HEADS`. order: of the head `pcmci`, the stages, as
    ("ich", "ici") or "ich,ici"; default: the paper's three. labels: label sets to learn, one model
    each; default: all that the store has. memory: bytes for features; what does not fit is
    streamed. values: any setting by name (`lr=3e-3`, `seed=1`, `transport_lambda=0.5`).
    Raises UsageError for settings, PcmciError for a store without training or scored videos and
    for a loss that is not finite, StoppedError after SIGINT or SIGTERM.
    The same seed gives the same bits on a CPU with as many threads, as long as the features are
    held in the same way (all in memory, or streamed through as much of it).
    """
    stages = check_stages(head, order)
    labels = parse_labels(labels) if isinstance(labels, str) else labels
    model, config = configure(stages, labels or store.spec.label_sets, values, head)
    check_labels(store, config.labels)
    check_text(store, head)
    model.check_frames(store.spec.vlm.tokens)
    on = choose_device(device)
    recipe = Recipe(model, config, choose_precision(precision, on), on.type)
    there = find_run(store, recipe, out)
    if there and not overwrite:
        return there
    with stop_signals() as stop, _bars(recipe, progress, stop) as on_epoch:
        (run,) = make_runs(
            store, [recipe], out, on, memory,
            overwrite=overwrite, progress=progress, on_epoch=on_epoch,
        )  # fmt: skip
    if isinstance(run, DivergedError):
        raise run
    return run


def make_runs(
    store: Store,
    recipes: Sequence[Recipe],
    out: str | Path,
    device: torch.device,
    memory: int | None = None,
    *,
    overwrite: bool = False,
    progress: bool = True,
    on_epoch: OnEpoch = lambda labels, epoch, losses: None,
) -> list[Run | DivergedError]:
    """Train runs that can be stacked (the same `Recipe.stack_key`) together and write a folder
    each; an error for each that diverged. See `train_heads`."""
    out = Path(out)
    partial: list[Path] = []
    working = ExitStack()
    try:
        # Folders of their own, for two processes and two threads may make the same run.
        for recipe in recipes:
            partial.append(_partial_folder(out, recipe.folder_name(store)))
            working.enter_context(held(partial[-1]))
        learner = Learner(
            store, recipes, device, memory,
            spare=out / "plans", progress=progress, on_epoch=on_epoch,
        )  # fmt: skip
        failed = learner.learn(partial)
        return [
            _keep_failure(store, recipe, out, error)
            if error
            else _keep_run(store, recipe, out, folder, overwrite)
            for recipe, folder, error in zip(recipes, partial, failed, strict=True)
        ]
    finally:
        working.close()
        for folder in partial:
            shutil.rmtree(folder, ignore_errors=True)


def find_run(store: Store, recipe: Recipe, out: str | Path) -> Run | None:
    """The run that was made from this recipe already. Raises PcmciError where its folder is
    damaged or holds another."""
    folder = Path(out) / recipe.folder_name(store)
    if not folder.exists():
        return None
    run = load_run(folder)
    if run.config["key"] != recipe.key(store):
        raise PcmciError(f"{folder} holds another run of the same short name: move it away")
    return dataclasses.replace(run, reused=True)


def find_failure(store: Store, recipe: Recipe, out: str | Path) -> DivergedError | None:
    """Why the run of this recipe came to nothing, where it was tried and did."""
    try:
        record = json.loads(_failure_file(store, recipe, out).read_text())
        if record["key"] != recipe.key(store):
            return None
        return DivergedError(record["epoch"], record["step"], record["what"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        path = _failure_file(store, recipe, out)
        raise PcmciError(f"{path}: the record cannot be read: {error}") from error


def _failure_file(store: Store, recipe: Recipe, out: str | Path) -> Path:
    return Path(out) / f"{recipe.folder_name(store)}.failed.json"


def _keep_failure(store: Store, recipe: Recipe, out: Path, error: DivergedError) -> DivergedError:
    file = _failure_file(store, recipe, out)
    record = {
        "key": recipe.key(store), "reason": str(error),
        "epoch": error.epoch, "step": error.step, "what": error.what,
    }  # fmt: skip
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(file)
    return error


def _keep_run(store: Store, recipe: Recipe, out: Path, partial: Path, overwrite: bool) -> Run:
    folder = out / recipe.folder_name(store)
    old = partial.with_suffix(".old")
    try:
        if overwrite and folder.exists():
            folder.rename(old)  # whole until the new one is there
        partial.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        if meanwhile := find_run(store, recipe, out):  # somebody else made the same run
            return meanwhile
        raise PcmciError(f"{folder} cannot be written: {error.strerror}") from error
    _failure_file(store, recipe, out).unlink(missing_ok=True)
    return load_run(folder)


@contextmanager
def _bars(recipe: Recipe, progress: bool, stop: Stop) -> Iterator[OnEpoch]:
    """A bar a label set, as long as its training takes; ends the run when it is to stop."""
    bars: dict[str, tqdm[Any]] = {}
    config = recipe.train

    def on_epoch(labels: str, epoch: int, losses: list[float]) -> None:
        if labels not in bars:
            for bar in bars.values():
                bar.close()
            bars[labels] = tqdm(
                total=config.epochs, unit="epoch", disable=not progress,
                desc=f"{labels} {recipe.name} seed {config.seed}",
                mininterval=0.1 if sys.stderr.isatty() else 30,  # a job's log needs no more
            )  # fmt: skip
        bars[labels].set_postfix(loss=f"{losses[0]:.4f}", refresh=False)
        bars[labels].update()
        if stop.number:
            raise StoppedError(
                stop.number, "nothing of this run is kept; the same command starts it"
            )

    try:
        yield on_epoch
    finally:
        for bar in bars.values():
            bar.close()


def check_name(flag: str, folder: str | Path) -> None:
    """Raises UsageError for a folder in which neither TensorBoard nor Arrow can write."""
    if not is_utf8(folder):
        raise UsageError(f"{flag} {folder}: its name is not UTF-8; name a folder that is")


def _partial_folder(out: Path, name: str) -> Path:
    check_name("--out", out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".partial", dir=out))
        folder.chmod(0o777 & ~_umask())
    except OSError as error:
        raise UsageError(f"--out {out}: cannot write runs there: {error.strerror}") from error
    return folder


def _umask() -> int:
    """The permissions that new files do not get; reading it means setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def load_run(path: str | Path) -> Run:
    """Raises UsageError where there is no run, PcmciError where one is damaged."""
    path = Path(path)
    if not (path / "config.json").is_file():
        raise UsageError(
            f"{path} is no run folder: it has no config.json; next: pcmci train-heads makes one "
            "of a store, pcmci demo some without any"
        )
    try:
        config = json.loads((path / "config.json").read_text())
        metrics = json.loads((path / "metrics.json").read_text())
        if config["format"] > RUN_FORMAT:
            raise PcmciError(f"{path}: run format {config['format']} is newer: upgrade pcmci")
        return Run(
            path, config, metrics["scores"], metrics["heads"], effects=metrics.get("effects", {})
        )
    except (OSError, ValueError, KeyError) as error:
        raise PcmciError(f"{path}: the run cannot be read: {error}") from error


def check_text(store: Store, head: str) -> None:
    """Raises UsageError for a head that needs label texts on a store that has none."""
    if store.spec.vlm.name == NO_VLM and HEADS[head].module.needs_text:
        free = ", ".join(name for name, entry in HEADS.items() if not entry.module.needs_text)
        raise UsageError(
            f"--head {head}: {store.path} was imported without a VLM's half (--vlm-from), and has "
            f"no label texts; heads that need none: {free}"
        )


def check_labels(store: Store, labels: tuple[str, ...]) -> None:
    """Raises UsageError for a label set that the store does not have."""
    for name in labels:
        if name not in store.spec.label_sets:
            has = ", ".join(store.spec.label_sets) or "none"
            raise UsageError(f"--labels {name!r}: {store.path} has these label sets: {has}")
    if not labels:
        raise UsageError(f"{store.path} has no labels to learn from")
