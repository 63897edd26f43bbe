"""How long the package and its help take to start, as ratios to a bare Python's start, all in one run.

    python benchmarks/startup.py [--repeats 10]

Each is a new process; the least of the repeats is told, since what else the machine does only adds. The aims, on a
calm machine: the import below 1 s, the help below 0.5 s.
"""

import subprocess
import sys
import time

from told import new_parser, tell

COMMANDS = {
    "python": ["-c", "pass"],
    "import apexgen": ["-c", "import apexgen"],
    "apexgen --help": ["-m", "apexgen", "--help"],
    "apexgen train --help": ["-m", "apexgen", "train", "--help"],
}


def seconds(arguments: list[str]) -> float:
    """One start."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    given = parser.parse_args()
    taken = {name: min(seconds(arguments) for _ in range(given.repeats)) for name, arguments in COMMANDS.items()}
    figures = {
        name: {"seconds": round(least, 3), "times as long as python": round(least / taken["python"], 1)}
        for name, least in taken.items()
    }
    tell(figures, given.out)


if __name__ == "__main__":
    main()
