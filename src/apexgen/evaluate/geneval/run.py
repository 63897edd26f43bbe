"""The whole of GenEval: open the judges, draw what is missing, judge it, write the result."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from apexgen.drawer import Drawer, hash_weights
from apexgen.evaluate.gallery import Job, fill, read_manifest, read_seeds
from apexgen.evaluate.geneval.colors import Clip
from apexgen.evaluate.geneval.detect import Selection
from apexgen.evaluate.geneval.judge import Judge, Line, judge_pictures, scores
from apexgen.evaluate.geneval.mask2former import Mask2Former
from apexgen.evaluate.geneval.open_vocabulary import GroundingDino, Owlv2
from apexgen.evaluate.geneval.records import SAMPLES, SEED, lay_out, read_folder
from apexgen.evaluate.result import Result, save_result
from apexgen.evaluate.variety import BY_PIXELS, apart
from apexgen.evaluate.weights import TOKENIZER, best_device, find_weights, name_of
from apexgen.rules import Record

# The others have no official values: theirs are those that are usual for them, and duplicates are struck out.
BOXES = Selection(threshold=0.3, counting_threshold=0.3, max_overlap=0.5)
PROCESSOR = ("preprocessor_config.json", *TOKENIZER)
KINDS = {  # name -> class, usual weights, files beside them, what counts
    "mask2former": (Mask2Former, "facebook/mask2former-swin-small-coco-instance", (), Selection()),
    "owlv2": (Owlv2, "google/owlv2-base-patch16-ensemble", PROCESSOR, BOXES),
    "grounding-dino": (GroundingDino, "IDEA-Research/grounding-dino-base", PROCESSOR, BOXES),
}
CLIP = "openai/clip-vit-large-patch14"


@dataclass(frozen=True)
class Choice:
    """Which judges: the kind of detector, both weights, and what counts where it is not the kind's usual."""

    kind: str = "mask2former"
    detector: str | None = None  # a folder, or a repository downloaded before; the kind's usual unless given
    clip: str = CLIP
    threshold: float | None = None
    counting_threshold: float | None = None
    max_overlap: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"--kind {self.kind}: write one of {', '.join(KINDS)}")

    def find(self) -> tuple[Path, Path]:
        """The folders of both weights. ValueError, one line: what of both to download, and where to put it."""
        _, usual, beside, _ = KINDS[self.kind]
        both = (
            ("--detector", self.detector or usual, usual, ("config.json", *beside)),
            ("--clip", self.clip, CLIP, ("config.json", *TOKENIZER)),
        )
        folders, missing = [], []
        for sought in both:
            try:
                folders.append(find_weights(*sought))
            except ValueError as reason:
                missing.append(str(reason))
        if missing:
            raise ValueError("; and ".join(missing))
        detector, clip = folders
        return detector, clip

    def open(self) -> tuple[Judge, dict[str, Any]]:
        """The judge, and the settings that tell its weights. ValueError for weights that can't be read."""
        opened, usual, _, selection = KINDS[self.kind]
        folder, clip_folder = self.find()
        device = best_device()
        detector = opened(folder, name_of(self.detector or usual), device)
        for name in ("threshold", "counting_threshold", "max_overlap"):
            if (value := getattr(self, name)) is not None:
                selection = replace(selection, **{name: value})
        settings = {"kind": self.kind, "detector": hash_weights([folder]), "clip": hash_weights([clip_folder])}
        return Judge(detector, Clip(clip_folder, name_of(self.clip), device), selection), settings


def draw_geneval(
    folder: Path, records: Sequence[Record], drawer: Drawer, console: Console, samples: int = SAMPLES, seed: int = SEED
) -> list[Job] | None:
    """Draw an official folder of pictures, what is missing of it; returns all, None where ranks draw some still."""
    jobs = lay_out(folder, records, samples, seed)
    return None if fill(folder, jobs, drawer, console) else jobs


def judge_geneval(
    choice: Choice, pictures: Path, out: Path, model: str | None, console: Console, jobs: Sequence[Job] | None = None
) -> tuple[Result, list[Line]] | None:
    """Judge an official folder of pictures, ours or others', into out/results.jsonl and out/result.json.

    All that are there, or those of `jobs` alone. None where some are left to other ranks.
    """
    found, drawn = read_folder(pictures), read_manifest(pictures)
    if jobs is not None:
        asked = {pictures / job.path for job in jobs}
        found = [(file, record) for file, record in found if file in asked]
    judge, settings = choice.open()
    lines = judge_pictures(out, found, judge, settings | {"pictures": str(pictures.resolve())}, console)
    if lines is None:
        return None
    told = f"{drawn['model']} {drawn['drawer']}" if {"model", "drawer"} <= drawn.keys() else pictures.name
    protocol = settings | asdict(judge.selection) | {"within": BY_PIXELS}
    result = to_result(lines, settings["kind"], judge.name, model or told, protocol)
    varied, error = apart([file for file, _ in found], [record["prompt"] for _, record in found])
    known = {"drawn": drawn, "evaluations": drawn.get("evaluations"), "seeds": read_seeds([file for file, _ in found])}
    figures = {"scores": result.scores | varied, "spread": result.spread | error}
    whole = result.model_copy(update=known | figures)
    save_result(whole, out / "result.json")
    return whole, lines


def to_result(lines: Sequence[Line], kind: str, judge: str, model: str, settings: dict[str, Any]) -> Result:
    """The figures of an official result file's lines, whoever made it; which prompts they are of is in its settings."""
    if not lines:
        raise ValueError("a result file without a line has no result")
    told, spread = scores(lines)
    records = sorted({json.dumps(json.loads(line["metadata"]), sort_keys=True) for line in lines})
    digest = hashlib.sha256("\n".join(records).encode()).hexdigest()[:16]
    return Result(
        benchmark=f"GenEval[{kind}]",
        judge=judge,
        model=model,
        scores=told,
        spread=spread,
        n=len(lines),
        settings=settings | {"prompts": len(records), "metadata": digest},
    )
