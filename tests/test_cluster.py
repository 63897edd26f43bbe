"""The endpoint under Ray Serve on two nodes, as its page starts them: one is killed, and every picture drawn."""

import base64
import io
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from apexgen.drawer import open_model
from runs import finished_run
from snippets import in_language

pytest.importorskip("ray.serve", exc_type=ImportError)
ADDRESS = "http://127.0.0.1:8000"  # Ray Serve's own
PORTS = (8000, 6379)
STEPS = 24  # so that drawing takes longer than to notice that it has begun
HERE = {  # words of the page, and what they are where two nodes are on one machine, the first with room for both
    "--head": ("--head", "--num-cpus=2", "--include-dashboard=false"),
    "--address=FIRST:6379": ("--address=127.0.0.1:6379", "--num-cpus=1"),
    "0.0.0.0": ("127.0.0.1", "--proxy-location", "HeadOnly"),  # both would listen at one address
    "replicas=2": ("replicas=2", "batch=2"),  # several batches are under way
}


def page_lines(folder):
    """What the page lets set, and its commands: those for several machines in their order, and then `serve run`."""
    said = [words for block in in_language("") if block.page.name == "serving.md" for words in block.commands()]
    rays = [words for words in said if words[0] != "apexgen" and {"export", "ray", "serve"} & {*words[:2]}]
    (usage, *run), (export, *named), *others = rays
    assert export == "export" and usage in named and run[:2] == ["serve", "run"]
    assert [words[:2] for words in others] == [["ray", "get-auth-token"], *[["ray", "start"]] * 2, ["serve", "start"]]
    assert {*HERE} <= {word for words in (*others, run) for word in words}
    own = {"folder=$PWD/apexgen-demo": (f"folder={folder}",)} | HERE
    lines = [[here for word in words for here in own.get(word, (word,))] for words in (*others, run)]
    return dict(word.split("=") for word in named), lines


class Nodes:
    """Two nodes and what runs on them, told from all other processes by a folder of their own."""

    def __init__(self, home):
        self.home, self.environment = home, os.environ | {"RAY_TMPDIR": home, "HOME": home}

    def start(self, folder):
        said, lines = page_lines(folder)
        self.environment |= said
        for words in lines[:-1]:
            assert self._start(words).wait(120) == 0, self.log()
        self._start(lines[-1])

    def _start(self, words):
        program = Path(sys.executable).with_name(words[0])
        with open(Path(self.home) / "log", "a") as log:  # not a pipe, which who goes on would hold open
            return subprocess.Popen([program, *words[1:]], stdout=log, stderr=log, env=self.environment)

    def log(self):
        return (Path(self.home) / "log").read_text()[-3000:]

    def processes(self, named=""):
        found = set()
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("RAY_TMPDIR") == self.home:
                    found |= {process, *process.children(recursive=True)}  # some write a title over their environment
        return {process for process in found if named in process.name()}

    def replicas(self):
        return self.processes("ServeReplica")

    def kill_second(self):
        """The node that joined, with all that is on it, at once; its replica."""
        second = max(self.processes("raylet"), key=lambda process: process.create_time())
        there = second.children(recursive=True)
        (replica,) = [process for process in there if "ServeReplica" in process.name()]
        for process in (second, *there):
            process.kill()
        return replica

    def kill(self):
        while left := self.processes():  # some start others meanwhile
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, 10)


def wait(ready, seconds=240):
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "too late"
        time.sleep(0.2)


def healthy():
    try:
        return httpx.get(ADDRESS + "/health").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("served") / "run", "scenes")


@pytest.fixture(scope="module")
def nodes(folder):
    for port in PORTS:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                pytest.skip(f"port {port} is taken")
    with tempfile.TemporaryDirectory(prefix="ray-") as home:  # not pytest's: a socket's path must be short
        nodes = Nodes(home)
        try:
            nodes.start(folder)
            wait(healthy)
            yield nodes
        finally:
            nodes.kill()


def ask(client, seed):
    """One picture, asked for again after a 5xx, as OpenAI's clients do: its statuses, and the picture."""
    statuses = []
    while not statuses or (statuses[-1] >= 500 and len(statuses) < 3):
        time.sleep(0.5 * len(statuses))
        body = {"prompt": "a red ring", "seed": seed, "steps": STEPS}
        answer = client.post("/v1/images/generations", json=body)
        statuses.append(answer.status_code)
    return statuses, np.asarray(Image.open(io.BytesIO(base64.b64decode(answer.json()["data"][0]["b64_json"]))), int)


def test_one_node_killed_every_picture_is_drawn_and_the_other_takes_its_place(nodes, folder):
    count = 24
    wait(lambda: len(nodes.replicas()) == 2)
    limits = httpx.Limits(max_connections=count)
    with httpx.Client(base_url=ADDRESS, timeout=240, limits=limits) as client, ThreadPoolExecutor(count) as pool:
        answers = [pool.submit(ask, client, seed) for seed in range(count)]
        done = as_completed(answers)
        for _ in range(count // 6):  # and then at once, while the others are drawn
            next(done)
        victim = nodes.kill_second()
        statuses, pictures = zip(*(answer.result() for answer in answers), strict=True)
    assert {said[-1] for said in statuses} == {200}
    failed = [status for said in statuses for status in said[:-1]]
    assert failed and set(failed) == {500} and len(failed) <= 4, failed  # what the killed one had: two batches
    drawn = open_model(folder).student(STEPS).draw(["a red ring"] * count, range(count))
    assert np.abs(np.stack(pictures) - 255 * drawn).max() <= 1
    wait(lambda: len(nodes.replicas()) == 2 and healthy())
    assert victim not in nodes.replicas()


def test_a_setting_that_is_none_is_refused():
    from apexgen.serve.cluster import Cluster

    with pytest.raises(ValueError, match=re.escape("replicsa")):
        Cluster.model_validate({"folder": "scenes", "replicsa": "2"})


def test_a_replica_opens_the_checkpoint_that_is_named(folder, monkeypatch):
    from ray import serve

    from apexgen.serve.cluster import Cluster, endpoint

    builds, ingress = [], serve.ingress
    monkeypatch.setattr(serve, "ingress", lambda build: builds.append(build) or ingress(build))
    endpoint(Cluster.model_validate({"folder": str(folder), "checkpoint": "3"}))
    with pytest.raises(ValueError, match="--checkpoint 3: there is none in"):
        builds[0]()
