"""What `apexgen demo` costs as a whole process: wall seconds, peak memory, and teacher time over student time.

    python benchmarks/demo_cost.py [--folder DIR] [OVERRIDE ...]

The two ratios are taken inside one run, so they hold when the machine's speed drifts; the seconds are this machine's.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from told import new_parser, tell


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary) / "demo"
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "apexgen", "demo", "--folder", str(folder), *arguments.overrides], check=True
        )
        seconds = time.perf_counter() - began
        report = json.loads((folder / "report.json").read_text())
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    teacher, student = report["teacher"], report["student"]["1"]
    figures = {
        "wall_seconds": round(seconds, 1),
        "peak_memory_bytes": peak,
        "training_seconds": round(report["training"]["seconds"], 1),
        "student_1_over_teacher_score": round(student["score"]["overall"] / teacher["score"]["overall"], 4),
        "teacher_over_student_1_seconds": round(teacher["seconds_per_image"] / student["seconds_per_image"], 1),
    }
    tell(figures, arguments.out)


if __name__ == "__main__":
    main()
