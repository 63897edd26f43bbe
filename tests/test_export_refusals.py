"""What can't be exported costs one line, and nothing half-written is left."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from apexgen import checkpoint
from apexgen.distill import open_trained, read_run
from apexgen.export.comfyui import write_comfyui
from apexgen.export.diffusers import LORA_FILE, open_exported
from apexgen.export.run import check_export, export_run, take_export_proof
from apexgen.generate import draw_noise
from runs import finished_run


@pytest.fixture(scope="module")
def finished(folders, tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("runs") / "sd3", folders["sd3"])


@pytest.fixture
def run(finished, tmp_path):
    """A copy to damage."""
    return shutil.copytree(finished, tmp_path / "run")


def damage(run, change):
    """Rewrite the averaged weights, with a manifest that approves of them."""
    (newest,) = (run / "checkpoints").iterdir()
    file = newest / "average.safetensors"
    change(file)
    (newest / checkpoint.MANIFEST).unlink()
    checkpoint._write_manifest(newest)


def altered(alter):
    def change(file):
        tensors = load_file(file)
        name = sorted(tensors)[0]
        tensors |= {name: alter(tensors[name])}
        save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, file)

    return change


DAMAGES = {
    "is not finite": altered(lambda tensor: tensor * torch.nan),
    r"is torch\.bfloat16, the model's torch\.float32": altered(torch.Tensor.bfloat16),
    r"is 3 x \d+, the model's 2 x \d+": altered(lambda tensor: torch.cat([tensor, tensor[:1]])),
    "the checkpoint lacks .* of another model, rank or targets": altered(lambda tensor: None),
    "its weights are no safetensors file": lambda file: torch.save({"weights": torch.ones(2)}, file),
}


def refused(run, message, to="diffusers", out=None):
    """Exporting raises one line, and the run's folder and its neighbours are as they were."""
    before = sorted(run.parent.rglob("*"))
    with pytest.raises(ValueError, match=message) as caught:
        export_run(run, to, out)
    assert "\n" not in str(caught.value)
    assert sorted(run.parent.rglob("*")) == before


@pytest.mark.parametrize("message", DAMAGES)
def test_damaged_weights(run, message):
    damage(run, DAMAGES[message])
    refused(run, message)


def test_truncated_weights(run):
    (file,) = run.glob("checkpoints/*/average.safetensors")
    file.write_bytes(file.read_bytes()[:-8])
    refused(run, r"no whole checkpoint \(checkpoint step-00000007 is broken \(average.safetensors .* cut short\)\)")


def test_weights_of_another_family(run, folders):
    config = run / "config.toml"
    config.write_text(config.read_text().replace(str(folders["sd3"]), str(folders["zimage"])))
    refused(run, "the checkpoint (has|lacks) .*: it is of another model, rank or targets than the run's")


def test_a_size_that_the_family_can_not_draw(run):
    config = run / "config.toml"
    config.write_text(config.read_text().replace("size = 64", "size = 50"))
    refused(run, r"size = 50: Stable Diffusion 3 wants multiples of 16")


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(ValueError, match="is no run's folder"):
        export_run(tmp_path / "missing", "diffusers")


def test_targets_that_are_not_there_or_are_already(run, tmp_path):
    refused(run, "--to onnx: write one of diffusers, comfyui, merged", to="onnx")
    refused(run, "there is no folder", out=tmp_path / "missing" / "lora")
    refused(run, "is there already: remove it, or give another folder with --out", out=tmp_path / "run")


def test_what_no_stock_program_could_run(folders, tmp_path):
    sana = finished_run(tmp_path / "sana" / "run", "scenes", deviation=0.02)
    refused(sana, "ComfyUI itself has no SANA model; write --to diffusers or --to merged", to="comfyui")
    two = finished_run(tmp_path / "two" / "run", folders["zimage"], "objective.name=mean_flow")
    refused(two, "the objective needs a second time")


def test_pictures_that_differ_are_not_exported(run, monkeypatch):
    monkeypatch.setattr("apexgen.export.run.LIMIT", 0.0)
    for to in ("diffusers", "merged", "comfyui"):
        refused(run, "the stock pipeline's pictures differ from ours by", to=to)


def test_what_comfyui_would_not_load_as_it_should_fails_loudly(folders, tmp_path):
    """The file is applied to the base by its own keys: what is wrong in it is seen, whoever wrote it."""
    run = finished_run(tmp_path / "run", folders["lumina2"], "model.precision=float32")
    student = open_trained(*read_run(run))
    write_comfyui(student, tmp_path / "written", False)
    proof = take_export_proof(student, tmp_path / "written", False, ["two rings"], draw_noise([0], (4, 8, 8)))
    assert check_export(proof, tmp_path / "written", folders["lumina2"])[0] == proof.modules
    whole = load_file(file := tmp_path / "written" / LORA_FILE)
    key = "diffusion_model.layers.0.attention.qkv.lora_B.weight"
    lost = key.replace("attention", "attn")
    cases = {
        "the stock pipeline's pictures differ": whole | {key: whole[key].roll(16, 0)},
        f"of {proof.modules} modules took effect": whole | {key: 0 * whole[key]},
        "has 63 rows, what it moves 64": whole | {key: whole[key][1:]},
        f"ComfyUI does not load {lost.partition('.lora')[0]}": whole | {lost: whole[key].clone()},
    }
    for message, tensors in cases.items():
        save_file(tensors, file)
        with pytest.raises(ValueError, match=message):
            check_export(proof, tmp_path / "written", folders["lumina2"])


def test_every_weight_tuned_is_a_pipeline_and_no_lora(folders, tmp_path):
    base = shutil.copytree(folders["zimage"], tmp_path / "base")
    (base / "transformer" / "old.fp16.safetensors").write_bytes(b"stale")
    run = finished_run(tmp_path / "full" / "run", base, 'model.tune="full"', deviation=0.01)
    refused(run, 'model.tune = "full" makes no LoRA; write --to merged', to="comfyui")
    exported = export_run(run, "merged")
    assert exported.folder == run / "export-merged" and exported.difference < 1e-4
    names = {path.name for path in (exported.folder / "transformer").iterdir()}
    assert names == {"config.json", "diffusion_pytorch_model.safetensors"}


def test_a_student_that_renoises_gets_the_scheduler_and_sampler_that_do(folders, tmp_path, monkeypatch):
    run = finished_run(tmp_path / "run", folders["sd3"], "objective.name=lcm")
    folder = export_run(run, "diffusers").folder
    assert type(open_exported(folder, folders["sd3"]).scheduler).__name__ == "FlowMatchLCMScheduler"
    code = (folder / "README.md").read_text().split("```")[1].removeprefix("python\n")
    assert "FlowMatchLCMScheduler" in code and (folder / LORA_FILE).is_file()
    monkeypatch.chdir(folder)
    lines = code.replace("steps = 1 ", "steps = 2 ").replace("'sd3'", repr(str(folders["sd3"])))
    drawn = []
    for _ in range(2):  # the same seed, the same picture, though the pipeline keeps its generator to itself
        exec(lines, places := {})
        drawn.append(np.asarray(places["image"]))
    assert np.array_equal(*drawn)
    graph = json.loads((export_run(run, "comfyui").folder / "workflow.json").read_text())
    assert graph["sampler"]["inputs"]["sampler_name"] == "lcm"


@pytest.mark.parametrize("family", ["flux", "qwen", "zimage"])
def test_a_student_that_renoises_is_compared_in_several_steps_too(folders, tmp_path, family):
    """In packed latents and in others: the stock scheduler's own noise is what ours is given."""
    settings = ("objective.name=lcm", "model.precision=float32")
    run = finished_run(tmp_path / "run", folders[family], *settings)
    folder = export_run(run, "diffusers").folder
    student = open_trained(*read_run(run))
    proof = take_export_proof(student, folder, True, ["two rings"] * 2, draw_noise([0, 1], (4, 8, 8)))
    assert [arguments["num_inference_steps"] for _, arguments in proof.drawn] == [1, 4]
    assert check_export(proof, folder, folders[family])[1] < 1e-4
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("FlowMatchLCMScheduler", "FlowMatchEulerDiscreteScheduler"))
    with pytest.raises(ValueError, match="pictures differ"):
        check_export(proof, folder, folders[family])
