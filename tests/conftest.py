"""One seed for every test, so that a figure in an assertion can be repeated."""

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """A tiny pipeline of every family, written once."""
    from pipelines import BUILDERS, build

    root = tmp_path_factory.mktemp("pipelines")
    return {family: build(family, root) for family in BUILDERS}
