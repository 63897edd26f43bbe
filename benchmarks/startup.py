"""How long the package and its help take to start, as ratios to a bare Python's start, all in one run.

    python benchmarks/startup.py [--repeats 10]

Each is a new process; the least of the repeats is told, since what else the machine does only adds. The aims, on a
calm machine: the import below 1 s, the help below 0.5 s.
"""

import argparse
import subprocess
import sys
import time

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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    repeats = parser.parse_args().repeats
    taken = {name: min(seconds(arguments) for _ in range(repeats)) for name, arguments in COMMANDS.items()}
    for name, least in taken.items():
        print(f"{name:<24}{least:.3f} s   {least / taken['python']:.1f} x python")


if __name__ == "__main__":
    main()
