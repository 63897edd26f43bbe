"""The endpoint under Ray Serve, as its page starts it: two replicas, one of them killed, and every picture drawn."""

import base64
import io
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from apexgen.drawer import open_model
from runs import finished_run
from snippets import in_language, without_launcher

pytest.importorskip("ray.serve", exc_type=ImportError)
ADDRESS = "http://127.0.0.1:8000"  # Ray Serve's own
STEPS = 24  # so that drawing takes longer than to notice that it has begun


def command(folder):
    """The page's command, of another folder; batches of two, so that several are under way."""
    lines = [block.text for block in in_language("") if block.page.name == "serving.md"]
    [words] = [words for words in map(shlex.split, "".join(lines).splitlines()) if words[1:3] == ["serve", "run"]]
    variable, program, *rest = words
    assert variable == "RAY_USAGE_STATS_ENABLED=0" and "replicas=2" in rest
    said = [f"folder={folder}" if word.startswith("folder=") else word for word in rest]
    return [str(Path(sys.executable).with_name(program)), *said, "batch=2"]


def replicas(process):
    """The replicas' processes."""
    return {child for child in psutil.Process(process.pid).children(recursive=True) if "ServeReplica" in child.name()}


def wait(ready, seconds=240):
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "too late"
        time.sleep(0.1)


def healthy():
    try:
        return httpx.get(ADDRESS + "/health").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("served") / "run", "scenes")


@pytest.fixture(scope="module")
def cluster(folder):
    """`serve run`, with files of its own, which are gone when it is."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 8000)) == 0:
            pytest.skip("port 8000 is taken")
    with tempfile.TemporaryDirectory(prefix="ray-") as home:  # not pytest's: a socket's path must be short
        own = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": home, "HOME": home}
        with open(Path(home) / "log", "w") as log:
            process = subprocess.Popen(command(folder), stdout=log, stderr=log, env=os.environ | own)
        try:
            wait(healthy)
            yield process
        finally:  # not by ctrl-C, which Ray's command obeys after 20 s
            for one in [*psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []:
                one.kill()
            process.kill()
            process.wait()


def ask(client, seed):
    """One picture, asked for again after a 5xx, as OpenAI's clients do: its statuses, and the picture."""
    statuses = []
    while not statuses or (statuses[-1] >= 500 and len(statuses) < 3):
        time.sleep(0.5 * len(statuses))
        body = {"prompt": "a red ring", "seed": seed, "steps": STEPS}
        answer = client.post("/v1/images/generations", json=body)
        statuses.append(answer.status_code)
    return statuses, np.asarray(Image.open(io.BytesIO(base64.b64decode(answer.json()["data"][0]["b64_json"]))), int)


def test_one_replica_killed_every_picture_is_drawn_and_another_takes_its_place(cluster, folder):
    count = 48
    wait(lambda: len(replicas(cluster)) == 2)
    before = replicas(cluster)
    limits = httpx.Limits(max_connections=count)
    with httpx.Client(base_url=ADDRESS, timeout=240, limits=limits) as client, ThreadPoolExecutor(count) as pool:
        answers = [pool.submit(ask, client, seed) for seed in range(count)]
        done = as_completed(answers)
        for _ in range(count // 8):  # and then at once, while the others are drawn
            next(done)
        victim = before.copy().pop()
        victim.kill()
        statuses, pictures = zip(*(answer.result() for answer in answers), strict=True)
    assert {said[-1] for said in statuses} == {200}
    failed = [status for said in statuses for status in said[:-1]]
    assert failed and set(failed) == {500} and len(failed) <= 4, failed  # what the killed one had: two batches
    drawn = open_model(folder).student(STEPS).draw(["a red ring"] * count, range(count))
    assert np.abs(np.stack(pictures) - 255 * drawn).max() <= 1
    wait(lambda: len(replicas(cluster)) == 2 and healthy())
    assert victim not in replicas(cluster)


def test_what_the_page_says_to_several_machines_ray_takes():
    """Two machines are not here: each line is parsed by Ray's own command."""
    from ray.scripts.scripts import cli as ray
    from ray.serve.scripts import cli as serve

    blocks = [block for block in in_language("") if block.page.name == "serving.md"]
    said = [without_launcher(words) for block in blocks for words in block.commands()]
    several = [words for words in said if words[1:2] == ["start"]]
    assert len(several) == 3
    for program, command, *options in several:
        {"ray": ray, "serve": serve}[program].commands[command].make_context(command, options)


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
