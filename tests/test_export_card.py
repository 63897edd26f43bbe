"""A card's lines open the base as its users would."""

import json

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


def test_a_card_opens_what_is_small_in_float32_and_what_is_large_in_bfloat16(folders, tmp_path):
    assert card_type(folders["sd3"]) == card_type(FOLDER) == "float32"
    (tmp_path / "transformer").mkdir()
    entry = {"dtype": "F16", "shape": [1 << 15, 1 << 15], "data_offsets": [0, 2 << 30]}
    header = json.dumps({"weight": entry}).encode()
    with (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + (2 << 30))  # of no blocks on the disk
    assert card_type(tmp_path) == "bfloat16"
