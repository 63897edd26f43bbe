"""What batching buys the HTTP endpoint, and what overload and a stop cost: real servers, real clients, loopback alone.

    python benchmarks/serving.py [--folder RUN] [--requests 96] [--limits 1 4 16]

Throughput at each limit of a batch, all requests at once, over that of requests sent one by one to the same server;
then four times as many requests as may wait, each of which must be answered by 200 or 429; then SIGTERM with requests
under way, each of which must be answered. Ratios hold when the machine's speed drifts; the seconds are this machine's.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
from told import new_parser, tell

QUEUE = 16  # pictures that may wait, under overload
TIMEOUT = 120  # seconds a request, at most


@contextmanager
def server(folder: str, batch: int, queue: int) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server of a folder on a free port: its address and its process, ended in the end."""
    command = [sys.executable, "-m", "apexgen", "serve", folder, "--port", "0"]
    command += ["--batch", str(batch), "--queue", str(queue), "--timeout", str(TIMEOUT)]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment, start_new_session=True
    )
    try:
        assert process.stdout is not None
        address = re.match(r"(http://127\.0\.0\.1:\d+)/", process.stdout.readline())
        if address is None:
            raise RuntimeError("the server did not come up")
        yield address[1], process
    finally:
        process.kill()
        process.wait()


def ask(client: httpx.Client, seed: int, **more: object) -> int:
    """One request's status."""
    body = {"prompt": "a photo of a red circle", "seed": seed} | more
    return client.post("/v1/images/generations", json=body).status_code


def seconds(address: str, requests: int, clients: int) -> float:
    """How long so many requests take from so many clients; RuntimeError where one is not drawn."""
    limits = httpx.Limits(max_connections=clients)
    with httpx.Client(base_url=address, timeout=TIMEOUT, limits=limits) as client, ThreadPoolExecutor(clients) as pool:
        ask(client, 0)
        began = time.perf_counter()
        statuses = Counter(pool.map(lambda seed: ask(client, seed), range(requests)))
        took = time.perf_counter() - began
    if statuses != {200: requests}:
        raise RuntimeError(f"answers: {dict(statuses)}")
    return took


def overload(address: str) -> dict[str, int]:
    """Four times as many at once as may wait: answers by status. RuntimeError where one is neither 200 nor 429."""
    count = 4 * QUEUE
    limits = httpx.Limits(max_connections=count)
    with httpx.Client(base_url=address, timeout=TIMEOUT, limits=limits) as client, ThreadPoolExecutor(count) as pool:
        statuses = Counter(pool.map(lambda seed: ask(client, seed, steps=8), range(count)))
        if statuses.keys() - {200, 429} or ask(client, 0) != 200:
            raise RuntimeError(f"answers: {dict(statuses)}")
    return {str(status): number for status, number in sorted(statuses.items())}


def stop(address: str, process: subprocess.Popen[str]) -> dict[str, float]:
    """SIGTERM while requests are drawn and wait: how many were answered, the exit code, the seconds it took."""
    with httpx.Client(base_url=address, timeout=TIMEOUT) as client, ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask, client, seed, model="teacher", steps=20) for seed in range(8)]
        while not client.get("/health").json()["waiting"]:
            if all(answer.done() for answer in answers):
                raise RuntimeError("the requests were done before the server could be stopped")
        began = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        drawn = sum(answer.result() == 200 for answer in answers)
    return {
        "asked": len(answers),
        "drawn": drawn,
        "exit_code": process.wait(TIMEOUT),
        "seconds": round(time.perf_counter() - began, 2),
    }


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--folder", type=Path, default=Path("apexgen-demo"), help="a run's folder")
    parser.add_argument("--requests", type=int, default=96)
    parser.add_argument("--limits", type=int, nargs="+", default=[1, 4, 16])
    arguments = parser.parse_args()
    folder, figures = str(arguments.folder), {}
    for limit in arguments.limits:
        with server(folder, limit, arguments.requests) as (address, _):
            one_by_one = seconds(address, arguments.requests, 1)
            at_once = seconds(address, arguments.requests, arguments.requests)
        figures[f"batch {limit}"] = {
            "pictures_per_second": round(arguments.requests / at_once, 1),
            "over_one_by_one": round(one_by_one / at_once, 2),
        }
        print(f"batch {limit}: {figures[f'batch {limit}']}", file=sys.stderr, flush=True)
    with server(folder, 4, QUEUE) as (address, process):
        figures["overload"] = overload(address)
        figures["stop"] = stop(address, process)
    tell(figures, arguments.out)


if __name__ == "__main__":
    main()
