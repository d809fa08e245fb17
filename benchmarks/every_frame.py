"""What one would run instead: every frame of every video through a CLIP, one .npy a video.

The baseline of benchmarks/peers.py, after the manner of video_features: decode a video from its
first frame to its last, encode, write, take the next one. Nothing overlaps, and nothing is checked.

    python benchmarks/every_frame.py VIDEOS OUT [--frames 16]

--frames: encode so many of the decoded frames, spread uniformly, instead of all.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import av
import numpy as np
import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image


def decode(path: Path) -> list[np.ndarray]:
    """Every frame, [H, W, 3] uint8."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@torch.inference_mode()
def encode(model: torch.nn.Module, images: torch.Tensor, batch: int) -> np.ndarray:
    """[m, D] float32."""
    return torch.cat([model.encode_image(part) for part in images.split(batch)]).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("videos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="ViT-B-32-quickgelu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frames", type=int, default=0)
    options = parser.parse_args()
    model = open_clip.create_model(options.model).eval()
    transform = image_transform_v2(PreprocessCfg(interpolation="bicubic"), is_train=False)
    options.out.mkdir(parents=True)
    began = time.perf_counter()
    for path in sorted(options.videos.iterdir()):
        frames = decode(path)
        if options.frames:
            wanted = np.linspace(0, len(frames) - 1, options.frames).round().astype(int)
            frames = [frames[k] for k in wanted]
        images = [transform(Image.fromarray(frame)) for frame in frames]
        np.save(options.out / f"{path.stem}.npy", encode(model, torch.stack(images), options.batch))
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main()
