"""A model's own pictures of a list of prompts, as data to train on: tars in the layout of webdataset.

A tar holds the pictures of a fixed stretch of the list and appears whole or not at all; a prompt's noise has the seed
of its place. So whoever goes on, and with however many processes, ends with the same files.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from apexgen.backbones.base import Backbone
from apexgen.condition import Condition
from apexgen.config import validate
from apexgen.distill import open_backbone
from apexgen.drawer import check_guidance
from apexgen.encode import prompts_in
from apexgen.files import write_whole
from apexgen.generate import draw_noise, make_pictures
from apexgen.parallel import assembled
from apexgen.progress import bar, working
from apexgen.sample import uniform_grid
from apexgen.size import Size
from apexgen.velocities import guided

INDEX = "index.json"
PIXELS = 1 << 22  # drawn at once, at most


@dataclass(frozen=True)
class Plan:
    """What decides the pictures beside the prompts."""

    model: str  # a pipeline folder, or "scenes"
    steps: int
    guidance: float
    seed: int  # of the first prompt's noise
    size: Size | None  # the model's own unless given
    shard: int  # pictures a tar
    weights: str = "float32"  # how the model is held, as model.weights


def run_synthesis(plan: Plan, prompts: Path, out: Path, console: Console) -> dict[str, Any] | None:
    """Draw every prompt of a file into tars in `out`, this process its share; what is there already is left.

    Returns what was done, where this is the first process.

    Each picture is KEY.png with KEY.txt, its prompt, and KEY.json, its seed; index.json says how they were made.
    Raises ValueError for a bad file of prompts, steps < 1, guidance < 0, unknown weights, and for a folder begun with
    another plan or other prompts.
    """
    check_webdataset()
    uniform_grid(plan.steps)
    check_guidance(plan.guidance)
    run = validate({"model": {"path": plan.model, "size": plan.size, "weights": plan.weights}})
    texts = prompts_in(prompts, f"--prompts {prompts}")
    tars = [out / f"{first // plan.shard:06d}.tar" for first in range(0, len(texts), plan.shard)]
    with assembled() as team:
        console = console if team.first else Console(quiet=True)
        with working("opening the model"):
            backbone = open_backbone(run)
        missing = team.by_first(lambda: _begin(plan, texts, out, tars))
        team.by_each(lambda: _draw_tars(plan, backbone, texts, [tars[n] for n in missing[team.rank :: team.count]]))
    if not team.first:
        return None
    console.print(f"{out}: {len(texts)} pictures, {len(missing)} of {len(tars)} tars made now", soft_wrap=True)
    return {"out": str(out), "pictures": len(texts), "tars": len(tars), "made": len(missing)}


def check_webdataset() -> None:
    """ValueError where webdataset is not installed."""
    try:
        import webdataset  # noqa: F401
    except ImportError:
        raise ValueError('tars need webdataset; write: pip install "apexgen[data]"') from None


def _begin(plan: Plan, texts: Sequence[str], out: Path, tars: Sequence[Path]) -> list[int]:
    """Write the index, or refuse a folder whose index is another's; the numbers of the tars that it lacks."""
    out.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    size = None if plan.size is None else plan.size.written
    index = asdict(plan) | {"size": size, "prompts": len(texts), "prompts_sha256": digest}
    index["seeds"] = "seed + the prompt's place"
    file = out / INDEX
    before = json.loads(file.read_text()) if file.is_file() else None
    if before is None:
        write_whole(file, json.dumps(index, indent=1).encode())
        before = index
    before = {"weights": "float32"} | before  # an older folder does not say it
    for name, value in index.items():
        if before.get(name) != value:
            raise ValueError(
                f"{out} was begun with {name} = {before.get(name)!r}, not {value!r}; write --out elsewhere"
            )
    return [number for number, tar in enumerate(tars) if not tar.is_file()]


def _draw_tars(plan: Plan, backbone: Backbone, texts: Sequence[str], tars: Sequence[Path]) -> None:
    null, firsts = backbone.encode_text([""]), [int(tar.stem) * plan.shard for tar in tars]
    missing = sum(len(texts[first : first + plan.shard]) for first in firsts)
    with bar("drawing", missing) as advance:  # of several processes, the first one's share
        for tar, first in zip(tars, firsts, strict=True):
            pictures = []
            for drawn in _draw(plan, backbone, null, texts[first : first + plan.shard], plan.seed + first):
                pictures.append(drawn)
                advance()
            write_whole(tar, _tar(plan, texts, first, pictures))


def _draw(plan: Plan, backbone: Backbone, null: Condition, prompts: Sequence[str], seed: int) -> Iterator[np.ndarray]:
    """The picture (H, W, 3) in [0, 1] of each of some prompts, noises from `seed` on."""
    chunk = max(1, PIXELS // (backbone.sides.height * backbone.sides.width))
    noise = draw_noise(range(seed, seed + len(prompts)), backbone.latent_shape())
    teacher = guided(backbone, null.to(backbone.device), plan.guidance)
    for start in range(0, len(prompts), chunk):
        rows = slice(start, start + chunk)
        c = backbone.encode_text(prompts[rows])  # a tar's all at once might be more than memory holds
        yield from make_pictures(backbone, teacher, c, noise[rows], plan.steps, chunk=chunk)


def _tar(plan: Plan, texts: Sequence[str], first: int, pictures: Sequence[np.ndarray]) -> bytes:
    """The bytes of a tar; the same pictures make the same bytes."""
    from webdataset import TarWriter

    file = io.BytesIO()
    with TarWriter(file, encoder=False, mtime=0) as tar:
        for place, picture in enumerate(pictures, start=first):
            stored, told = io.BytesIO(), {"prompt": texts[place], "seed": plan.seed + place}
            Image.fromarray((picture * 255).round().astype(np.uint8)).save(stored, "png")
            sample = {"png": stored.getvalue(), "txt": texts[place].encode(), "json": json.dumps(told).encode()}
            tar.write({"__key__": f"{place:09d}"} | sample)
    return file.getvalue()
