"""Processes that train together do what one would do alone: gradients, runs that go on, weights that are exported."""

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch.distributed.fsdp import FSDPModule

from apexgen import checkpoint, distill
from apexgen.config import load_run
from apexgen.distill import open_backbone, open_student, read_run
from apexgen.encode import encode
from apexgen.export.run import export_run
from apexgen.objectives import Loss
from apexgen.objectives.apex import Apex
from apexgen.parallel import Team, assembled
from apexgen.shard import repeated_blocks, whole
from apexgen.train import Trainer, open_objective
from pipelines import SIZE
from small import inputs, perturb
from together import BY_TERM, FSDP, FULL, SHORT, begin, command, end, logs_of, metrics, run_file, saved

TWICE = ("train.batch=2",)  # what one process does for two


def trainer_in(team: Team, *settings: str) -> Trainer:
    """A trainer in a place between the teacher and nowhere, so that no gradient is zero."""
    run = load_run(None, settings)
    sharded = run.train.parallel == "fsdp"
    net = open_backbone(run, sharded)
    corpus = encode(run.data, net, open_objective(run).needs_pictures)
    made = Trainer(run, open_student(run, net, sharded), corpus, net.latent_shape(), step=1, team=team)
    perturb(made.student)
    return made


@contextmanager
def counted(calls: Counter):
    """How often the processes speak: every collective of torch's is counted and done."""
    reduce, scatter = torch.distributed.all_reduce, torch.distributed.reduce_scatter_single
    torch.distributed.all_reduce = lambda tensor, **op: (calls.update([tensor.dtype]), reduce(tensor, **op))[1]
    torch.distributed.reduce_scatter_single = lambda **given: (calls.update(["scatter"]), scatter(**given))[1]
    try:
        yield
    finally:
        torch.distributed.all_reduce, torch.distributed.reduce_scatter_single = reduce, scatter


@dataclass(frozen=True)
class Short(Apex):
    """APEX with a last term whose gradient does not come to the network's first block."""

    def terms(self, nets, batch, draw, step):
        return chain(super().terms(nets, batch, draw, step), self._short(nets.student, batch, draw))

    def _short(self, student, batch, draw):
        (noise, _), (t,) = draw.noises, draw.times
        block = repeated_blocks(student.network)[0]
        handle = block.register_forward_hook(lambda module, given, out: out.detach())
        yield Loss("short", student(noise, t, t, batch.c).square().mean())
        handle.remove()


def gradients_of(team: Team, *settings: str, short: bool = False) -> dict:
    made, calls = trainer_in(team, *settings), Counter()
    if short:
        made.objective = Short(**vars(made.objective))
    weights = made.student.trained
    with counted(calls):
        logs = team.mean(made._descend())
        if not made.student.sharded:
            team.average_gradients(weights.values())
    units = sum(isinstance(module, FSDPModule) for module in made.student.backbone.network.modules())
    grads = {name: whole(weight.grad) for name, weight in weights.items()}
    return {"logs": logs, "calls": calls, "grads": grads, "units": units}


def write_gradients(out: Path) -> None:
    with assembled() as team:
        for name, settings in OBJECTIVES.items():
            told = gradients_of(team, *settings, *SHARDED.get(name, ()), short="short" in name)
            torch.save(told, out / f"{name}-{team.rank}.pt")


# A step without the generator, in which one process of two has the pair, and the other no gradient of the student's.
PAIRS = (
    "objective.name=dmd", "objective.warmup=0", "objective.generator_every=2", "objective.pair_steps=1",
    "objective.pair_share=0.5",
)  # fmt: skip
# Every second row has the anchor: of each process's two batches one has a term without gradient.
PARTS = ("train.accumulate=2", "objective.anchor_share=0.5")
OBJECTIVES = {
    "apex": SHORT,
    "apex in parts": (*SHORT, "train.batch=2", "train.accumulate=2"),
    "apex, all weights": tuple(FULL),
    "flow_matching": (*SHORT[:-1], "objective.name=flow_matching"),
    "dmd, pairs alone": (*SHORT[:-1], *PAIRS),
    "sharded, with a short term": (*FULL, "objective.warmup=2"),
    "sharded, by term": tuple(FULL),
    "sharded, in parts": (*FULL, *PARTS),
    "sharded, in parts, by term": (*FULL, *PARTS),
}
SHARDED = {name: (FSDP, BY_TERM) if "by term" in name else (FSDP,) for name in OBJECTIVES if name.startswith("sharded")}
ALONE = dict.fromkeys(OBJECTIVES, TWICE) | {"apex in parts": ("train.batch=4",)}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What each of two processes has after a step's backward passes and their collectives."""
    folder = tmp_path_factory.mktemp("both")
    assert end(begin(folder / "log", write_gradients, folder)) == [0, 0], logs_of(folder)
    return {
        name: [torch.load(folder / f"{name}-{rank}.pt", weights_only=False) for rank in (0, 1)] for name in OBJECTIVES
    }


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_are_one_with_the_doubled_batch(both, name):
    alone = gradients_of(Team(), *OBJECTIVES[name], *ALONE[name], short="short" in name)
    one, other = both[name]
    norm = torch.stack([grad.norm() for grad in alone["grads"].values()]).norm()
    for key, grad in alone["grads"].items():
        assert torch.equal(one["grads"][key], other["grads"][key])
        assert (one["grads"][key] - grad).abs().max() < 1e-6 * norm, key
    assert one["logs"] == other["logs"] == pytest.approx(alone["logs"], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name not in SHARDED])
def test_gradients_cross_once_a_step_whatever_the_terms_and_batches(both, name):
    for told in both[name]:  # which weights have a gradient, the gradients, and the scalars
        assert told["calls"] == {torch.uint8: 1, torch.float32: 1, torch.float64: 1}


@pytest.mark.parametrize("name", SHARDED)
def test_sharded_gradients_cross_once_a_step_or_at_every_term(both, name):
    times = 1
    if BY_TERM in SHARDED[name]:
        times = 5 if "in parts" in name else 3  # the terms of apex, in two batches, of which one lacks the anchor
    for told in both[name]:
        assert told["units"] > 1 and told["calls"] == {"scatter": times * told["units"], torch.float64: 1}


def alone(folder: Path, *settings: str) -> None:
    distill.distill(load_run(None, [f"folder={folder / 'run'}", *settings]), Console(quiet=True))


def assert_close(one: dict, other: dict, start: dict) -> None:
    """Equal beside how far training has moved them."""
    assert one.keys() == other.keys() == start.keys()
    moved = torch.cat([(other[name] - start[name]).flatten() for name in other]).norm()
    apart = torch.cat([(one[name] - other[name]).flatten() for name in other]).norm()
    assert apart < 1e-3 * moved and moved > 0


def command_that_tells(*arguments: str) -> None:
    """A command that prints whether this process opens the network's weights."""
    honest = distill.load_backbone

    def told(*given):
        print("opens the network:", given[-1])
        return honest(*given)

    distill.load_backbone = told
    command(*arguments)


@pytest.mark.parametrize("name", ["lora", "sharded"])
def test_a_run_goes_on_at_another_number_of_processes(tmp_path, name):
    """Two processes take a step and one the rest, and the other way round: all end where one alone does.

    Sharded, the two compute activations again in the backward pass; the one does not.
    """
    base = SHORT if name == "lora" else FULL
    parallel = [] if name == "lora" else ["train.parallel=fsdp", "model.checkpointing=true"]
    alone(tmp_path / "alone", *base, *TWICE)
    last, start = saved(tmp_path / "alone", 2), initial(*base)
    there = tmp_path / "there"
    processes = begin(there.with_name("log"), command_that_tells, *run_file(there, *base, *parallel))
    assert end(processes) == [0, 0], logs_of(tmp_path)
    assert "opens the network: True" in (tmp_path / "log-0").read_text()
    assert f"opens the network: {name == 'lora'}" in (tmp_path / "log-1").read_text()
    assert_close(saved(there, 2), last, start)
    assert_close(saved(there, 2, "average"), saved(tmp_path / "alone", 2, "average"), start)
    assert [line["fake"] for line in metrics(there)] == pytest.approx(
        [line["fake"] for line in metrics(tmp_path / "alone")], rel=1e-4
    )
    for folder in (tmp_path / "alone", there):
        forget_after(folder, 1)
    alone(there, *base, *TWICE)
    assert_close(saved(there, 2), last, start)
    back = tmp_path / "alone"
    assert end(begin(back.with_name("log"), command, *run_file(back, *base, *parallel))) == [0, 0], logs_of(tmp_path)
    assert "going on from step 1" in (tmp_path / "log-0").read_text()
    assert (tmp_path / "log-1").read_text().count("going on") == 0
    assert_close(saved(back, 2), last, start)
    assert [line["step"] for line in metrics(back)] == [1, 2]


def initial(*settings: str) -> dict[str, torch.Tensor]:
    run = load_run(None, settings)
    return {name: weight.detach() for name, weight in open_student(run, open_backbone(run)).trained.items()}


def forget_after(folder: Path, step: int) -> None:
    """As if the run had been killed after a step."""
    for path in checkpoint.checkpoints(folder / "run" / "checkpoints"):
        if int(path.name[5:]) > step:
            checkpoint._remove(path)


def shard_opened_once(out: Path, folders: dict[str, Path]) -> None:
    """Every family's network, opened by the first process alone; what each process then has of it, and draws."""
    with assembled() as team:
        for family, folder in folders.items():
            run = load_run(None, [f"model.path={folder}", f"model.size={SIZE}", "model.tune=full", FSDP])
            net = open_backbone(run, sharded=True, with_network=team.first)
            empty = all(weight.is_meta for weight in net.network.parameters())
            student = open_student(run, net, sharded=True)
            weights = {name: whole(weight).detach() for name, weight in net.network.state_dict().items()}
            x, t, c = inputs(net)
            with torch.no_grad():
                told = {"empty": empty, "weights": weights, "drawn": [net(x, t, t, c), student.teacher(x, t, t, c)]}
            torch.save(told, out / f"{family}-{team.rank}.pt")


def test_one_process_opens_the_weights_that_all_share(tmp_path, folders):
    assert end(begin(tmp_path / "log", shard_opened_once, tmp_path, folders)) == [0, 0], logs_of(tmp_path)
    for family, folder in folders.items():
        net = open_backbone(load_run(None, [f"model.path={folder}", f"model.size={SIZE}"]))
        x, t, c = inputs(net)
        with torch.no_grad():
            drawn = net(x, t, t, c)
        for rank in (0, 1):
            told = torch.load(tmp_path / f"{family}-{rank}.pt", weights_only=True)
            assert told["empty"] == (rank == 1) and told["weights"].keys() == net.network.state_dict().keys()
            assert all(torch.equal(told["weights"][name], own) for name, own in net.network.state_dict().items())
            for other in told["drawn"]:
                torch.testing.assert_close(other, drawn, atol=1e-5, rtol=1e-4)


def train_sharded(folder: Path, *settings: str) -> None:
    """A few sharded steps, saved in pieces; what the processes hold is put together beside it."""
    checkpoint.PIECE = 100_000
    with assembled() as team:
        made = trainer_in(team, *settings, f"folder={folder}")
        made.team = team
        made.advance()
        held = {name: weight.to_local().numel() for name, weight in made.student.trained.items()}
        moments = made.optimizer.state[next(iter(made.student.trained.values()))]["exp_avg"]
        average = {name: whole(tensor) for name, tensor in made.student.average.items()}
        torch.save({"held": held, "average": average, "moment": whole(moments)}, folder / f"held-{team.rank}.pt")
        made.save(folder)
        if team.first:
            (folder / "config.toml").write_text(checkpoint_config(folder))


def checkpoint_config(folder: Path) -> str:
    return next((folder / "checkpoints").glob("step-*/config.toml")).read_text()


def test_a_sharded_student_is_exported_as_one_process_opens_it(tmp_path):
    """Every process holds half of each tensor, and the pieces on the disk are the whole; with offload as far as a
    machine without an accelerator can."""
    settings = (*FULL, "train.parallel=fsdp", "train.processes=2", "model.checkpointing=true", "train.offload=true")
    assert end(begin(tmp_path / "log", train_sharded, tmp_path, *settings)) == [0, 0], logs_of(tmp_path)
    one, other = (torch.load(tmp_path / f"held-{rank}.pt", weights_only=True) for rank in (0, 1))
    run, state = read_run(tmp_path)
    assert len(list((tmp_path / "checkpoints").glob("*/student*.safetensors"))) > 2
    student = distill.open_trained(run, state)
    for name, tensor in student.average.items():
        assert torch.equal(tensor, one["average"][name]) and torch.equal(tensor, other["average"][name])
        assert one["held"][name] + other["held"][name] == tensor.numel()
    assert torch.equal(state.optimizer["state"][0]["exp_avg"], one["moment"])
    assert sum(one["held"].values()) < 0.6 * sum(tensor.numel() for tensor in student.average.values())
    assert export_run(tmp_path, "merged", tmp_path / "export").difference < 1e-6
    [file] = (tmp_path / "export" / "transformer").glob("*.safetensors")
    written, start = load_file(file), initial(*FULL)
    assert all(torch.equal(written[name], weight) for name, weight in student.average.items())
    assert any(not torch.equal(written[name], weight) for name, weight in start.items())
