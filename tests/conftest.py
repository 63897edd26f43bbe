"""One seed for every test, so that a figure in an assertion can be repeated; tiny pipelines, built once.

What is heavy is imported inside: the process that only shares tests out among others has no use for it.
"""

import gc
import subprocess
from functools import partial

import pytest


def pytest_collection_finish():
    """What modules hold is no garbage: a collection, of which ours make many, need not go through it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """The tiny pipeline of every family, by its name."""
    from pipelines import BUILDERS, build

    root = tmp_path_factory.mktemp("pipelines")
    return {family: build(family, root) for family in BUILDERS}


@pytest.fixture(scope="module")
def net():
    """The embedded pipeline, opened."""
    from apexgen.backbones.diffusion import load_backbone
    from apexgen.scenes.pipeline import FOLDER

    return load_backbone(FOLDER)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of six captioned pictures."""
    from corpora import write_pictures

    return write_pictures(tmp_path_factory.mktemp("pictures") / "folder")


@pytest.fixture
def run(monkeypatch, capsys):
    """A command in this process: its exit code and what it says, on both outputs."""
    from called import call

    return partial(call, monkeypatch, capsys)


@pytest.fixture
def results(tmp_path):
    from called import save_results

    return save_results(tmp_path)


@pytest.fixture(autouse=True)
def seeded():
    import torch

    torch.manual_seed(0)


@pytest.fixture
def generator():
    import torch

    return torch.Generator().manual_seed(0)


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
