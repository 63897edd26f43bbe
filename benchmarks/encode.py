"""Encoding into a cache: throughput, size on disk, what a second time costs, and the memory that reading takes.

    python benchmarks/encode.py [--records 2000]

The embedded pipeline, pictures of its own world written to a folder first. The ratios are within one run.
"""

import gc
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from told import new_parser, tell

from apexgen.backbones.diffusion import load_backbone
from apexgen.config import Data
from apexgen.encode import encode
from apexgen.scenes.draw import draw_pictures
from apexgen.scenes.pipeline import FOLDER
from apexgen.scenes.prompts import TASKS, draw_captions

BATCH = 64


def write_source(folder: Path, records: int) -> None:
    """Captioned pictures of the embedded world as files."""
    folder.mkdir()
    captions = draw_captions(-(-records // len(TASKS)), held_out=False, seed=1)
    for number, (caption, picture) in enumerate(zip(captions, draw_pictures(captions, seed=1), strict=True)):
        Image.fromarray((picture * 255).round().astype(np.uint8)).save(folder / f"{number:06d}.png")
        (folder / f"{number:06d}.txt").write_text(caption.text)


def own_memory() -> int:
    """Bytes of this process that are not mapped from files (Linux)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def measure(folder: Path, records: int) -> dict[str, float]:
    """Encode twice, read an epoch; what it took."""
    write_source(folder / "source", records)
    data, backbone = Data(source=str(folder / "source"), cache=str(folder / "cache")), load_backbone(FOLDER)
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        corpus = encode(data, backbone, pictures=True)
        seconds.append(time.perf_counter() - began)
    size = sum(file.stat().st_size for file in (folder / "cache").rglob("*.safetensors"))
    gc.collect()
    before, began = own_memory(), time.perf_counter()
    steps = len(corpus) // BATCH
    for step in range(steps):
        corpus.batch(step, BATCH, 0)
    read = time.perf_counter() - began
    return {
        "records": len(corpus),
        "encoded, records a second": round(len(corpus) / seconds[0], 1),
        "second time, share of the first": round(seconds[1] / seconds[0], 3),
        "cache, bytes a record": size // len(corpus),
        "read, records a second": round(steps * BATCH / read, 1),
        "read, times as fast as encoded": round(steps * BATCH / read / (len(corpus) / seconds[0]), 1),
        "memory that reading added, share of the cache": round((own_memory() - before) / size, 3),
    }


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--records", type=int, default=2000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        tell(measure(Path(temporary), arguments.records), arguments.out)


if __name__ == "__main__":
    main()
