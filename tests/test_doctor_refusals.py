"""What the doctor can't examine costs one line, no library's own: files that are no LoRA, bases without a network."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save

from apexgen.backbones.header import read_header
from apexgen.doctor.lora import examine
from apexgen.doctor.scale import METADATA
from called import apexgen_forked
from loras import TRAINERS, base_of, weights, written


@pytest.fixture(scope="module")
def bases(folders):
    """The folders of three families, and the shapes of their attention's first layer."""
    return {family: base_of(folders[family]) for family in ("sd3", "qwen", "sana")}


def test_a_file_that_is_no_lora_is_refused_in_a_line(tmp_path, bases):
    folder, shapes = bases["qwen"]
    whole = weights(shapes, *TRAINERS["diffusers"])
    name = next(iter(whole))
    data, file = save(whole), tmp_path / "lora.safetensors"
    torch.save(whole, tmp_path / "zip.pt")
    torch.save(whole, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    cases = {
        (tmp_path / "zip.pt").read_bytes(): "is pickled: opening it could run code",
        (tmp_path / "old.pt").read_bytes(): "is pickled",
        data[:-4]: r"is cut short: \d+ of \d+ bytes",
        data[:100]: "is cut short: its header has 92 of",
        b"version https://git-lfs": "is no safetensors file",
        b"": "is no safetensors file",
        save({"weight": torch.ones(2, 2)}): "is no LoRA: none of its 1 tensors",
        save(whole | {name: whole[name].to(torch.float8_e4m3fn)}): f"{name} is F8_E4M3, quantised; give weights of 16",
        save(whole | {name: whole[name] * torch.nan}): f"{name} is not finite",
        save(whole, {METADATA: "[" * 10**6}): f"its {METADATA} can't be read; take it out",
        (10**6).to_bytes(8, "little") + b"[" * 10**6: "is no safetensors file: its header can't be read",
        save({key: pair[:0] if ".lora_A." in key else pair[:, :0] for key, pair in whole.items()}): "is of rank 0",
    }
    for content, message in cases.items():
        file.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            examine(file, folder)
        assert "\n" not in str(caught.value) and str(file) in str(caught.value)
    with pytest.raises(ValueError, match="no such file"):
        read_header(tmp_path / "missing.safetensors")


@pytest.mark.parametrize("kind", [None, [None, None], "transformer", ["diffusers", "Nope"]])
def test_a_base_without_its_network_is_refused_in_a_line(tmp_path, bases, kind):
    folder, shapes = bases["sana"]
    file, base = written(tmp_path, weights(shapes, *TRAINERS["diffusers"])), tmp_path / "base"
    index = json.loads((folder / "model_index.json").read_text()) | {"transformer": kind}
    base.mkdir()
    (base / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"base/model_index\.json: its transformer is .*, which diffusers has not$"):
        examine(file, base)


def test_a_base_that_is_its_networks_configuration_alone_will_do(tmp_path, bases):
    folder, shapes = bases["sana"]
    file, base = written(tmp_path, weights(shapes, *TRAINERS["diffusers"])), tmp_path / "base"
    index = {key: kind for key, kind in json.loads((folder / "model_index.json").read_text()).items() if key != "vae"}
    (base / "transformer").mkdir(parents=True)
    (base / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"base/transformer has no config\.json; fetch it again"):
        examine(file, base)
    shutil.copy(folder / "transformer" / "config.json", base / "transformer")
    assert examine(file, base).loads


def test_a_command_on_a_pipeline_that_would_import_picture_processors_has_no_word_of_them(tmp_path, bases):
    """Which transformers has for those who have torchvision."""
    folder, shapes = bases["sd3"]
    file = written(tmp_path, weights(shapes, *TRAINERS["kohya"]))
    for arguments, code in (
        (("sample", folder, "-p", "a ring", "--size", 50), 2),
        (("doctor", file, "--base", folder), 1),
    ):
        ended, said, wrong = apexgen_forked(tmp_path, *arguments)
        assert ended == code
        assert len(wrong.splitlines()) == (code == 2) and "torchvision" not in said
