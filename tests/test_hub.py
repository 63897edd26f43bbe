"""A pipeline of the hub: of its cache, laid out as huggingface_hub does, or sent by a hub on loopback."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from apexgen.backbones.diffusion import load_backbone
from apexgen.backbones.hub import UNWANTED, WANTED, find_folder, public_name
from apexgen.cli import main
from apexgen.config import load_run
from apexgen.distill import base_folder
from apexgen.evaluate.subject import open_drawer, read_subject
from apexgen.scenes.pipeline import FOLDER
from called import apexgen
from stub_hub import COMMIT, hub


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache with the embedded pipeline as hub:maker/scenes."""
    repository = tmp_path / "models--maker--scenes"
    shutil.copytree(FOLDER, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    return repository


@pytest.mark.parametrize("name", ["hub:maker/scenes", "hub:maker/scenes@main", f"hub:maker/scenes@{COMMIT}"])
def test_a_cached_pipeline_is_opened_without_a_network(cache, name):
    folder = base_folder(load_run(None, [f"model.path={name}"]))
    assert folder == cache / "snapshots" / COMMIT
    assert load_backbone(folder).family == "SANA"
    assert public_name(folder) == "maker/scenes" and public_name(FOLDER) == FOLDER.name


@pytest.mark.parametrize("name", ["hub:maker/other", "hub:maker/scenes@v2", "hub:a/b/c", "hub:"])
def test_what_is_not_there_costs_one_line_that_names_it(cache, name):
    with pytest.raises(ValueError) as caught:
        find_folder(name)
    text = str(caught.value)
    assert text.startswith(f"{name} can't be fetched, nor is it in the cache: ") and "\n" not in text


def test_the_commands_take_it_where_they_take_a_folder(cache, tmp_path, monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr("sys.argv", ["apexgen", *map(str, words)])
        main()
        return capsys.readouterr().out

    factors = {"transformer.proj_out.lora_A.weight": (2, 192), "transformer.proj_out.lora_B.weight": (8, 2)}
    save_file({name: torch.ones(shape) for name, shape in factors.items()}, tmp_path / "lora.safetensors")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red ring\na blue cross\n")
    for name in ("hub:maker/scenes", "hub:maker/scenes@main"):
        told = json.loads(run("sample", name, "-p", "a red ring", "--out", tmp_path / "grid.png", "--json"))
        assert told["model"] == "maker/scenes" and (tmp_path / "grid.png").is_file()
        assert "yes: 1 modules take effect" in run("doctor", tmp_path / "lora.safetensors", "--base", name)
        assert "another prompt" in run("probe", name, "--prompts", prompts)
        run("synthesize", name, "--prompts", prompts, "--out", tmp_path / name.replace("/", "-"), "--steps", 1)
        drawers = [open_drawer(read_subject(f"{how}{name}@2:3"), None, "float32") for how in ("", "stock:")]
        drawn = [drawer.draw(["a red ring"], [1]) for drawer in drawers]
        np.testing.assert_allclose(*drawn, atol=1e-4)


def test_a_plain_name_downloads_nothing_and_is_told_how_to(cache, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: pytest.fail("asked the hub"))
    with pytest.raises(ValueError, match=r'on the hub write "hub:maker/scenes"'):
        find_folder("maker/scenes")
    (tmp_path / "maker" / "scenes").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find_folder("maker/scenes").is_dir()


def test_asked_for_it_is_fetched_once_without_what_no_one_may_run_or_needs(tmp_path, monkeypatch):
    published, out = tmp_path / "published", tmp_path / "grid.png"
    shutil.copytree(FOLDER, published)
    left = {"README.md", "transformer/model.py", "vae/diffusion_pytorch_model.bin", "vae/model.fp16.safetensors"}
    for name in left:
        (published / name).write_text("none of this is ours to have")
    with hub({"maker/scenes": published}) as (address, asked):
        place = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
        said = apexgen("sample", "hub:maker/scenes", "-p", "a red ring", "--steps", 1, "--out", out, **place)
    assert said.returncode == 0 and out.is_file(), said.stderr
    sent = {path.partition(f"/resolve/{COMMIT}/")[2] for path in asked} - {""}
    there = {file.relative_to(published).as_posix() for file in published.rglob("*") if file.is_file()}
    assert left < there and sent == there - left - {"recipe.json"}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = find_folder("hub:maker/scenes")
    assert all((folder / name).read_bytes() == (published / name).read_bytes() for name in sent)


def test_neither_code_nor_pickles_nor_a_second_copy_of_the_weights_is_asked_for():
    from huggingface_hub.utils import filter_repo_objects

    files = [
        "model_index.json", "transformer/config.json", "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
        "tokenizer/spiece.model", "tokenizer/merges.txt", "tokenizer/chat_template.jinja",
        "transformer/model.py", "vae/diffusion_pytorch_model.bin", "flux1-dev.safetensors", "README.md",
        "vae/diffusion_pytorch_model.fp16.safetensors", "transformer/x.safetensors.index.fp16.json", "a/b.ckpt",
    ]  # fmt: skip
    kept = list(filter_repo_objects(files, allow_patterns=list(WANTED), ignore_patterns=list(UNWANTED)))
    assert kept == files[:6]
