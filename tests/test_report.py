"""The report of a sweep: from rows alone, true to them, and working in a real browser."""

from __future__ import annotations

import html
import json
import re
import shutil
import statistics
from pathlib import Path

import pytest
from made_up import made_up_store
from PIL import Image
from synthetic import small_store, small_table
from test_page import browse

from pcmci.cache.schema import LabelSet
from pcmci.cache.store import open_store
from pcmci.errors import PcmciError, UsageError
from pcmci.heads.ablation.ablate import ablate
from pcmci.heads.ablation.grid import PAPER_ORDERS
from pcmci.heads.training.run import load_run
from pcmci.report.ablation import ablation_page, write_report
from pcmci.report.paper import REPORTED, reported
from pcmci.report.rows import read_rows
from pcmci.report.table import ablation_table, paper_figure, percent, score_table, show, spread

NASTY = "<script>document.title='hurt'</script>"
FIGURES = ("scores", "odd", "coprediction", "classes", "reliability", "training")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four orders, two rates, two seeds, one rate too high; a store that is gone."""
    here = tmp_path_factory.mktemp("report")
    steps = (NASTY, "pour $milk$", "stir & {row}", "step 3", "step 4")
    activities = ("tea", "coffee", "toast")
    path = made_up_store(
        here / "breakfast.h5", "breakfast",
        LabelSet(activities, activities, "a video of {}"), LabelSet(steps, steps, "{}"),
        small_table(), frames=6, width=16, video_width=24, failed=(9, 20),
        labels_seen=("breakfast",),
    )  # fmt: skip
    with open_store(path) as store:
        found = ablate(
            store, "none; ich; ich,ici,ivc; ivc,ich", 2, grid={"lr": (1e-2, 1e30)},
            tau=(0.3, 0.5, 0.6, 0.7), out=here / "runs", results=here, resamples=30, workers=1,
            progress=False, validation=0.25, clip=1e30, epochs=4,
        )  # fmt: skip
    write_report(found.path)
    moved = tmp_path_factory.mktemp("moved") / "rows"
    shutil.copytree(found.path, moved)
    shutil.rmtree(here)
    return moved


@pytest.fixture(scope="module")
def page(folder) -> str:
    return (folder / "index.html").read_text(encoding="utf-8")


def test_the_page_is_made_again_from_rows_alone(pcmci, folder, page):
    (folder / "index.html").unlink()
    shutil.rmtree(folder / "figures")
    answer = pcmci("report", folder)
    assert (answer.code, answer.out) == (0, f"{folder / 'index.html'}\n")
    assert (folder / "index.html").read_text(encoding="utf-8") == page


SEEN = "ideo encoder trained on Breakfast's labels"


def test_every_table_of_scores_says_whose_labels_its_encoder_saw(folder, page):
    rows = read_rows(folder)
    assert {row["labels seen"] for row in rows.summary} == {"video:breakfast"}
    captions = [html.unescape(c) for c in re.findall(r"<caption>(.*?)</caption>", page, re.S)]
    scores = [c for c in captions if "in percent" in c.lower()]
    assert len(scores) >= 3
    assert all(SEEN in caption for caption in scores)
    for score in rows.scores():
        assert SEEN in str(ablation_table(rows.summary, score, "test").caption)
    strangers = [{**row, "labels seen": ""} for row in rows.summary]
    assert ablation_table(strangers, "Acc", "test").caption is None
    before = [{k: v for k, v in row.items() if k != "labels seen"} for row in rows.summary]
    assert ablation_table(before, "Acc", "test").caption is None


def test_a_run_says_whose_labels_its_encoder_saw(pcmci, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    activities = LabelSet(("tea", "coffee", "toast"), ("tea", "coffee", "toast"), "{}")
    steps = LabelSet(tuple("abcde"), tuple("abcde"), "{}")
    made_up_store(
        tmp_path / "coin.h5", "coin", activities, steps, small_table(), frames=4, width=16,
        video_width=24, labels_seen=("coin",),
    )  # fmt: skip
    small = ("--decoder-heads", 4, "--feedforward", 24, "--epochs", 1, "--labels", "activity")
    answer = pcmci("train-heads", "--features", "coin.h5", "--order", "none", *small)
    assert answer.code == 0, answer.err
    assert "video encoder trained on COIN's labels" in answer.out
    run = next((tmp_path / "runs").iterdir())
    assert "video encoder trained on COIN's labels" in pcmci("evaluate", run).out
    assert "labels seen: coin" in pcmci("store", "info", "coin.h5").out.replace("'", "")


def test_every_figure_is_a_file_for_a_paper(folder):
    for name in FIGURES:
        assert (folder / "figures" / f"{name}.svg").read_text().startswith("<?xml")
        with Image.open(folder / "figures" / f"{name}.png") as picture:
            assert picture.width > 600


def test_what_it_says_is_what_the_rows_say(folder, page):
    rows = read_rows(folder)
    text = html.unescape(re.sub(r"<[^>]+>", " ", page))
    for row in rows.summary:
        if row["split"] == "test":
            assert spread(row) in text
    for score in ("Acc", "mAP"):
        best = max(
            (row for row in rows.summary if (row["score"], row["split"]) == (score, "test")),
            key=lambda row: row["mean"],
        )
        assert f'<td class="best">{spread(best)}' in page
    assert "97.46" in text  # the paper's own, for the whole model
    assert "landmark" in text


def test_the_papers_figure_stands_beside_its_own_settings_alone(folder):
    whole = [row for row in read_rows(folder).summary if row["order"] == "ich,ici,ivc"]
    row = next(row for row in whole if (row["score"], row["split"]) == ("Acc", "test"))
    assert paper_figure(row) == pytest.approx(0.9746)
    assert paper_figure({**row, "ours": True}) is None


def test_failures_and_lost_videos_are_shown(folder, page):
    text = html.unescape(re.sub(r"<[^>]+>", " ", page))
    assert "8 of 16 runs failed" in text
    assert "training diverged: the loss is not finite in epoch 2, step 2" in text
    assert "2 videos have no features" in text
    assert "made up" in text


def test_no_label_becomes_markup(page):
    assert NASTY not in page
    assert page.count("<script>") == 1


def test_nothing_is_loaded_from_elsewhere(page):
    addresses = re.findall(r"""(?:src|href)\s*=\s*["']([^"'#]+)|url\(["']?([^)"'#]+)""", page)
    assert all("".join(found).startswith("data:") for found in addresses)


PROBE = """
<script>
window.addEventListener("load", () => {
  const told = {};
  told.svgs = document.querySelectorAll("figure svg").length;
  told.empty = [...document.querySelectorAll("figure svg")].filter(
    s => s.getBoundingClientRect().width < 200).length;
  told.titles = [...document.querySelectorAll("h2")].map(h => h.textContent);
  told.tips = [...document.querySelectorAll("[data-hovers]")].map(drawing => {
    const frame = drawing.querySelector("svg").getBoundingClientRect();
    const [hover] = JSON.parse(drawing.dataset.hovers);
    const [left, top, width, height] = hover.box;
    drawing.dispatchEvent(new MouseEvent("mousemove", {
      clientX: frame.left + frame.width * (left + width * 0.01),
      clientY: frame.top + frame.height * (top + height * 0.99),
    }));
    return [document.getElementById("tip").textContent, hover.rows.at(-1), hover.columns[0],
            hover.values.at(-1)[0]];
  });
  const table = [...document.querySelectorAll("table")].find(
    t => t.tHead.textContent.includes("mAP (%)"));
  const at = [...table.tHead.rows[0].cells].findIndex(c => c.textContent.includes("mAP"));
  table.tHead.rows[0].cells[at].querySelector("button").click();
  told.sorted = [...table.tBodies[0].rows].map(r => parseFloat(r.cells[at].textContent));
  told.wide = document.documentElement.scrollWidth - innerWidth;
  told.title = document.title;
  const out = document.createElement("pre");
  out.id = "told"; out.textContent = JSON.stringify(told);
  document.body.append(out);
});
</script>
"""


def test_it_works_in_a_browser(page, tmp_path):
    dom, console = browse(page.replace("</body>", PROBE + "</body>"), tmp_path)
    assert console == []
    found = re.search(r'<pre id="told">(.*?)</pre>', dom, re.DOTALL)
    assert found
    told = json.loads(html.unescape(found[1]))
    assert (told["svgs"], told["empty"]) == (len(FIGURES), 0)
    assert told["titles"][0] == "Scores on test"
    assert told["title"] == "Ablation of stages on breakfast"
    assert told["wide"] <= 0
    assert told["sorted"] == sorted(told["sorted"])
    assert len(told["tips"]) == 2
    for tip, row, column, value in told["tips"]:
        assert row in tip
        assert column in tip
        assert f"{value / 1000:.2f}" in tip


def test_a_folder_without_rows_is_refused(pcmci, tmp_path):
    answer = pcmci("report", tmp_path)
    assert answer.code == 2
    assert answer.err == (
        f"pcmci: {tmp_path} is no ablation: it has no sweep.json; next: pcmci ablate makes one\n"
    )
    with pytest.raises(UsageError):
        read_rows(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["summary.parquet", "sweep.json", "coprediction.npz"])
def test_damaged_rows_are_one_line(folder, tmp_path, name):
    shutil.copytree(folder, tmp_path / "rows")
    (tmp_path / "rows" / name).write_bytes(b"{damaged")
    with pytest.raises(PcmciError, match="the rows cannot be read"):
        write_report(tmp_path / "rows")


def test_a_page_needs_no_steps_and_no_second_variant(tmp_path):
    """The smallest sweep: one order, one seed, one label set."""
    activities = ("tea", "coffee", "toast")
    path = made_up_store(
        tmp_path / "x.h5", "x", LabelSet(activities, activities, "{}"), None, small_table(steps=0),
        frames=4, width=16, video_width=24,
    )  # fmt: skip
    with open_store(path) as store:
        found = ablate(
            store, ["none"], 1, out=tmp_path, results=tmp_path, workers=1, progress=False, epochs=1,
            decoder_heads=4,
        )  # fmt: skip
    titles = [section.title for section in ablation_page(read_rows(found.path)).sections]
    assert titles == ["Scores on test", "Is its confidence honest?", "Training", "Every run"]


def test_the_papers_figures_are_those_of_the_protocol(request):
    """docs/protocol.md has them in a table: Breakfast Acc and mAP, COIN Acc and mAP, Charades."""
    text = (request.config.rootpath / "docs" / "protocol.md").read_text()
    columns = [("breakfast", "Acc"), ("breakfast", "mAP"), ("coin", "Acc"), ("coin", "mAP"),
               ("charades", "mAP")]  # fmt: skip
    found = {column: {} for column in columns}
    for order in PAPER_ORDERS:
        name = ",".join(order) or "none"
        (line,) = re.findall(rf"^\| `{name}` \|(.*)\|$", text, re.MULTILINE)
        for column, cell in zip(columns, line.split("|"), strict=True):
            if cell.strip():
                found[column][name] = cell.strip()
    for (data, score), values in found.items():
        assert {
            order: percent(reported(data, score, order)) for order in REPORTED[data, score]
        } == values


@pytest.mark.parametrize("width", [40, 60, 120])
def test_no_number_is_cut_off_in_a_narrow_terminal(monkeypatch, capsys, width):
    scores = {
        split: {"videos": 480, "Acc": 0.91234, "mAP": 0.81234, "ODD@0.6": 0.01234, "coverage": 1.0}
        for split in ("test", "shift-all")
    }
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("rich.console.Console.is_terminal", property(lambda console: True))
    show(score_table(scores, "coin, order ich,ici,ivc, seed 0 (percent)"))
    text = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    for number in ("91.23", "81.23", "1.23", "100.00", "480"):
        assert text.count(number) >= 2
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    """An ablation of a head of two voices and of one without any: its folder and its runs."""
    here = tmp_path_factory.mktemp("voices")
    with open_store(small_store(here / "small.h5")) as store:
        found = ablate(
            store, seeds=2, heads="linear,experts", experts_of="v,pc", epochs=1, out=here / "runs",
            results=here, resamples=0, workers=1, progress=False, decoder_heads=4, feedforward=8,
        )  # fmt: skip
    write_report(found.path)
    runs = [load_run(Path(row["run"])) for row in found.rows if row["head"] == "experts"]
    return found.path, runs


def test_what_each_voice_says_is_the_mean_of_its_runs(heard):
    folder, runs = heard
    section = (folder / "index.html").read_text().split("What each voice says")[1]
    tables = re.findall(r"<table.*?</table>", section, re.S)[:2]
    for labels, table in zip(("activity", "steps"), tables, strict=True):
        rows = {
            cells[0]: cells[1:]
            for row in re.findall(r"<tr.*?</tr>", table, re.S)
            if (cells := [re.sub(r"<[^>]+>", "", c).strip() for c in re.findall(
                r"<t[dh].*?</t[dh]>", row, re.S)])
        }  # fmt: skip
        assert list(rows) == ["voice", "v", "pc", "the answer", "disagreement"]
        found = [run.heads[labels]["voices"]["test"] for run in runs]
        for voice in ("v", "pc"):
            values = [one["voices"][voice] for one in found]
            assert rows[voice][-1].startswith(percent(statistics.fmean(values)))
        apart = statistics.fmean(one["disagreement"] for one in found)
        assert rows["disagreement"][-1] == f"{apart:.3f}"
    assert (folder / "figures" / "voices-2.svg").is_file()


def test_rows_from_before_voices_were_kept_make_a_page_without_them(heard, page, tmp_path):
    assert "What each voice says" not in page  # no head of that ablation has any
    shutil.copytree(heard[0], tmp_path / "old")
    for name in ("voices", "disagreements"):
        (tmp_path / "old" / f"{name}.parquet").unlink()
    assert "What each voice says" not in write_report(tmp_path / "old").read_text()


def test_a_run_leads_to_the_pages_that_explain_it(folder, tmp_path):
    rows = read_rows(folder)
    run = tmp_path / "runs" / "a b"
    (run / "explain").mkdir(parents=True)
    (run / "explain" / "index.html").touch()
    first, *others = [row for row in rows.tables["results"] if row["run"]]
    first["run"] = str(run)
    gallery = tmp_path / "ablations" / "x" / "figures"
    gallery.mkdir(parents=True)
    page = ablation_page(rows, gallery).html()
    assert re.findall(r'<a href="([^"]+)">a b</a>', page) == ["../../runs/a%20b/explain/index.html"]
    assert page.count("<a ") == 1  # the others have no pages
    assert others
    assert f"pcmci explain '{run}' --split test --wrong" in html.unescape(page)
