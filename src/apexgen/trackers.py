"""What a run logs, told to TensorBoard, trackio or wandb too: each a small function, and none stops a run.

TensorBoard and wandb write into the run's folder, trackio where it keeps all its projects (TRACKIO_DIR). Nothing leaves
the machine unless the user's own environment asks for it: WANDB_MODE, TRACKIO_SPACE_ID.
"""

import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from apexgen.config import Run
from apexgen.files import write_whole

PROJECT = "apexgen"
IDENTITY = "tracked.id"  # a file of the run's folder: by this name a run that resumes goes on with its series


@dataclass(frozen=True)
class Tracker:
    """What takes the numbers of a step, and what ends it."""

    log: Callable[[int, Mapping[str, float]], Any]
    finish: Callable[[], Any]


def check_trackers(names: Sequence[str]) -> None:
    """ValueError, one line, where the package of a tracker is missing; none is imported."""
    for name in names:
        if find_spec(name) is None:
            raise ValueError(f'train.track = ["{name}"] needs {name}; write: pip install "apexgen[track]"')


class Trackers:
    """Those of a run, at work. One that fails is told of in a line and left out from then on."""

    def __init__(self, names: Sequence[str], run: Run, folder: Path, step: int, tell: Callable[[str], None]) -> None:
        self.working: dict[str, Tracker] = {}
        self.tell = tell
        for name in names:
            with self._told(name):
                self.working[name] = OPENERS[name](run, folder, step)

    def log(self, step: int, logs: Mapping[str, Any]) -> None:
        """Pass a step's numbers on."""
        numbers = {key: value for key, value in logs.items() if isinstance(value, int | float)}
        for name, tracker in list(self.working.items()):
            with self._told(name):
                tracker.log(step, numbers)

    def close(self) -> None:
        """Let each write what it still holds."""
        for name, tracker in list(self.working.items()):
            with self._told(name):
                tracker.finish()

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it is: days of training are not to end with it
            self.working.pop(name, None)
            self.tell(f"{name} failed and is left out: {(str(error) or type(error).__name__).splitlines()[0]}")


def open_tensorboard(run: Run, folder: Path, step: int) -> Tracker:
    """Event files in the run's tensorboard folder; steps that are taken again replace those of before."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def log(at: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, at)

    return Tracker(log, writer.close)


def open_wandb(run: Run, folder: Path, step: int) -> Tracker:
    """A run in the folder's wandb/, to be sent by `wandb sync`; at once where WANDB_MODE says so."""
    import wandb

    opened = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        dir=str(folder),
        id=identity(folder),
        name=folder.resolve().name,
        resume="allow",
        mode=None if os.environ.get("WANDB_MODE") else "offline",
        config=run.model_dump(mode="json", exclude_none=True),
        settings=wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True, x_disable_stats=True),
    )
    return Tracker(lambda at, numbers: opened.log(dict(numbers), step=at), opened.finish)


def open_trackio(run: Run, folder: Path, step: int) -> Tracker:
    """A run of trackio's project "apexgen", which `trackio show` shows."""
    import trackio

    opened = trackio.init(
        PROJECT,
        name=f"{folder.resolve().name}-{identity(folder)}",
        resume="allow",
        config=run.model_dump(mode="json", exclude_none=True),
        embed=False,
        auto_log_gpu=False,
        auto_log_cpu=False,
    )
    return Tracker(lambda at, numbers: opened.log(dict(numbers), step=at), opened.finish)


def identity(folder: Path) -> str:
    """The id that a run's folder has among tracked runs, drawn once."""
    file = folder / IDENTITY
    if not file.is_file():
        write_whole(file, uuid.uuid4().hex[:8].encode())
    return file.read_text()


OPENERS: dict[str, Callable[[Run, Path, int], Tracker]] = {
    "tensorboard": open_tensorboard,
    "trackio": open_trackio,
    "wandb": open_wandb,
}
