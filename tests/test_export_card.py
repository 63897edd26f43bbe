"""A card's lines open the base as its users would."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from apexgen.backbones.diffusion import open_pipeline
from apexgen.export.card import card_type
from apexgen.export.run import export_run
from apexgen.scenes.pipeline import FOLDER
from runs import finished_run, lines_of_card


@pytest.mark.parametrize("to", ["diffusers", "merged"])
def test_a_card_opens_the_base_in_the_type_it_was_published_in(folders, tmp_path, monkeypatch, to):
    base = tmp_path / "base"
    open_pipeline(folders["flux"]).to(torch.bfloat16).save_pretrained(base)
    folder = export_run(finished_run(tmp_path / "run", base), to).folder
    monkeypatch.chdir(folder)
    exec(lines_of_card(base, 1), places := {})
    assert places["pipe"].dtype == places["pipe"].transformer.dtype == torch.bfloat16
    assert places["pipe"].device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert np.asarray(places["image"]).std() > 0.1


def test_a_card_of_the_embedded_pipeline_runs_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(export_run(finished_run(tmp_path / "run", "scenes"), "diffusers").folder)
    exec(Path("README.md").read_text().split("```")[1].removeprefix("python\n"), {})
    assert Path("picture.png").is_file()


def test_a_card_asks_for_the_path_of_a_folder_and_knows_the_hubs_name(folders, tmp_path):
    hub = tmp_path / "models--owner--name" / "snapshots" / "0"
    shutil.copytree(folders["sana"], hub)
    for base, line in (
        (folders["sana"], f"base = {folders['sana'].name!r}  # write the path of this pipeline's folder here\n"),
        (hub, "base = 'owner/name'\n"),
    ):
        folder = export_run(finished_run(tmp_path / f"run-{base.name}", base), "diffusers").folder
        text = (folder / "README.md").read_text()
        assert line in text and str(base) not in text


def test_a_card_opens_what_is_small_in_float32_and_what_is_large_in_bfloat16(folders, tmp_path):
    assert card_type(folders["sd3"]) == card_type(FOLDER) == "float32"
    (tmp_path / "transformer").mkdir()
    entry = {"dtype": "F16", "shape": [1 << 15, 1 << 15], "data_offsets": [0, 2 << 30]}
    header = json.dumps({"weight": entry}).encode()
    with (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + (2 << 30))  # of no blocks on the disk
    assert card_type(tmp_path) == "bfloat16"
