"""Speed as one-step papers print it: throughput at batch 10, latency at batch 1, where time goes, ours beside others.

The whole call is timed, from prompts to pictures in memory: text encoders, network, decoder and what is between them.
Evaluations are counted as rows that the network was given: guidance makes two of each picture's.
"""

import gc
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import nn

from apexgen.config import Model
from apexgen.drawer import Drawer
from apexgen.evaluate.meter import PARTS, Clock, Meter, forget_peak, network_of, peak_bytes
from apexgen.evaluate.result import Result
from apexgen.evaluate.subject import Draws, StockDrawer, Subject, open_drawer
from apexgen.progress import counted, working
from apexgen.size import Size

BATCH = 10  # of throughput
ROUNDS = 3  # turns that each of several models has
NO_ROOM = f"there is no room for it at batch {BATCH}; name a smaller --size, which a run has of its own"
PROMPTS = ("a photo of a red ball on a wooden table", "two blue cubes left of a green ring")


@dataclass(frozen=True)
class Call:
    """One call's seconds."""

    whole: float
    parts: dict[str, float]  # text, transformer, vae, and other: what is left
    evaluations: float  # of the network, a picture


@dataclass
class Timed:
    """A model with what its calls took so far."""

    subject: Subject
    drawer: Drawer | StockDrawer
    alone: list[Call] = field(default_factory=list)  # at batch 1
    together: list[Call] = field(default_factory=list)  # at batch 10
    peak: int | None = None  # bytes

    @property
    def pipeline(self) -> Any:
        """The pipeline whose parts are watched."""
        return self.drawer.pipeline if isinstance(self.drawer, StockDrawer) else self.drawer.model.backbone.pipeline

    @property
    def device(self) -> torch.device:
        """Where it draws."""
        return next(network_of(self.pipeline).parameters()).device

    def time(self, prompts: Sequence[str], repeats: int, warmup: int, others: int) -> None:
        """Some more calls at both batches; `others` are the bytes that other models hold beside it."""
        self.alone += measure(self.drawer, self.pipeline, prompts, 1, repeats, warmup)
        has_peak = forget_peak(self.device)
        self.together += measure(self.drawer, self.pipeline, prompts, BATCH, repeats, warmup)
        if has_peak:
            self.peak = max(self.peak or 0, peak_bytes(self.device) - others)

    def held(self) -> int:
        """The bytes of its weights."""
        modules = [part for part in self.pipeline.components.values() if isinstance(part, nn.Module)]
        return sum(weight.nbytes for module in modules for weight in module.parameters())


def time_subjects(
    subjects: Sequence[Subject],
    prompts: Sequence[str],
    size: Size | None,
    precision: str,
    repeats: int,
    warmup: int,
    console: Console,
) -> list[Result]:
    """Time models on this machine, in turns, so that its moods meet all of them; ratios are to the first.

    Where an accelerator has no room for all at once they are timed one after another, which the results say; one that
    it has no room for alone is told of, and left out. ValueError, one line, where that is all, one can't be opened, or
    there are fewer than 3 repeats or no such precision.
    """
    precisions = get_args(Model.model_fields["precision"].annotation)
    if precision not in precisions:
        raise ValueError(f"--precision {precision}: write one of {', '.join(precisions)}")
    if repeats < 3 or warmup < 1:
        raise ValueError("a median takes repeats and a warm first call; write --repeats 5 --warmup 2")

    how = prompts, size, precision, repeats, warmup, console
    try:
        results = _take_turns(subjects, ROUNDS if len(subjects) > 1 else 1, *how)
    except torch.OutOfMemoryError:
        results = []  # and only behind this block are the models let go of
    if not results and len(subjects) > 1:
        console.print("there is no room for all models at once: one after another")
        for subject in subjects:
            gc.collect()
            torch.cuda.empty_cache()
            try:
                results += _take_turns([subject], 1, *how)
            except torch.OutOfMemoryError:
                console.print(f"{subject.text}: {NO_ROOM}", markup=False, soft_wrap=True)
    if not results:
        raise ValueError(f"{', '.join(subject.text for subject in subjects)}: {NO_ROOM}")
    return [compared(result, results[0]) for result in results]


def _take_turns(
    subjects: Sequence[Subject],
    rounds: int,
    prompts: Sequence[str],
    size: Size | None,
    precision: str,
    repeats: int,
    warmup: int,
    console: Console,
) -> list[Result]:
    timed = []
    for subject in subjects:
        with working(f"opening {subject.folder}"):
            timed.append(Timed(subject, open_drawer(subject, size, precision)))
    for number in range(rounds):
        for one in timed:
            console.print(f"timing {one.subject.text}, round {number + 1} of {rounds}", markup=False)
            others = sum(other.held() for other in timed if other is not one)
            one.time(prompts, len(range(number, repeats, rounds)), warmup, others)
    return [to_result(one, repeats, warmup, rounds) for one in timed]


def to_result(timed: Timed, repeats: int, warmup: int, rounds: int) -> Result:
    """What was measured of a model."""
    scores, spread = summary(timed.alone, timed.together)
    if timed.peak is not None:
        scores["GiB"] = timed.peak / 2**30
    scores["B parameters"] = sum(weight.numel() for weight in network_of(timed.pipeline).parameters()) / 1e9
    told = _identity(timed.drawer)
    return Result(
        benchmark="speed",
        judge=machine(timed.device),
        model=timed.subject.text,
        evaluations=round(timed.alone[0].evaluations),
        scores=scores,
        spread=spread,
        n=repeats * (BATCH + 1),
        settings={key: told[key] for key in ("size", "precision")}
        | {"batch": BATCH, "latency_batch": 1, "warmup": warmup, "repeats": repeats, "rounds": rounds}
        | {"compiled": False, "spread": "half the quartiles' distance", "seconds": "latency and its parts"}
        | {"inside": "text, network, vae"},
        drawn=told,
    )


def compared(result: Result, first: Result) -> Result:
    """A result with its ratios to the first, which it names."""
    ratios = {
        "x images/s": result.scores["images/s"] / first.scores["images/s"],
        "x faster": first.scores["latency"] / result.scores["latency"],
    }
    settings = result.settings | {"beside": first.model}
    return result.model_copy(update={"scores": result.scores | ratios, "settings": settings})


def summary(alone: Sequence[Call], together: Sequence[Call]) -> tuple[dict[str, float], dict[str, float]]:
    """Medians, and half the distances of the quartiles, of calls at batch 1 and at batch 10."""
    scores, spread = {}, {}
    measured = {"images/s": [BATCH / call.whole for call in together], "latency": [call.whole for call in alone]}
    measured |= {part: [call.parts[part] for call in alone] for part in (*PARTS, "other")}
    for name, values in measured.items():
        low, scores[name], high = (float(value) for value in np.percentile(values, [25, 50, 75]))
        spread[name] = (high - low) / 2
    return scores, spread


def _identity(drawer: Drawer | StockDrawer) -> dict[str, Any]:
    if isinstance(drawer, Drawer):
        return drawer.settings()
    size = None if drawer.size is None else drawer.size.written
    return {"model": drawer.name, "size": size, "precision": drawer.precision, "call": repr(drawer.arguments)}


def measure(drawer: Draws, pipeline: Any, prompts: Sequence[str], batch: int, repeats: int, warmup: int) -> list[Call]:
    """`repeats` calls at a batch after `warmup` that do not count; each from new noise."""
    texts = [prompts[row % len(prompts)] for row in range(batch)]
    device = next(network_of(pipeline).parameters()).device
    meter, calls = Meter(Clock(device)), []
    with meter.watching(pipeline):
        for call in counted(range(warmup + repeats), f"timing, {batch} at once", still=True):
            meter.clear()
            seeds = range(call * batch, (call + 1) * batch)
            _wait(device)
            began = time.perf_counter()
            drawer.draw(texts, seeds)
            _wait(device)
            whole = time.perf_counter() - began
            parts = meter.seconds()
            parts["other"] = whole - sum(parts.values())
            calls.append(Call(whole, parts, meter.rows / batch))
    return calls[warmup:]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timing_table(results: Sequence[Result]) -> Table:
    """A row for each measure, a column for each model: as many measures as these do not fit beside one another."""
    told = results[0].settings
    title = Text(f"speed on {results[0].judge}", "table.title")  # brackets of names are no markup
    drawn = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", caption_justify="left")
    caption = (
        f"images/s at batch {told['batch']}, seconds at batch {told['latency_batch']}: medians of {told['repeats']} "
        f"calls after {told['warmup']} of warm-up in each of {told['rounds']} turns, "
        f"{'' if told['compiled'] else 'not '}compiled; x: beside {told['beside']}"
    )
    drawn.caption = Text(caption, "table.caption")
    drawn.add_column("", no_wrap=True)
    for result in results:
        drawn.add_column(Text(result.model), justify="right", overflow="fold")
    drawn.add_row("evaluations", *(str(result.evaluations) for result in results))
    for name in results[0].scores:
        drawn.add_row(name, *(_cell(result, name) for result in results))
    for name in ("size", "precision"):
        drawn.add_row(name, *(str(result.settings[name]) for result in results))
    return drawn


def _cell(result: Result, name: str) -> str:
    spread = f" ± {result.spread[name]:.1g}" if name in result.spread else ""
    return f"{result.scores[name]:.3g}{spread}"


def machine(device: torch.device) -> str:
    """What the times are of."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"CPU {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
