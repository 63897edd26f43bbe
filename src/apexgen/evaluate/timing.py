"""Speed as one-step papers print it: throughput at batch 10, latency at batch 1, where time goes, ours beside others.

The whole call is timed, from prompts to pictures in memory: text encoders, network, decoder and what is between them.
Evaluations are counted as rows that the network was given: guidance makes two of each picture's.
"""

import gc
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from apexgen.drawer import Drawer
from apexgen.evaluate.meter import PARTS, Clock, Meter, forget_peak, network_of, peak_bytes
from apexgen.evaluate.result import Result
from apexgen.evaluate.subject import Draws, StockDrawer, Subject, open_drawer
from apexgen.size import Size

BATCH = 10  # of throughput
PROMPTS = ("a photo of a red ball on a wooden table", "two blue cubes left of a green ring")


@dataclass(frozen=True)
class Call:
    """One call's seconds."""

    whole: float
    parts: dict[str, float]  # text, transformer, vae, and other: what is left
    evaluations: float  # of the network, a picture


def time_subjects(
    subjects: Sequence[Subject],
    prompts: Sequence[str],
    size: Size | None,
    precision: str,
    repeats: int,
    warmup: int,
    console: Console,
) -> list[Result]:
    """Time models one after another on this machine; ratios are to the first.

    ValueError, one line, where one can't be opened, or where there are fewer than 3 repeats.
    """
    if repeats < 3 or warmup < 1:
        raise ValueError("a median takes repeats and a warm first call; write --repeats 5 --warmup 2")
    results: list[Result] = []
    for subject in subjects:
        console.print(f"timing {subject.text}")
        drawer = open_drawer(subject, size, precision)
        results.append(_time(subject, drawer, prompts, repeats, warmup, results[0] if results else None))
        del drawer
        gc.collect()
        torch.cuda.empty_cache()
    return results


def _time(
    subject: Subject,
    drawer: Drawer | StockDrawer,
    prompts: Sequence[str],
    repeats: int,
    warmup: int,
    first: Result | None,
) -> Result:
    pipeline = drawer.pipeline if isinstance(drawer, StockDrawer) else drawer.model.backbone.pipeline
    device = next(network_of(pipeline).parameters()).device
    alone = measure(drawer, pipeline, prompts, 1, repeats, warmup)
    has_peak = forget_peak(device)
    together = measure(drawer, pipeline, prompts, BATCH, repeats, warmup)
    scores, spread = summary(alone, together)
    if has_peak:
        scores["GiB"] = peak_bytes(device) / 2**30
    scores["B parameters"] = sum(weight.numel() for weight in network_of(pipeline).parameters()) / 1e9
    scores["x images/s"] = scores["images/s"] / (first.scores if first else scores)["images/s"]
    scores["x faster"] = (first.scores if first else scores)["latency"] / scores["latency"]
    told = _identity(drawer)
    return Result(
        benchmark="speed",
        judge=machine(device),
        model=subject.text,
        evaluations=round(alone[0].evaluations),
        scores=scores,
        spread=spread,
        n=repeats * (BATCH + 1),
        settings={key: told[key] for key in ("size", "precision")}
        | {"batch": BATCH, "latency_batch": 1, "warmup": warmup, "repeats": repeats, "compiled": False}
        | {"beside": first.model if first else subject.text}
        | {
            "spread": "half the quartiles' distance",
            "seconds": "latency and its parts",
            "inside": "text, network, vae",
        },
        drawn=told,
    )


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
        for call in range(warmup + repeats):
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
    drawn = Table(
        box=box.SIMPLE_HEAD, title=f"speed on {results[0].judge}", title_justify="left", caption_justify="left"
    )
    drawn.caption = (
        f"images/s at batch {told['batch']}, seconds at batch {told['latency_batch']}: medians of {told['repeats']} "
        f"calls after {told['warmup']} of warm-up, {'' if told['compiled'] else 'not '}compiled; x: "
        f"beside {told['beside']}"
    )
    drawn.add_column("", no_wrap=True)
    for result in results:
        drawn.add_column(result.model, justify="right", overflow="fold")
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
