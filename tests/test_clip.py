"""CLIP against open_clip's own way to load, prepare and encode, and what the loader refuses."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from encoder_contract import check_company, check_rough, check_seed
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from pcmci.errors import UsageError, WeightsError
from pcmci.extract.encoders import load_vlm
from pcmci.extract.encoders.clip import ClipEncoder
from pcmci.extract.encoders.clip_rewrite import SelfAttention, rewrite
from pcmci.extract.encoders.clip_source import clip_source
from pcmci.extract.encoders.normalise import Normalise
from pcmci.extract.encoders.preprocess import resize_and_crop

SIZE = 32
CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {
        "image_size": SIZE,
        "layers": 2,
        "width": 32,
        "head_width": 16,
        "patch_size": 8,
    },
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
PROMPTS = ["a video of stir dough", "a video of pour dough to pan", "a video of déjà vu"]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(CONFIG))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model as `local-dir:` has it: config, preprocessing and weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear"}
    text = json.dumps({"model_cfg": CONFIG, "preprocess_cfg": preprocess})
    (folder / "open_clip_config.json").write_text(text)
    torch.manual_seed(5)
    save_file(open_clip.CLIP(**CONFIG).state_dict(), folder / "open_clip_model.safetensors")
    return folder


def loaded(name: Path | str, weights: Path | str, **options: Any) -> ClipEncoder:
    return load_vlm(str(name), str(weights), device="cpu", **options)


def random_frames(count: int, size: int = SIZE, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 1, size, size, 3)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def test_everything_equals_open_clip_on_the_same_folder(folder: Path) -> None:
    encoder = loaded(f"local-dir:{folder}", "own", frames=4)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()

    rng = np.random.default_rng(0)
    for shape in [(240, 320), (320, 240), (32, 32), (20, 27), (33, 517), (97, 96)]:
        frame = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        expected = transform(Image.fromarray(frame))
        small = torch.from_numpy(encoder.prepare(frame))[None, None]
        pixels = Normalise(encoder.spec.preprocessing, frames=1)(small)[0]
        torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-6)
        with torch.no_grad():
            embedding = model.encode_image(expected[None])
        assert not torch.allclose(embedding.norm(), torch.tensor(1.0))  # as the model gives it
        torch.testing.assert_close(encoder.encode(small)[:, 0], embedding, rtol=0, atol=1e-5)

    with torch.no_grad():
        texts = model.encode_text(tokenizer(PROMPTS)).numpy()
    np.testing.assert_allclose(encoder.encode_text(PROMPTS), texts, rtol=0, atol=1e-5)
    assert (encoder.spec.tokens, encoder.spec.width, encoder.clip_frames) == (4, 16, 1)


def test_more_prompts_than_a_pass_holds_keep_their_order(config: Path) -> None:
    encoder = loaded(config, "random:0")
    prompts = [f"step {i}" for i in range(150)]
    texts = encoder.encode_text(prompts)
    assert texts.shape == (150, 16)
    assert texts.dtype == np.float32
    for i in (0, 63, 64, 149):
        np.testing.assert_allclose(texts[i], encoder.encode_text([prompts[i]])[0], atol=1e-5)


def test_the_same_weights_from_any_file_are_the_same(config: Path, tmp_path: Path) -> None:
    torch.manual_seed(7)
    state = open_clip.CLIP(**CONFIG).state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pt")
    training = {"epoch": 2, "state_dict": {f"module.{key}": t for key, t in state.items()}}
    torch.save(training, tmp_path / "c.pt")
    # OpenAI's files hold the sizes among the weights; the loss's scalar may be of another shape.
    notes = {"input_resolution": torch.tensor(32), "logit_scale": state["logit_scale"][None]}
    torch.save(state | notes, tmp_path / "d.bin")
    specs = [loaded(config, tmp_path / f).spec for f in ("a.safetensors", "b.pt", "c.pt", "d.bin")]
    assert len({spec.sha256 for spec in specs}) == 1
    frames = random_frames(1)
    model = open_clip.CLIP(**CONFIG).eval()
    model.load_state_dict(state)
    pixels = Normalise(specs[0].preprocessing, frames=1)(frames)
    expected = model.encode_image(pixels).detach()
    for file in ("a.safetensors", "d.bin"):
        found = loaded(config, tmp_path / file).encode(frames)[:, 0]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_text_tower_of_its_own_takes_the_older_layout(tmp_path: Path) -> None:
    state = open_clip.CLIP(**CONFIG).state_dict()
    torch.save(state, tmp_path / "weights.pt")
    for name, extra in (("plain", {}), ("custom", {"custom_text": True})):
        (tmp_path / f"{name}.json").write_text(json.dumps(CONFIG | extra))
    plain, custom = (
        loaded(tmp_path / f"{name}.json", tmp_path / "weights.pt") for name in ("plain", "custom")
    )
    np.testing.assert_allclose(
        custom.encode_text(PROMPTS), plain.encode_text(PROMPTS), rtol=0, atol=1e-5
    )
    frames = random_frames(2)
    torch.testing.assert_close(custom.encode(frames), plain.encode(frames), rtol=0, atol=1e-5)


def test_checkpoints_that_do_not_fit_are_refused(config: Path, tmp_path: Path) -> None:
    state = open_clip.CLIP(**CONFIG).state_dict()

    def refused(changed: dict[str, torch.Tensor], match: str) -> None:
        path = tmp_path / "changed.pt"
        torch.save(changed, path)
        with pytest.raises(WeightsError, match=match):
            loaded(config, path)

    refused({k: v for k, v in state.items() if k != "ln_final.bias"}, r"ln_final\.bias is missing")
    refused(state | {"other": torch.zeros(1)}, "other has no place")
    # open_clip would stretch it without a word
    longer = state | {"positional_embedding": torch.zeros(77, 16)}
    refused(longer, r"positional_embedding is \[77, 16\], not \[24, 16\]")


def test_names_and_weights_that_are_not_there(
    config: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WeightsError, match="no model 'ViT-B-61': did you mean ViT-B-16"):
        loaded("ViT-B-61", "openai")
    with pytest.raises(WeightsError, match=r"no weights 'opnai': did you mean openai\?"):
        loaded("ViT-B-16-quickgelu", "opnai")
    with pytest.raises(WeightsError, match="QuickGELU: use the model ViT-B-16-quickgelu"):
        loaded("ViT-B/16", "openai")
    with pytest.raises(
        WeightsError, match=r"tiny\.json has no weights 'openai'; there are a local"
    ):
        loaded(config, "openai")
    with pytest.raises(WeightsError, match="has no weights 'openai'; there are own, a local"):
        loaded(f"local-dir:{folder}", "openai")
    with pytest.raises(WeightsError, match=r"there is no checkpoint .*absent\.pt"):
        loaded(config, tmp_path / "absent.pt")
    with pytest.raises(WeightsError, match=r"absent\.json cannot be read"):
        loaded(tmp_path / "absent.json", "random:0")
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(WeightsError, match="holds no checkpoint, such as open_clip_model"):
        loaded(f"local-dir:{folder}", "own")

    def no_network(*args: Any, **kwargs: Any) -> None:
        raise OSError("name not known\nlong story")

    monkeypatch.setattr("open_clip.pretrained.hf_hub_download", no_network)
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(WeightsError, match="'openai' of ViT-B-16-quickgelu could not be down") as e:
        loaded("ViT-B-16-quickgelu", "openai")
    assert "give a local checkpoint in open_clip's layout (.safetensors" in str(e.value)
    assert "\n" not in str(e.value)
    with pytest.raises(WeightsError, match=r"'hf-hub:a/b' could not be downloaded.*local-dir:DIR"):
        loaded("hf-hub:a/b", "own")


def test_a_hub_name_brings_its_own_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(repo_id: str, filename: str, **options: Any) -> str:
        assert repo_id == "somebody/clip"
        return str(folder / filename)

    monkeypatch.setattr("open_clip.pretrained.hf_hub_download", fetch)
    hub, local = loaded("hf-hub:somebody/clip", "own"), loaded(f"local-dir:{folder}", "own")
    assert (hub.spec.name, hub.spec.weights) == ("hf-hub:somebody/clip", "own")
    assert hub.spec.sha256 == local.spec.sha256
    assert hub.spec.preprocessing == local.spec.preprocessing


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"preprocess_cfg": {"resize_mode": "longest"}}, "resized by 'longest': only square"),
        ({"vision_cfg": CONFIG["vision_cfg"] | {"image_size": [32, 64]}}, r"size \[32, 64\]"),
        ({"embed_dim": None}, "is no open_clip model config: it has no embed_dim"),
        ({"vision_cfg": {"layer": 2}}, "cannot be built: .*layer"),
        ({"text_cfg": {"hf_tokenizer_name": "x"}}, "wants a Hugging Face tokenizer"),
        ({"text_cfg": {"tokenizer_kwargs": {"bpe_path": "no.gz"}}}, "tokenizer .* cannot be made"),
    ],
)
def test_impossible_configs_are_refused(tmp_path: Path, change: dict[str, Any], match: str) -> None:
    preprocess = change.pop("preprocess_cfg", {})
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps({"model_cfg": CONFIG | change, "preprocess_cfg": preprocess}))
    with pytest.raises(WeightsError, match=match):
        loaded(path, "random:0")


@pytest.mark.parametrize(
    ("name", "weights"), [("ViT-B-16-quickgelu", "openai"), ("ViT-L-14", "laion2b_s32b_b82k")]
)
def test_a_tag_brings_its_preprocessing(name: str, weights: str) -> None:
    tag = open_clip.get_pretrained_cfg(name, weights)
    found = clip_source(name, weights).preprocessing()
    assert (found.size, found.interpolation) == (224, "bicubic")
    assert found.mean == tuple(tag.get("mean", open_clip.OPENAI_DATASET_MEAN))
    assert found.std == tuple(tag.get("std", open_clip.OPENAI_DATASET_STD))


def test_a_local_file_gets_the_preprocessing_that_all_tags_of_the_model_share() -> None:
    assert clip_source("ViT-B-16", "file.pt").preprocessing().mean == open_clip.OPENAI_DATASET_MEAN
    siglip = clip_source("ViT-B-16-SigLIP", "file.pt").preprocessing()
    assert (siglip.mean, siglip.resize_mode) == ((0.5, 0.5, 0.5), "squash")


@pytest.mark.parametrize(
    ("name", "weights"),
    [("ViT-B-16-SigLIP", "webli"), ("ViT-B-16-SigLIP2-384", "webli"), ("PE-Core-B-16", "meta")],
)
def test_a_model_that_squashes_sees_what_open_clip_shows_it(name: str, weights: str) -> None:
    tag = open_clip.get_pretrained_cfg(name, weights)
    size = open_clip.get_model_config(name)["vision_cfg"]["image_size"]
    ways = {key: tag[key] for key in ("mean", "std", "interpolation", "resize_mode")}
    transform = image_transform_v2(PreprocessCfg(size=size, **ways), is_train=False)
    found = clip_source(name, weights).preprocessing()
    assert found.resize_mode == "squash"
    rng = np.random.default_rng(0)
    for shape in [(24, 32), (700, 500)]:
        frame = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        small = torch.from_numpy(resize_and_crop(frame, found))[None, None]
        pixels = Normalise(found, frames=1)(small)[0]
        torch.testing.assert_close(pixels, transform(Image.fromarray(frame)), rtol=0, atol=1e-6)


@pytest.fixture
def siglip(tmp_path: Path) -> Path:
    """A small model of SigLIP's kind: a timm tower, squashed images, a tokenizer of its own."""
    folder = tmp_path / "siglip"
    words = {word: place for place, word in enumerate(["</s>", "<unk>", *"abcdefgh"])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing("$A </s>", special_tokens=[("</s>", 0)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="</s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    config = {
        "embed_dim": 64,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 32,
            "timm_model_name": "test_vit",
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": {
            "context_length": 8,
            "vocab_size": len(words),
            "hf_tokenizer_name": "somebody/siglip",
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "width": 64,
            "heads": 2,
            "layers": 2,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
        },
    }
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
    text = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
    (folder / "open_clip_config.json").write_text(text)
    torch.manual_seed(5)
    state = open_clip.CustomTextCLIP(**{k: v for k, v in config.items() if k != "custom_text"})
    save_file(state.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def test_a_model_of_siglips_kind_equals_open_clip(siglip: Path) -> None:
    encoder = loaded(f"local-dir:{siglip}", "own")
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{siglip}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{siglip}")
    model.eval()
    frame = np.random.default_rng(0).integers(0, 256, (45, 80, 3), dtype=np.uint8)
    expected = transform(Image.fromarray(frame))
    small = torch.from_numpy(encoder.prepare(frame))[None, None]
    pixels = Normalise(encoder.spec.preprocessing, frames=1)(small)[0]
    torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-6)
    prompts = ["A, b.", "c d e f g h a", "h"]
    with torch.no_grad():
        image, texts = model.encode_image(expected[None]), model.encode_text(tokenizer(prompts))
    torch.testing.assert_close(encoder.encode(small)[:, 0], image, rtol=0, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_text(prompts), texts.numpy(), rtol=0, atol=1e-5)
    assert encoder.libraries == ("transformers",)


def test_a_hubs_tokenizer_cuts_no_prompt_without_a_word(
    siglip: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    encoder = loaded(f"local-dir:{siglip}", "own")
    capfd.readouterr()
    assert encoder.encode_text(["a " * 7]).shape == (1, 64)  # and a last token
    with pytest.raises(UsageError, match=r"has 9 tokens, .*siglip reads 8: shorten the label"):
        encoder.encode_text(["b", "a " * 8])
    with pytest.raises(UsageError, match="has 2001 tokens"):
        encoder.encode_text(["a " * 2000])
    assert capfd.readouterr() == ("", "")


def test_a_hubs_tokenizer_needs_the_extra(siglip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pcmci.extract.encoders.clip_source.find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=r"needs transformers: pip install 'pcmci\[hf\]'"):
        loaded(f"local-dir:{siglip}", "own")


def test_a_prompt_that_would_be_cut_is_refused(config: Path) -> None:
    encoder = loaded(config, "random:0")
    assert encoder.encode_text(["go " * 22]).shape == (1, 16)  # and a first and a last token
    with pytest.raises(UsageError, match=r"has 25 tokens, .*tiny\.json reads 24"):
        encoder.encode_text(["short", "go " * 23])


def test_a_vocabulary_of_its_own_lies_beside_the_config(tmp_path: Path) -> None:
    (tmp_path / "bytes.txt.gz").write_bytes(gzip.compress(b"# no merges: every byte a token"))
    text = CONFIG["text_cfg"] | {
        "context_length": 40,
        "vocab_size": 515,
        "tokenizer_kwargs": {"bpe_path": "bytes.txt.gz"},
    }
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(CONFIG | {"text_cfg": text}))
    texts = loaded(path, "random:0").encode_text(PROMPTS)
    assert len(np.unique(texts.round(4), axis=0)) == len(PROMPTS)


def test_a_seed_gives_the_same_bits_and_disturbs_nobody(config: Path) -> None:
    check_seed(lambda weights: loaded(config, weights))


def test_the_company_of_a_frame_does_not_change_it(config: Path) -> None:
    """The bits for a fixed batch shape, for resuming relies on them; else to float tolerance."""
    encoder = loaded(config, "random:0")
    check_company(encoder, random_frames(16), random_frames(16, seed=1), place=11, row=2)


def test_bf16_is_close_and_comes_out_as_float32(config: Path) -> None:
    frames = random_frames(4)
    exact = loaded(config, "random:0").encode(frames)
    rough = loaded(config, "random:0", precision="bf16").encode(frames)
    check_rough(rough, exact)


def test_naming_the_encoders_loads_no_model_library() -> None:
    program = (
        "import sys, pcmci.extract.encoders as e; "
        "assert set(e.ENCODERS) == {'vlm', 'video'}; "
        "print(sorted({'torch', 'open_clip', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_the_cpu(config: Path) -> None:
    frames = random_frames(5)
    on_cpu = loaded(config, "random:0")
    for precision, tolerance in (("fp32", 1e-3), ("auto", 0.05)):
        on_cuda = load_vlm(str(config), "random:0", device="cuda", precision=precision)
        found = on_cuda.encode(frames.cuda()).cpu()
        torch.testing.assert_close(found, on_cpu.encode(frames), rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(
            on_cuda.encode_text(PROMPTS), on_cpu.encode_text(PROMPTS), rtol=0.05, atol=tolerance
        )


@pytest.mark.slow
def test_the_full_size_model_takes_a_frame_as_open_clip_does() -> None:
    name = "ViT-B-16-quickgelu"
    encoder = loaded(name, "random:0")
    frames = random_frames(1, size=224)
    features = encoder.encode(frames)
    assert features.shape == (1, 1, encoder.spec.width) == (1, 1, 512)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.create_model(name).eval()
    with torch.no_grad():
        expected = model.encode_image(Normalise(encoder.spec.preprocessing, 1)(frames))
    torch.testing.assert_close(features[:, 0], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_the_rewritten_tower_computes_the_same(quick_gelu: bool) -> None:
    torch.manual_seed(1)
    tower = open_clip.CLIP(**(CONFIG | {"quick_gelu": quick_gelu})).visual.eval()
    images = torch.randn(3, 3, SIZE, SIZE)
    with torch.no_grad():
        for parameter in tower.parameters():  # biases begin as zeros, which hide a lost factor
            parameter.add_(0.05 * torch.randn_like(parameter))
        expected = tower(images)
        rewrite(tower)
        found = tower(images)
    assert sum(isinstance(module, SelfAttention) for module in tower.modules()) == 2
    assert sum(isinstance(module, torch.nn.SiLU) for module in tower.modules()) == 2 * quick_gelu
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
