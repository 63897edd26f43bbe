"""Every family through a whole run: encoders freed, previews drawn, the last step saved."""

import pytest
from rich.console import Console

from apexgen import checkpoint
from apexgen.config import load_run
from apexgen.distill import distill
from pipelines import BUILDERS, SIZE


@pytest.mark.parametrize("family", BUILDERS)
def test_a_run_of_every_family_ends_with_its_pictures(folders, tmp_path, family):
    prompts, folder = tmp_path / "prompts.txt", tmp_path / "run"
    prompts.write_text("a red ring\ntwo blue rings\n")
    settings = (f"model.path={folders[family]}", f"model.size={SIZE}", "model.rank=2", f"data.source={prompts}")
    short = ("train.steps=1", "train.batch=1", "train.preview_prompts=1", "objective.warmup=0")
    distill(load_run(None, [f"folder={folder}", *settings, *short]), Console(quiet=True))
    assert [path.name for path in checkpoint.checkpoints(folder / "checkpoints")] == ["step-00000001"]
    assert [path.name for path in sorted((folder / "samples").iterdir())] == ["step-000000.png", "step-000001.png"]
