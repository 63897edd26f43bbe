"""The pages say what is so: they build, their links lead somewhere, and every snippet in them works."""

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
import tomllib
import types
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import torch
import typer
from diffusers import FlowMatchEulerDiscreteScheduler

import base_memory
import snippets
import test_families as family_laws
import test_objectives as objective_laws
from apexgen.backbones.diffusion import BACKBONES, find_adapter
from apexgen.cli import app, main
from apexgen.compare.terms import load_terms
from apexgen.config import load_run
from apexgen.objectives import OBJECTIVES, Batch, Nets
from apexgen.train import open_objective
from gaussian import Gaussian, empty_condition
from runs import finished_run
from snippets import EVERY, ROOT, SHELL, in_language, without_launcher

SHORT = ("train.steps=4", "train.batch=2", "train.save_every=4", "train.preview_every=4", "train.preview_prompts=1")
LANGUAGES = {*SHELL, "toml", "python", "text", "nginx"}
STARTED_BY_NAME = {"make", "pip", "hf", "curl", "python"}  # what stands in a block beside apexgen's own lines


def by_place(blocks):
    return pytest.mark.parametrize("block", blocks, ids=str)


# Snippets.


def test_no_block_is_in_a_language_that_nothing_here_reads():
    assert {block.language for block in EVERY} <= LANGUAGES


def parse(words):
    """The context of the command that the words call, parsed and not run: ends in click's own error where they can't."""
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
    for extra in re.findall(r"apexgen\[(.*?)\]", " ".join(words)):
        assert extra in extras


@by_place(in_language(*SHELL))
def test_every_command_exists_and_takes_every_option_it_is_given(block):
    if block.page.name == "README.md" and "src/apexgen/" in block.text:
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
    """Of the exact jump only the error of the teacher's Euler steps is left: its square falls by four as they double."""
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
    net = family_laws.opened(folder)
    net.pipeline.scheduler = FlowMatchEulerDiscreteScheduler(**net.scheduler_config)
    for prompts in ([family_laws.SHORT], [family_laws.SHORT, family_laws.LONG]):
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
    for targets in ("", "attention", "attention+mlp", "all-linear"):
        family_laws.test_every_trained_weight_gets_a_gradient_checkpointed_or_not(folder, targets)
    family_laws.test_the_teacher_is_the_adapter_off_bit_for_bit(folder)
    family_laws.test_a_short_run_trains_exports_and_opens_in_the_stock_pipeline(folder, tmp_path)


# Figures and messages that a page repeats.


FAMILIES = {  # page -> its model in the table of memory, and its pipeline
    "flux": "FLUX.1 dev",
    "lumina2": "Lumina-Image 2.0",
    "qwen-image": "Qwen-Image",
    "sana": "SANA 1.6B",
    "stable-diffusion-3": "Stable Diffusion 3 medium",
    "z-image": "Z-Image",
}


@pytest.mark.parametrize("page", FAMILIES)
def test_a_familys_memory_is_what_the_benchmark_counts(page):
    text = (ROOT / "docs/backbones" / f"{page}.md").read_text()
    _, weights, *held, adapted, lora, own = (cell.strip() for cell in base_memory.row(FAMILIES[page]).strip("|").split("|"))
    assert f"{weights} weights; {adapted} modules adapted, {lora} weights of a LoRA of rank 32" in text
    for name, size in zip(("float32", "bfloat16", "8bit", "4bit"), held, strict=True):
        assert f"| {name} | {size} | {float(size) + float(own):.1f} |" in text
    needed = ".".join(map(str, find_adapter(base_memory.SHAPES[FAMILIES[page]][0]).oldest_diffusers))
    assert f"diffusers {needed} or newer" in " ".join(text.split())


def test_every_family_has_a_page():
    assert {base_memory.SHAPES[model][0] for model in FAMILIES.values()} == set(BACKBONES)
    assert {page.stem for page in (ROOT / "docs/backbones").iterdir()} == set(FAMILIES)


def said_by_the_code():
    """Every string in the package, with a mark where a value is put in."""
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_every_message_of_troubleshooting_is_one_of_the_code():
    text = (ROOT / "docs/troubleshooting.md").read_text()
    items = re.findall(r"^- (`.*?)(?=^- |^#|\Z)", text, re.MULTILINE | re.DOTALL)
    heads = [item.partition("`: ")[0] + "`" if "`: " in item else item.partition("`:\n")[0] + "`" for item in items]
    messages = [message for head in heads for message in re.findall(r"`([^`]+)`", " ".join(head.split()))]
    assert len(messages) > 40
    said = list(said_by_the_code())
    for message in messages:
        parts = [re.escape(part) for part in message.split("...")]
        pattern = re.compile(".*".join(parts), re.DOTALL)
        assert any(pattern.search(text) for text in said), message


# The site.


class Links(HTMLParser):
    """What a page of HTML loads, leads to, and can be led to."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.leads, self.places = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.places |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.leads.append(given["href"])
        elif tag in ("script", "img", "iframe", "source") and given.get("src"):
            self.loads.append(given["src"])
        elif tag == "link" and given.get("rel") not in ("next", "prev"):
            self.loads.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make docs` builds it: a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return {page: Links(page.read_text()) for page in folder.rglob("*.html") if page.name != "404.html"}


def test_the_site_asks_no_other_machine_for_anything(site):
    for page, links in site.items():
        assert not [load for load in links.loads if urlsplit(load).netloc], page
        assert "fonts.googleapis" not in page.read_text()


def test_every_link_of_the_site_leads_somewhere(site):
    followed = 0
    for page, links in site.items():
        for link in (*links.leads, *links.loads):
            parts = urlsplit(link)
            if parts.scheme:
                assert parts.scheme == "https" or parts.netloc.startswith("127.0.0.1"), link
                continue
            goal = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            goal = goal / "index.html" if goal.is_dir() else goal
            assert goal.is_file(), f"{page}: {link}"
            if parts.fragment and goal in site and parts.fragment != "__tabbed":
                assert unquote(parts.fragment) in site[goal].places, f"{page}: {link}"
                followed += 1
    assert followed > 100


def test_links_in_the_pages_work_on_a_code_host_too():
    """There a page is its file: links are relative, to files that are there."""
    for page in snippets.PAGES:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if not urlsplit(link).scheme and not link.startswith("#"):
                assert (page.parent / urlsplit(link).path).is_file(), f"{page.name}: {link}"


def public(module):
    """A module's public classes and functions, and what the classes define themselves."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value) or inspect.isclass(value):
            yield name, value
        if inspect.isclass(value):
            for key, member in vars(value).items():
                function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
                if not key.startswith("_") and inspect.isfunction(function):
                    yield f"{name}.{key}", getattr(value, key)


def test_everything_public_on_the_reference_pages_says_what_it_is():
    """By a docstring of its own, or that of what it overrides."""
    named = [re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE) for page in (ROOT / "docs/api").iterdir()]
    modules = [import_module(name) for names in named for name in names]
    assert len(modules) > 50
    silent = [
        f"{module.__name__}.{name}" for module in modules for name, value in public(module) if not inspect.getdoc(value)
    ]
    assert not silent + [module.__name__ for module in modules if not module.__doc__]
