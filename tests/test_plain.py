"""A name is printed as what it is: no markup, no command to the terminal, no end of a command."""

from __future__ import annotations

import io
import json
import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from pcmci.plain import plain, plain_json, print_anything
from pcmci.report.store import features_table, pairs_table
from pcmci.report.table import orders_table, show

SPECIAL = "\x1b\x07\x9b\n\r\u202e\u2028\udce9\x00"
TEXTS = st.text(st.characters(exclude_categories=[]) | st.sampled_from(SPECIAL), max_size=20)


@given(TEXTS)
def test_what_is_printed_is_one_line_that_no_terminal_obeys(text):
    shown = plain(text)
    assert not set(shown) & set(SPECIAL)
    assert shown.splitlines() in ([shown], [])
    shown.encode()


@pytest.mark.parametrize("text", ["", "[id] a", "čaj", "茶 🍵", "שלום", "a\u200db", "50 %"])
def test_what_is_a_text_stays(text):
    assert plain(text) == text


def test_a_byte_of_a_name_shows_as_one():
    assert plain(os.fsdecode(b"caf\xe9.mp4")) == "caf\\xe9.mp4"


@given(st.dictionaries(TEXTS, st.lists(TEXTS, max_size=3), max_size=3))
def test_json_is_read_back(content):
    text = plain_json(json.dumps(content, indent=1, ensure_ascii=False))
    text.encode()
    assert not set(text) - {"\n"} & set(SPECIAL)
    assert json.loads(text) == content


def test_a_stream_that_lacks_a_character_ends_no_command(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "latin-1"))
    print_anything()
    print("caf\u00e9 茶 \udce9")
    sys.stdout.flush()
    assert raw.getvalue() == b"caf\xe9 \\u8336 \\udce9\n"


NAMES = [
    "[id] film",
    "[bold]tea[/bold]",
    "[/]",
    ":tea:",
    "a\x1b[31mred",
    "[link=http://x]y",
    "\\[x]",
]


@pytest.mark.parametrize("name", NAMES)
def test_tables_show_names_as_they_are(name, capsys):
    likeness = {"alike": 1.0, "vlm": 1.0, "video": 1.0, "among": 2}
    show(
        pairs_table([{"id": name, "split": "test", "train": name, **likeness}], 0.9),
        orders_table({name: {"test": {"Acc": 0.5}}}, "Acc"),
        features_table([], name),
        Table(title=name),
    )
    said = capsys.readouterr().out
    assert said.count(plain(name)) >= 3
    assert "\x1b" not in said


def test_lines_of_a_cell_stay_lines(capsys):
    class Bounds:
        value, low, high = 0.1, -0.1, 0.2

    show(orders_table({"ich": {"test": {"Acc": 0.5}}}, "Acc", {"ich": {"test": Bounds()}}))
    said = capsys.readouterr().out
    assert "50.00" in said
    assert "+10.00, -10.00 to 20.00" in said
    assert "\\n" not in said


def test_an_error_is_printed_plainly(pcmci, tmp_path):
    answer = pcmci("store", "info", tmp_path / "a\x1b[31m\udce9[id].zarr")
    assert answer.code == 2
    assert "\x1b" not in answer.err
    assert "a\\x1b[31m\\xe9[id].zarr" in answer.err
    assert len(answer.err.splitlines()) == 1
