"""What a run made of a video, as a page; and an index of such pages."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from pcmci.plain import plain
from pcmci.report.confusion import Confusion, Judged
from pcmci.report.film import Film, Heat
from pcmci.report.page import Block, Cell, Link, Noted, Page, Section, Table

Entry = Mapping[str, Any]
"""Of `pcmci.heads.explaining.explanation.explain`: one of its `videos`, or a part of it."""

SAID_FROM = 0.5
"""The probability from which on a step counts as said."""
MOST_TOKENS = 20
"""There are as many tokens V* as labels: of more, those that are looked at most are shown."""
MOST_NAMES = 40
"""Activities of a confusion matrix on the page."""
MOST_SPOKEN = 6
"""Labels that a sentence lists."""
DIFFERS = 0.01
"""A probability that is further from the saved one is worth a line."""


@dataclass(frozen=True)
class Pictures:
    """What there is to see of a video. sources: [L] data URIs, () where there are none, and `why`
    says why. times: [L] in seconds, None where the file does not tell."""

    sources: Sequence[str] = ()
    times: Sequence[float | None] = ()
    why: str = ""
    note: str = ""


@dataclass(frozen=True)
class Pages:
    """What all pages of a call share. explained: of `explain`, whole. pictures: by video, twins
    too. facts: where it came from. command: that made them. blank: one that makes a video's page,
    with `<video>` where its id goes."""

    explained: Mapping[str, Any]
    pictures: Mapping[str, Pictures]
    facts: dict[str, str]
    command: str
    blank: str

    def page(self, entry: Entry) -> Page:
        """A video's own."""
        sections = [
            self._frames(entry),
            self._path(entry),
            self._attention(entry),
            self._experts(entry),
            self._nearest(entry),
            self._twins(entry),
        ]
        return Page(
            title=shown_name(entry["video"]),
            lead=_lead(entry),
            sections=[section for section in sections if section],
            facts=self._facts,
            commands={"Made by": self.command},
        )

    @property
    def _facts(self) -> dict[str, str]:
        run, head = plain(self.explained["run"]), self.explained["head"]
        return {"run": run, "head": head, **self.facts}

    def _columns(self, video: str, count: int) -> list[str]:
        seen = self.pictures.get(video)
        times = seen.times if seen else ()
        if len(times) != count or any(time is None for time in times):
            return [f"{k + 1}" for k in range(count)]
        return [f"{time:.1f} s" for time in times if time is not None]

    def _sources(self, video: str) -> Sequence[str]:
        seen = self.pictures.get(video)
        return seen.sources if seen else ()

    def _frames(self, entry: Entry) -> Section:
        seen = self.pictures.get(entry["video"], Pictures(why="Nobody looked for its file."))
        aligned = {k: one["alignment"] for k, one in entry["labels"].items() if "alignment" in one}
        words = []
        if not seen.sources:
            words.append(f"The pictures are not shown: {seen.why}")
        if seen.note:
            words.append(f"The video is damaged: {seen.note}.")
        if seen.sources and any(time is None for time in seen.times):
            words.append("The file does not tell when its frames are shown: they have numbers.")
        words += dict.fromkeys(
            f"S = exp(cos / {one['temperature']:g}) is of {one['of']}, and is shown as its cosine; "
            f"P* is the plan at lambda {one['lambda']:g}, in multiples of the "
            f"uniform one; S~ ({one['refine']}) is what the frames weigh for a label, in percent."
            for one in aligned.values()
        )
        words += _reasons(entry, "alignment")
        heats = [
            heat for labels, one in aligned.items()
            for heat in self._heats(labels, one, entry["labels"][labels])
        ]  # fmt: skip
        count = len(seen.sources) or next((len(a["cosine"][0]) for a in aligned.values()), 0)
        if not count:
            return Section("What it saw", words)
        film = Film(
            self._columns(entry["video"], count), seen.sources, heats,
            corner="from its beginning" if seen.sources else "frame",
        )  # fmt: skip
        return Section("What it saw", words, [film])

    def _heats(self, labels: str, one: Entry, part: Entry) -> list[Heat]:
        names = self.explained["labels"][labels]
        rows = [names.index(name) for name in part["shown"]]
        marks = _marks(part)
        cosine = [one["cosine"][k] for k in rows]
        no_plan = f" (no plan: {one['refine']} looks at none)" if one["plan"] is None else ""
        title = f"{labels}: S, as a cosine{no_plan}"
        heats = [_heat(title, part["shown"], cosine, "{:.2f}", marks)]
        if one["plan"] is not None:
            uniform = len(one["plan"]) * len(one["plan"][0])
            plan = [[uniform * p for p in one["plan"][k]] for k in rows]
            title = f"{labels}: P*, uniform = 1"
            heats.append(_heat(title, part["shown"], plan, "{:.2f}", marks, 0))
        weights = [[100 * w for w in one["weights"][k]] for k in rows]
        return [*heats, _heat(f"{labels}: S~, percent", part["shown"], weights, "{:.1f}", marks, 0)]

    def _path(self, entry: Entry) -> Section:
        words, blocks = [], list[Block]()
        for labels, part in entry["labels"].items():
            columns, each = ["the answer"], [part]
            if "path" in part:
                path = part["path"]
                words.append(f"{labels.capitalize()}: {_turned(path['turns'], labels)}")
                columns = ["no stage", *(f"+ {name.split(',')[-1]}" for name in path["steps"][1:])]
                columns[-1] += ", the answer"
                columns += [f"without {stage}" for stage in path["without"]]
                pairs = zip(path["probabilities"], path["logits"], strict=True)
                each = [{"probabilities": p, "logits": z} for p, z in pairs]
                each += path["without"].values()
            blocks.append(self._grid(labels, part, columns, each))
        if words:
            words.insert(
                0,
                "From left to right one more stage is run, and its streams go to the decoder as "
                "they stand; then every stage is left out alone. All weights are those that were "
                "trained with every stage in its place: this is what a stage did to this answer, "
                "and not what a head trained without it would say.",
            )
        return Section("The path of the answer", [*words, *_reasons(entry, "path")], blocks)

    def _grid(self, labels: str, part: Entry, columns: list[str], each: Sequence[Entry]) -> Film:
        """Labels by columns: probabilities in percent, and logits. each: a column's of all
        labels."""
        names, shown, marks = self.explained["labels"][labels], part["shown"], _marks(part)
        rows = [names.index(name) for name in shown]
        percent = [[100 * one["probabilities"][k] for one in each] for k in rows]
        scores = [[one["logits"][k] for one in each] for k in rows]
        heats = [
            _heat(f"{labels}: probability, percent", shown, percent, "{:.1f}", marks, 0, 100),
            _heat(f"{labels}: logit", shown, scores, "{:.2f}", marks),
        ]
        caption = "✓ is there." if any(marks) else ""
        return Film(columns, heats=heats, title=labels, narrow=True, caption=caption)

    def _attention(self, entry: Entry) -> Section:
        words, blocks = [], list[Block]()
        for labels, part in entry["labels"].items():
            if "attention" not in part:
                continue
            found = part["attention"]
            tokens, mean = found["tokens"], found["mean"]
            chosen = list(range(len(tokens)))
            named = any(token["of"] == "V*" for token in tokens)
            if named and len(tokens) > MOST_TOKENS:
                most = sorted(chosen, key=lambda k: -max(row[k] for row in mean))
                chosen = sorted(most[:MOST_TOKENS])
                words.append(
                    f"{labels.capitalize()}: of {len(tokens)} tokens the {MOST_TOKENS} that some "
                    "label looks at most; --json has all."
                )
            rows = [[100 * row[k] for k in chosen] for row in mean]
            title = f"{labels}: attention, the mean over {len(found['heads'])} heads, percent"
            heat = _heat(title, found["labels"], rows, "{:.1f}", _marks(part), 0)
            columns = [f"{tokens[k]['of']} {tokens[k]['name']}" for k in chosen]
            seen = self._sources(entry["video"])
            of_frames = [token["of"] for token in tokens] == ["V"] * len(seen)
            film = Film(
                columns, seen if of_frames else (), [heat], labels, "token", upright=named
            )  # fmt: skip
            blocks.append(film)
        if blocks:
            words.insert(
                0,
                "A row is the query of a label, a column a token that the decoder attends to: a "
                "part of the video (V, or V^P of the VLM), or after ivc what became of them for a "
                "label (V*), which has no place in time. Single heads stand in --json.",
            )
        return Section("Where the decoder looks", [*words, *_reasons(entry, "attention")], blocks)

    def _experts(self, entry: Entry) -> Section:
        words, blocks = [], list[Block]()
        for labels, part in entry["labels"].items():
            if "experts" not in part:
                continue
            voices, apart = part["experts"]["voices"], part["experts"]["disagreement"]
            if apart is not None:
                words.append(
                    f"{labels.capitalize()}: they disagree by {apart:.3f} (0 all say the same, 1 "
                    "each is certain of something else)."
                )
            columns = [*voices, "the answer"]
            blocks.append(self._grid(labels, part, columns, [*voices.values(), part]))
        return Section("What each expert says", [*words, *_reasons(entry, "experts")], blocks)

    def _nearest(self, entry: Entry) -> Section:
        blocks: list[Block] = []
        for labels, part in entry["labels"].items():
            if "nearest" not in part:
                continue
            found = part["nearest"]
            true = part["true"]
            body: list[list[Cell]] = [
                [one["video"], f"{one['cosine']:.4f}", _spoken(one["true"]),
                 None if true is None else _alike(set(true), set(one["true"]), labels)]
                for one in found["videos"]
            ]  # fmt: skip
            head = ["training video", "cosine", labels, "as this one"]
            caption = f"By the cosine of {found['by']}."
            if labels == "steps" and true is not None:
                caption += " As this one: the steps that both have, of those that either has."
            blocks.append(Table(head, body, caption))
        return Section("Which training videos it looks like", _reasons(entry, "nearest"), blocks)

    def _twins(self, entry: Entry) -> Section | None:
        if not entry["twins"]:
            return None
        family = [{**entry, "split": f"{entry['split']}, this one"}, *entry["twins"]]
        films: list[Block] = []
        for labels, part in entry["labels"].items():
            columns = [str(one["split"]) for one in family]
            each = [one["labels"][labels] for one in family]
            films.append(self._grid(labels, part, columns, each))
        words = [
            "Twins are the same video but for what their split says: in shift-… the link of a "
            "confounder is broken and what is done stays, frame by frame; in cause it is what is "
            "done that differs."
        ]
        for one in family:
            seen = self.pictures.get(one["video"], Pictures(why="Nobody looked for its file."))
            if not seen.sources:
                words.append(f"{shown_name(one['video'])} is not shown: {seen.why}")
                continue
            notes = [
                (f"{labels}: {_answer(part, labels)}", part["right"])
                for labels, part in one["labels"].items()
            ]
            columns = self._columns(one["video"], len(seen.sources))
            title = f"{one['split']}: {shown_name(one['video'])}"
            films.append(Film(columns, seen.sources, title=title, notes=notes))
        return Section("Beside its twins", words, films)

    def index(self, split: Mapping[str, Any] | None = None) -> Page:
        """Of all pages. split: what `pcmci explain --split` looked through: `split`, `labels`,
        `wrong`, `videos` (each with video, true, said, confidence, wrong), `without features`."""
        sections = []
        if split:
            sections.append(self._split(split))
        sections.append(Section("The pages", [], [self._list()]))
        count = len(self.explained["videos"])
        what = "video" if count == 1 else "videos"
        return Page(
            title=f"What {self.explained['head']} made of {count} {what}",
            lead=_split_lead(split) if split else "A page a video.",
            sections=sections,
            facts=self._facts,
            commands={"Made by": self.command},
        )

    def _list(self) -> Table:
        body: list[list[Cell]] = []
        head = ["video", "split"]
        for labels in self.explained["labels"]:
            head += [labels, "right", "turned by"]
        for entry in self.explained["videos"]:
            video = entry["video"]
            cells: list[Cell] = [Link(shown_name(video), file_name(video)), entry["split"]]
            for labels, part in entry["labels"].items():
                turns = part.get("path", {}).get("turns", [])
                true = _spoken(part["true"]) if labels == "activity" and part["true"] else ""
                cells += [
                    Noted(_answer(part, labels), f"it is {true}" if true else ""),
                    {True: "✓", False: "✗", None: None}[part["right"]],
                    ", ".join(dict.fromkeys(turn["stage"] for turn in turns)) or None,
                ]
            body.append(cells)
        caption = "Turned by: the stages after which another label was the likeliest, or said."
        return Table(head, body, caption)

    def _split(self, split: Mapping[str, Any]) -> Section:
        made = {entry["video"] for entry in self.explained["videos"]}
        if split["labels"] == "activity":
            return _confusions(split, self.explained["labels"]["activity"], made, self.blank)
        return _misses(split, self.explained["labels"]["steps"])


def shown_name(video: str) -> str:
    """An id or a path as it may be shown."""
    return plain(video)


def file_name(video: str) -> str:
    """Of a video's page: its id as far as a file may be called that, and made unique where not."""
    stem = video.rpartition("/")[2]
    plain_stem = re.sub(r"[^\w.-]", "-", stem, flags=re.ASCII).lstrip(".")[:100]
    if plain_stem == video and plain_stem != "index":
        return f"{plain_stem}.html"
    digest = sha256(video.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{plain_stem}-{digest}.html"


def _lead(entry: Entry) -> str:
    said = []
    for labels, part in entry["labels"].items():
        if labels == "activity":
            text = f"It says {part['said'][0]} ({100 * max(part['probabilities']):.1f} %)"
            if part["right"] is not None:
                text += ", which is right" if part["right"] else f"; it is {part['true'][0]}"
        elif part["true"] is None:
            text = f"It says {len(part['said'])} steps: {_spoken(part['said'])}"
        else:
            hit, false = _hits(part)
            text = f"Of {len(part['true'])} steps it says {hit}, and {false} that are not there"
        said.append(f"{text}.")
        off = part.get("difference to saved")
        if off is not None and off > DIFFERS:
            said.append(
                f"The run's own saved prediction of its {labels} differs by up to {100 * off:.1f} "
                "percent points: the features have changed since, or they were computed in another "
                "precision."
            )
    return " ".join(said)


def _hits(part: Entry) -> tuple[int, int]:
    """Labels that are said and there, and said and not there."""
    said, true = set(part["said"]), set(part["true"] or ())
    return len(said & true), len(said - true)


def _split_lead(split: Mapping[str, Any]) -> str:
    videos = split["videos"]
    wrong = sum(one["wrong"] for one in videos)
    lost = split["without features"]
    which = "wrong ones" if split["wrong"] else "ones"
    return (
        f"Of {len(videos)} videos of {split['split']}, {wrong} are wrong by their "
        f"{split['labels']}. "
        + (f"{lost} more have no features: they count as wrong, unexplained. " if lost else "")
        + f"The pages are of the {which} that it is most certain of, these first."
    )


def _confusions(
    split: Mapping[str, Any], names: list[str], made: set[str], command: str
) -> Section:
    wrong = Counter[str]()
    for one in split["videos"]:
        if one["wrong"]:
            wrong.update([one["true"][0], one["said"][0]])
    kept = list(names)
    words = []
    if len(names) > MOST_NAMES:
        most = {name for name, _ in wrong.most_common(MOST_NAMES)}
        kept = [name for name in names if name in most]
        words.append(f"Of {len(names)} activities those {len(kept)} that are mistaken most.")
    place = {name: k for k, name in enumerate(kept)}
    judged = [
        Judged(
            one["video"], (place[one["true"][0]], place[one["said"][0]]),
            f"({100 * one['confidence']:.1f} %)",
            file_name(one["video"]) if one["video"] in made else "",
        )
        for one in split["videos"]
        if one["true"][0] in place and one["said"][0] in place
    ]  # fmt: skip
    caption = "A row is what a video is, a column what it was said to be. Colour: the row's share."
    matrix = Confusion(kept, judged, command, caption)
    return Section(f"What is taken for what on {split['split']}", words, [matrix])


def _misses(split: Mapping[str, Any], names: list[str]) -> Section:
    there, found, false = Counter[str](), Counter[str](), Counter[str]()
    for one in split["videos"]:
        true, said = set(one["true"]), set(one["said"])
        there.update(true)
        found.update(true & said)
        false.update(said - true)
    body: list[list[Cell]] = [
        [name, there[name], found[name], there[name] - found[name], false[name]]
        for name in sorted(names, key=lambda name: -(there[name] - found[name] + false[name]))
    ]
    caption = f"Videos of {split['split']}; a step is said from {100 * SAID_FROM:.0f} % on."
    head = ["step", "there", "found", "missed", "said and not there"]
    return Section(f"Which steps are missed on {split['split']}", [], [Table(head, body, caption)])


def _heat(
    title: str,
    rows: Sequence[str],
    values: Sequence[Sequence[float]],
    form: str,
    marks: Sequence[bool | None],
    low: float | None = None,
    high: float | None = None,
) -> Heat:
    """From `low` to `high`, which are the least and the largest where they are not given."""
    flat = [value for row in values for value in row]
    least = min(flat) if low is None else min(low, *flat, low)
    most = max(flat) if high is None else high
    texts = [[form.format(value).replace("-", "−") for value in row] for row in values]
    return Heat(title, rows, values, texts, least, most, marks=marks)


def _marks(part: Entry) -> list[bool | None]:
    """✓ at the labels that are there."""
    true = set(part["true"] or ())
    return [True if name in true else None for name in part["shown"]]


def _reasons(entry: Entry, what: str) -> list[str]:
    """Why something is absent; once where it is the same for all label sets."""
    found = [part["absent"][what] for part in entry["labels"].values() if what in part["absent"]]
    return list(dict.fromkeys(found))


def _turned(turns: Sequence[Entry], labels: str) -> str:
    if not turns:
        one_label = labels == "activity"
        return f"no stage {'turned the answer' if one_label else 'carried a step over 50 %'}."
    said = []
    for turn in turns[:MOST_SPOKEN]:
        if turn["from"] and turn["to"]:
            said.append(f"{turn['stage']} turned {turn['from']} into {turn['to']}")
        elif turn["to"]:
            said.append(f"{turn['stage']} brought {turn['to']}")
        else:
            said.append(f"{turn['stage']} took away {turn['from']}")
    more = len(turns) - len(said)
    return "; ".join(said) + (f"; and {more} more." if more else ".")


def _spoken(names: Sequence[str], most: int = MOST_SPOKEN) -> str:
    """The first names, and how many more."""
    if not names:
        return "none"
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _answer(part: Entry, labels: str) -> str:
    """What is said: an activity with its probability, of steps how many are there."""
    if labels == "activity":
        return f"{part['said'][0]} {100 * max(part['probabilities']):.1f} %"
    if part["true"] is None:
        return _spoken(part["said"])
    hit, false = _hits(part)
    return f"{hit} of {len(part['true'])}, and {false} not there"


def _alike(true: set[str], other: set[str], labels: str) -> str:
    """Whether an activity is the same, or how many of all steps of both are in both."""
    if labels == "activity":
        return "✓" if true == other else "✗"
    return f"{len(true & other)} of {len(true | other)}"
