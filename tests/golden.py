"""Ten losses of every setting, kept: a change of an objective that is not meant shows at once.

python tests/golden.py      writes golden.json anew
"""

import json
from pathlib import Path

import torch

from fields import batch, nets, terms
from settings import SETTINGS

FILE = Path(__file__).with_name("golden.json")


def losses(objective):
    """The sum of all terms at step 7, for ten networks, batches and draws."""
    values = []
    for seed in range(10):
        torch.manual_seed(seed)
        values.append(sum(float(loss.value.detach()) for loss in terms(objective, nets(), batch(), 7, seed)))
    return values


def read():
    return json.loads(FILE.read_text())


if __name__ == "__main__":
    written = {name: [float(f"{value:.9g}") for value in losses(objective)] for name, objective in SETTINGS.items()}
    FILE.write_text(json.dumps(written, indent=1) + "\n")
