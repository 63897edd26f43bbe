"""The commands, from outside: the whole demo at small size, real kills, and one line for each mistake."""

import json
import sys

import pytest

from apexgen.cli import main
from apexgen.export.diffusers import LORA_FILE
from runs import finished_run
from small import SHORT


def run(capsys, monkeypatch, *arguments) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["apexgen", *map(str, arguments)])
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    return code, capsys.readouterr().err


def test_the_demo_goes_the_whole_way(capsys, monkeypatch, tmp_path):
    folder = tmp_path / "demo"
    small = [s for s in SHORT if not s.startswith("train.steps")]
    code, _ = run(capsys, monkeypatch, "demo", "--folder", folder, "--per-task", 1, "--ablate", "train.steps=2", *small)
    assert code == 0
    report = json.loads((folder / "report.json").read_text())
    tasks = {"single_object", "two_object", "counting", "colors", "position", "color_attr", "overall"}
    assert report["teacher"]["steps"] == 50 and report["teacher"]["guidance"] > 1
    entries = [report["teacher"], report["teacher_1"], *report["student"].values(), report["ablation"]["mix"]["1"]]
    for entry in entries:
        assert entry["score"].keys() == tasks and entry["seconds_per_image"] > 0
    assert report["student"].keys() == {"1", "2", "4"}
    assert report["training"]["steps"] == 2 and report["training"]["peak_memory_bytes"] > 1e8
    assert report["export"]["max_difference"] < 1e-4
    for name in ("report.html", "grid.png", "config.toml", "metrics.jsonl", "samples/step-000000.png"):
        assert (folder / name).stat().st_size > 100, name
    assert "http" not in (folder / "report.html").read_text().replace("http://www.w3.org/2000/svg", "")
    code, _ = run(capsys, monkeypatch, "sample", folder, "-p", "a red circle", "--out", tmp_path / "a.png")
    assert code == 0 and (tmp_path / "a.png").is_file()


def test_a_probe_says_what_the_embedded_model_does_not_see(capsys, monkeypatch, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle\n\ntwo rings\n")
    monkeypatch.setattr(sys, "argv", ["apexgen", "probe", "scenes", "--prompts", str(prompts), "--shift", "0.5,0"])
    main()
    out = capsys.readouterr().out
    assert "normalised away: make a negative" in out and "another prompt" in out
    assert "invisible: (0.5, 0); none of these is visible" in out


def command(folder, *overrides):
    file = folder / "run.toml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(f'folder = "{folder / "run"}"\n[objective]\nname = "apex"\n')
    return [sys.executable, "-m", "apexgen", "train", str(file), *SHORT, "train.save_every=1", *overrides]


MISTAKES = {
    "apexgen: no such command 'trian'; write apexgen train": ["trian", "run.toml"],
    "apexgen: no such command 'fly'; see apexgen --help": ["fly"],
    "apexgen evaluate: no such command 'tabel'; write apexgen evaluate table": ["evaluate", "tabel"],
    "apexgen export: missing argument 'run'; write it as here: apexgen export apexgen-demo --to merged": ["export"],
    "apexgen sample: no such option: --stesp; did you mean --steps?": ["sample", "scenes", "--stesp", "2"],
    "apexgen sample: no such option: --fly; see apexgen sample --help": ["sample", "scenes", "--fly"],
    "apexgen sample: option '--steps' requires an argument; write it as here": ["sample", "scenes", "--steps"],
    "apexgen demo: invalid value for '--per-task': ": ["demo", "--folder", "new", "--per-task", "0"],
    "apexgen doctor: got unexpected extra argument": ["doctor", "lora.safetensors", "other"],
    "did you mean train.steps?": ["demo", "--folder", "new", "train.stepz=3"],
    "unknown key trian: did you mean train?": ["demo", "--folder", "new", "trian.steps=3"],
    "train.steps = 0": ["demo", "--folder", "new", "train.steps=0"],
    "train.steps = -4": ["demo", "--folder", "new", "train.steps=-4"],
    "guidance": ["demo", "--folder", "new", "objective.guidence=3.0"],
    "rank and targets are of a LoRA": ["demo", "--folder", "new", "model.tune=full", "model.rank=8"],
    "no such folder": ["demo", "--folder", "new", "model.path=missing"],
    "is not a diffusers pipeline": ["demo", "--folder", "new", "model.path=."],
    "no such run file": ["train", "missing.toml"],
    "model.lora = 'missing': no such file": ["demo", "--folder", "new", "model.lora=missing"],
    "data.source = 'missing'": ["demo", "--folder", "new", "data.source=missing"],
    "a prompt is empty": ["sample", "new", "-p", "  "],
    '--prompt is missing: write -p "a red ring", or --prompts FILE, one prompt a line': ["sample", "scenes"],
    "less than or equal to 65535; see apexgen app --help": ["app", "scenes", "--port", "99999"],
    "apexgen serve: option '--host' requires an argument; see apexgen serve --help": ["serve", "scenes", "--host"],
    "'--seed': Input should be less than or equal to 1099511627775": ["sample", "scenes", "--seed", "9" * 20],
    "--steps must be at least 1, got 0": ["sample", "new", "-p", "a ring", "--steps", "0"],
    "--prompts is missing": ["probe", "."],
    "--prompts missing: no such file": ["probe", "scenes", "--prompts", "missing"],
    "--size: '64x' is no size; write 1024 for a square, or 768x1024, width first": [
        "sample",
        "scenes",
        "-p",
        "a ring",
        "--size",
        "64x",
    ],
    "size = '20x64': SANA wants multiples of 32; write --size 32x64, or model.size = \"32x64\"": [
        "sample",
        "scenes",
        "-p",
        "a ring",
        "--size",
        "20x64",
    ],
    "model.size: '64*64' is no size": ["demo", "--folder", "new", "model.size=64*64"],
    "--shift 1: write two numbers": ["probe", "scenes", "--shift", "1"],
    "is no run's folder": ["sample", "missing", "-p", "a ring"],
    "no run's folder: it has no config.toml": ["export", "missing", "--to", "merged"],
    "--to onnx: write one of": ["export", "missing", "--to", "onnx"],
    "lora.pt: no such file": ["doctor", "lora.pt", "--base", "."],
    "write apexgen doctor FILE --base FOLDER": ["doctor", "lora.safetensors"],
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_costs_one_line_exit_code_2_and_leaves_nothing(capsys, monkeypatch, tmp_path, message):
    monkeypatch.chdir(tmp_path)
    code, error = run(capsys, monkeypatch, *MISTAKES[message])
    assert code == 2
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("encode run.toml data.cache=", 'data.cache'),
        ("synthesize nowhere --prompts prompts.txt --out z", "nowhere"),
        ("sample scenes -p ring --out nowhere/a.png", "--out nowhere/a.png: there is no folder nowhere"),
        ("sample scenes -p ring --out a.png", "--out a.png is a folder; write --out a.png/sample.png"),
    ],
)  # fmt: skip
def test_what_could_not_be_written_is_refused_before_work_and_leaves_nothing(
    capsys, monkeypatch, tmp_path, words, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.toml").write_text('folder = "run"\n')
    (tmp_path / "prompts.txt").write_text("a red ring\n")
    (tmp_path / "a.png").mkdir()
    before = sorted(tmp_path.rglob("*"))
    code, error = run(capsys, monkeypatch, *words.split())
    assert code == 2 and message in error and len(error.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_the_doctor_tells_by_its_exit_code_whether_a_lora_loads(capsys, monkeypatch, folders, tmp_path):
    run_folder = finished_run(tmp_path / "run", folders["qwen"])
    assert run(capsys, monkeypatch, "export", run_folder)[0] == 0
    lora = run_folder / "export-diffusers" / LORA_FILE
    assert run(capsys, monkeypatch, "doctor", lora, "--base", folders["qwen"]) == (0, "")
    assert run(capsys, monkeypatch, "doctor", lora, "--base", folders["flux"]) == (1, "")
    assert run(capsys, monkeypatch, "doctor") == (0, "")


def test_a_dry_run_prints_the_plan_and_writes_nothing(capsys, monkeypatch, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(f'folder = "{tmp_path / "run"}"\n')
    monkeypatch.setattr(sys, "argv", ["apexgen", "train", str(file), "--dry-run", *SHORT])
    main()
    said = capsys.readouterr().out
    for name in ("trainable parameters", "activations", "samples per epoch", "seconds per step", "disk"):
        assert name in said
    code, error = run(capsys, monkeypatch, "train", file, "--dry-run", *SHORT, "train.steps=9999999999",
                      "train.save_every=1", "train.keep=9999999999")  # fmt: skip
    assert code == 2 and "write train.keep = " in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_of_another_run_is_not_gone_on_with(capsys, monkeypatch, tmp_path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "config.toml").write_text("[train]\nbatch = 7\n")
    code, error = run(capsys, monkeypatch, "demo", "--folder", tmp_path / "demo", "train.batch=8")
    assert code == 2 and "was begun with" in error
