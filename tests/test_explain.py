"""`pcmci explain`: its numbers are the head's own, and its pages show them in a real browser."""

from __future__ import annotations

import dataclasses
import html
import json
import re

import numpy as np
import pytest
import torch
from synthetic import names, small_store, small_table
from test_page import browse

from pcmci.cache.schema import VideoTable
from pcmci.cache.store import open_store
from pcmci.errors import UsageError, VideoError
from pcmci.extract.encoders.preprocess import resize_and_crop
from pcmci.extract.video.frames import iter_frames, sample_indices
from pcmci.extract.video.strip import SIZE, FilmStrip, _cut, film_strips
from pcmci.heads.config import ORDERS, ModelConfig, TransportConfig, order_name
from pcmci.heads.explaining.explanation import explain, subjects
from pcmci.heads.explaining.family import family
from pcmci.heads.explaining.mistakes import Answered, answered, confusion
from pcmci.heads.explaining.nearest import embedding
from pcmci.heads.explaining.walk import learned_alignment, logits, looks, walk
from pcmci.heads.method.attention import attention, attention_weights
from pcmci.heads.method.model import PCMCI
from pcmci.heads.method.transport import align, alignment
from pcmci.heads.training.run import load_run, train_heads
from pcmci.report.explain import Pages, Pictures, file_name
from pcmci.report.film import Film, Heat, picture
from pcmci.report.page import Page, Section

B, N, L, LV, D, DV = 3, 5, 4, 6, 16, 20
SOFT = TransportConfig(temperature=0.5)
TINY = ModelConfig(transport=SOFT, relations=4, decoder_heads=4, feedforward=24)
QUICK = {"epochs": 2, "feedforward": 16, "decoder_heads": 2, "relations": 2}


def made(order: tuple[str, ...], **changes: object) -> tuple[PCMCI, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    config = dataclasses.replace(TINY, order=order, **changes)  # type: ignore[arg-type]
    model = PCMCI(config, torch.randn(N, D), DV).eval()
    return model, torch.randn(B, L, D), torch.randn(B, LV, DV)


@pytest.mark.parametrize("tokens", ["video", "both"])
@pytest.mark.parametrize("order", ORDERS, ids=order_name)
def test_a_walk_ends_at_the_answer_and_looks_at_all_tokens(order, tokens):
    model, vlm, video = made(order, tokens=tokens)
    with torch.inference_mode():
        taken = walk(model, vlm, video)
        assert taken.stages == order
        torch.testing.assert_close(logits(model, taken), model(vlm, video), rtol=0, atol=0)
        weights = looks(model, taken)
    assert weights.shape[-1] == model.attended(taken.streams[-1], taken.begun).shape[1]
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


def test_a_stage_that_is_taken_off_leaves_what_was_before_it():
    model, vlm, video = made(("ich", "ici", "ivc"))
    with torch.inference_mode():
        taken = walk(model, vlm, video)
        for k in range(3):
            short = walk(model, vlm, video, stages=taken.stages[:k])
            torch.testing.assert_close(logits(model, short), logits(model, taken, k))
        bare, *_ = made(())
        bare.load_state_dict(model.state_dict(), strict=False)
        torch.testing.assert_close(logits(model, taken, 0), bare(vlm, video))


def test_attention_weights_are_those_of_the_attention():
    q, k, v = torch.randn(B, N, D), torch.randn(B, LV, D), torch.randn(B, LV, D)
    parts = v.unflatten(-1, (4, -1)).transpose(-3, -2)
    by_weights = (attention_weights(q, k, 4) @ parts).transpose(-3, -2).flatten(-2)
    torch.testing.assert_close(by_weights, attention(q, k, v, 4))


def test_an_alignment_has_the_heads_own_weights_and_a_plan_with_uniform_marginals():
    model, vlm, _ = made(("ich",))
    found = align(model.text[None], vlm, SOFT, exact=True)
    weights, error = alignment(model.text[None], vlm, SOFT, exact=True)
    assert torch.equal(found.weights, weights)
    assert found.plan is not None
    torch.testing.assert_close(found.plan.sum(1), torch.full((B, L), 1 / L).double())
    torch.testing.assert_close(found.plan.sum(2), torch.full((B, N), 1 / N).double())
    assert float(error.max()) <= SOFT.tolerance
    similarity = dataclasses.replace(SOFT, refine="similarity")
    assert align(model.text[None], vlm, similarity).plan is None


def test_a_learned_alignment_is_the_one_that_ich_uses(monkeypatch):
    model, vlm, video = made(("ici", "ich"))
    used = []

    def noted(*arguments, **more):
        used.append(alignment(*arguments, **more))
        return used[-1]

    monkeypatch.setattr("pcmci.heads.method.ich.alignment", noted)
    with torch.inference_mode():
        taken = walk(model, vlm, video)
        found = learned_alignment(model, taken)
    assert found is not None
    assert torch.equal(found.weights, used[0][0])
    model, vlm, video = made(("ich", "ici"))
    assert learned_alignment(model, walk(model, vlm, video)) is None


def with_twins() -> VideoTable:
    """`small_table` whose last videos are twins of its test videos v8 and v9."""
    table = small_table()
    ids = [*table.ids[:-2], "v8_shift-h", "v9_shift-h"]
    splits = [*table.splits[:-2], "shift-h", "shift-h"]
    activity = table.activity.copy()
    activity[-2:] = activity[8:10]
    return dataclasses.replace(table, ids=tuple(ids), splits=tuple(splits), activity=activity)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    from made_up import made_up_store

    return made_up_store(
        tmp_path_factory.mktemp("explain") / "small.h5", "small", names("activity", 3),
        names("step", 5), with_twins(), frames=6, width=16, video_width=24, failed=(10,),
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs(place):
    """By order, or by head."""
    out = place.parent / "runs"
    with open_store(place) as store:
        found = {
            order: train_heads(store, order, out=out, progress=False, **QUICK)
            for order in ("ich,ici,ivc", "none")
        }
        some = QUICK | {"experts_of": "v,p"}
        del some["relations"]
        found["experts"] = train_heads(
            store, head="experts", labels="activity", out=out, progress=False, **some
        )
        found["mlp"] = train_heads(store, head="mlp", out=out, progress=False, epochs=2)
    return found


def explained(runs, place, which: str, *ids: str, **more):
    with open_store(place) as store:
        families = {one: family(one, store.ids, store.splits) for one in ids}
        return explain(runs[which], subjects(store, families), store, progress=False, **more)


@pytest.mark.parametrize("which", ["ich,ici,ivc", "none", "experts", "mlp"])
def test_the_answer_is_that_of_predict_and_the_one_that_was_saved(runs, place, which):
    found = explained(runs, place, which, "v8", "v9")
    with open_store(place) as store:
        vlm, video = (store.read(name, [8, 9], view=0) for name in ("vlm", "video"))
    for labels, p in runs[which].predict(vlm, video).items():
        parts = [entry["labels"][labels] for entry in found["videos"]]
        np.testing.assert_allclose([part["probabilities"] for part in parts], p, atol=1e-5)
        for part in parts:
            assert part["difference to saved"] < 1e-5
            if "path" in part:
                np.testing.assert_allclose(part["path"]["logits"][-1], part["logits"], atol=1e-6)
                assert len(part["path"]["logits"]) == 4
            for absent, why in part["absent"].items():
                assert absent not in part
                assert why.endswith(".")
    assert json.loads(json.dumps(found)) == found


def test_what_is_not_there_says_why(runs, place):
    (entry,) = explained(runs, place, "mlp", "v8")["videos"]
    part = entry["labels"]["activity"]
    assert set(part["absent"]) == {"path", "alignment", "attention", "experts"}
    assert part["nearest"]["by"].startswith("the means over time")
    (entry,) = explained(runs, place, "none", "v8")["videos"]
    assert "no ich" in entry["labels"]["steps"]["absent"]["alignment"]
    with open_store(place) as store:
        (entry,) = explain(runs["none"], subjects(store, {"v8": ()}))["videos"]
    assert "--features" in entry["labels"]["steps"]["absent"]["nearest"]


def test_the_numbers_of_a_page_are_distributions(runs, place):
    (entry,) = explained(runs, place, "ich,ici,ivc", "v8", top=2)["videos"]
    for labels, part in entry["labels"].items():
        aligned = part["alignment"]
        plan, weights = np.array(aligned["plan"]), np.array(aligned["weights"])
        np.testing.assert_allclose(plan.sum(0), 1 / plan.shape[1], rtol=1e-6)
        np.testing.assert_allclose(plan.sum(1), 1 / plan.shape[0], rtol=1e-6)
        np.testing.assert_allclose(weights.sum(1), 1)
        heads = np.array(part["attention"]["heads"])
        assert heads.shape[1:] == (len(part["shown"]), len(part["attention"]["tokens"]))
        np.testing.assert_allclose(heads.sum(-1), 1, rtol=1e-5)
        assert set(part["true"]) <= set(part["shown"])
        if labels == "activity":
            assert len(part["shown"]) <= 3
            for p in part["path"]["probabilities"]:
                assert sum(p) == pytest.approx(1)


def test_a_training_video_is_nearest_to_itself_and_is_left_out(runs, place):
    run = runs["ich,ici,ivc"]
    (entry,) = explained(runs, place, "ich,ici,ivc", "v3", neighbours=100)["videos"]
    model = run.models()["activity"]
    with open_store(place) as store:
        rows = store.rows("train", done=True)
        ids = [store.ids[row] for row in rows]
        vlm, video = (
            torch.from_numpy(store.read(name, rows, view=0)).float() for name in ("vlm", "video")
        )
    k = ids.index("v3")
    with torch.inference_mode():
        own, every = (
            embedding(model, vlm[k : k + 1], video[k : k + 1]),
            embedding(model, vlm, video),
        )
    cosine = (every @ own.T)[:, 0].tolist()
    assert max(cosine) == cosine[k] == pytest.approx(1, abs=1e-5)
    like = entry["labels"]["activity"]["nearest"]["videos"]
    assert {one["video"] for one in like} == set(ids) - {"v3"}
    assert [one["cosine"] for one in like] == sorted((o["cosine"] for o in like), reverse=True)
    for one in like[:3]:
        assert one["cosine"] == pytest.approx(cosine[ids.index(one["video"])], abs=1e-5)


def test_a_store_without_a_vlm_is_compared_by_the_video_encoder_alone(runs):
    head = runs["mlp"].models()["activity"]
    video = torch.randn(2, 6, 24)
    with_column = embedding(head, torch.zeros(2, 1, 1), video)
    assert torch.equal(with_column, embedding(head, torch.zeros(2, 0), video))


def test_a_video_knows_its_twins_from_either_side():
    ids = ("a", "b", "a_shift-h", "a_shift-all", "b_shift-h")
    splits = ("test", "test", "shift-h", "shift-all", "shift-h")
    assert family("a", ids, splits) == ("a_shift-h", "a_shift-all")
    assert family("a_shift-all", ids, splits) == ("a", "a_shift-h")
    assert family("b", ids, splits) == ("b_shift-h",)
    assert family("c", ids, splits) == ()
    assert family("a", ("a", "a_more"), ("test", "test")) == ()


def test_twins_are_answered_like_videos_of_their_own(runs, place):
    (entry,) = explained(runs, place, "ich,ici,ivc", "v8")["videos"]
    (alone,) = explained(runs, place, "ich,ici,ivc", "v8_shift-h")["videos"]
    (twin,) = entry["twins"]
    assert (twin["video"], twin["split"]) == ("v8_shift-h", "shift-h")
    assert alone["twins"][0]["video"] == "v8"
    for labels, part in twin["labels"].items():
        assert part["logits"] == alone["labels"][labels]["logits"]


def test_mistakes_are_sorted_by_confidence_and_counted_once(runs):
    predictions = runs["none"].predictions
    for labels in ("activity", "steps"):
        found = answered(predictions, labels, "test")
        sure = [one.confidence for one in found]
        assert sure == sorted(sure, reverse=True)
        assert "v10" not in {one.video for one in found}  # it has no features
    scores = runs["none"].metrics["test"]
    found = answered(predictions, "activity", "test")
    counts = confusion(found, predictions.labels["activity"].names)
    assert counts.sum() == len(found)
    assert counts.trace() == sum(not one.wrong for one in found)
    assert counts.trace() / scores["videos"] == pytest.approx(scores["Acc"])
    with pytest.raises(UsageError, match="'train': the run has scored"):
        answered(predictions, "activity", "train")


def test_a_strip_has_the_frames_that_were_sampled_and_their_times(place, tiny_videos):
    with open_store(place) as store:
        spec = store.spec
    films = [tiny_videos / "film3.mp4", tiny_videos / "broken.mp4"]
    strip, broken = film_strips(films, spec)
    assert isinstance(strip, FilmStrip)
    assert strip.frames.shape == (6, SIZE, SIZE, 3)
    expected = sample_indices(23, 6)[0]
    assert strip.seconds == pytest.approx(expected / 10)
    whole = {int(at[0]): frame for at, frame in iter_frames(films[0], 23)}
    first = resize_and_crop(whole[int(expected[0])], _cut(spec))
    np.testing.assert_array_equal(strip.frames[0], first)
    assert isinstance(broken, VideoError)


# ---- the command and its pages -------------------------------------------------------------------


def test_the_mistakes_of_a_split_become_pages_with_an_index(pcmci, runs, place, tmp_path):
    run = runs["ich,ici,ivc"]
    command = ("explain", run.path, "--split", "test", "--wrong", "--top", 2, "--out", tmp_path)
    answer = pcmci(*command, "--json")
    assert answer.code == 0, answer.err
    found = answer.json
    wrong = [one for one in answered(run.predictions, "activity", "test") if one.wrong]
    assert [entry["video"] for entry in found["videos"]] == [one.video for one in wrong[:2]]
    assert found["split"]["without features"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["index.html", *(file_name(one.video) for one in wrong[:2])]
    )
    for page in tmp_path.iterdir():
        addresses = re.findall(
            r"""(?:src|href)\s*=\s*["']([^"'#]+)|url\(["']?([^)"'#]+)""", page.read_text()
        )
        links = ["".join(one) for one in addresses if not "".join(one).startswith("data:")]
        assert all((tmp_path / link).is_file() for link in links)
    assert "no file" not in answer.err


def test_bad_input_is_one_line(pcmci, runs, place, tmp_path):
    run, other = runs["none"].path, small_store(tmp_path / "other.h5")
    for arguments, says in (
        ((run,), "name videos (ids or files), or a split"),
        ((run, "v8", "--split", "test"), "name videos (ids or files), or a split"),
        ((run, "v8", "--wrong"), "--wrong goes with --split"),
        ((run, "v99"), "'v99' is no file, and no video of"),
        ((run, "v10"), "v10 has no features in"),
        ((run, "--split", "tset"), "--split 'tset': the run has scored test, shift-h"),
        ((run, "--split", "test", "--labels", "moods"), "--labels 'moods'"),
        ((run, "v8", "--features", tmp_path / "x.h5"), "x.h5"),
        ((run, "v8", "--features", other), "is not the store that"),
        ((tmp_path, "v8"), "is no run folder"),
    ):
        answer = pcmci("explain", *arguments)
        assert answer.code == 2, arguments
        assert says in answer.err
        assert len(answer.err.strip().splitlines()) == 1


def test_without_its_store_a_run_can_only_be_asked_of_files(pcmci, runs, place, tmp_path):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(runs["none"].path, run)
    config = json.loads((run / "config.json").read_text())
    config["store"]["path"] = str(tmp_path / "gone.h5")
    (run / "config.json").write_text(json.dumps(config))
    answer = pcmci("explain", run, "v8")
    assert answer.code == 2
    assert "--features" in answer.err
    assert pcmci("explain", run, "v8", "--features", place).code == 0
    assert (run / "explain" / "v8.html").is_file()
    assert load_run(run).path == run
    assert not (run / "explain" / "index.html").exists()  # of a single video there is none


NASTY = "<script>document.title='hurt'</script>{row}"

PROBE = """
<script>
window.addEventListener("load", () => {
  const told = {};
  const table = document.querySelector("table.film[role=grid]");
  const cell = table.querySelector("td[tabindex='0']");
  cell.focus();
  told.first = document.getElementById("tip").textContent;
  const press = key => document.activeElement.dispatchEvent(
    new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  press("ArrowRight"); press("ArrowDown");
  told.moved = document.getElementById("tip").textContent;
  press("ArrowUp"); press("ArrowUp");
  told.above = document.getElementById("tip").textContent;
  told.large = document.querySelectorAll("#tip img").length;
  press("Escape");
  told.hushed = document.getElementById("tip").style.display;
  told.stops = table.querySelectorAll("td[tabindex='0']").length;
  told.pictures = [...document.querySelectorAll("img")].map(i => [i.naturalWidth, i.alt]);
  const button = document.querySelector("[data-confusion] button");
  if (button) {
    button.click();
    told.chosen = document.querySelector(".chosen").textContent;
    told.links = [...document.querySelectorAll(".chosen a")].map(a => a.getAttribute("href"));
  }
  told.title = document.title;
  const out = document.createElement("pre");
  out.id = "told"; out.textContent = JSON.stringify(told);
  document.body.append(out);
});
</script>
"""


def told(page: str, folder) -> dict:
    dom, console = browse(page.replace("</body>", PROBE + "</body>"), folder)
    assert console == []
    found = re.search(r'<pre id="told">(.*?)</pre>', dom, re.DOTALL)
    assert found
    return json.loads(html.unescape(found[1]))


def pages(found: dict, strips: bool = True) -> Pages:
    frames = np.zeros((6, 8, 8, 3), np.uint8)
    seen = Pictures([picture(frame) for frame in frames], [0.5 * k for k in range(6)])
    ids = [one["video"] for entry in found["videos"] for one in (entry, *entry["twins"])]
    pictures = dict.fromkeys(ids, seen) if strips else {}
    return Pages(
        found, pictures, {"data set": "small"}, "pcmci explain", "pcmci explain RUN <video>"
    )


def test_a_page_works_in_a_browser_with_keys_alone(runs, place, tmp_path):
    found = explained(runs, place, "ich,ici,ivc", "v8", top=3)
    found["labels"]["activity"][0] = NASTY
    text = json.dumps(found).replace('"activity 0"', json.dumps(NASTY))
    found = json.loads(text)
    page = pages(found).page(found["videos"][0]).html()
    assert NASTY not in page
    (entry,) = found["videos"]
    part = entry["labels"]["activity"]
    row = [found["labels"]["activity"].index(name) for name in part["shown"]]
    cosine = [part["alignment"]["cosine"][k] for k in row]

    def say(i: int, j: int) -> str:
        value = f"{cosine[i][j]:.2f}".replace("-", "−")
        return f"{part['shown'][i]}, {0.5 * j:.1f} s: {value}"

    seen = told(page, tmp_path)
    assert seen["first"] == say(0, 0)
    assert seen["moved"] == say(1, 1)
    assert (seen["above"], seen["large"]) == ("frame 2 of 6, 0.5 s", 1)
    assert seen["hushed"] == "none"
    assert seen["stops"] == 1
    assert seen["title"] == "v8"
    assert len(seen["pictures"]) == 3 * 6 + 1  # the strip, it beside its twin, and the large one
    assert [alt for _, alt in seen["pictures"]].count("") == 1
    assert all(width == 8 for width, _ in seen["pictures"])


def test_the_index_lists_the_videos_of_a_cell(pcmci, runs, place, tmp_path):
    run = runs["none"]
    found = explained(runs, place, "none", "v8")
    rows = answered(run.predictions, "activity", "test")
    videos = [dataclasses.asdict(one) | {"wrong": one.wrong} for one in rows]
    split = {
        "split": "test", "labels": "activity", "wrong": False, "videos": videos,
        "without features": 1,
    }  # fmt: skip
    page = pages(found).index(split).html().replace('class="film cells', 'role="grid" class="film')
    page = page.replace("<tbody>", "<tbody><tr><td tabindex='0' data-tip='x'></td></tr>", 1)
    seen = told(page, tmp_path)
    names = list(run.predictions.labels["activity"].names)
    first = min((names.index(one.true[0]), names.index(one.said[0])) for one in rows)
    here = [one for one in rows if (one.true[0], one.said[0]) == tuple(names[k] for k in first)]
    assert seen["chosen"].startswith(f"{names[first[0]]} said to be {names[first[1]]}: {len(here)}")
    for one in here:
        if one.video == "v8":
            assert seen["links"] == ["v8.html"]
        else:
            assert f"pcmci explain RUN {one.video} " in seen["chosen"]


def test_without_pictures_a_page_says_why(runs, place):
    found = explained(runs, place, "ich,ici,ivc", "v8")
    (entry,) = found["videos"]
    pictures = {"v8": Pictures(why="its file is gone.")}
    page = dataclasses.replace(pages(found), pictures=pictures).page(entry).html()
    assert "The pictures are not shown: its file is gone." in page
    assert "<img" not in page
    assert "activity: S~, percent" in page


def test_a_page_is_called_what_its_video_is_called_where_that_can_be():
    assert file_name("P08_cam1_tea") == "P08_cam1_tea.html"
    odd = ["index", "../x", "a b", "a/b", "b", "é", "\udce9", ".x", "x" * 300]
    made = [file_name(one) for one in odd]
    assert len(set(made)) == len(odd)
    assert all(re.fullmatch(r"[\w-][\w.-]*", name, re.ASCII) for name in made)
    assert "index.html" not in made


def test_a_cell_without_a_span_has_no_colour_and_braces_stay():
    heat = Heat("x", ["{value}"], [[1.0, 1.0]], [["a", "b"]], 1.0, 1.0)
    assert heat.share(0, 0) == 0
    assert heat.tip(0, 1, "{row}") == "{value}, {row}: b"
    film = Film(["1", "2"], heats=[heat])
    assert "&#34;" not in Page("t", "l", [Section("s", [], [film])]).html()


def test_where_nothing_is_wrong_there_is_an_index_all_the_same(pcmci, runs, tmp_path, monkeypatch):
    right = [Answered("v8", ("activity 0",), ("activity 0",), 0.9)]
    monkeypatch.setattr("pcmci.heads.explaining.mistakes.answered", lambda *_: right)
    answer = pcmci("explain", runs["none"].path, "--split", "test", "--wrong", "--out", tmp_path)
    assert answer.code == 0, answer.err
    assert "no video of test is wrong" in answer.err
    assert [page.name for page in tmp_path.iterdir()] == ["index.html"]
