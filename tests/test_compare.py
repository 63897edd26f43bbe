"""The contest: its worlds know their own data, its budget is counted, its report is whole, its mistakes cost a line."""

import json

import pytest
import torch
from rich.console import Console

from apexgen.cli import main
from apexgen.compare import compare
from apexgen.compare.contest import evaluations_per_step, judge, pretrain, steps_within, train
from apexgen.compare.contestants import CONTESTANTS
from apexgen.compare.page import spread
from apexgen.compare.points import WORLDS, PointNetwork, Ring, condition
from apexgen.objectives import OBJECTIVES
from apexgen.objectives.apex import Apex
from apexgen.objectives.ddo import Ddo
from apexgen.objectives.flow_matching import FlowMatching
from apexgen.objectives.ladd import Ladd
from apexgen.objectives.lcm import Lcm
from apexgen.objectives.progressive import Progressive


@pytest.fixture(params=WORLDS.values(), ids=WORLDS.keys())
def world(request):
    return request.param()


def drawn(world, n=4000, seed=0):
    return world.data(n, torch.Generator().manual_seed(seed))


def test_a_world_judges_its_own_data_right(world):
    (labels, points), (other, _) = drawn(world), drawn(world, seed=1)
    real = world.data(4000, torch.Generator().manual_seed(1))[1]
    assert (labels.float().mean() - 0.5).abs() < 0.03
    said = world.judge(points, labels, points)
    assert said == {"distance": 0.0, "right": pytest.approx(1, abs=1e-3), "modes": 1.0}
    n = min((labels == 0).sum(), (other == 0).sum())
    same = torch.arange(4000)[labels == 0][:n], torch.arange(4000)[other == 0][:n]
    pair = torch.cat([points[same[0]], points[same[0]]]), torch.cat([real[same[1]], real[same[1]]])
    twice = torch.cat([torch.zeros(n), torch.ones(n)]).long()
    assert world.judge(pair[0], twice, pair[1])["distance"] < 0.1


def test_points_of_the_other_label_are_wrong_and_one_mode_is_seen_as_one(world):
    labels, points = drawn(world)
    assert world.judge(points, 1 - labels, points)["right"] < 0.02
    alone = world.modes[labels, 0]
    assert world.judge(alone, labels, points)["modes"] == 1 / world.modes.shape[1]
    assert world.judge(torch.zeros(4000, 2), labels, points)["distance"] > 0.5


def test_the_point_network_reads_the_second_time_only_once_it_has_learnt_to():
    torch.manual_seed(0)
    net, x, t, c = PointNetwork(), torch.randn(3, 2), torch.rand(3, 1), condition(torch.tensor([0, 1, 1]))
    assert torch.equal(net(x, t, t, c), net(x, t, t / 3, c))
    net.second_time.weight.data.normal_()
    assert not torch.allclose(net(x, t, t, c), net(x, t, t / 3, c))


@pytest.mark.parametrize(
    "objective, evaluations",
    [
        (FlowMatching(), 3),  # a forward, and a backward of two
        (Lcm(guidance=1.0), 5),  # and one forward each of teacher and average
        (Progressive(), 5),  # and two forwards of the snapshot
        (Ddo(), 16),  # two terms with a gradient, each beside the reference, which draws in eight steps
        (Ladd(r1=0.0, every=3), 6.63),  # the student 3, the teacher 2 and 1 back to the points; one head
        (Apex(), 10),  # three terms with a gradient, and the teacher
        (Apex(anchor_share=0.25), 7.75),
        (Apex(guidance=2.0), 11),
    ],
)
def test_a_step_costs_what_its_equations_say(objective, evaluations):
    """Within a percent: the gradient of a batch's own points is not needed."""
    assert evaluations_per_step(objective, Ring()) == pytest.approx(evaluations, rel=0.01)


def test_training_is_reproducible_and_leaves_the_teacher_alone():
    teacher = pretrain(Ring(), 3, seed=0)
    before = [weight.clone() for weight in teacher.parameters()]
    first, again, other = (train(FlowMatching(), Ring(), teacher, 3, seed) for seed in (1, 1, 2))
    for a, b, c, kept, now in zip(
        first.parameters(), again.parameters(), other.parameters(), before, teacher.parameters(), strict=True
    ):
        assert torch.equal(a, b) and torch.equal(kept, now)
        assert a.abs().max() == 0 or not torch.equal(a, c)
    assert judge(Ring(), first, 2, renoises=True) == judge(Ring(), again, 2, renoises=True)


def test_every_objective_has_a_contestant():
    assert {type(one.objective) for one in CONTESTANTS.values()} == set(OBJECTIVES.values())


def test_a_contest_reports_all_who_took_part(tmp_path):
    folder, names = tmp_path / "new", ["lcm", "mean_flow"]
    report = compare("checkerboard", names, 60, 2, 3, folder, Console(quiet=True))
    assert json.loads((folder / "compare.json").read_text()) == report
    assert list(report) == ["teacher", *names]
    for name in names:
        steps, cost = steps_within(60, CONTESTANTS[name].objective, WORLDS["checkerboard"]())
        assert report[name]["steps"] == steps == int(60 / cost)
        assert set(report[name]["nfe"]) == {"1", "2", "4", "8", "16"}
        mean, deviation = report[name]["nfe"]["1"]["distance"]
        assert mean > 0 and deviation > 0
    page = (folder / "compare.html").read_text()
    assert all(name in page for name in names) and "http" not in page
    assert not list(folder.glob(".partial*"))


def test_a_stopped_contest_keeps_those_who_were_through(tmp_path):
    class Stopping(Console):
        def print(self, *objects, **options):
            if str(objects[0]).startswith("mean_flow"):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare("ring", ["lcm", "mean_flow"], 60, 1, 2, tmp_path, Stopping())
    assert list(json.loads((tmp_path / "compare.json").read_text())) == ["teacher", "lcm"]


def test_a_spread_is_written_where_there_is_one():
    assert spread([0.5, 0.01]) == "0.500 ± 0.010" and spread([0.5, 0.0]) == "0.500"


@pytest.mark.parametrize(
    "arguments, line",
    [
        (["--world", "rong"], "write --world ring"),
        (["--objectives", "mean_flo"], "write --objectives mean_flow"),
        (["--budget", "0"], "--budget must be positive"),
        (["--seeds", "0"], "write --seeds 1 or more"),
        (["--objectives", "apex", "--budget", "500"], "whose warm-up is 150; write --budget 30"),
    ],
)
def test_a_mistake_costs_a_line_and_nothing_is_trained(capsys, monkeypatch, tmp_path, arguments, line):
    monkeypatch.setattr("sys.argv", ["apexgen", "compare", "--folder", str(tmp_path / "new"), *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    told = capsys.readouterr().err.strip()
    assert stop.value.code == 2 and line in told and "\n" not in told
    assert not (tmp_path / "new").exists()
