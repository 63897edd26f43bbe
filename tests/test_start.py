"""A run begins well: files that load for every family and card, refusals that help, the authors' files translated."""

import inspect
import sys
from pathlib import Path

import pytest

from apexgen.backbones.diffusion import load_backbone
from apexgen.cli import main
from apexgen.config import Train, load_run
from apexgen.distill import encodes_first
from apexgen.size import Size
from apexgen.start.choices import FAMILIES, choose, estimate
from apexgen.start.translate import translate
from apexgen.start.write import run_file, write_start
from apexgen.train import open_objective
from pipelines import SQUARE

THEIRS = Path(__file__).with_name("authors") / "sd35.yaml"
CARDS = (12, 16, 24, 48, 80)
PUBLISHED = {  # each with the tiny pipeline of its kind
    "qwen-image": "qwen", "flux": "flux", "sd3": "sd3", "sana": "sana", "lumina2": "lumina2", "z-image": "zimage",
}  # fmt: skip


def loaded(text, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(text)
    run = load_run(file)
    open_objective(run)
    return run


@pytest.mark.parametrize("name", FAMILIES)
def test_a_run_file_loads_on_every_card_that_it_fits_and_says_why(name, tmp_path):
    fitting = 0
    for vram in CARDS:
        try:
            text = run_file(name, vram)
        except ValueError as error:
            assert str(error).startswith(f"--vram {vram}: {name} takes") and "write --vram" in str(error)
            continue
        fitting += 1
        run, choice = loaded(text, tmp_path), choose(name, vram)
        assert (run.model.path, run.model.rank, run.train.batch) == (FAMILIES[name].path, choice.rank, choice.batch)
        assert run.model.weights == choice.weights and choice.needed <= 0.88 * vram
        assert FAMILIES[name].source in text
        settings = [line for line in text.splitlines() if " = " in line and not line.startswith("#")]
        bare = [line for line in settings if "#" not in line]
        assert [line.split(" = ")[0] for line in bare] in (["path"], ["path", "save_every", "preview_every"])
    assert fitting >= 2


@pytest.mark.parametrize("name", FAMILIES)
def test_a_larger_card_is_never_worse_and_the_card_that_is_named_suffices(name):
    held = ["4bit", "8bit", "bfloat16", "float32"]
    ranks = []
    for vram in range(1, 120):
        try:
            choice = choose(name, vram)
        except ValueError as error:
            suggested = float(str(error).partition("write --vram ")[2].split(",")[0])
            assert suggested > vram and choose(name, suggested)
            continue
        ranks.append((held.index(choice.weights), choice.rank, choice.batch))
    assert ranks == sorted(ranks)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_guidance_that_is_written_is_the_default_of_the_stock_pipeline(name, folders):
    """Counted as ours: the adapter makes of it the default of the stock call."""
    net = load_backbone(folders[PUBLISHED[name]])
    net.size = SQUARE
    told = net.pipeline_arguments(1, FAMILIES[name].guidance)
    stock = inspect.signature(type(net.pipeline).__call__).parameters
    scales = [key for key in ("guidance_scale", "true_cfg_scale") if key in told]
    assert scales and all(told[key] == stock[key].default for key in scales)


def test_a_card_that_no_published_family_fits_is_told_so_not_given_the_embedded_one():
    with pytest.raises(ValueError, match=r"or train on another machine: no published family fits this card$"):
        choose("qwen-image", 6)
    with pytest.raises(ValueError, match=r"or take a family that fits: lumina2$"):
        choose("qwen-image", 8)


def test_little_memory_is_told_with_a_decimal_and_a_card_without_end_is_none():
    with pytest.raises(ValueError, match=r"^--vram 0\.1: scenes takes 0\.[1-9] GB at the least .*; write --vram 1, or"):
        choose("scenes", 0.1)
    for vram in ("inf", "nan"):
        with pytest.raises(ValueError, match=f"^--vram {vram}: it is no number of GB; write --vram 24$"):
            run_file("scenes", float(vram))


def test_known_sizes():
    """Qwen-Image's 20.43 B parameters in two bytes; 211 M of LoRA at rank 32 in twenty."""
    memory = estimate(FAMILIES["qwen-image"], "bfloat16", 32, 1).memory
    assert memory["base"] == pytest.approx(40.86) and memory["LoRA and optimizer"] == pytest.approx(4.22)
    sana = estimate(FAMILIES["sana"], "4bit", 32, 1).memory["base"]
    assert sana == pytest.approx(1.9, abs=0.15)  # docs/backbones.md, where half of the weights stay


def test_the_largest_family_fits_a_card_of_24_gb(tmp_path, monkeypatch):
    """Four bits, and its text encoders leave before the network comes."""
    monkeypatch.setattr(sys, "argv", f"apexgen init qwen-image --vram 24 --out {tmp_path / 'run.toml'}".split())
    main()
    run, choice = load_run(tmp_path / "run.toml"), choose("qwen-image", 24)
    assert run.model.weights == "4bit" and encodes_first(run)
    assert choice.encoding == pytest.approx(17.6) and choice.training < 21.1


def test_an_unknown_family_and_a_file_that_is_there_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no family sdxl; write one of qwen-image, flux"):
        run_file("sdxl", 24)
    (tmp_path / "run.toml").write_text("mine")
    with pytest.raises(ValueError, match="is there already"):
        write_start("x", tmp_path / "run.toml")
    assert (tmp_path / "run.toml").read_text() == "mine"


def test_the_authors_settings_are_translated_or_named(tmp_path):
    text = translate(THEIRS)
    run = loaded(text, tmp_path)
    assert (run.model.path, run.model.rank, run.model.size) == ("path/to/sd35", 48, Size(512, 512))
    assert run.model.targets == ("to_q", "to_k", "to_v")
    assert run.objective == {"name": "twin_flow", "order": 2, "rectify_weight": 0.75, "guidance": 1.8}
    train = run.train
    assert (train.seed, train.accumulate, train.batch, train.clip, train.ema) == (42, 3, 8, 0.5, 0.97)
    assert train.learning_rate == 1e-4 and train.betas == (0.9, 0.95)  # YAML reads 1e-4 as a word
    assert [share.source for share in run.data.mixture] == ["one", "two"]
    assert 'hub:stabilityai/stable-diffusion-3.5-medium"' in text.partition("\n\n")[0]
    for key in ("data.train_dirs", "method.ema_decay_rate", "model.lora_target_modules", "method.enhanced_ratio"):
        assert key not in text, "it is translated"
    replaced, _, unknown = text.partition("# Not known, and left out:")
    assert "train.a_new_key = 7" in unknown and unknown.count("=") == 1
    for key in ("model.lora_alpha", "method.consistc_ratio", "sample.sampling_style"):
        assert f"#   {key} = " in replaced


def test_what_the_authors_leave_open_is_left_out_and_a_date_is_named(tmp_path):
    theirs = tmp_path / "theirs.yaml"
    theirs.write_text("model: {lora_rank: null}\nmethod: {}\ntrain: {max_grad_norm: null, lr: null, day: 2024-01-02}")
    text = translate(theirs)
    assert loaded(text, tmp_path).train.clip == Train().clip and '#   train.day = "2024-01-02"' in text


def test_the_authors_width_and_height_are_one_size(tmp_path):
    wide = tmp_path / "wide.yaml"
    wide.write_text(THEIRS.read_text().replace("width: 512", "width: 768"))
    assert loaded(translate(wide), tmp_path).model.size == Size(512, 768)


def test_the_authors_modules_and_length_are_translated_where_the_data_is_here(tmp_path):
    (tmp_path / "prompts.txt").write_text("a ring\n" * 10)
    theirs = tmp_path / "theirs.yaml"
    written = THEIRS.read_text().replace("[one, two]", f"[{tmp_path / 'prompts.txt'}]")
    theirs.write_text(written.replace("to_q, to_k,to_v", "[to_q, to_k]"))
    theirs.write_text(theirs.read_text() + "  num_train_epochs: 12\n")
    text = translate(theirs)
    run = loaded(text, tmp_path)
    assert run.model.targets == ("to_q", "to_k") and run.train.steps == 5, "120 prompts in steps of 8 x 3"
    assert "lora_target_modules" not in text and "num_train_epochs" not in text
    theirs.write_text(theirs.read_text().replace("prompts.txt", "missing.txt"))
    text = translate(theirs)
    assert loaded(text, tmp_path).train.steps == 1000 and "train.num_train_epochs = 12: train.steps; the data" in text


@pytest.mark.parametrize(
    ("method", "guidance"),
    [
        ("enhanced_ratio: 0", 1),
        ("enhanced_ratio: 4.0, ema_decay_rate: 1.0", 5),  # beside pictures
        ("enhanced_ratio: 4.0, ema_decay_rate: 1.0, use_image_free: true", 4),  # the teacher's velocity in their place
        ("enhanced_ratio: 0.5, ema_decay_rate: 1.0, use_image_free: true", None),
        ("enhanced_ratio: strong", None),
    ],
)
def test_the_authors_ratio_is_guidance(tmp_path, method, guidance):
    theirs = tmp_path / "theirs.yaml"
    theirs.write_text(f"model: {{}}\nmethod: {{{method}}}\ntrain: {{}}")
    text = translate(theirs)
    assert loaded(text, tmp_path).objective.get("guidance") == guidance
    assert ("#   method.enhanced_ratio" in text) == (guidance is None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "is not valid YAML"),
        ("a: 1", "none of the authors' files"),
        ("model: !!python/object/apply:os.system ['false']\nmethod: {}\ntrain: {}", "is not valid YAML"),
        ("model: {}\nmethod: {}\ntrain: {micro_batch_size: 0}", "train.batch = 0"),
        ("model: {}\nmethod: {}\ntrain: {lr: fast}", "their.yaml: train.learning_rate = 'fast'"),
        ("model: {}\nmethod: {}\ntrain: {lr: [1e-4]}", r"their.yaml: train.learning_rate = \['1e-4'\]"),
        ("model: {}\nmethod: {dist_match_cof: [1]}\ntrain: {}", r"their.yaml: rectify_weight must be of type float"),
        ("model: {}\nmethod: {}\ntrain: {seed: 2024-13-01}", "is not valid YAML: month"),
        ("[" * 5000, "is not valid YAML"),
    ],
)
def test_a_file_that_is_not_theirs_is_told_in_a_line(tmp_path, text, said):
    file = tmp_path / "their.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=said) as caught:
        translate(file)
    assert "\n" not in str(caught.value)
