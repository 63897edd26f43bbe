"""A folder that can't work costs one clear line; what it holds is cast to what was asked for."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from apexgen.backbones.diffusion import load_backbone, open_pipeline
from apexgen.backbones.index import read_index
from apexgen.evaluate.subject import open_drawer, read_subject
from apexgen.scenes.pipeline import FOLDER
from small import embedded


def test_latents_and_pictures_go_round():
    from apexgen.generate import to_tensor
    from apexgen.scenes.draw import draw_pictures
    from apexgen.scenes.prompts import draw_captions

    net, pictures = embedded(), to_tensor(draw_pictures(draw_captions(2, held_out=False, seed=0), seed=0))
    assert (net.decode(net.encode_image(pictures)) - pictures).abs().mean() < 0.05


WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


def broken(tmp_path, how):
    folder = tmp_path / "model"
    shutil.copytree(FOLDER, folder)
    how(folder)
    return folder


def scheduler(folder):
    return folder / "scheduler" / "scheduler_config.json"


def write_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def retype(folder, dtype):
    """Save a layer of the transformer in another type."""
    tensors = load_file(folder / WEIGHTS)
    changed = {name: tensor.to(dtype) for name, tensor in tensors.items() if name.endswith("0.attn1.to_q.weight")}
    save_file(tensors | changed, folder / WEIGHTS, metadata={"format": "pt"})


FAULTS = {
    "no such folder": lambda folder: shutil.rmtree(folder),
    "no model_index.json": lambda folder: (folder / "model_index.json").unlink(),
    "model_index.json is broken": lambda folder: (folder / "model_index.json").write_text("{"),
    "has adapters for .*SanaPipeline": lambda folder: write_json(
        folder / "model_index.json", _class_name="StableDiffusionPipeline"
    ),
    "no flow-matching model: its scheduler is DDIMScheduler": lambda folder: write_json(
        folder / "scheduler" / "scheduler_config.json", _class_name="DDIMScheduler"
    ),
    "is cut short: its header has 992 of": lambda folder: (folder / WEIGHTS).write_bytes(
        (folder / WEIGHTS).read_bytes()[:1000]
    ),
    r"model_index\.json is broken: 'utf-8' codec": lambda folder: (folder / "model_index.json").write_bytes(b"\xff"),
    r"scheduler_config\.json is broken: Expecting": lambda folder: scheduler(folder).write_text("{"),
    r"scheduler_config\.json is broken: it is no table": lambda folder: scheduler(folder).write_text("[]"),
    r"model_index\.json is broken: it names no pipeline class": lambda folder: write_json(
        folder / "model_index.json", _class_name=["payload", "SanaPipeline"]
    ),
    r"model_index\.json: its transformer is \['transformers', 'SanaT.*, which diffusers has not": lambda folder: (
        write_json(folder / "model_index.json", transformer=["transformers", "SanaTransformer2DModel"])
    ),
    "model_index.json names no text_encoder, which this pipeline needs": lambda folder: write_json(
        folder / "model_index.json", text_encoder=[None, None]
    ),
    "model_index.json: its transformer is .*Nope.*, which diffusers has not": lambda folder: write_json(
        folder / "model_index.json", transformer=["diffusers", "Nope"]
    ),
    "text_encoder has no config.json; fetch it again": lambda folder: (folder / "text_encoder/config.json").unlink(),
    "has no scheduler/scheduler_config": lambda folder: scheduler(folder).unlink(),
    # Of none transformers would make an empty one, to which all prompts are alike.
    r"tokenizer has no tokenizer\.json or .*; fetch it again": lambda folder: shutil.rmtree(folder / "tokenizer"),
    r"to_q\.weight is I8, quantised; give weights of 16 or 32 bits": lambda folder: retype(folder, torch.int8),
    r"to_q\.weight is F8_E5M2, quantised; give": lambda folder: retype(folder, torch.float8_e5m2),
}


@pytest.mark.parametrize("message", FAULTS)
def test_a_folder_that_cannot_work_costs_one_line(tmp_path, message):
    folder = broken(tmp_path, FAULTS[message])
    for later in ({}, {"weights": "bfloat16", "with_text": False, "with_network": False}):
        with pytest.raises(ValueError, match=message) as caught:
            load_backbone(folder, **later)
        assert str(caught.value).startswith(str(folder)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["vae", "transformer", "text_encoder", "image_encoder"])
def test_no_code_of_a_folder_is_run(tmp_path, part):
    folder, ran = broken(tmp_path, lambda folder: (folder / part).mkdir(exist_ok=True)), tmp_path / "ran"
    for kind in (["payload", "AutoencoderTiny"], "pq"):
        library, name = kind
        (folder / part / f"{library}.py").write_text(f"open({str(ran)!r}, 'w')\nclass {name}: pass\n")
        write_json(folder / "model_index.json", **{part: kind})
        for opened in (load_backbone, open_pipeline, lambda folder: open_drawer(read_subject(f"stock:{folder}@1"))):
            with pytest.raises(ValueError, match=rf"model_index\.json: its {part} is .*; name a class of diffusers or"):
                opened(folder)
    assert not ran.exists()


@pytest.mark.parametrize(
    "kind", [None, [None, None], ["stable_diffusion", "StableDiffusionSafetyChecker"], [1, 2], "ab c"]
)
def test_what_a_published_index_may_hold_beside_its_parts_is_no_fault(tmp_path, kind):
    folder = broken(tmp_path, lambda folder: write_json(folder / "model_index.json", unread=kind))
    assert read_index(folder)["unread"] == kind


def test_a_missing_weight_file_costs_one_line(tmp_path):
    def remove(folder):
        (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()

    with pytest.raises(ValueError, match="can't be opened"):
        load_backbone(broken(tmp_path, remove))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
def test_weights_of_several_types_are_all_cast_to_the_one_asked_for(tmp_path, dtype, weights):
    found = load_backbone(broken(tmp_path, lambda folder: retype(folder, dtype)), weights=weights).network.state_dict()
    [changed] = [name for name in found if name.endswith("0.attn1.to_q.weight")]
    for name, tensor in load_backbone(FOLDER).network.state_dict().items():
        expected = tensor.to(dtype) if name == changed else tensor
        assert torch.equal(found[name], expected.to(getattr(torch, weights))), name


@pytest.mark.parametrize("broken", ["DiffusionPipeline", "SanaPipeline", "SanaTransformer2DModel"])
def test_a_diffusers_that_can_not_be_imported_costs_one_line(monkeypatch, broken):
    import diffusers

    real = type(diffusers).__getattr__

    def fail(self, name):
        if name != broken:
            return real(self, name)
        raise RuntimeError("Failed to import diffusers.pipelines (look up to see its traceback):\nno 'logger'")

    monkeypatch.delattr(diffusers, broken, raising=False)
    monkeypatch.setattr(type(diffusers), "__getattr__", fail)
    with pytest.raises(ValueError, match=r"can't be imported \(no 'logger'\); write: pip install -U diffusers"):
        load_backbone(FOLDER)
