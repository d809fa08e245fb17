"""BLIP and BLIP-2 against transformers' own forward, and what their loader refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from encoder_contract import check_company, check_rough
from PIL import Image
from safetensors.torch import load_file, save_file
from test_families import gigaflops
from torchvision import transforms
from transformers import Blip2ForImageTextRetrieval, BlipForImageTextRetrieval

from pcmci.errors import UsageError, WeightsError
from pcmci.extract.encoders import load_vlm
from pcmci.extract.encoders.bert_tokens import BertTokens, clean
from pcmci.extract.encoders.blip import CLIP_MEAN, CLIP_STD, Blip, Blip2, BlipEncoder
from pcmci.extract.encoders.blip_source import CONFIGS, blip_source
from pcmci.extract.encoders.cards import CARDS
from pcmci.extract.encoders.normalise import Normalise
from pcmci.extract.encoders.random_state import random_state
from pcmci.extract.encoders.transformers_model import fill

SIZE = 32
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh", "pour", "milk", "##ing", "of"]
PROMPTS = ["a video of pouring milk", "a b c", "milk", "Pouring (a) ~ MILK; of: 'B'!"]
VISION = {
    "image_size": SIZE, "patch_size": 8, "hidden_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 3, "intermediate_size": 40,
}  # fmt: skip
TEXT = {
    "vocab_size": len(WORDS) + 2, "hidden_size": 20, "num_hidden_layers": 3,
    "num_attention_heads": 2, "intermediate_size": 30, "max_position_embeddings": 40,
}  # fmt: skip
TINY: dict[str, dict[str, Any]] = {
    "blip": {
        "model_type": "blip", "vision_config": VISION, "text_config": TEXT,
        "image_text_hidden_size": 16,
    },
    "blip-2": {
        "model_type": "blip-2", "vision_config": VISION, "image_text_hidden_size": 16,
        "qformer_config": TEXT | {"use_qformer_text_input": True}, "num_query_tokens": 5,
    },
}  # fmt: skip
FAMILIES = list(TINY)
CLASSES: dict[str, Any] = {
    "blip": (transformers.BlipConfig, BlipForImageTextRetrieval),
    "blip-2": (transformers.Blip2Config, Blip2ForImageTextRetrieval),
}


def reference(family: str) -> Any:
    """transformers' model, every parameter random: zero biases would hide a mistake."""
    config, model = CLASSES[family]
    model = model(config.from_dict(TINY[family]))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            norm = name.lower().endswith(("norm.weight", "norm1.weight", "norm2.weight"))
            size = 0.3 if drawn.dim() == 1 else drawn[0].numel() ** -0.5
            parameter.copy_(drawn * size + norm)
    return model.eval()


def write_vocabulary(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")


def written(folder: Path, family: str, **more: Any) -> Path:
    """A tiny config with its vocabulary beside it."""
    write_vocabulary(folder)
    path = folder / "tiny.json"
    path.write_text(json.dumps(TINY[family] | more))
    return path


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def hub(tmp_path: Path, family: str) -> Path:
    """A folder as the hub has it: config, weights, vocabulary."""
    folder = tmp_path / "hub"
    reference(family).save_pretrained(folder)
    write_vocabulary(folder)
    return folder


@pytest.fixture
def config(tmp_path: Path, family: str) -> Path:
    return written(tmp_path / "config", family)


def loaded(name: Path | str, weights: Path | str, **options: Any) -> BlipEncoder:
    encoder = load_vlm(str(name), str(weights), device="cpu", **options)
    assert isinstance(encoder, BlipEncoder)
    return encoder


def random_frames(count: int, size: int = SIZE, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 1, size, size, 3)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def pixels_of(encoder: BlipEncoder, frames: torch.Tensor) -> torch.Tensor:
    return Normalise(encoder.spec.preprocessing, frames=1)(frames)


def word_ids(folder: Path, prompts: list[str]) -> dict[str, torch.Tensor]:
    """transformers' own tokenizer, of prompts as LAVIS cleans them."""
    tokenizer = transformers.BertTokenizerFast.from_pretrained(folder)
    found = tokenizer([clean(prompt) for prompt in prompts], padding=True, return_tensors="pt")
    return {"input_ids": found["input_ids"], "attention_mask": found["attention_mask"]}


def cosines(frames: torch.Tensor, texts: np.ndarray) -> torch.Tensor:
    """[N, Q, D] and [M, D] to [N, Q, M]."""
    return F.normalize(frames, dim=-1) @ F.normalize(torch.from_numpy(texts), dim=-1).T


def test_blips_cosines_are_the_scores_of_its_contrastive_branch(tmp_path: Path) -> None:
    model = reference("blip")
    model.save_pretrained(tmp_path / "hub")
    write_vocabulary(tmp_path / "hub")
    encoder = loaded(tmp_path / "hub" / "config.json", tmp_path / "hub", frames=6)
    assert (encoder.clip_frames, encoder.clip_tokens, encoder.spec.tokens) == (1, 1, 6)
    assert encoder.libraries == ("transformers",)
    frames = random_frames(3)
    found, texts = encoder.encode(frames), encoder.encode_text(PROMPTS)
    assert found.shape == (3, 1, encoder.spec.width) == (3, 1, 16)
    assert (found.dtype, texts.dtype, texts.shape) == (torch.float32, np.float32, (4, 16))
    with torch.no_grad():
        words = word_ids(tmp_path / "hub", PROMPTS)
        scores = model(pixel_values=pixels_of(encoder, frames), use_itm_head=False, **words)
    torch.testing.assert_close(cosines(found, texts)[:, 0], scores.itm_score, rtol=0, atol=1e-5)
    assert scores.itm_score.std(0).mean() > 0.01  # between frames
    assert scores.itm_score.std(1).mean() > 0.01  # between prompts


@pytest.mark.parametrize("queries", ["all", "mean"])
def test_blip2s_queries_and_texts_are_those_of_its_contrastive_branch(
    tmp_path: Path, queries: str
) -> None:
    model = reference("blip-2")
    model.save_pretrained(tmp_path / "hub")
    write_vocabulary(tmp_path / "hub")
    path = written(tmp_path / "config", "blip-2", queries=queries)
    encoder = loaded(path, tmp_path / "hub", frames=6)
    tokens = 5 if queries == "all" else 1
    assert (encoder.clip_tokens, encoder.spec.tokens) == (tokens, 6 * tokens)
    frames = random_frames(3)
    found, texts = encoder.encode(frames), encoder.encode_text(PROMPTS)
    assert found.shape == (3, tokens, 16)
    with torch.no_grad():
        words = word_ids(tmp_path / "hub", PROMPTS)
        out = model(pixel_values=pixels_of(encoder, frames), **words)
    np.testing.assert_allclose(texts, out.text_embeds, rtol=0, atol=1e-5)
    expected = out.image_embeds if queries == "all" else out.image_embeds.mean(1, keepdim=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert float((out.image_embeds - out.image_embeds[:, :1]).abs().max()) > 0.01
    if queries == "all":  # the score of the branch is that of the best query
        best = cosines(found, texts).amax(1)
        torch.testing.assert_close(best, out.logits_per_image, rtol=0, atol=1e-5)


def test_frames_are_stretched_as_the_authors_do(config: Path) -> None:
    encoder = loaded(config, "random:0")
    assert encoder.spec.preprocessing.resize_mode == "squash"
    transform = transforms.Compose(
        [
            transforms.Resize((SIZE, SIZE), transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize(CLIP_MEAN, CLIP_STD),
        ]
    )
    rng = np.random.default_rng(0)
    for shape in [(48, 64), (64, 48), (32, 32), (20, 27), (33, 517)]:
        frame = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        small = torch.from_numpy(encoder.prepare(frame))[None, None]
        pixels = pixels_of(encoder, small)[0]
        torch.testing.assert_close(pixels, transform(Image.fromarray(frame)), rtol=0, atol=1e-6)


def test_prompts_are_cleaned_as_the_captions_of_the_training_were() -> None:
    assert clean('A "Photo" of (pouring)  milk.\n') == "a photo of pouring milk"
    assert clean("it's one-way, a*b#c:d;e~f!") == "it's one-way, a b c d e f"


def test_a_prompts_ids_are_those_of_transformers(tmp_path: Path) -> None:
    write_vocabulary(tmp_path)
    tokens = BertTokens(tmp_path / "vocab.txt", 12, len(WORDS), "blip")
    ids, mask = tokens(PROMPTS)
    expected = word_ids(tmp_path, PROMPTS)
    longest = expected["input_ids"].shape[1]
    assert torch.equal(ids[:, :longest], expected["input_ids"])
    assert torch.equal(mask[:, :longest], expected["attention_mask"])
    assert ids.shape == (4, 12)
    assert not mask[:, longest:].any()


def test_a_prompts_vector_depends_on_no_other(config: Path) -> None:
    encoder = loaded(config, "random:0")
    together = encoder.encode_text(PROMPTS)
    assert np.array_equal(encoder.encode_text(PROMPTS[::-1])[::-1], together)
    for prompt, expected in zip(PROMPTS, together, strict=True):
        np.testing.assert_allclose(encoder.encode_text([prompt])[0], expected, rtol=0, atol=1e-5)
    assert encoder.encode_text(PROMPTS * 20).shape == (80, 16)


@pytest.mark.parametrize(("family", "reads"), [("blip", 35), ("blip-2", 32)], indirect=["family"])
def test_a_prompt_that_would_be_cut_is_refused(config: Path, reads: int) -> None:
    encoder = loaded(config, "random:0")
    assert encoder.encode_text(["a " * (reads - 2)]).shape == (1, 16)  # and a first and a last
    with pytest.raises(UsageError, match=rf"has {reads + 1} tokens, .*tiny\.json reads {reads}"):
        encoder.encode_text(["milk", "a " * (reads - 1)])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a\nb\n", r"vocab\.txt is none of BERT's: it has no \[PAD\]"),
        ("\n".join([*WORDS, "x", "y", "z"]), "has 19 words, .*tiny.json knows 18"),
        (None, r"needs the words it reads: put vocab\.txt into "),
    ],
)
@pytest.mark.parametrize("family", ["blip"], indirect=True)
def test_a_vocabulary_that_is_none_is_refused(config: Path, text: str | None, match: str) -> None:
    if text is None:
        (config.parent / "vocab.txt").unlink()
    else:
        (config.parent / "vocab.txt").write_text(text)
    with pytest.raises(WeightsError, match=match):
        loaded(config, "random:0")


def test_a_folder_a_file_and_a_hub_id_are_the_same_weights(
    hub: Path, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(repository: str, filename: str) -> str:
        assert repository == "somebody/blip"
        return str(hub / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    state = load_file(hub / "model.safetensors")
    old = tmp_path / "old"
    old.mkdir()
    (old / "config.json").write_bytes((hub / "config.json").read_bytes())
    tower = "text_encoder." if family == "blip" else ""
    positions = f"{tower}embeddings.position_ids"  # older files have them
    torch.save(state | {positions: torch.arange(40)[None]}, old / "pytorch_model.bin")
    write_vocabulary(old)
    bare = tmp_path / "bare.json"  # no vocabulary beside it
    bare.write_bytes((hub / "config.json").read_bytes())
    encoders = [
        loaded(bare, hub),
        loaded(bare, hub / "model.safetensors"),
        loaded(bare, "somebody/blip"),
        loaded(bare, old) if "text_proj.weight" in state else loaded(bare, hub),
    ]
    assert len({encoder.spec.sha256 for encoder in encoders}) == 1
    texts = [encoder.encode_text(PROMPTS) for encoder in encoders]
    assert all(np.array_equal(one, texts[0]) for one in texts)
    assert encoders[2].spec.weights == "somebody/blip"

    def no_network(repository: str, filename: str) -> str:
        raise OSError("name not known\nlong story")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", no_network)
    with pytest.raises(WeightsError, match=r"'somebody/blip' could not be downloaded") as said:
        loaded(bare, "somebody/blip")
    assert "\n" not in str(said.value)
    name = {"blip": "blip-base", "blip-2": "blip2"}[family]
    with pytest.raises(WeightsError, match=r"the vocabulary of .*put vocab\.txt beside"):
        loaded(name, "random:0")


def test_checkpoints_that_do_not_fit_are_refused(hub: Path, config: Path, family: str) -> None:
    state = load_file(hub / "model.safetensors")

    def refused(changed: dict[str, torch.Tensor], match: str) -> None:
        save_file(changed, hub / "changed.safetensors")
        with pytest.raises(WeightsError, match=match):
            loaded(config, hub / "changed.safetensors")

    projection = "vision_proj.weight" if family == "blip" else "vision_projection.weight"
    without = {k: v for k, v in state.items() if k != projection}
    refused(without, rf"does not fit .*{projection} is missing")
    refused(state | {"extra": torch.zeros(1)}, "extra has no place")
    wider = state | {projection: torch.zeros(9, 7)}
    refused(wider, rf"{projection} is \[9, 7\], not \[16, ")
    refused({"cls_token": torch.zeros(1)}, r"is missing, .* and \d+ more")


def test_a_config_of_other_sizes_is_refused(hub: Path, family: str, tmp_path: Path) -> None:
    vision = VISION | {"num_attention_heads": 4}
    other = written(tmp_path / "other", family, vision_config=vision)
    with pytest.raises(WeightsError, match=r"has vision_config.num_attention_heads 3, .*needs 4"):
        loaded(other, hub)
    published = "blip-base" if family == "blip" else "blip2-queries"
    with pytest.raises(WeightsError, match=rf"has vision_config.image_size 32, {published} needs"):
        loaded(published, hub)
    strange = {"blip": "blip-2", "blip-2": "blip"}[family]
    with pytest.raises(WeightsError, match=rf"model_type is '{family}', .*needs '{strange}'"):
        loaded(written(tmp_path / "strange", strange), hub)


@pytest.mark.parametrize(
    ("family", "change", "match"),
    [
        ("blip", {"vision_config": VISION | {"num_attention_heads": 5}}, "cannot be built: "),
        ("blip", {"vision_config": VISION | {"hidden_size": "wide"}}, "cannot be built: "),
        ("blip", {"vision_config": VISION | {"image_size": [32, 32]}}, r"is \[32, 32\], no pos"),
        ("blip-2", {"queries": 4}, "queries is 4, not 'mean' or 'all'"),
        ("blip-2", {"model_type": "blip-3"}, "model_type is 'blip-3', the families are"),
    ],
    indirect=["family"],
)
def test_impossible_configs_are_refused(
    tmp_path: Path, family: str, change: dict[str, Any], match: str
) -> None:
    with pytest.raises(WeightsError, match=match) as said:
        loaded(written(tmp_path / "config", family, **change), "random:0")
    assert "\n" not in str(said.value)


def test_names_that_are_not_there() -> None:
    for name, match in (
        ("blip-bas", "'blip-bas': did you mean blip-base"),
        ("blip-base-queries", "there are blip-base, blip-large, blip2, .*blip2-coco-queries"),
        ("blip2-huge", "no VLM is called 'blip2-huge'"),
    ):
        with pytest.raises(WeightsError, match=match):
            loaded(name, "random:0")


@pytest.mark.parametrize("family", ["blip-2"], indirect=True)
def test_what_a_blip2_file_holds_besides_is_passed_over_by_name_and_told(
    hub: Path, config: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    state = load_file(hub / "model.safetensors")
    expected = loaded(config, hub).spec.sha256
    assert capfd.readouterr() == ("", "")
    extras = ["qformer.embeddings.word_embeddings.weight", "cls.predictions.bias", "temp"]
    more = {name: torch.zeros(3) for name in extras}
    save_file(state | more, hub / "model.safetensors")
    assert loaded(config, hub).spec.sha256 == expected
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert all(name in err for name in extras)
    save_file(state | {"qformer.extra": torch.zeros(1)}, hub / "model.safetensors")
    with pytest.raises(WeightsError, match=r"qformer\.extra has no place"):
        loaded(config, hub)


@pytest.mark.parametrize("family", ["blip-2"], indirect=True)
def test_configs_that_name_the_text_input_otherwise_or_not_at_all(hub: Path, config: Path) -> None:
    """The hub has both; the library builds no text layers without its own name for it."""
    texts = loaded(config, hub).encode_text(PROMPTS)
    for place in (hub / "config.json", config):
        raw = json.loads(place.read_text())
        raw["qformer_config"].pop("use_qformer_text_input")
        raw["qformer_config"]["qformer_text_input"] = True
        raw["image_token_index"] = 30523
        place.write_text(json.dumps(raw))
    assert np.array_equal(loaded(config, hub).encode_text(PROMPTS), texts)


def test_the_extra_is_asked_for(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = "pcmci.extract.encoders.transformers_model.find_spec"
    monkeypatch.setattr(where, lambda name: None)
    with pytest.raises(WeightsError, match=r"needs transformers: pip install 'pcmci\[hf\]'"):
        loaded(config, "random:0")


def test_a_seed_gives_the_same_bits_and_disturbs_nobody(tmp_path: Path) -> None:
    configs = [str(written(tmp_path / family, family)) for family in FAMILIES]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = [loaded(config, "random:0").spec for config in configs]
    assert torch.equal(torch.get_rng_state(), before)
    for config, spec in zip(configs, first, strict=True):
        assert loaded(config, "random:0").spec == spec
        assert loaded(config, "random:1").spec.sha256 != spec.sha256


def test_a_checkpoints_tensors_are_taken_and_not_copied(family: str) -> None:
    """BLIP-2's are 4.7 GB."""
    source = blip_source("blip-base")
    source = replace(source, name="tiny", raw=TINY[family])
    towers = (Blip if family == "blip" else Blip2)(source, source.config())
    state = random_state(towers.module.state_dict(), 0)
    fill(towers.module, state, "tiny")
    for key, tensor in towers.module.state_dict().items():
        assert tensor.data_ptr() == state[key].data_ptr()
    assert not any(buffer.is_meta for buffer in towers.module.buffers())


def test_what_a_card_says_of_blip_is_so() -> None:
    cards = [card for card in CARDS if card.kind == "vlm" and card.name.startswith("blip")]
    assert {card.name.removesuffix("-queries") for card in cards} == set(CONFIGS)
    found = {}
    for name in CONFIGS:
        source = blip_source(name)
        config = source.config()
        towers = (Blip if source.family == "blip" else Blip2)(source, config)
        module = towers.module.eval().requires_grad_(False)
        images = torch.empty(1, 3, *[config.vision_config.image_size] * 2, device="meta")

        def queries(pixels: torch.Tensor, towers: Any = towers) -> torch.Tensor:
            """As `images`, without an autocast, which there is none of for shapes alone."""
            return towers.queries(towers.module.vision_model(pixel_values=pixels)[0])

        image_tower = towers.images if isinstance(towers, Blip) else queries
        parameters = sum(tensor.numel() for tensor in module.state_dict().values())
        found[name] = (parameters, gigaflops(image_tower, images), towers.tokens)
        assert (config.image_text_hidden_size, config.vision_config.layer_norm_eps) == (256, 1e-6)
    kept = blip_source("blip2-queries")
    assert (kept.queries, kept.config().num_query_tokens) == ("all", 32)
    for card in cards:
        assert found[card.name.removesuffix("-queries")] == (card.parameters, card.gflops, 1)


def test_the_company_of_a_frame_does_not_change_it(config: Path) -> None:
    """The bits for a fixed batch shape, for resuming relies on them; else to float tolerance."""
    encoder = loaded(config, "random:0")
    check_company(encoder, random_frames(16), random_frames(16, seed=1), place=11, row=2)
    with pytest.raises(ValueError, match="expected uint8"):
        encoder.encode(random_frames(1, size=16))


def test_bf16_is_close_and_comes_out_as_float32(config: Path) -> None:
    frames = random_frames(4)
    exact, rough = (loaded(config, "random:0", precision=how) for how in ("fp32", "bf16"))
    found, expected = rough.encode(frames), exact.encode(frames)
    check_rough(found, expected)
    texts = rough.encode_text(PROMPTS)
    np.testing.assert_allclose(texts, exact.encode_text(PROMPTS), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("family", ["blip-2"], indirect=True)
def test_behind_the_image_tower_blip2_stays_exact(config: Path) -> None:
    exact, rough = (loaded(config, "random:0", precision=how) for how in ("fp32", "bf16"))
    assert np.array_equal(rough.encode_text(PROMPTS), exact.encode_text(PROMPTS))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_the_cpu(config: Path) -> None:
    frames = random_frames(5)
    plain = loaded(config, "random:0")
    expected, texts = plain.encode(frames), plain.encode_text(PROMPTS)
    for precision, tolerance in (("fp32", 1e-3), ("auto", 0.05)):
        encoder = load_vlm(str(config), "random:0", device="cuda", precision=precision)
        found = encoder.encode(frames.cuda()).cpu()
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
        same = encoder.encode_text(PROMPTS)
        np.testing.assert_allclose(same, texts, rtol=tolerance, atol=tolerance)
