"""Real processes that train together, started as a launcher would without its cost in imports; short runs for them."""

import json
import os
import socket
import sys
from pathlib import Path

import torch
from forks import CONTEXT, forked, take_outputs
from safetensors.torch import load_file

JOIN = 240  # seconds: who waits for a process that is gone fails here
SHORT = (
    "train.steps=2", "train.batch=1", "train.save_every=1", "train.keep=9", "train.preview_every=1000",
    "train.preview_prompts=1", "train.seed=1", "data.limit=8", "model.precision=float32", "model.rank=2",
    "objective.warmup=0",
)  # fmt: skip
# Another seed: of eight, that one is at a kink, to either side of which a batch of two and two of one are rounded,
# 2e-5 of the gradient apart in one process (in float64, 6e-10); the others are apart by 6e-7 at most.
FULL = [*(one for one in SHORT if "rank" not in one), "model.tune=full", "train.learning_rate=1e-4", "train.seed=7"]
FSDP, BY_TERM = "train.parallel=fsdp", "train.reduce_gradients=term"


def free_port() -> int:
    """A port that nobody listens on: tests beside this one start processes that meet, too."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def begin(log: Path, act, *given, count: int = 2) -> list:
    """`act(*given)` in as many processes, each told its rank by the environment; what they print goes to log-RANK."""
    port, processes = free_port(), []
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
    take_outputs(log)
    os.environ |= {name: str(value) for name, value in place.items()}
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    act(*given)


def command(*arguments: str) -> None:
    """A command of apexgen."""
    from apexgen.cli import main

    sys.argv = ["apexgen", *arguments]
    main()


def run_file(folder: Path, *settings: str) -> list[str]:
    """A run's command; its folder is folder/run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.toml").write_text(f'folder = "{folder / "run"}"\n')
    return ["train", str(folder / "run.toml"), *settings]


def saved(folder: Path, step: int, group: str = "student") -> dict[str, torch.Tensor]:
    return load_file(folder / "run" / "checkpoints" / f"step-{step:08d}" / f"{group}.safetensors")


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]


def logs_of(folder: Path) -> str:
    return "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in sorted(folder.glob("log-*")))
