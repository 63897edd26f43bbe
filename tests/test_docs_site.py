"""The site builds without a warning, its links lead somewhere, and what its pages repeat of the code is so."""

import ast
import inspect
import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from importlib import import_module
from urllib.parse import unquote, urlsplit

import base_memory
import pytest

import snippets
from apexgen.backbones.diffusion import BACKBONES, find_adapter
from apexgen.config import Data, Model, Train
from apexgen.objectives import OBJECTIVES
from apexgen.start import choices
from loopback import Quiet, listening
from snippets import ROOT

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
    row = base_memory.row(FAMILIES[page]).strip("|").split("|")
    _, weights, *held, adapted, lora, own = (cell.strip() for cell in row)
    assert f"{weights} weights; {adapted} modules adapted, {lora} weights of a LoRA of rank 32" in text
    for name, size in zip(("float32", "bfloat16", "8bit", "4bit"), held, strict=True):
        assert f"| {name} | {size} | {float(size) + float(own):.1f} |" in text
    needed = ".".join(map(str, find_adapter(base_memory.SHAPES[FAMILIES[page]][0]).oldest_diffusers))
    assert f"diffusers {needed} or newer" in " ".join(text.split())


@pytest.mark.parametrize("page", FAMILIES)
def test_a_familys_guidance_is_what_init_writes(page):
    """Which tests/test_start.py holds to the stock pipeline's default."""
    text = (ROOT / "docs/backbones" / f"{page}.md").read_text()
    [family] = [one for one in choices.FAMILIES.values() if f'path = "{one.path}"' in text]
    assert f"guidance = {family.guidance} " in text


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
    said, unsaid = list(said_by_the_code()), []
    for message in messages:
        parts = [re.escape(part) for part in message.split("...")]
        pattern = re.compile(".*".join(parts), re.DOTALL)
        if not any(pattern.search(text) for text in said):
            unsaid.append(message)
    assert not unsaid


def test_every_figure_to_expect_is_one_that_was_measured():
    figures = re.compile(r"(?<![\w.])\.\d{2,}|\b\d+[.,]\d{3}\b|\b\d+ s\b|\b\d+\.\d+ GB")
    told = " ".join((ROOT / file).read_text() for file in ("README.md", "docs/lab-notes.md", "docs/objectives.md"))
    page = (ROOT / "docs/numbers.md").read_text()
    assert len(set(figures.findall(page))) > 25
    assert set(figures.findall(page)) <= set(figures.findall(told))


def test_the_tree_of_files_is_all_of_them_and_no_others():
    tree = (ROOT / "docs/design.md").read_text().partition("    src/apexgen/\n")[2].partition("    tests/")[0]
    told = {name for line in tree.splitlines() for name in re.split(r" {2,}", line.strip())[0].split()}
    there = {path.name + "/" * path.is_dir() for path in (ROOT / "src/apexgen").iterdir()}
    assert told == {name for name in there if not name.startswith("__") and name != "py.typed"}


def test_what_the_mathematics_names_is_in_the_code():
    page = (ROOT / "docs/mathematics.md").read_text()
    named = re.findall(r"\b(flow|sample|velocities)\.([a-z_]+)", page)
    assert len(named) > 5
    for module, name in named:
        assert hasattr(import_module(f"apexgen.{module}"), name), f"{module}.{name}"
    for file in re.findall(r"\b(objectives/\w+\.py)", page):
        assert (ROOT / "src/apexgen" / file).is_file(), file


def test_the_objectives_that_no_stock_pipeline_draws_are_named():
    """And those whose students jump to the data and back."""
    page = (ROOT / "docs/export.md").read_text()
    for name, objective in OBJECTIVES.items():
        assert objective().needs_second_time == (f"`{name}`" in page.partition("second time (")[2].partition(")")[0])
        assert objective().renoises == (f"`{name}`" in page.partition("Students of ")[2].partition("jump")[0]), name


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


def test_the_settings_are_on_their_page(site):
    (page,) = [page for page in site if page.match("api/settings/index.html")]
    shown = re.sub(r"<[^>]+>", "", page.read_text())
    for table in (Model, Data, Train):
        for key in table.model_fields:
            assert re.search(rf"\b{key}: ", shown), key
    assert "--8" not in shown


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


class OnePage(Quiet):
    """A site of one page."""

    def do_GET(self):
        self.send_response(200 if self.path == "/here" else 404)
        self.end_headers()

    do_HEAD = do_GET


@pytest.mark.parametrize("page", ["here", "gone"])
def test_make_links_follows_links_to_other_sites(page, tmp_path):
    """As the Makefile has it, with pages of our own; 127.0.0.2 is not what the checker takes for this machine."""
    (tmp_path / "docs").mkdir()
    config = tmp_path / "mkdocs.yml"
    config.write_text(
        f"INHERIT: {ROOT / 'mkdocs.yml'}\ndocs_dir: docs\nsite_dir: site\nnav: [index.md]\nextra_css: []\n"
    )
    words = shlex.split(re.search(r"^links:.*\n\t(.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1])
    given = dict(word.split("=") for word in words[:2])
    words = [sys.executable, "-m", *(word.replace("$(BIN)/", "") for word in words[2:]), "--config-file", str(config)]
    with listening(OnePage, "127.0.0.2") as address:
        (tmp_path / "docs/index.md").write_text(f"[a page]({address}/{page})\n")
        said = subprocess.run(words, cwd=ROOT, env=os.environ | given, capture_output=True, text=True)
    assert (said.returncode == 0) == (page == "here"), said.stderr
    assert ("Invalid links" in said.stderr + said.stdout) == (page == "gone")


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


def documented():
    """The modules of the reference pages."""
    named = [re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE) for page in (ROOT / "docs/api").iterdir()]
    return [import_module(name) for names in named for name in names]


def says(module, name):
    """The docstring of a public thing: its own, or that of what it overrides here; never one of torch or Python."""
    owner, _, member = name.partition(".")
    for kind in getattr(vars(module)[owner], "__mro__", ())[:-1] if member else ():
        found = vars(kind).get(member)
        function = found.fget if isinstance(found, property) else getattr(found, "__func__", found)
        if kind.__module__.startswith("apexgen") and getattr(function, "__doc__", None):
            return function.__doc__
    return None if member else vars(module)[owner].__doc__


def test_everything_public_on_the_reference_pages_says_what_it_is():
    modules = documented()
    assert len(modules) > 50
    silent = [f"{module.__name__}.{name}" for module in modules for name, _ in public(module) if not says(module, name)]
    assert not silent + [module.__name__ for module in modules if not module.__doc__]


MATHEMATICS = ("flow", "sample", "velocities", "condition", "shift", "discriminator", "generate", "student")


def test_functions_of_tensors_name_their_shapes():
    """In their own docstring, their class's or their module's."""
    shape = re.compile(r"\((B|N|T|S|n|m|len\(|steps|\.\.\.|[A-Z]\b)[^()]*|shape")
    unsaid, seen = [], 0
    for module in documented():
        part = module.__name__.split(".")[1]
        for name, value in public(module) if part in (*MATHEMATICS, "objectives", "backbones") else ():
            given = getattr(value, "__annotations__", {}) if inspect.isfunction(value) else {}
            if not any(re.search(r"\bTensor\b", str(kind)) for key, kind in given.items() if key != "return"):
                continue
            owner = vars(module)[name.partition(".")[0]].__doc__ if "." in name else ""
            seen += 1
            if not shape.search(" ".join(filter(None, (says(module, name), owner, module.__doc__)))):
                unsaid.append(f"{module.__name__}.{name}")
    assert seen > 40 and not unsaid
