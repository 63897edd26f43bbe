"""The endpoint: a real server's answers to a real client, and every refusal in OpenAI's shape."""

import base64
import io
import json
import shlex
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
from forks import start
from PIL import Image

import snippets
from apexgen.drawer import open_model
from apexgen.serve.api import Api
from apexgen.serve.ask import Refusal, read_ask
from apexgen.serve.server import make_offer
from called import addressed, wait_to_say
from endpoint import PATH, pictures
from runs import finished_run
from snippets import ROOT


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("served") / "run", "scenes")


@contextmanager
def serving(folder, log, *options, host=r"127\.0\.0\.1"):
    """A real process that serves the run on a free port: its base address and itself."""
    process = start(log, "serve", str(folder), "--port", "0", "--batch", "8", "--queue", "64", *options)
    try:
        yield wait_to_say(process, log, rf"(http://{host}:\d+)/.*")[1], process
    finally:
        process.kill()
        process.join()


@pytest.fixture(scope="module")
def server(folder):
    with serving(folder, folder.with_name("log")) as (address, _):
        yield address


def figure(server: str, name: str) -> float:
    [line] = [line for line in httpx.get(server + "/metrics").text.splitlines() if line.startswith(name + " ")]
    return float(line.split()[1])


def test_what_is_drawn_is_what_the_run_draws_and_says_how(server, folder):
    answer = httpx.post(server + PATH, json={"prompt": "a red ring", "n": 2, "seed": 5, "steps": 2}, timeout=60)
    drawn = open_model(folder).student(2).draw(["a red ring"] * 2, [5, 6])
    assert np.abs(np.stack(pictures(answer)) - 255 * drawn).max() <= 1
    file = Image.open(io.BytesIO(base64.b64decode(answer.json()["data"][1]["b64_json"])))
    assert file.text == {"prompt": "a red ring", "seed": "6", "steps": "2", "model": "student"}
    assert [one["seed"] for one in answer.json()["data"]] == [5, 6]


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_request_of_the_page_is_answered(server):
    lines = [line for block in snippets.blocks(ROOT / "docs/serving.md") for line in block.text.splitlines()]
    [words] = [shlex.split(line) for line in lines if line.startswith("curl ")]
    asked = [word.replace("http://127.0.0.1:8000", server) for word in words]
    said = subprocess.run([*asked, "--silent", "--fail-with-body"], capture_output=True, check=True, timeout=60).stdout
    assert [one["seed"] for one in json.loads(said)["data"]] == [0, 1]


def test_requests_at_once_share_batches_and_each_gets_the_picture_of_its_seed(server):
    asks = [{"prompt": ["a red ring", "two blue circles"][seed % 2], "seed": seed, "steps": 3} for seed in range(24)]
    with httpx.Client(base_url=server, timeout=60) as client:
        alone = [pictures(client.post(PATH, json=ask)) for ask in asks]
        before = figure(server, "apexgen_batch_size_count")
        with ThreadPoolExecutor(24) as threads:
            together = list(threads.map(lambda ask: pictures(client.post(PATH, json=ask)), asks))
    assert figure(server, "apexgen_batch_size_count") - before <= 12
    assert np.abs(np.array(together) - np.array(alone)).max() <= 1
    assert np.abs(np.array(alone)[2:] - np.array(alone)[:-2]).max(axis=(1, 2, 3, 4)).min() > 5  # seeds differ


def test_without_a_seed_pictures_differ_and_their_seeds_repeat_them(server):
    first, second = (httpx.post(server + PATH, json={"prompt": "a ring"}, timeout=60) for _ in range(2))
    assert first.json()["data"][0]["seed"] != second.json()["data"][0]["seed"]
    again = {"prompt": "a ring", "seed": second.json()["data"][0]["seed"]}
    assert np.abs(pictures(httpx.post(server + PATH, json=again))[0] - pictures(second)[0]).max() <= 1


def test_a_run_whose_pictures_are_no_squares_is_asked_for_its_width_and_height(tmp_path):
    model = open_model(finished_run(tmp_path / "run", "scenes", "model.size=96x64"))
    offer = make_offer(model, 2, 3.0, batch=4, queue=4, timeout=60.0)
    api = Api(offer)
    read = [api._kind(read_ask(json.dumps({"prompt": "a", "size": size}).encode())) for size in ("auto", "96x64")]
    assert read == [("student", 1)] * 2
    with pytest.raises(Refusal, match="this model draws 96x64"):
        api._kind(read_ask(b'{"prompt": "a", "size": "64x96"}'))
    assert offer.draw(read[0], [("a red ring", 0)])[0].shape == (64, 96, 3)


def test_the_teacher_is_a_model_too(server):
    models = [one["id"] for one in httpx.get(server + "/v1/models").json()["data"]]
    assert models == ["student", "teacher"]
    ask = {"prompt": "a red ring", "seed": 1, "steps": 3, "size": "64x64"}
    drawn = [pictures(httpx.post(server + PATH, json=ask | {"model": name}, timeout=60)) for name in models]
    assert np.abs(drawn[0][0] - drawn[1][0]).max() > 3


REFUSED = {  # what is sent: status, parameter, a part of the message
    '{"prompt": ""}': (400, "prompt", "at least 1 character"),
    '{"prompt": "  "}': (400, "prompt", "the prompt is empty"),
    f'{{"prompt": "{"x" * 5000}"}}': (400, "prompt", "at most 4000 characters"),
    '{"prompt": "a", "n": 11}': (400, "n", "n = 11"),
    '{"prompt": "a", "n": 0}': (400, "n", "n = 0"),
    '{"prompt": "a", "n": "2"}': (400, "n", "valid integer"),
    '{"prompt": "a", "size": "512x512"}': (400, "size", "this model draws 64x64"),
    '{"prompt": "a", "seed": -1}': (400, "seed", "seed = -1"),
    '{"prompt": "a", "steps": 0}': (400, "steps", "steps = 0"),
    '{"prompt": "a", "response_format": "url"}': (400, "response_format", "b64_json"),
    '{"prompt": "a", "sed": 1}': (400, "sed", "did you mean seed?"),
    '{"prompt": "a", "model": "dall-e-3"}': (404, "model", "there is student and teacher"),
    '{"prompt": "a", "output_format": "jpeg"}': (400, "output_format", "should be 'png'"),
    '{"prompt": "a", "background": "transparent"}': (400, "background", "'auto' or 'opaque'"),
    '{"prompt": "a", "stream": true}': (400, "stream", "should be False"),
    '{"prompt": "a", "partial_images": 2}': (400, "partial_images", "should be 0"),
    '{"prompt": null}': (400, "prompt", "prompt is missing"),
    '{"prompt": "a", "sed": null}': (400, "sed", "did you mean seed?"),
    '{"n": 1}': (400, "prompt", "prompt is missing"),
    "{": (400, None, "the body is not JSON"),
    "": (400, None, "the body is not JSON"),
    "[]": (400, None, "no JSON object"),
    '"' + "x" * 70_000: (413, None, "longer than 65536 bytes"),
}


@pytest.mark.parametrize("body", REFUSED, ids=lambda body: body[:40])
def test_a_mistake_is_told_in_one_line_and_openais_shape(server, body):
    status, param, message = REFUSED[body]
    answer = httpx.post(server + PATH, content=body)
    error = answer.json()["error"]
    assert answer.status_code == status and error["param"] == param
    assert message in error["message"] and "\n" not in error["message"] and len(error["message"]) < 400
    assert error["type"] == "invalid_request_error" and error["code"]


def test_other_paths_health_and_metrics(server):
    assert httpx.get(server + "/health").json() == {"status": "ok", "waiting": 0}
    for path in ("/v1/images/edits", "/docs", "/redoc"):
        assert httpx.get(server + path).json()["error"]["code"] == "not_found"
    refused = httpx.get(server + PATH)
    assert (refused.status_code, refused.headers["Allow"]) == (405, "POST")
    assert httpx.post(server + "/health").headers["Allow"] == "GET, HEAD"
    for path in ("/health", "/metrics", "/v1/models", "/v1/models/student"):
        assert httpx.head(server + path).status_code == 200
    assert httpx.get(server + "/v1/models/teacher").json() == httpx.get(server + "/v1/models").json()["data"][1]
    assert httpx.get(server + "/v1/models/dall-e-3").json()["error"]["code"] == "model_not_found"
    pictures(httpx.post(server + PATH, json={"prompt": "a ring"}, timeout=60))
    assert 'apexgen_requests_total{status="200"}' in httpx.get(server + "/metrics").text


def test_openais_own_client_gets_pictures_and_words(server):
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=server + "/v1", api_key="none", max_retries=0) as client:
        assert [client.models.retrieve(one.id).id for one in client.models.list()] == ["student", "teacher"]
        hints = {"quality": "high", "style": "vivid", "background": "auto", "output_format": "png", "moderation": "low"}
        said = client.images.generate(prompt="a red ring", user="me", n=2, size=None, extra_body={"seed": 5}, **hints)
        assert [Image.open(io.BytesIO(base64.b64decode(one.b64_json))).size for one in said.data] == [(64, 64)] * 2
        with pytest.raises(openai.BadRequestError, match=r"output_format = 'jpeg': input should be 'png'"):
            client.images.generate(prompt="a red ring", output_format="jpeg")
        with pytest.raises(openai.NotFoundError, match="there is student and teacher"):
            client.models.retrieve("dall-e-3")


def test_it_listens_on_loopback_alone(server):
    port = int(server.rpartition(":")[2])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent: it asks which address would send
        except OSError:
            pytest.skip("this machine has no other address")
        own = probe.getsockname()[0]
    with pytest.raises(OSError), socket.create_connection((own, port), timeout=2):
        pass


@pytest.mark.parametrize(
    "header", [{"Host": "rebound.example"}, {"Host": "["}, {"Origin": "https://a.example"}, {"Origin": "null"}]
)
def test_a_page_from_elsewhere_is_refused_and_one_of_this_machine_is_not(server, header):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    body, [(name, said)] = json.dumps({"prompt": "a ring"}), header.items()
    for answer in (
        httpx.post(server + PATH, content=body, headers=form | header),
        httpx.get(server + "/health", headers=header),
    ):
        error = answer.json()["error"]
        assert answer.status_code == 403 and error["message"].startswith(f"{name}: {said} is not this machine")
    here = {"Host": "localhost:1", "Origin": "http://[::1]:3000"}
    pictures(httpx.post(server + PATH, content=body, headers=form | {name: here[name]}, timeout=60))


def test_the_address_of_an_ipv6_number_is_a_url(folder, tmp_path):
    with serving(folder, tmp_path / "log", "--host", "::1", host=r"\[::1\]") as (address, _):
        assert httpx.get(address + "/health").status_code == 200


def test_a_time_without_end_is_one_line(run):
    code, _, error = run("serve", "scenes", "--timeout", "inf", "--port", 0)
    assert code == 2 and "--timeout" in error and "86400" in error and error.count("\n") == 1


def test_a_taken_port_is_one_line(server, folder, capsys, monkeypatch):
    from apexgen.cli import main

    port = server.rpartition(":")[2]
    monkeypatch.setattr(sys, "argv", ["apexgen", "serve", str(folder), "--port", port])
    with pytest.raises(SystemExit, match="2"):
        main()
    error = capsys.readouterr().err
    assert f"--port {port}: it is taken; write --port 0" in error and error.count("\n") == 1


def test_asked_to_stop_it_answers_what_it_has_and_refuses_more(folder, tmp_path):
    with serving(folder, tmp_path / "log") as (address, process), ThreadPoolExecutor(3) as threads:
        ask = {"prompt": "a ring", "model": "teacher", "n": 8, "steps": 24}  # each a batch of its own
        before = figure(address, "apexgen_batch_seconds_count")
        answers = [
            threads.submit(httpx.post, address + PATH, json=ask | {"seed": seed}, timeout=120) for seed in range(3)
        ]
        drawn = 0.0
        while figure(address, "apexgen_waiting") < 16 - 8 * drawn:  # until all have come: one is drawn, the others wait
            drawn = figure(address, "apexgen_batch_seconds_count") - before
            assert drawn < 2, "too quick to be stopped in between"
        process.terminate()
        time.sleep(0.1)
        with pytest.raises(httpx.ConnectError):
            httpx.get(address + "/health")
        assert [len(pictures(answer.result())) for answer in answers] == [8] * 3
        process.join(20)
        assert process.exitcode == 0 and "stopped" in (tmp_path / "log").read_text()


def test_for_machines_its_address_alone_is_on_standard_output(folder, tmp_path):
    with addressed(tmp_path, "serve", folder, "--port", 0) as (url, farewell):
        pictures(httpx.post(url, json={"prompt": "a red ring"}, timeout=60))
    assert farewell == ["stopped; all that was asked for is answered"]


def test_a_body_that_does_not_come_is_408_and_not_ours(folder, tmp_path):
    with serving(folder, tmp_path / "log", "--timeout", "1") as (address, _):
        port = int(address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(
                f'POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{{"prompt": '.encode()
            )
            answer = client.makefile("rb").read().decode()  # to the end, which it closes
    assert answer.startswith("HTTP/1.1 408") and "has not come within 1 s" in answer


def test_a_client_that_hangs_up_is_counted_and_no_mistake_of_ours(server, folder):
    with socket.create_connection(("127.0.0.1", int(server.rpartition(":")[2]))) as client:
        client.sendall(f'POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{{"prompt": '.encode())
    until = time.monotonic() + 20
    while 'apexgen_requests_total{status="499"} 1.0' not in (counted := httpx.get(server + "/metrics").text):
        assert time.monotonic() < until, counted
    assert 'status="500"' not in counted and "Traceback" not in folder.with_name("log").read_text()
