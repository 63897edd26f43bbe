"""The commands of docs/evaluation-statistics.md run in its order, by tiny judges under the names of the page.

Fewer steps, captions and repeats; the rest is as the page has it. A small vision model's folder has the Inception's
name.
"""

import json
import re
import sys
from pathlib import Path

from apexgen.cli import main
from apexgen.evaluate.geneval.records import read_records
from apexgen.evaluate.result import load_result
from apexgen.export.diffusers import LORA_FILE
from apexgen.export.run import export_run
from judges import new_clip_judge, new_mask2former
from runs import finished_run
from test_docs_commands import commands
from test_statistics import mjhq_folder
from vision import clip_folder, dino_folder, pictures

PAGE = "docs/evaluation-statistics"
FEW = ("--steps", "1", "--seeds", "2")
CUT = {  # the beginning of a line's own words: what makes it short
    "evaluate timing": ("--repeats", "3", "--warmup", "1"),
    "evaluate sweep scenes": (*FEW, "--per-task", "1"),
    "evaluate sweep .* --geneval": (*FEW, "--detector", "detector", "--clip", "judge", "--metadata", "metadata.jsonl"),
    "evaluate sweep runs": (*FEW, "--per-task", "1"),
    "evaluate sweep pipeline.* --prompts": FEW,
}


def write_world(place, pipeline):
    """What the page names, in a folder."""
    (place / "pipeline").symlink_to(pipeline)
    for step in (200, 400):
        finished_run(place / "runs/mine", "scenes", step=step)
    (place / "runs/mine/checkpoints/best.json").write_text(json.dumps({"step": 200}))
    other = finished_run(place / "runs/other", pipeline)
    (export_run(other, "diffusers", place / "exported").folder / LORA_FILE).rename(place / "lora.safetensors")
    (place / "prompts.txt").write_text("a red ring\ntwo blue circles\n")
    mjhq_folder(place / "MJHQ-30K")
    dino_folder(place / "pt_inception-2015-12-05-6726825d.pth")
    dino_folder(place / "dinov2-base")
    clip_folder(place / "clip-vit-large-patch14")
    for name in ("drawn", "true"):
        pictures(place / name, 3, seed=len(name))
    new_mask2former(place / "detector")
    new_clip_judge(place / "judge")
    (place / "metadata.jsonl").write_text(json.dumps(read_records()[178]) + "\n")


def test_the_commands_of_the_page_run_in_its_order(folders, tmp_path, monkeypatch):
    write_world(tmp_path, folders["sd3"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("apexgen.evaluate.collection.CACHE", tmp_path / "cache")
    monkeypatch.setattr("apexgen.evaluate.timing.BATCH", 1)
    for words in commands(PAGE):
        said = re.sub("@50", "@1", " ".join(words))
        cut = next((cut for start, cut in CUT.items() if re.match(start, said)), ())
        monkeypatch.setattr(sys, "argv", ["apexgen", *said.split(), *cut])
        main()  # a mistake would exit
    assert load_result(Path("eval/mine/fid.json")).n == 6 and len(list(Path("eval/speed").glob("*.json"))) == 3
    assert {"sweep.html", "grid.png", "sweep.json"} <= {file.name for file in Path("eval/sweep").iterdir()}
    assert len(list(Path("eval").glob("sweep*/sweep.html"))) == 4  # each in a folder of its own
    assert len(list(Path("apexgen-diversity").rglob("*.png"))) == 2 * 8
