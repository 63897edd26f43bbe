"""Every snippet of the pages is read: Python is run, settings are loaded, commands are parsed.

Commands of apexgen are run too, but for those that test_docs_commands.py names; what other programs do is not, nor are
several processes started: of pip, make and scripts the names are looked up, of hf, curl, ray and serve only the word
(what docs/serving.md asks of a server test_serve.py and test_cluster.py ask too).
"""

import re
import shutil
import sys
import tomllib
import types
from pathlib import Path

import pytest
import torch
import typer
from diffusers import FlowMatchEulerDiscreteScheduler

import families
import snippets
import test_families as family_laws
import test_families_train as training_laws
import test_objectives as objective_laws
from apexgen.backbones.diffusion import BACKBONES
from apexgen.cli import app, main
from apexgen.compare.terms import load_terms
from apexgen.config import load_run
from apexgen.objectives import OBJECTIVES, Batch, Nets
from apexgen.train import open_objective
from gaussian import Gaussian, empty_condition
from runs import finished_run
from snippets import EVERY, ROOT, SHELL, in_language, without_launcher

SHORT = ("train.steps=4", "train.batch=2", "train.save_every=4", "train.preview_every=4", "train.preview_prompts=1")
LANGUAGES = {*SHELL, "toml", "python", "py", "{ .py }", "text"}  # py: a file of the package, shown or put in
# What stands in a block beside the lines of apexgen.
STARTED_BY_NAME = {"export", "make", "pip", "hf", "curl", "python", "ray", "serve"}


def by_place(blocks):
    return pytest.mark.parametrize("block", blocks, ids=str)


# Snippets.


def test_no_block_is_in_a_language_that_nothing_here_reads():
    assert {block.language for block in EVERY} <= LANGUAGES


def parse(words):
    """The command that the words call, and its context, parsed and not run; click's own error where they can't be."""
    command, context = typer.main.get_command(app), None
    while hasattr(command, "resolve_command"):
        context = command.make_context(words[0], words[1:], parent=context)
        name, command, rest = command.resolve_command(context, context._protected_args + context.args)
        words = [name, *rest]
    if "--help" in words:
        return command, None
    return command, command.make_context(words[0], words[1:], parent=context)


def check_apexgen(words):
    if words == ["apexgen", "--help"]:
        return
    _, context = parse(words)
    if context is not None and words[1] in ("train", "demo"):
        load_run(None, context.params["overrides"] or [])


def options():
    """Every option of every command."""
    waiting, found = [typer.main.get_command(app)], set()
    while waiting:
        command = waiting.pop()
        waiting += getattr(command, "commands", {}).values()
        found |= {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
    return found


def check_pip(words):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert words[:2] == ["pip", "install"]
    for names in re.findall(r"apexgen\[(.*?)\]", " ".join(words)):
        assert set(names.split(",")) <= set(extras)


@by_place(in_language(*SHELL))
def test_every_command_exists_and_takes_every_option_it_is_given(block):
    if block.page.name == "design.md" and "src/apexgen/" in block.text:
        pytest.skip("a tree of files")
    for words in map(without_launcher, block.commands()):
        if not words:
            continue
        if words[0] == "apexgen":
            check_apexgen(words)
        elif words[0].startswith("--"):  # options alone, told of a command above
            assert {word for word in words if word.startswith("--")} <= options()
        elif words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        elif words[0] == "pip":
            check_pip(words)
        elif words[0] == "python" and words[1] != "-m":
            assert (ROOT / words[1]).is_file()
        else:
            assert words[0] in STARTED_BY_NAME, words


@by_place(in_language("toml"))
def test_every_table_of_settings_is_read(block, tmp_path, monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "teacher_pairs", module_in("add-an-objective.md", "teacher_pairs").TeacherPairs)
    file = tmp_path / "run.toml"
    file.write_text(block.text)
    if "contestants" in tomllib.loads(block.text):
        load_terms(file, [], {}).objectives()
    else:
        open_objective(load_run(file))


# Python.


@pytest.fixture(scope="module")
def world(folders, tmp_path_factory):
    """A folder where the names that the pages use are real things."""
    place = tmp_path_factory.mktemp("world")
    for name in ("path/to/a/diffusers/pipeline", "path/to/a/pipeline"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).symlink_to(folders["sd3"])
    (place / "prompts.txt").write_text("a red circle\ntwo blue rings\nthree white squares\n")
    finished_run(place / "apexgen-demo", "scenes")
    finished_run(place / "runs/mine", place / "path/to/a/diffusers/pipeline")
    return place


def module_in(page, name):
    """The module that a page's block `# name.py` is."""
    [block] = [block for block in in_language("python") if block.page.name == page and block.file == f"{name}.py"]
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(block.text, str(block), "exec"), vars(module))
    return module


def run(block, monkeypatch):
    """Run a block's Python, or its commands, where we are; training is cut short."""
    if block.language == "python":
        exec(compile(block.text, str(block), "exec"), {"__name__": "block"})
        return
    for words in block.commands():
        if words[0] != "apexgen" or words[1] in ("demo", "app"):
            continue
        if words[1] == "train":
            words = [*words, *SHORT, *(["objective.warmup=1"] if "apex" in Path("run.toml").read_text() else [])]
        monkeypatch.setattr(sys, "argv", words)
        main()  # a mistake would exit


@by_place([block for block in in_language("python") if block.page.name == "evaluation.md"])
def test_python_of_a_page_runs(block, world, monkeypatch):
    monkeypatch.chdir(world)
    run(block, monkeypatch)


@pytest.mark.parametrize("page", ["quickstart.md", "export.md", "add-an-objective.md"])
def test_a_page_can_be_walked_from_top_to_bottom(page, world, monkeypatch, tmp_path):
    """Its files written, its commands and Python run, in order, on tiny models."""
    shutil.copytree(world, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(tmp_path / "here")
    if page == "quickstart.md":  # it trains that run itself
        shutil.rmtree("runs/mine")
    monkeypatch.setitem(OBJECTIVES, "teacher_pairs", module_in("add-an-objective.md", "teacher_pairs").TeacherPairs)
    for block in snippets.blocks(ROOT / "docs" / page):
        if block.language == "toml":
            Path(block.file).write_text(block.text)
        elif block.language in (*SHELL, "python") and not block.file:
            run(block, monkeypatch)
    made = {"quickstart.md": "picture.png", "export.md": "merged", "add-an-objective.md": "runs/pairs/export-diffusers"}
    assert Path(made[page]).exists()


# The two worked examples, under the laws of those that ship.


def test_the_objective_that_is_added_keeps_every_law():
    objective = module_in("add-an-objective.md", "teacher_pairs").TeacherPairs()
    assert "https://arxiv.org/abs/" in sys.modules["teacher_pairs"].__doc__
    objective_laws.test_the_same_generator_gives_the_same_loss_bitwise(objective)
    for n in (1, 2, 5):
        objective_laws.test_every_batch_size_is_finite(objective, n)
    for law in (
        objective_laws.test_the_gradient_reaches_the_student_only,
        objective_laws.test_the_terms_share_no_graph,
        objective_laws.test_the_callers_tensors_are_left_alone,
        objective_laws.test_pictures_are_asked_for_where_they_are_needed,
        objective_laws.test_bfloat16_autocast_is_finite,
    ):
        law(objective)


def test_the_objective_that_is_added_has_the_answer_that_its_page_gives():
    """Only the error of the teacher's Euler steps is left of the exact jump: twice the steps, a quarter of it."""
    make, data = module_in("add-an-objective.md", "teacher_pairs").TeacherPairs, Gaussian()
    c = empty_condition(256)

    def left(steps, jump):
        objective = make(teacher_steps=steps, guidance=1.0)
        draw = objective.draw((256, 1), torch.Generator().manual_seed(0))
        nets = Nets(jump, data.velocity, data.velocity)
        [loss] = objective.terms(nets, Batch(c, empty_condition(1)), draw, 0)
        return loss.value.item()

    def exact(z, t, r, c):
        return z - (data.m + data.s * z)

    assert left(200, exact) < 1e-4 < left(200, data.velocity)
    assert left(200, exact) / left(400, exact) == pytest.approx(4, rel=0.1)


def test_the_backbone_that_is_added_keeps_every_law(monkeypatch, tmp_path):
    module_in("add-a-backbone.md", "auraflow")
    monkeypatch.setitem(BACKBONES, "AuraFlowPipeline", "auraflow:AuraFlow")
    folder = tmp_path / "model"
    module_in("add-a-backbone.md", "builder").new_auraflow().save_pretrained(folder)
    net = families.opened(folder)
    net.pipeline.scheduler = FlowMatchEulerDiscreteScheduler(**net.scheduler_config)
    for prompts in ([families.SHORT], [families.SHORT, families.LONG]):
        for steps in (1, 4):
            family_laws.test_our_steps_are_the_stock_pipelines(net, steps, prompts)
    family_laws.test_our_guidance_is_the_stock_pipelines(net, family_laws.PLAIN_GUIDANCE[0])
    for law in (
        family_laws.test_our_picture_is_the_stock_pipelines,
        family_laws.test_neither_a_longer_neighbour_nor_padding_matters,
        family_laws.test_the_shift_is_visible_in_each_part_of_the_condition,
        family_laws.test_the_autoencoder_is_used_with_the_familys_own_scale,
        family_laws.test_a_size_the_family_does_not_allow_names_the_nearest,
    ):
        law(net)
    training_laws.test_every_trained_weight_gets_a_gradient_checkpointed_or_not(folder)
    training_laws.test_the_teacher_is_the_adapter_off_bit_for_bit(folder)
    training_laws.test_a_short_run_trains_exports_and_opens_in_the_stock_pipeline(folder, tmp_path)
