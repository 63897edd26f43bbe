"""Results of the official scripts' own files, so that published and our own runs come into one table format."""

from pathlib import Path
from typing import Any

from apexgen.evaluate import dpg, dpg_run, geneval2, geneval2_run, wise_run
from apexgen.evaluate.result import Result, data_digest, save_result
from apexgen.evaluate.wise import PROTOCOLS

BENCHMARKS = ("dpg", "wise-legacy", "wise-verified", "geneval2")


def import_official(
    benchmark: str, results: Path, data: Path | None, strict: bool, name: str, judge: str, out: Path
) -> Result:
    """Read, score and save; ValueError for files that are none, data that is missing, or an option without effect."""
    if benchmark not in BENCHMARKS:
        raise ValueError(f"{benchmark} is no benchmark with official files; write one of {', '.join(BENCHMARKS)}")
    if strict and benchmark != "dpg":
        raise ValueError(f"--strict-official does nothing with {benchmark}; leave it out")
    needs_data = benchmark == "geneval2" or (benchmark == "dpg" and results.stem.endswith("_detail"))
    if needs_data != (data is not None):
        raise ValueError(f"--data is {'missing' if needs_data else 'without effect'} with {benchmark} {results.name}")
    if benchmark == "dpg":
        title, (scores, n) = dpg_run.NAME, dpg_run.read_official(results, data or Path(), strict)
    elif benchmark == "geneval2":
        title, (scores, n) = geneval2_run.NAME, geneval2_run.read_official(results, data or Path())
    else:
        protocol = PROTOCOLS[benchmark.removeprefix("wise-")]
        title, (scores, n) = protocol.name, wise_run.read_official(results, protocol)
    settings: dict[str, Any] = {"imported": "official file"} | _quirks(benchmark, results, strict)
    if data is not None:
        asked = dpg.read_graphs(data) if benchmark == "dpg" else geneval2.read_prompts(data)
        settings["data"] = data_digest(asked)
    result = Result(benchmark=title, judge=judge, model=name, evaluations=None, scores=scores, n=n, settings=settings)
    save_result(result, out)
    return result


def _quirks(benchmark: str, results: Path, strict: bool) -> dict[str, bool | None]:
    """Whether DPG's figures have the published script's quirks; None where they are as the file has them."""
    if benchmark != "dpg":
        return {}
    return {"strict": strict if results.stem.endswith("_detail") else None}
