"""The page: it needs nobody else, it runs no label, and it looks and works in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess

import matplotlib
import numpy as np
import pytest

from pcmci.report import figures
from pcmci.report.page import Figure, Noted, Page, Section, Strip, Table

NASTY = "<script>document.title='hurt'</script>"
NAMES = ("pour_milk $&", NASTY, 'pay "$\\\\foo$" {row} & go')


@pytest.fixture(scope="module")
def page() -> Page:
    rng = np.random.default_rng(0)
    q = rng.random((3, 3))
    matrices, hovers = figures.coprediction_matrices({"none": q, "truth": q.T}, NAMES)
    scores = {
        order: {s: {"Acc": rng.random(), "mAP": rng.random()} for s in ("test", "shift-h")}
        for order in ("none", "ich,ici")
    }
    return Page(
        title="A page",
        lead=f"Labels may be called {NASTY}",
        sections=[
            Section(
                "Scores",
                ["Words."],
                [
                    Table(
                        ["order", "Acc"],
                        [["ich", Noted("9.5", "12 of 14")], ["none", "80.1"], ["ici", None]],
                    ),
                    Figure(figures.svg(figures.scores_by_split(scores, ["Acc", "mAP"])), "Marks."),
                    Figure(figures.svg(matrices), "Matrices.", hovers),
                ],
            ),
            Section(
                "Film",
                [],
                [
                    Strip(
                        rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8),
                        NASTY,
                        [("none: tea", True), (NASTY, False)],
                    )
                ],
            ),
        ],
        facts={"store": NASTY},
        commands={"Made by": "pcmci demo"},
    )


def test_no_label_becomes_markup(page):
    assert NASTY not in page.html()
    assert page.html().count("<script>") == 1  # the page's own


def test_nothing_is_loaded_from_elsewhere(page):
    addresses = re.findall(
        r"""(?:src|href)\s*=\s*["']([^"'#]+)|url\(["']?([^)"'#]+)""", page.html()
    )
    assert all("".join(found).startswith("data:") for found in addresses)


def test_the_same_figure_has_the_same_bytes():
    def drawn() -> str:
        curves = {"none": [0.3, 0.1], "ich": [0.2, 0.2]}
        return figures.svg(figures.density_curves(curves, [0.2, 0.1], [0.3, 0.6]))

    assert drawn() == drawn()


def test_matplotlib_stays_as_the_user_has_it():
    before = dict(matplotlib.rcParams)
    figures.svg(figures.density_curves({"none": [0.3]}, [0.2], [0.3]))
    assert dict(matplotlib.rcParams) == before
    assert matplotlib.rcParams["text.parse_math"]


def test_a_page_is_written_whole(page, tmp_path):
    path = page.write(tmp_path / "index.html")
    assert path.read_text(encoding="utf-8") == page.html()
    assert [p.name for p in tmp_path.iterdir()] == ["index.html"]


def test_many_names_are_left_to_the_mouse():
    names = [f"step {k}" for k in range(figures.READABLE + 1)]
    q = np.zeros((len(names), len(names)))
    drawing, (hover,) = figures.coprediction_matrices({"none": q}, names)
    assert not any(text.get_text() in names for text in drawing.axes[0].get_xticklabels())
    assert hover.data["rows"] == names


PROBE = """
<script>
window.addEventListener("load", () => {
  const told = {};
  const head = document.querySelectorAll("thead button")[1];
  const column = () => [...document.querySelector("tbody").rows].map(r => r.cells[1].textContent);
  head.click(); told.up = column();
  head.click(); told.down = column();
  told.svgs = document.querySelectorAll("figure svg").length;
  told.strip = document.querySelector(".strip img").naturalWidth;
  const drawing = document.querySelector("[data-hovers]");
  const frame = drawing.querySelector("svg").getBoundingClientRect();
  const [hover] = JSON.parse(drawing.dataset.hovers);
  const [left, top, width, height] = hover.box;
  drawing.dispatchEvent(new MouseEvent("mousemove", {
    clientX: frame.left + frame.width * (left + width * 0.5),
    clientY: frame.top + frame.height * (top + height * 0.1),
  }));
  told.tip = document.getElementById("tip").textContent;
  told.title = document.title;
  const out = document.createElement("pre");
  out.id = "told"; out.textContent = JSON.stringify(told);
  document.body.append(out);
});
</script>
"""


def browse(html: str, folder) -> tuple[str, list[str]]:
    """The page as Chromium has it after its scripts, and what they wrote to the console."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Chromium is not installed (Debian's package `chromium`)")
    path = folder / "page.html"
    path.write_text(html, encoding="utf-8")
    done = subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-quic", f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr",
            "--virtual-time-budget=5000", "--dump-dom", path.as_uri(),
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_it_works_in_a_browser(page, tmp_path):
    import html
    import json

    dom, console = browse(page.html().replace("</body>", PROBE + "</body>"), tmp_path)
    assert console == []
    found = re.search(r'<pre id="told">(.*?)</pre>', dom, re.DOTALL)
    assert found
    told = json.loads(html.unescape(found[1]))
    assert told["up"] == ["9.512 of 14", "80.1", "–"]
    assert told["down"][0] == "80.1"
    assert told["svgs"] == 2
    assert told["strip"] == 4 * 8
    q = page.sections[0].blocks[2].hovers[0].values
    assert told["tip"] == f"P({NAMES[0]} given {NASTY}) = {q[0, 1]:.2f}"
    assert told["title"] == "A page"
