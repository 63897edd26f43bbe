"""What a benchmark has found, as JSON: printed, and with --out FILE written too, beside the machine it was found on."""

import argparse
import json
from pathlib import Path
from typing import Any


def new_parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser that shows a benchmark's docstring, and takes --out."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a file for the figures, such as benchmarks/results/step.json")
    return parser


def tell(figures: dict[str, Any], out: Path | None) -> None:
    """Print figures, and write them whole."""
    print(json.dumps(figures, indent=1))
    if out is not None:
        import torch

        from apexgen.evaluate.timing import machine
        from apexgen.files import write_whole
        from apexgen.precision import best_device

        out.parent.mkdir(parents=True, exist_ok=True)
        device = torch.device(best_device())
        write_whole(out, (json.dumps({"machine": machine(device)} | figures, indent=1) + "\n").encode())
