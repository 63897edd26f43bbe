"""The doctor's verdicts are what the loaders do: diffusers' own, and ComfyUI's key map."""

import json

import pytest
import torch

from apexgen.doctor.base import describe, open_empty
from apexgen.doctor.environment import describe_environment, environment_lines
from apexgen.doctor.lora import examine
from apexgen.export.native import native_places
from loras import ALPHA, RANK, TRAINERS, base_of, weights, written

LOADS = {  # all with diffusers' module names; D: in diffusers, C: in ComfyUI
    "flux": ("DC", "DC", "", "", "", "C", "C"),
    "sd3": ("DC", "C", "C", "", "", "", ""),
    "qwen": ("DC", "C", "", "DC", "DC", "DC", "DC"),
    "zimage": ("DC", "C", "", "D", "DC", "DC", "DC"),
    "lumina2": ("D", "", "", "", "", "", ""),
    "sana": ("D", "", "", "", "", "", ""),
}


@pytest.fixture(scope="module")
def bases(folders):
    """The folder of every family, and the shapes of its attention's first layer."""
    return {family: base_of(folder) for family, folder in folders.items()}


def said(diagnosis, word):
    return " ".join(line.removeprefix(word).strip() for line in diagnosis.lines if line.startswith(word))


@pytest.mark.parametrize("family", LOADS)
def test_every_trainers_file_loads_where_the_loaders_take_it(tmp_path, bases, family):
    folder, shapes = bases[family]
    for (trainer, spelling), loads in zip(TRAINERS.items(), LOADS[family], strict=True):
        diagnosis = examine(written(tmp_path, weights(shapes, *spelling)), folder)
        verdicts = {"D": said(diagnosis, "diffusers"), "C": said(diagnosis, "ComfyUI")}
        yes = "".join(letter for letter, verdict in verdicts.items() if verdict.startswith("yes"))
        assert yes == loads, (trainer, verdicts)
        assert diagnosis.loads == bool(loads)
        assert said(diagnosis, "covers").startswith(f"{len(shapes)} of its {len(shapes)} modules fit")
        assert said(diagnosis, "rank") == f"4; scale {2 if spelling[-1] else 1}"
        assert trainer.split(",")[0] in said(diagnosis, "format")


@pytest.mark.parametrize("prefix", ["lora_unet_", "diffusion_model."])
def test_the_original_releases_names_count_too(tmp_path, bases, prefix):
    folder, _ = bases["lumina2"]
    shapes = describe(open_empty(folder)).shapes
    fused = {}
    for module, (native, _) in native_places("Lumina2Pipeline", list(shapes)).items():
        if native.endswith("attention.qkv"):
            fused[native] = (fused.get(native, (0, 0))[0] + shapes[module][0], shapes[module][1])
    factors = ("lora_down", "lora_up", 2.0) if prefix == "lora_unet_" else ("lora_A", "lora_B", None)
    diagnosis = examine(written(tmp_path, weights(fused, prefix, *factors)), folder)
    assert said(diagnosis, "ComfyUI") == f"yes: {len(fused)} keys load"
    assert f"move {3 * len(fused)} of the {len(shapes)} in" in said(diagnosis, "covers")


def test_a_lora_of_another_family_loads_nowhere_and_is_named(tmp_path, bases):
    _, shapes = bases["zimage"]
    diagnosis = examine(written(tmp_path, weights(shapes, *TRAINERS["diffusers"])), bases["flux"][0])
    assert not diagnosis.loads
    assert said(diagnosis, "wrong").startswith("transformer.")
    assert said(diagnosis, "wrong").endswith("not in this FluxPipeline; of another family or version")


def test_a_part_of_another_size_is_named(tmp_path, bases):
    folder, shapes = bases["qwen"]
    wide = {name: (2 * rows, columns) for name, (rows, columns) in shapes.items()}
    diagnosis = examine(written(tmp_path, weights(wide, *TRAINERS["diffusers"])), folder)
    assert not diagnosis.loads and said(diagnosis, "diffusers").startswith("no")
    assert "(64 x 32)" in said(diagnosis, "wrong") and "of another size than the base's" in said(diagnosis, "wrong")


def test_an_alpha_in_the_metadata_alone_is_lost_in_comfyui(tmp_path, bases):
    folder, shapes = bases["qwen"]
    told = {"transformer.r": RANK, "transformer.lora_alpha": 8, "transformer.target_modules": sorted(shapes)}
    metadata = {"lora_adapter_metadata": json.dumps(told)}
    diagnosis = examine(written(tmp_path, weights(shapes, *TRAINERS["diffusers"]), metadata), folder)
    assert said(diagnosis, "diffusers").startswith("yes")
    assert "at scale 1 in place of 2" in said(diagnosis, "ComfyUI") and said(diagnosis, "ComfyUI").startswith("no")


def test_alphas_of_some_modules_and_ranks_under_a_root_count(tmp_path, bases):
    """Compared with what peft, given the same metadata by the stock loader, applies."""
    folder, shapes = bases["qwen"]
    told = {"transformer.r": RANK, "transformer.target_modules": sorted(shapes), "transformer.lora_alpha": 4}
    tensors = weights(shapes, *TRAINERS["diffusers"])
    for more, scales in (
        ({"transformer.alpha_pattern": {"0.attn.to_q": 8}}, "1, 2"),
        ({"transformer.use_rslora": True}, "2"),
        ({"transformer.alpha_pattern": {r"transformer_blocks\.1\..*": 1}, "transformer.use_rslora": True}, "0.5, 2"),
    ):
        diagnosis = examine(written(tmp_path, tensors, {"lora_adapter_metadata": json.dumps(told | more)}), folder)
        assert said(diagnosis, "rank") == f"4; scale {scales}"
        assert said(diagnosis, "diffusers").startswith("yes")
        assert said(diagnosis, "ComfyUI").startswith("no") and "it reads no metadata" in said(diagnosis, "ComfyUI")


def test_pefts_own_configuration_is_read_beside_its_file(tmp_path, bases):
    folder, shapes = bases["sd3"]
    file = written(tmp_path, weights(shapes, *TRAINERS["PEFT"])).rename(tmp_path / "adapter_model.safetensors")
    config, first = tmp_path / "adapter_config.json", sorted(shapes)[0]
    told = {"peft_type": "LORA", "r": RANK, "lora_alpha": 4, "alpha_pattern": {}, "use_rslora": False}
    config.write_text(json.dumps(told))
    assert said(examine(file, folder), "ComfyUI").startswith("yes")
    for more, scales in (
        ({"lora_alpha": 8}, "2"),
        ({"use_rslora": True}, "2"),
        ({"alpha_pattern": {first: 8}}, "1, 2"),
    ):
        config.write_text(json.dumps(told | more))
        diagnosis = examine(file, folder)
        assert not diagnosis.loads and said(diagnosis, "rank") == f"4; scale {scales}"
        assert said(diagnosis, "ComfyUI").endswith("at scale 1 in place of 2: it reads no adapter_config.json")
    other = written(tmp_path, weights(shapes, *TRAINERS["diffusers"]))
    assert said(examine(other, folder), "ComfyUI").startswith("yes"), "not of the file that the configuration is of"
    config.write_text("[]")
    with pytest.raises(ValueError, match=r"adapter_config\.json can't be read; mend it or move it away"):
        examine(file, folder)


def test_what_is_left_out_is_named(tmp_path, bases):
    folder, shapes = bases["qwen"]
    tensors = weights(shapes, *TRAINERS["diffusers"])
    first = next(iter(shapes))
    del tensors[f"transformer.{first}.lora_B.weight"]
    tensors["transformer.img_in.dora_scale"] = torch.ones(1)
    tensors["lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight"] = torch.ones(4, 4)
    diagnosis = examine(written(tmp_path, tensors), folder)
    wrong = said(diagnosis, "wrong")
    assert not diagnosis.loads
    assert f"transformer.{first}: without another factor that fits" in wrong
    assert "transformer.img_in.dora_scale: no LoRA known here" in wrong
    assert said(diagnosis, "text").endswith("mlp_fc1.lora_up.weight: of a text encoder, not examined")


def test_a_tensor_that_every_loader_leaves_out_is_not_well(tmp_path, bases):
    folder, shapes = bases["qwen"]
    whole = weights(shapes, *TRAINERS["diffusers"])
    key = min(whole).replace("lora_A.weight", "lora_magnitude_vector")
    told = {"transformer.r": RANK, "transformer.lora_alpha": RANK, "transformer.target_modules": sorted(shapes)}
    metadata = {"lora_adapter_metadata": json.dumps(told)}
    assert examine(written(tmp_path, whole, metadata), folder).loads
    diagnosis = examine(written(tmp_path, whole | {key: torch.ones(32)}, metadata), folder)
    assert not diagnosis.loads and said(diagnosis, "wrong") == f"{key}: no LoRA known here, left out"
    assert said(diagnosis, "diffusers").startswith("no") and said(diagnosis, "ComfyUI").startswith("no")


def test_the_transformers_part_is_examined_alone(tmp_path, bases):
    """The text encoder's is what the loader would put in an encoder that an empty pipeline lacks."""
    folder, shapes = bases["flux"]
    fused = {f"double_blocks.{block}.img_attn.qkv": (96, 32) for block in range(2)}
    layer, square, spelling = "text_model.encoder.layers.0.", (16, 16), ("lora_down", "lora_up", ALPHA)
    kohya = weights(fused, "lora_unet_", *spelling) | weights({f"{layer}mlp.fc1": square}, "lora_te1_", *spelling)
    text = weights({f"{layer}self_attn.q_proj": square}, "text_encoder.", "lora_A", "lora_B", None)
    for tensors in (kohya, weights(shapes, *TRAINERS["diffusers"]) | text):
        diagnosis = examine(written(tmp_path, tensors), folder)
        assert said(diagnosis, "diffusers").startswith("yes") and said(diagnosis, "ComfyUI").startswith("yes")
        assert "of a text encoder, not examined" in said(diagnosis, "text") and not said(diagnosis, "wrong")


def test_a_file_of_several_types_loads_and_they_are_named(tmp_path, bases):
    folder, shapes = bases["qwen"]
    whole = weights(shapes, *TRAINERS["diffusers"])
    first, *_ = sorted(whole)
    diagnosis = examine(written(tmp_path, whole | {first: whole[first].bfloat16()}), folder)
    assert diagnosis.loads and not said(diagnosis, "wrong")
    assert f"BF16 ({first})" in said(diagnosis, "mixes") and said(diagnosis, "mixes").endswith(
        "cast to the base's type"
    )


def test_the_environment_names_every_family():
    told = describe_environment()
    lines = environment_lines(told)
    assert sum(line.startswith("family") for line in lines) == 6 == len(told["families"])
    assert all(one["well"] and f"diffusers {one['diffusers']}" in " ".join(lines) for one in told["families"].values())
    threads = torch.get_num_threads()
    assert any(line.startswith(f"device        cpu, {threads} threads, bfloat16 ") for line in lines)
    assert told["devices"][0]["threads"] == threads and told["packages"]["torch"] == torch.__version__
    told = {"python": "3.11.7", "packages": {"torch": "2.0"}, "devices": [], "families": {}}
    assert environment_lines(told) == ["python        3.11.7", "torch         2.0"]
    gpu = {"name": "cuda:0", "model": "a GPU", "memory_gib": 79.6, "bfloat16": "fast"}
    family = {"A": {"well": False, "diffusers": "0.36"}}
    assert environment_lines(told | {"devices": [gpu], "families": family})[2:] == [
        "device        cuda:0, a GPU, 80 GiB, bfloat16 fast",
        "family        A: no, it needs diffusers 0.36",
    ]


def test_programs_are_told_of_a_lora_by_name(tmp_path, bases):
    folder, shapes = bases["qwen"]
    whole = weights(shapes, *TRAINERS["diffusers"])
    first = min(whole)
    extra = {"transformer.img_in.dora_scale": torch.ones(1)}
    told = examine(written(tmp_path, whole | extra | {first: whole[first].bfloat16()}), folder).told
    assert json.loads(json.dumps(told)) == told
    assert (told["ranks"], told["scales"], told["pipeline"]) == ([RANK], [1.0], "QwenImagePipeline")
    assert told["modules"] == told["fit"] == told["moved"] == len(shapes) < told["pipeline_modules"]
    assert told["diffusers"] == {"loads": False, "said": f"{len(shapes)} modules take effect"}
    assert told["kinds"]["BF16"] == first and set(told["kinds"]) == {"BF16", "F32"}
    assert told["wrong"] == ["transformer.img_in.dora_scale: no LoRA known here, left out"] and told["text"] == []
