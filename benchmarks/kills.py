"""Kills short runs of the embedded pipeline (SIGKILL) at random moments until they are through; they must end alike.

    python benchmarks/kills.py [--kills 200] [--seed 0] [--pictures]

The runs read prompts that were encoded before; with --pictures, pictures that are read and encoded at the step, a
third of which can't be. Half of the kills come at any moment of a process's life, the others while it saves. A run goes
on after every kill from its newest checkpoint, and its last weights, their average and the optimizer's moments must
equal those of a run left alone, bitwise. Processes are forked from one that has imported everything, so that a kill
costs no import.
"""

import random
import re
import signal
import tempfile
import time
from collections import Counter
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

from forks import start
from told import new_parser, tell

STEPS = 8
PROMPTS = """
[objective]
warmup = 1
[data]
limit = 6
"""
PICTURES = """
[objective]
name = "flow_matching"
[data]
encode = "step"
bad_limit = 0.5
"""
RUN = f"""
[model]
rank = 1
precision = "float32"
[train]
steps = {STEPS}
batch = 1
save_every = 1
preview_every = 1000
preview_prompts = 1
"""


def write_run(folder: Path, source: Path | None = None) -> str:
    """The run file of a short run in folder/run, of prompts, or of a source of pictures."""
    folder.mkdir(parents=True)
    data = PROMPTS if source is None else f'{PICTURES}source = "{source}"\n'
    (folder / "run.toml").write_text(f'folder = "{folder / "run"}"\n{data}{RUN}')
    return str(folder / "run.toml")


def write_pictures(folder: Path) -> Path:
    """A source of nine pictures with captions, three of which can't be read: the run goes over its end."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    for number in range(9):
        drawn = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(drawn).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"picture {number}")
        if number % 3 == 1:
            (folder / f"{number}.png").write_bytes(b"no picture")
    return folder


def last_weights(folder: Path) -> list[bytes]:
    """The weights, their average and the optimizer's moments at the last step, as the files hold them."""
    last = folder / "run" / "checkpoints" / f"step-{STEPS:08d}"
    return [(last / f"{name}.safetensors").read_bytes() for name in ("student", "average", "moments")]


def kill_until_through(file: str, kills: int, seconds: float, chance: random.Random) -> Counter[str]:
    """A run's file, killed up to `kills` times; what happened, counted. RuntimeError when a resume does not go on."""
    log, saves = Path(file).with_name("log"), Path(file).parent / "run" / "checkpoints"
    counted: Counter[str] = Counter()
    while True:
        steps, left = [int(path.name[5:13]) for path in saves.glob("step-*")], _halves(saves)
        process = start(log, "train", file)
        if counted["kills"] < kills:
            _wait(process, saves, seconds, chance)
            process.kill()
        process.join()
        said = re.search(r"going on from step (\d+)", log.read_text() if log.is_file() else "")
        if said and int(said[1]) != max(steps):
            raise RuntimeError(f"went on from step {said[1]} though {max(steps)} was saved")
        counted["resumes seen"] += said is not None
        counted["broken checkpoints seen"] += "is broken" in log.read_text() if log.is_file() else 0
        if process.exitcode == 0:
            return counted
        if process.exitcode != -signal.SIGKILL:
            raise RuntimeError(f"exit code {process.exitcode}: {log.read_text()[-500:]}")
        counted["kills"] += 1
        counted["kills while saving"] += not _halves(saves) <= left
        counted["kills before the first checkpoint"] += not any(saves.glob("step-*"))
        log.unlink(missing_ok=True)


def _wait(process: BaseProcess, saves: Path, seconds: float, chance: random.Random) -> None:
    """Until a random moment of the next `seconds`, or a random one of a save."""
    if chance.random() < 0.5:
        process.join(chance.uniform(0, seconds))
        return
    left = _halves(saves)
    while process.is_alive() and _halves(saves) <= left:
        time.sleep(0.001)
    process.join(chance.uniform(0, 0.15))


def _halves(saves: Path) -> set[tuple[str, int]]:
    """The checkpoints being written or removed, or left so by a kill, told apart by when they last grew."""
    found = set()
    for path in saves.glob(".partial-*"):
        with suppress(FileNotFoundError):
            found.add((path.name, path.stat().st_mtime_ns))
    return found


def endure(folder: Path, kills: int, seed: int, pictures: bool = False) -> dict[str, float]:
    """Kill runs in a folder until there were so many kills; what happened. RuntimeError where a run ends otherwise."""
    chance, counted, runs, began = random.Random(seed), Counter[str](), 0, time.monotonic()
    start(folder / "log", "--help").join()  # waits for the imports
    source = write_pictures(folder / "source") if pictures else None
    alone, alone_began = folder / "alone", time.monotonic()
    start(folder / "log", "train", write_run(alone, source)).join()
    seconds = time.monotonic() - alone_began
    while counted["kills"] < kills:
        killed = folder / f"killed-{runs}"
        counted += kill_until_through(write_run(killed, source), kills - counted["kills"], seconds, chance)
        if last_weights(killed) != last_weights(alone):
            raise RuntimeError(f"{killed.name} ended with other weights")
        runs += 1
    return {**counted, "runs, all with the same weights": runs, "seconds": round(time.monotonic() - began)}


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        told = endure(Path(temporary), arguments.kills, arguments.seed, arguments.pictures)
        tell(told, arguments.out)


if __name__ == "__main__":
    main()
