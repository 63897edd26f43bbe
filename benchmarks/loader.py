"""Records that sources and a run's batches give in a second, against what a training step of the embedded model takes.

python benchmarks/loader.py [--records 1200]
"""

import io
import json
import tarfile
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

from told import new_parser, tell

from apexgen.backbones.base import Backbone
from apexgen.backbones.diffusion import load_backbone
from apexgen.config import Data, load_run
from apexgen.data import decode_picture, open_source
from apexgen.demo import CONFIG
from apexgen.distill import open_student
from apexgen.encode import encode
from apexgen.scenes.pipeline import FOLDER
from apexgen.train import Trainer

STEPS, SIZE, BATCH = 5, (64, 64), 16


def write_sources(folder: Path, records: int) -> dict[str, str]:
    """The same records as every kind of source."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    every = list(open_source(Data(limit=records)))
    photos, texts, images = folder / "photos", [record.captions[0] for record in every], [r.picture for r in every]
    photos.mkdir()
    with tarfile.open(folder / "shard.tar", "w") as tar:
        for number, (text, image) in enumerate(zip(texts, images, strict=True)):
            for ending, content in (("png", image), ("txt", text.encode())):
                (photos / f"{number}.{ending}").write_bytes(content)
                member = tarfile.TarInfo(f"{number}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    rows = [{"file_name": f"photos/{number}.png", "text": text} for number, text in enumerate(texts)]
    (folder / "table.jsonl").write_text("\n".join(map(json.dumps, rows)))
    parquet.write_table(pa.table({"text": texts, "image_bytes": images}), folder / "table.parquet", row_group_size=256)
    names = {"folder": "photos", "jsonl": "table.jsonl", "parquet": "table.parquet", "tar": "shard.tar"}
    return {name: str(folder / path) for name, path in names.items()}


def records_a_second(source: str, records: int) -> float:
    """Records that a source gives, each picture decoded."""
    opened = open_source(Data(source=source))
    began = time.perf_counter()
    for record in islice(opened, records):
        decode_picture(record.picture, SIZE)
    return records / (time.perf_counter() - began)


def batched_a_second(data: Data, backbone: Backbone, records: int) -> float:
    """Records in the batches of a run, with captions and latents: from its cache, or encoded at the step."""
    corpus = encode(data, backbone, pictures=True)
    steps = records // BATCH
    began = time.perf_counter()
    for step in range(steps):
        corpus.batch(step, BATCH, 0)
    return steps * BATCH / (time.perf_counter() - began)


def trained_a_second(backbone: Backbone) -> float:
    """Records that the demo's training step takes."""
    run = load_run(CONFIG, ["data.limit=64", f"train.batch={BATCH}"])
    corpus = encode(run.data, backbone, pictures=False)
    trainer = Trainer(run, open_student(run, backbone), corpus, backbone.latent_shape())
    trainer.step = run.train.steps - STEPS - 1  # when every term is at work
    trainer.advance()
    began = time.perf_counter()
    for _ in range(STEPS):
        trainer.advance()
    return STEPS * trainer.samples / (time.perf_counter() - began)


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--records", type=int, default=1200)
    arguments = parser.parse_args()
    backbone = load_backbone(FOLDER)
    taken = trained_a_second(backbone)
    figures: dict[str, Any] = {"training, records a second": round(taken, 1)}
    with tempfile.TemporaryDirectory() as folder:
        sources = write_sources(Path(folder), arguments.records)
        rates = {name: records_a_second(source, arguments.records) for name, source in sources.items()}
        cached = Data(source=sources["parquet"], cache=f"{folder}/cache")
        rates["batches from a cache"] = batched_a_second(cached, backbone, arguments.records)
        live = Data(source=sources["parquet"], encode="step")
        rates["batches encoded at the step"] = batched_a_second(live, backbone, arguments.records)
    for name, rate in rates.items():
        figures[name] = {"records a second": round(rate), "times what training takes": round(rate / taken, 1)}
    tell(figures, arguments.out)


if __name__ == "__main__":
    main()
