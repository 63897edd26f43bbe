"""What the KL form does inside while it trains on the ring: is its fake field exact, is its push of its own mind?

    python benchmarks/anatomy.py [--steps 2500] [--seeds 3]

A line for each moment: mean ± deviation over seeds. The control without a shift
(a = 1) stands below.
"""

import argparse
import statistics
from dataclasses import fields

from apexgen.compare.anatomy import Anatomy, dissect
from apexgen.compare.plane import Plane
from apexgen.compare.points import Ring
from apexgen.objectives.apex import Apex

MOMENTS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2_500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--teacher-steps", type=int, default=4_000)
    arguments = parser.parse_args()
    world = Plane(Ring(), arguments.teacher_steps)
    names = [field.name for field in fields(Anatomy)]
    for title, objective in (("shifted, a = -1", Apex()), ("no shift, a = 1", Apex(shift_scale=1.0))):
        print(f"{title}\n  step  " + "  ".join(f"{name:>18}" for name in names))
        moments = [arguments.steps * part // MOMENTS for part in range(1, MOMENTS + 1)]
        seen = [look(world, objective, arguments.steps, moments, seed) for seed in range(1, arguments.seeds + 1)]
        for moment in moments:
            columns = [[getattr(one[moment], name) for one in seen] for name in names]
            cells = [f"{statistics.mean(column):9.3f} ± {statistics.pstdev(column):.3f} " for column in columns]
            print(f"{moment:6}  " + "  ".join(cells), flush=True)


def look(world: Plane, objective: Apex, steps: int, moments: list[int], seed: int) -> dict[int, Anatomy]:
    """One training, dissected at each moment."""
    seen = {}

    def watch(step: int, average: object) -> None:
        if step in moments:
            seen[step] = dissect(world, objective, average)

    world.train("", objective, steps, seed, watch)
    return seen


if __name__ == "__main__":
    main()
