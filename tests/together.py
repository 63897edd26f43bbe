"""Real processes that train together on this machine, as a launcher would start them, without its cost in imports."""

import os
import socket
import sys
from pathlib import Path

from kills import CONTEXT, forked

JOIN = 240  # seconds: who waits for a process that is gone fails here


def begin(log: Path, act, *given, count: int = 2) -> list:
    """`act(*given)` in as many processes, each told its rank by the environment; what they print goes to log-RANK."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(count):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port, "MASTER_ADDR": "127.0.0.1"}
        process = CONTEXT.Process(
            target=_run, args=(log.with_name(f"{log.name}-{rank}"), place, act, given), daemon=True
        )
        process.start()
        processes.append(process)
    return processes


def end(processes) -> list[int | None]:
    """Their exit codes; None for one that is still waiting for the others."""
    for process in processes:
        process.join(JOIN)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes


def _run(log: Path, place: dict, act, given: tuple) -> None:
    forked()
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ |= {name: str(value) for name, value in place.items()}
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    act(*given)


def command(*arguments: str) -> None:
    """A command of apexgen."""
    from apexgen.cli import main

    sys.argv = ["apexgen", *arguments]
    main()
