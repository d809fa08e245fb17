"""Labels in scripts that not every font has: no boxes in figures."""

import warnings

import numpy as np
import pytest
from matplotlib import font_manager

from pcmci.report import figures, glyphs

NAMES = ["pour milk", "泡茶", "сварить кофе", "\U0001f95e pancake"]


def others(family):
    """A character that this family has and the usual one has not."""
    found = sorted(glyphs._characters(family) - glyphs._characters(glyphs.FAMILY))
    return next(iter(found), None)


def test_what_the_usual_font_has_is_drawn_as_it_is():
    assert glyphs.drawn(NAMES[::2]) == NAMES[::2]
    assert glyphs.families(NAMES[::2]) == [glyphs.FAMILY]
    assert glyphs.key(NAMES[::2]) == ""


def test_what_no_font_has_is_a_number_with_a_key(monkeypatch):
    usual = [e for e in font_manager.fontManager.ttflist if e.name == glyphs.FAMILY]
    monkeypatch.setattr(glyphs, "_entries", lambda: usual)
    glyphs._others.cache_clear()
    assert glyphs.drawn(NAMES) == ["pour milk", "2", "сварить кофе", "4"]
    assert "2: 泡茶, 4: \U0001f95e pancake" in glyphs.key(NAMES)
    glyphs._others.cache_clear()


def test_a_font_of_the_machine_is_taken_where_it_has_them():
    family = next((f for f in glyphs._installed() if f != glyphs.FAMILY and others(f)), None)
    if family is None:
        pytest.skip("no other font on this machine")
    name = f"a {others(family)}"
    assert glyphs.drawn([name]) == [name]
    assert len(glyphs.families([name])) == 2
    assert glyphs.key([name]) == ""


def test_a_font_of_boxes_is_none():
    assert not [f for f in glyphs._installed() if f.startswith(glyphs.PLACEHOLDERS)]


def test_figures_ask_for_no_glyph_that_is_not_there(tmp_path):
    """Matplotlib warns of each one that it draws as a box."""
    q = np.eye(len(NAMES))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawing, (hover,) = figures.coprediction_matrices({"none": q}, NAMES)
        figures.svg(drawing)
        differences = np.zeros((1, len(NAMES)))
        drawing, _ = figures.class_differences(differences, ["ich"], NAMES, "none")
        figures.save(drawing, tmp_path, "classes")
    assert list(hover.rows) == NAMES  # the page's own fonts have them
