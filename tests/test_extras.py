"""A missing extra is one line that says which: each command's own, with the package kept from being imported."""

import sys

import pytest
import torch
from PIL import Image

from apexgen.cli import main
from apexgen.evaluate.clip import scores_of
from apexgen.evaluate.distances import fid
from apexgen.evaluate.endpoint import Endpoint

NEEDED = [  # the package, its extra, the command, what is said before the advice
    ("gradio", "app", ["app", "scenes"], "apexgen app needs gradio"),
    ("fastapi", "app", ["serve", "scenes"], "apexgen serve needs fastapi"),
    ("uvicorn", "app", ["serve", "scenes"], "apexgen serve needs uvicorn"),
    ("prometheus_client", "app", ["serve", "scenes"], "apexgen serve needs prometheus_client"),
    ("tensorboard", "track", ["demo", "--folder", "new", 'train.track=["tensorboard"]'], "needs tensorboard"),
    ("wandb", "track", ["demo", "--folder", "new", 'train.track=["wandb"]'], "needs wandb"),
    ("pyarrow", "data", ["demo", "--folder", "new", "data.source=table.parquet"], "pyarrow is not installed"),
    ("datasets", "data", ["demo", "--folder", "new", "data.source=hub:me/mine"], "datasets is not installed"),
    ("webdataset", "data", ["demo", "--folder", "new", "data.source=shard.tar"], "webdataset is not installed"),
    (
        "webdataset",
        "data",
        ["synthesize", "scenes", "--prompts", "prompts.txt", "--out", "new"],
        "tars need webdataset",
    ),
    ("torchao", "memory", ["train", "run.toml", "model.weights=8bit"], "needs torchao"),
]


@pytest.fixture
def hide(monkeypatch):
    def hide(package):
        loaded = [name for name in sys.modules if name.startswith(f"{package}.")]
        for name in (package, *loaded):
            monkeypatch.setitem(sys.modules, name, None)

    return hide


@pytest.mark.parametrize(
    ("package", "extra", "words", "said"), NEEDED, ids=[f"{words[0]}-{package}" for package, _, words, _ in NEEDED]
)
def test_a_missing_extra_is_one_line_and_nothing_is_left(
    hide, monkeypatch, capsys, tmp_path, package, extra, words, said
):
    (tmp_path / "prompts.txt").write_text("a red ring\n")
    (tmp_path / "run.toml").write_text('folder = "new"\n')
    for name in ("table.parquet", "shard.tar"):
        (tmp_path / name).touch()
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["apexgen", *words])
    hide(package)
    with pytest.raises(SystemExit, match="2"):
        main()
    told = capsys.readouterr().err
    assert said in told and told.endswith(f'pip install "apexgen[{extra}]"\n') and told.count("\n") == 1, told
    assert sorted(tmp_path.rglob("*")) == before


def test_distances_and_a_judge_behind_http_name_their_extra(hide):
    hide("torchmetrics")
    features = torch.randn(4, 3)
    for score in (fid, scores_of):
        with pytest.raises(
            ValueError, match=r'^FID, KID and CLIP score need torchmetrics; write: pip install "apexgen'
        ):
            score(features, features)
    hide("httpx")
    with pytest.raises(ValueError, match=r'^httpx is missing: pip install "apexgen\[evaluate\]"$'):
        Endpoint("http://127.0.0.1:9/v1", "a judge").ask(Image.new("RGB", (8, 8)), "Is it red?", "")
