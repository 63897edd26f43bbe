"""One seed for every test, so that a figure in an assertion can be repeated; tiny pipelines, built once."""

import pytest
import torch

from pipelines import BUILDERS, build


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """The tiny pipeline of every family, by its name."""
    root = tmp_path_factory.mktemp("pipelines")
    return {family: build(family, root) for family in BUILDERS}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)
