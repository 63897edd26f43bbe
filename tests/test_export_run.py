"""A run of every family, exported each way: it opens in stock diffusers, and ComfyUI would read it as we mean it."""

import json
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from apexgen.backbones.diffusion import open_pipeline
from apexgen.distill import base_folder, open_trained, read_run
from apexgen.doctor.lora import examine
from apexgen.drawer import open_model
from apexgen.export.diffusers import LORA_FILE, open_exported
from apexgen.export.merged import merged_weights
from apexgen.export.patched import open_patched
from apexgen.export.run import PROMPT, export_run
from apexgen.generate import draw_noise, make_pictures
from comfyui import from_native, patched
from pipelines import BUILDERS, SIZE
from runs import finished_run, lines_of_card

IN_COMFYUI = tuple(family for family in BUILDERS if family != "sana")


@pytest.fixture(scope="module")
def runs(folders, tmp_path_factory):
    """A finished run of every family, made when it is first asked for."""
    root, made = tmp_path_factory.mktemp("runs"), {}

    def run(family, *settings):
        if (family, *settings) not in made:
            made[family, *settings] = finished_run(root / str(len(made)), folders[family], *settings)
        return made[family, *settings]

    return run


@pytest.fixture(scope="module")
def exports(runs, tmp_path_factory):
    """A family's run exported one way, once for all who read it."""
    root, made = tmp_path_factory.mktemp("exports"), {}

    def export(family, to, *settings):
        if (family, to, *settings) not in made:
            made[family, to, *settings] = export_run(runs(family, *settings), to, root / str(len(made)))
        return made[family, to, *settings]

    return export


def student_of(run):
    return open_trained(*read_run(run))


@pytest.mark.parametrize("family", BUILDERS)
def test_a_lora_opens_whole_and_the_cards_lines_draw_with_it(runs, exports, monkeypatch, family):
    exported = exports(family, "diffusers")
    assert exported.modules > 10 and exported.difference < 1e-4
    found = {path.relative_to(exported.folder).as_posix() for path in exported.folder.rglob("*") if path.is_file()}
    assert found == {LORA_FILE, "README.md", "config.toml", "scheduler/scheduler_config.json"}
    with safe_open(exported.folder / LORA_FILE, framework="pt") as file:
        metadata = json.loads(file.metadata()["lora_adapter_metadata"])
        assert len(list(file.keys())) == 2 * exported.modules
    assert metadata["transformer.lora_alpha"] == metadata["transformer.r"] == 2
    monkeypatch.chdir(exported.folder)
    base, places = base_folder(read_run(runs(family))[0]), {}
    for steps in (1, 2, 4):
        exec(lines_of_card(base, steps), places)
        assert np.asarray(places["image"]).std() > 0.1
        assert len(places["pipe"].scheduler.timesteps) == steps
        assert not getattr(places["pipe"], "do_classifier_free_guidance", False)


def test_sanas_card_draws_our_picture_and_leaves_the_text_to_the_stock_defaults(runs, exports, monkeypatch):
    monkeypatch.chdir(exports("sana", "diffusers").folder)
    code = Path("README.md").read_text().split("```")[1].removeprefix("python\n")
    assert "complex_human_instruction" not in code
    run, base = runs("sana"), base_folder(read_run(runs("sana"))[0])
    exec(code.replace(repr(base.name), repr(str(base))), places := {})
    ours = open_model(run, precision="float32").student(1).draw(["a photo of a red circle"], [0])[0]
    assert np.abs(np.asarray(places["image"]) / 255 - ours).max() < 0.6 / 255


@pytest.mark.parametrize("family", BUILDERS)
def test_a_merged_pipeline_is_the_base_plus_the_lora(runs, exports, monkeypatch, family):
    exported = exports(family, "merged")
    assert exported.difference < 1e-4
    monkeypatch.chdir(exported.folder)
    exec(lines_of_card(exported.folder, 2), places := {})
    assert np.asarray(places["image"]).std() > 0.1 and len(places["pipe"].scheduler.timesteps) == 2
    pipeline = open_pipeline(exported.folder)
    assert type(pipeline.scheduler).__name__ == "FlowMatchEulerDiscreteScheduler"
    assert not pipeline.scheduler.config.use_dynamic_shifting and pipeline.scheduler.config.shift == 1
    stock = base_folder(read_run(runs(family))[0])
    before, after = open_pipeline(stock).transformer.state_dict(), pipeline.transformer.state_dict()
    changed = {key.removesuffix(".weight") for key in after if not torch.equal(before[key], after[key])}
    assert len(changed) == exported.modules and before.keys() == after.keys()
    lora = load_file(exports(family, "diffusers").folder / LORA_FILE)
    for module in changed:
        down, up = (lora[f"transformer.{module}.lora_{side}.weight"].flatten(1) for side in "AB")
        delta = (after[f"{module}.weight"] - before[f"{module}.weight"]).flatten(1)
        torch.testing.assert_close(delta, up @ down, atol=1e-6, rtol=1e-4)


NATIVE_MODULES = {  # in ComfyUI: a module of diffusers -> the key of a patch's weight, the rows it moves of how many
    "flux": {
        "transformer_blocks.1.attn.to_k": ("double_blocks.1.img_attn.qkv", 32, 96),
        "transformer_blocks.0.attn.add_v_proj": ("double_blocks.0.txt_attn.qkv", 64, 96),
        "transformer_blocks.0.ff_context.net.2": ("double_blocks.0.txt_mlp.2", 0, 32),
        "single_transformer_blocks.1.attn.to_v": ("single_blocks.1.linear1", 64, 224),
        "single_transformer_blocks.0.proj_mlp": ("single_blocks.0.linear1", 96, 224),
        "single_transformer_blocks.0.proj_out": ("single_blocks.0.linear2", 0, 32),
        "time_text_embed.timestep_embedder.linear_2": ("time_in.out_layer", 0, 32),
        "proj_out": ("final_layer.linear", 0, 16),
    },
    "sd3": {
        "transformer_blocks.0.attn.to_q": ("joint_blocks.0.x_block.attn.qkv", 0, 48),
        "transformer_blocks.0.attn2.to_v": ("joint_blocks.0.x_block.attn2.qkv", 32, 48),
        "transformer_blocks.1.attn.add_k_proj": ("joint_blocks.1.context_block.attn.qkv", 16, 48),
        "transformer_blocks.0.ff.net.0.proj": ("joint_blocks.0.x_block.mlp.fc1", 0, 64),
        "time_text_embed.timestep_embedder.linear_1": ("t_embedder.mlp.0", 0, 16),
    },
    "lumina2": {
        "layers.1.attn.to_v": ("layers.1.attention.qkv", 48, 64),
        "context_refiner.0.attn.to_out.0": ("context_refiner.0.attention.out", 0, 32),
        "noise_refiner.0.feed_forward.linear_3": ("noise_refiner.0.feed_forward.w3", 0, 128),
        "time_caption_embed.timestep_embedder.linear_1": ("t_embedder.mlp.0", 0, 32),
        "norm_out.linear_2": ("final_layer.linear", 0, 16),
    },
    "zimage": {
        "layers.1.attention.to_k": ("layers.1.attention.qkv", 32, 96),
        "noise_refiner.0.attention.to_out.0": ("noise_refiner.0.attention.out", 0, 32),
        "all_final_layer.2-1.linear": ("final_layer.linear", 0, 16),
    },
    "qwen": {"transformer_blocks.0.attn.add_q_proj": ("transformer_blocks.0.attn.add_q_proj", 0, 32)},
}


@pytest.mark.parametrize("settings", [(), ("model.targets=all-linear",)], ids=["own", "all"])
@pytest.mark.parametrize("family", IN_COMFYUI)
def test_comfyui_adds_our_deltas_to_the_original_weights(runs, exports, folders, family, settings):
    exported = exports(family, "comfyui", *settings)
    student = student_of(runs(family, *settings))
    with student.averaged():
        merged = merged_weights(student)
    base = open_pipeline(folders[family]).transformer
    linear = {name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear)}
    ours = {name: merged[f"{name}.weight"] - base.get_submodule(name).weight.detach() for name in linear}
    shapes = {name: tuple(delta.shape) for name, delta in ours.items()}
    pipeline = type(student.backbone.pipeline).__name__
    weights = patched(exported.folder / LORA_FILE, pipeline, shapes)
    diagnosis = examine(exported.folder / LORA_FILE, folders[family])
    assert diagnosis.lines[4].startswith("ComfyUI    yes") and not diagnosis.lines[5:]
    for module, (native, begin, rows) in NATIVE_MODULES.get(family, {}).items():
        delta = ours[module]
        assert len(weights[native]) == rows and delta.any(), module
        torch.testing.assert_close(weights[native][begin : begin + len(delta)], delta, atol=1e-6, rtol=1e-4)
    found = from_native(family, {f"{name}.weight": weight for name, weight in weights.items()})
    moved = [name for name in linear if ours[name].any()]
    assert len(moved) == exported.modules and exported.difference < 1e-4
    for name in linear:
        if f"{name}.weight" in found:
            torch.testing.assert_close(found[f"{name}.weight"], ours[name], atol=1e-6, rtol=1e-4, msg=name)
    assert {f"{name}.weight" for name in moved} <= found.keys()


@pytest.mark.parametrize("family", IN_COMFYUI)
def test_a_workflow_is_of_nodes_that_are_there_and_takes_our_steps(exports, family):
    folder = exports(family, "comfyui").folder
    graph = json.loads((folder / "workflow.json").read_text())
    for node in graph.values():
        assert node.keys() == {"class_type", "inputs"}
        links = [value for value in node["inputs"].values() if isinstance(value, list)]
        assert all(name in graph for name, _ in links)
    assert graph["lora"]["inputs"]["lora_name"] == LORA_FILE
    assert graph["noise"]["inputs"]["width"] == graph["noise"]["inputs"]["height"] == SIZE
    sampler, grid = graph["sampler"]["inputs"], graph["grid"]
    assert sampler["cfg"] == 1 and sampler["sampler_name"] == "euler" and sampler["scheduler"] == "simple"
    shifts = [value for name, value in grid["inputs"].items() if "shift" in name]
    assert shifts == ([0, 0] if grid["class_type"] == "ModelSamplingFlux" else [1])
    assert ("told" in graph) == (family == "flux")
    if family in ("flux", "schnell"):
        which = {"flux": "dev", "schnell": "schnell"}[family]
        assert graph["model"]["inputs"]["unet_name"] == f"flux1-{which}.safetensors"


@pytest.fixture(scope="module")
def tall(folders, tmp_path_factory):
    """A finished run of every family, whose pictures are no squares."""
    root = tmp_path_factory.mktemp("tall")
    return lambda family: finished_run(root / family, folders[family], "model.size=64x96")


@pytest.mark.parametrize("family", BUILDERS)
def test_a_card_draws_the_runs_own_picture_that_is_no_square(tall, monkeypatch, family):
    run = tall(family)
    exported = export_run(run, "diffusers")
    base = base_folder(read_run(run)[0])
    code = (exported.folder / "README.md").read_text().split("```")[1].removeprefix("python\n")
    model = open_model(run, precision="float32")
    noise = draw_noise([0], model.backbone.latent_shape())
    drawn = make_pictures(model.backbone, model.distilled, model.backbone.encode_text([PROMPT]), noise, 1)[0]
    lines = code.replace(repr(base.name), repr(str(base)))
    lines = lines.replace("generator=torch.Generator().manual_seed(0)", "latents=latents")
    monkeypatch.chdir(exported.folder)
    places = {"latents": model.backbone.pack(noise)}
    exec(lines, places)
    assert places["image"].size == (64, 96)
    assert np.abs(np.asarray(places["image"]) / 255 - drawn).max() < 0.01
    if family != "sana":
        graph = json.loads((export_run(run, "comfyui").folder / "workflow.json").read_text())
        assert (graph["noise"]["inputs"]["width"], graph["noise"]["inputs"]["height"]) == (64, 96)


@pytest.mark.parametrize("family", IN_COMFYUI)
@pytest.mark.parametrize("mode", ["merge", "stack"])
def test_on_top_of_a_task_comfyui_loads_both_one_on_the_other(exports, folders, tmp_path, family, mode):
    task = exports(family, "diffusers").folder / LORA_FILE
    settings = (f"model.lora={task}", f"model.lora_mode={mode}", "model.targets=attention", "train.seed=5")
    run = finished_run(tmp_path / "run", folders[family], *settings)
    exported = export_run(run, "comfyui")
    folder = exported.folder
    assert exported.difference < 1e-4
    graph = json.loads((folder / "workflow.json").read_text())
    chain = [graph[name]["inputs"] for name in ("task", "lora")]
    assert [node["model"] for node in (*chain, graph["grid"]["inputs"])] == [["model", 0], ["task", 0], ["lora", 0]]
    student, base = student_of(run), open_pipeline(folders[family]).transformer
    with student.averaged():
        merged = merged_weights(student)
    linear = {name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear)}
    shapes = {name: tuple(base.get_submodule(name).weight.shape) for name in linear}
    pipeline = type(student.backbone.pipeline).__name__
    task_patch, ours = (patched(folder / node["lora_name"], pipeline, shapes) for node in chain)
    found = from_native(family, {f"{name}.weight": task_patch[name] + ours[name] for name in ours})
    for name in linear:
        expected = merged[f"{name}.weight"] - base.get_submodule(name).weight.detach()
        if f"{name}.weight" in found:
            torch.testing.assert_close(found[f"{name}.weight"], expected, atol=1e-5, rtol=1e-4, msg=name)
    assert any(patch.any() for patch in ours.values()) and any(patch.any() for patch in task_patch.values())


def test_the_student_is_let_go_before_the_export_is_opened(runs, tmp_path, monkeypatch):
    """Two pipelines at once are more than a machine may hold."""
    import apexgen.export.run as module

    opened, alive = [], []

    def watched(run, saved):
        student = open_trained(run, saved)
        opened.append(weakref.ref(student.backbone.network))
        return student

    def watching(open_again):
        def reopened(*given):
            alive.append(opened[-1]() is not None)
            return open_again(*given)

        return reopened

    monkeypatch.setattr(module, "open_trained", watched)
    monkeypatch.setattr(module, "open_exported", watching(open_exported))
    monkeypatch.setattr(module, "open_patched", watching(open_patched))
    for to in ("diffusers", "merged", "comfyui"):
        export_run(runs("sd3"), to, tmp_path / to)
    assert alive == [False, False, False]
