"""Commands of apexgen in processes of their own, forked from one that has imported everything: real ones, at once."""

import gc
import multiprocessing
import os
import signal
import sys
import tempfile
from multiprocessing.process import BaseProcess
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["apexgen.cli", "apexgen.distill", "peft", "diffusers.pipelines.sana.pipeline_sana"])


def start(log: Path, *arguments: str, errors: Path | None = None, **environment: str) -> BaseProcess:
    """Run a command, what it prints going to a file; with `errors`, what is printed on standard error to that one."""
    process = CONTEXT.Process(target=_command, args=(log, errors, arguments, environment), daemon=True)
    process.start()
    return process


def forked() -> None:
    """What a forked process does first."""
    import torch

    torch.set_num_threads(1)  # it has none of its parent's
    gc.freeze()  # what was imported is no garbage: collections need not go through it
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a shell starts in the background


def take_outputs(log: Path, errors: Path | None = None) -> None:
    """Let what this process prints go to a file, or to two."""
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if errors is not None:
        with errors.open("w") as file:
            os.dup2(file.fileno(), 2)


def _command(log: Path, errors: Path | None, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
    from apexgen.cli import main

    forked()
    take_outputs(log, errors)
    os.environ.update(environment)
    tempfile.tempdir = None  # which the environment may name
    sys.argv = ["apexgen", *arguments]
    main()
