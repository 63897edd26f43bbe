"""What a run's folder holds, read for its report: at any time, while it trains too."""

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apexgen.report.chart import read_metrics
from apexgen.report.record import FILE

Result = dict[str, Any]  # what `apexgen evaluate` wrote
OF_A_RESULT = {"benchmark", "judge", "model", "scores", "n", "settings"}  # by which it is known from other JSON
NAMED = ("result.json", "sweep.json")  # of results, where a benchmark has no name of its own
LARGEST = 2**24  # bytes; a result is small


@dataclass(frozen=True)
class Told:
    """One run, as its files tell it; what is not there yet is empty."""

    name: str
    folder: Path
    text: str  # config.toml
    config: dict[str, Any]  # its keys, dotted
    metrics: list[dict[str, Any]]
    scores: dict[str, Any]  # report.json
    record: dict[str, Any]  # run.json
    previews: list[tuple[int, Path]]  # step and file
    results: list[Result]

    @property
    def step(self) -> int:
        """The last step that was logged."""
        return int(self.metrics[-1]["step"]) if self.metrics else 0

    @property
    def environment(self) -> dict[str, str]:
        """What it ran on, where it was written down."""
        return self.record.get("environment") or self.scores.get("environment", {})


def read_folder(folder: Path) -> Told:
    """Read a run's folder. ValueError where it is none, or a file of it is broken."""
    config = folder / "config.toml"
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; write one that apexgen train or apexgen demo made")
    if not config.is_file():
        raise ValueError(f"{folder} is no run's folder: it has no config.toml; make one with: apexgen train RUN.toml")
    try:
        told = tomllib.loads(config.read_text())
    except ValueError as error:
        raise ValueError(
            f"{config} is broken ({error}); name a folder that apexgen train or apexgen demo made"
        ) from None
    previews = [(file.stem.removeprefix("step-"), file) for file in sorted((folder / "samples").glob("step-*.png"))]
    return Told(
        name=folder.resolve().name,
        folder=folder,
        text=config.read_text(),
        config=_dotted(told),
        metrics=read_metrics(folder / "metrics.jsonl"),
        scores=_read(folder / "report.json"),
        record=_read(folder / FILE),
        previews=[(int(step), file) for step, file in previews if step.isdecimal()],
        results=[one for file in sorted(folder.rglob("*.json")) for one in _results(file)],
    )


def read_all(folders: list[Path]) -> list[Told]:
    """Several runs; those of one name are told apart by their paths.

    ValueError as of `read_folder`, or for a run given twice.
    """
    runs = [read_folder(folder) for folder in folders]
    names = [run.name for run in runs]
    for run in runs:
        if names.count(run.name) > 1:
            object.__setattr__(run, "name", str(run.folder))
    if len({run.name for run in runs}) < len(runs):
        raise ValueError("a run is given twice; name each folder once")
    return runs


def differences(runs: list[Told]) -> list[tuple[str, list[str]]]:
    """The settings by which runs differ, besides their folders: the key, and what each says."""
    keys = dict.fromkeys(key for run in runs for key in run.config if key != "folder")
    rows = [(key, [json.dumps(run.config[key]) if key in run.config else "-" for run in runs]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _results(file: Path) -> list[Result]:
    """The results in a file, one or a list of them; none in other JSON. ValueError where a result's file is broken."""
    if file.stat().st_size > LARGEST:
        return []
    try:
        held = _read(file)
    except ValueError:
        if file.name in NAMED:
            raise
        return []
    empty: Result = {"evaluations": None, "spread": {}, "notes": []}
    return [
        empty | one
        for one in (held if isinstance(held, list) else [held])
        if isinstance(one, dict) and one.keys() >= OF_A_RESULT
    ]


def _read(file: Path) -> Any:
    if not file.is_file():
        return {}
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is broken ({error}); remove it") from None


def _dotted(table: dict[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _dotted(value, f"{before}{key}.") if isinstance(value, dict) else {before + key: value}
    return flat
