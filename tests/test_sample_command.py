"""apexgen sample: runs, pipelines and LoRAs; a grid or a folder; prompts from the line or a file."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from apexgen.cli import main
from apexgen.drawer import open_model
from apexgen.evaluate.gallery import read_picture
from apexgen.export.diffusers import LORA_FILE
from apexgen.export.run import export_run
from apexgen.size import Size
from runs import finished_run


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("sample") / "run", "scenes")


@pytest.fixture
def sample(monkeypatch):
    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["apexgen", "sample", *map(str, arguments)])
        main()

    return call


def test_a_run_and_its_exported_lora_fill_the_same_folder(sample, run_folder, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("two rings\n\na photo of a red circle\n")
    lora = export_run(run_folder, "diffusers").folder / LORA_FILE
    common = ["--prompts", prompts, "-p", "a blue cross", "--grid", 2, "--seed", 7, "--steps", 2]
    sample(run_folder, *common, "--out", tmp_path / "a")
    sample("scenes", "--lora", lora, *common, "--out", tmp_path / "b")
    files = sorted(path.name for path in (tmp_path / "a").glob("*.png"))
    assert files == [f"{i:05}.png" for i in range(6)]
    with Image.open(tmp_path / "a" / "00003.png") as picture:
        assert picture.info["prompt"] == "two rings" and picture.info["seed"] == "10"
    expected = open_model(run_folder).student(2).draw(["a blue cross"], [8])[0]
    assert np.abs(read_picture(tmp_path / "a" / "00001.png") - expected).max() < 0.02
    for name in files:
        one, other = (read_picture(tmp_path / folder / name) for folder in "ab")
        assert np.abs(one - other).max() < 0.02


@pytest.mark.parametrize(("size", "told"), [("96x64", "96x64"), ("64x64", 64), ("96", 96)])
def test_a_picture_has_the_size_that_is_asked_for(sample, tmp_path, capsys, size, told):
    run = finished_run(tmp_path / "run", "scenes", f"model.size={size}")
    capsys.readouterr()
    for model in (["scenes", "--size", size], [run]):
        sample(*model, "-p", "a blue cross", "--out", tmp_path / size, "--json")
        assert json.loads(capsys.readouterr().out)["size"] == told
        with Image.open(tmp_path / size / "00000.png") as picture:
            assert picture.size == Size.read(size)[::-1]
        shutil.rmtree(tmp_path / size)


def test_an_exported_folder_is_told_from_a_run(sample, run_folder, tmp_path, capsys):
    folder = export_run(run_folder, "diffusers", tmp_path / "exported").folder
    with pytest.raises(SystemExit):
        sample(folder, "-p", "two rings", "--out", tmp_path / "a")
    told = capsys.readouterr().err.strip()
    start = f"apexgen: {folder} is an exported LoRA; write: "
    assert told == f"{start}apexgen sample scenes --lora {folder / LORA_FILE}"
    sample(*told.removeprefix(start).split()[2:], "-p", "two rings", "--out", tmp_path / "a")
    assert (tmp_path / "a" / "00000.png").is_file()


def test_a_pipeline_draws_a_grid_with_guidance(sample, tmp_path):
    out = tmp_path / "grid.png"
    sample("scenes", "-p", "two rings", "-p", "a red circle", "--steps", 4, "--guidance", 3, "--grid", 3, "--out", out)
    guided = Image.open(out).convert("RGB")
    sample("scenes", "-p", "two rings", "-p", "a red circle", "--steps", 4, "--grid", 3, "--out", out)
    plain = Image.open(out).convert("RGB")
    assert guided.size == plain.size and guided.size[0] > 3 * 128 and guided.size[1] > 2 * 128
    assert np.abs(np.asarray(guided, int) - np.asarray(plain, int)).max() > 50
