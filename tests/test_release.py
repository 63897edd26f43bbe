"""What is released: a wheel that holds all and draws by itself, its changelog, and the licences of what it wants."""

import configparser
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import import_module
from importlib.metadata import metadata
from pathlib import Path

import pytest
from PIL import Image

from apexgen import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OFFLINE = """
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise RuntimeError(f"{event} {arguments[1:]}")
sys.addaudithook(refuse)
import apexgen.cli
apexgen.cli.main()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    from hatchling.builders.wheel import WheelBuilder

    folder = tmp_path_factory.mktemp("wheel")
    return Path(next(WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])))


def test_the_wheel_holds_every_file_of_the_package(wheel):
    tracked = subprocess.run(["git", "ls-files", "src"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = {name.removeprefix("src/"): (ROOT / name).read_bytes() for name in tracked.splitlines()}
    with zipfile.ZipFile(wheel) as held:
        assert {name: held.read(name) for name in held.namelist() if name.startswith("apexgen/")} == files
        notices = {Path(name).name for name in held.namelist() if "/licenses/" in name}
    assert notices == {"LICENSE", "NOTICE"} and "apexgen/py.typed" in files
    assert f"-{PROJECT['version']}-py3-none-any" in wheel.name


def test_the_wheel_draws_with_the_model_inside_it_and_asks_no_network(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as held:
        held.extractall(tmp_path / "installed")
    words = ["sample", "scenes", "-p", "a red circle", "--out", "circle.png"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "circle.png").size >= (64, 64)
    where = [sys.executable, "-c", "import apexgen; print(apexgen.__file__)"]
    told = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert told.strip() == str(tmp_path / "installed" / "apexgen" / "__init__.py")


def test_pipx_run_and_uvx_find_a_command_of_the_wheels_own_name(wheel):
    with zipfile.ZipFile(wheel) as held:
        (file,) = [name for name in held.namelist() if name.endswith(".dist-info/entry_points.txt")]
        said = configparser.ConfigParser()
        said.read_string(held.read(file).decode())
    module, _, function = said["console_scripts"][PROJECT["name"]].partition(":")
    assert list(said) == ["DEFAULT", "console_scripts"] and callable(getattr(import_module(module), function))


def test_the_package_and_the_project_are_of_one_version():
    assert __version__ == PROJECT["version"]


def test_the_changelog_tells_of_this_version_first():
    first = re.search(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first and first[1].rstrip(",") == PROJECT["version"]


def test_the_licences_are_of_all_that_is_required_and_as_the_packages_say():
    told = dict(re.findall(r"^\| ([\w-]+) \| ([\w.-]+).*\|", (ROOT / "docs" / "licences.md").read_text(), re.MULTILINE))
    del told["package"]
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    wanted = {re.match(r"[\w-]+", requirement)[0] for requirements in lists for requirement in requirements}
    assert told.keys() == wanted - {"apexgen"}
    for package, licence in told.items():
        its = metadata(package)
        said = [its["License-Expression"], its["License"], *(its.get_all("Classifier") or [])]
        words = " ".join(line for line in said if line and ("::" not in line or "License ::" in line))
        assert not words or licence.partition("-")[0] in words, package
