"""The contest: its worlds know their own data, its budget is counted, its report is whole, its mistakes cost a line."""

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from apexgen.cli import main
from apexgen.compare import compare
from apexgen.compare.contest import plan
from apexgen.compare.page import curves_of, ranked, spread, table
from apexgen.compare.plane import Plane
from apexgen.compare.points import WORLDS, PointNetwork, Ring, condition
from apexgen.compare.scenes import COUNTED, Scenes
from apexgen.compare.terms import SHIPPED, load_terms
from apexgen.objectives import OBJECTIVES
from apexgen.objectives.flow_matching import FlowMatching
from apexgen.report.curves import points

ABLATIONS = Path(__file__).parents[1] / "runs" / "ablations"


def ignored(step, average):
    """What a training that nobody watches is watched by."""


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


def test_training_is_reproducible_and_leaves_the_teacher_alone():
    world = Plane(Ring(), 3)
    before = [weight.clone() for weight in world.teacher.parameters()]
    first, again, other = (world.train("", FlowMatching(), 3, seed, ignored) for seed in (1, 1, 2))
    for a, b, c, kept, now in zip(
        first.parameters(), again.parameters(), other.parameters(), before, world.teacher.parameters(), strict=True
    ):
        assert torch.equal(a, b) and torch.equal(kept, now)
        assert a.abs().max() == 0 or not torch.equal(a, c)
    assert world.judge(first, 2, renoises=True) == world.judge(again, 2, renoises=True)


def plan_all(terms):
    """Refused unless each budget buys more than what prepares it: of scenes with what a LoRA adds, two fifths of a step
    on points."""
    for name, objective in terms.objectives().items():
        plan(Plane(Ring(), 1), objective, terms.budgets()[name] / (1.4 if terms.world == "scenes" else 1))


@pytest.mark.parametrize("world", SHIPPED)
def test_every_shipped_contest_is_whole(world):
    """Every objective takes part, and can."""
    terms = load_terms(None, [], {"world": world})
    assert {type(one) for one in terms.objectives().values()} == set(OBJECTIVES.values())
    plan_all(terms)
    shares = [share for one in terms.objectives().values() for share in one.term_shares.values()]
    assert all((share * COUNTED).is_integer() for share in shares), "a step is counted on whole rows, or costs more"


@pytest.mark.parametrize("file", sorted(ABLATIONS.glob("*.toml")), ids=lambda file: file.stem)
def test_every_ablation_can_be_run(file):
    terms = load_terms(file, [], {})
    assert len({str(terms.of(name)) for name in terms.contestants}) == len(terms.contestants), "two are the same"
    plan_all(terms)


def test_a_contest_reports_all_who_took_part(tmp_path):
    folder, names = tmp_path / "new", ["lcm", "mean_flow"]
    wanted = load_terms(None, names, {"world": "checkerboard", "budget": 60, "seeds": 2, "teacher_steps": 3})
    report = compare(wanted, folder, Console(quiet=True))
    assert json.loads((folder / "compare.json").read_text()) == report
    assert list(report) == ["teacher", *names]
    world = Plane(WORLDS["checkerboard"](), 3)
    for name, objective in wanted.objectives().items():
        training = plan(world, objective, 60)
        steps, cost = training.steps, training.cost
        assert report[name]["steps"] == steps == int(60 / cost.evaluations)
        assert list(map(int, report[name]["nfe"])) == list(world.evaluations)
        mean, deviation = report[name]["nfe"]["1"]["distance"]
        assert mean > 0 and deviation > 0
        spent, last = list(report[name]["training"].items())[-1]
        assert int(spent) == pytest.approx(60, abs=cost.evaluations + 1) and last == [mean, deviation]
    lines = (folder / "compare.md").read_text().splitlines()
    assert len(lines) == 5 and {line.count("|") for line in lines} == {7}
    page = (folder / "compare.html").read_text()
    assert all(name in page for name in names) and "http" not in page
    assert "teacher, 50 steps" in page
    one, best = report["lcm"]["nfe"]["1"], report["teacher"]["nfe"]["50"]
    ends = dict(curves_of(report, world)["distance in one step against modes"])
    assert ends["lcm"] == {one["modes"][0]: one["distance"][0]}
    assert ends["teacher, 50 steps"] == {best["modes"][0]: best["distance"][0]}
    assert not list(folder.glob(".partial*"))


def test_a_contest_on_scenes_trains_real_pipelines_and_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(Scenes, "evaluations", (1, 2))
    monkeypatch.setattr(Scenes, "teacher_evaluations", (1, 2))
    file = tmp_path / "small.toml"
    file.write_text(
        """world = "scenes"\nbudget = 20\nseeds = 1\nper_task = 1\nrecords = 12
        train = {batch = 2, preview_prompts = 1}
        [contestants.kl]\nname = "apex"\nwarmup = 0\n[contestants.mean_flow]"""
    )
    wanted, folder = load_terms(file, [], {}), tmp_path / "contest"
    report = compare(wanted, folder, Console(quiet=True))
    assert report["kl"]["memory"] < 1.15 and 8 < report["kl"]["evaluations_per_step"] < 11, "frozen weights cost less"
    assert set(report["kl"]["nfe"]["1"]) == {"score", "places", "colors"}
    metrics = (folder / "kl-1" / "metrics.jsonl").read_text()
    (folder / "terms.json").unlink()  # the report's own memory of who is through
    again = compare(wanted, folder, Console(quiet=True))
    assert (folder / "kl-1" / "metrics.jsonl").read_text() == metrics, "nothing was trained twice"
    for name in ("kl", "mean_flow"):
        assert again[name]["nfe"] == report[name]["nfe"]


def test_a_contestant_may_have_a_budget_of_its_own(tmp_path):
    file = tmp_path / "steps.toml"
    file.write_text(
        'world = "ring"\nbudget = 60\n[contestants.usual]\nname = "lcm"\n[contestants.long]\nname = "lcm"\nbudget = 120'
    )
    wanted = load_terms(file, [], {"seeds": 1, "teacher_steps": 2})
    report, world = compare(wanted, tmp_path / "contest", Console(quiet=True)), Plane(Ring(), 2)
    for name, budget in (("usual", 60), ("long", 120)):
        assert report[name]["steps"] == plan(world, wanted.objectives()[name], budget).steps
    assert report["long"]["steps"] > 1.9 * report["usual"]["steps"]


def test_what_a_table_shares_is_said_by_all_but_those_who_say_otherwise(tmp_path):
    file = tmp_path / "shared.toml"
    file.write_text(
        'world = "ring"\nbudget = 60\n[shared]\nname = "apex"\nkl_weight = 2\nbudget = 90\n'
        '[contestants]\nall = {}\nheavy = {kl_weight = 3}\nother = {name = "apex", budget = 70}'
    )
    told, said = load_terms(file, [], {}), tmp_path / "said.toml"
    said.write_text(
        'world = "ring"\nbudget = 90\n[contestants]\nall = {name = "apex", kl_weight = 2}\n'
        'heavy = {name = "apex", kl_weight = 3}\nother = {name = "apex", kl_weight = 2, budget = 70}'
    )
    plain = load_terms(said, [], {})
    assert told.objectives() == plain.objectives() and told.budgets() == plain.budgets()
    assert [told.of(name) for name in told.contestants] == [plain.of(name) for name in plain.contestants]


@pytest.mark.parametrize("budget", ["0", "-1", '"much"', "true", "inf", "nan"])
def test_a_budget_that_is_none_costs_one_line(tmp_path, budget):
    file = tmp_path / "steps.toml"
    file.write_text(f'world = "ring"\nbudget = 60\n[contestants.lcm]\nbudget = {budget}')
    with pytest.raises(ValueError, match=r"contestants.lcm: budget = .*: write budget = 60$"):
        load_terms(file, [], {}).budgets()


def test_a_stopped_contest_keeps_those_who_were_through(tmp_path):
    class Stopping(Console):
        def print(self, *objects, **options):
            if str(objects[0]).startswith("mean_flow"):
                raise KeyboardInterrupt

    wanted = load_terms(None, ["lcm", "mean_flow"], {"budget": 60, "seeds": 1, "teacher_steps": 2})
    with pytest.raises(KeyboardInterrupt):
        compare(wanted, tmp_path, Stopping())
    before = json.loads((tmp_path / "compare.json").read_text())
    assert list(before) == ["teacher", "lcm"]
    said = io.StringIO()
    again = compare(wanted, tmp_path, Console(file=said))
    assert again["lcm"] == before["lcm"] and list(again) == ["teacher", "lcm", "mean_flow"]
    assert "lcm, trained before:" in said.getvalue() and "mean_flow:" in said.getvalue()
    longer = load_terms(None, ["lcm"], {"budget": 90, "seeds": 1, "teacher_steps": 2})
    other = compare(longer, tmp_path, Console(file=said))
    assert other["lcm"]["steps"] > before["lcm"]["steps"], "of other terms it is trained anew"


def test_the_best_in_one_step_comes_first_whichever_way_the_world_measures():
    entry = lambda value: {"nfe": {"1": {"distance": [value, 0.0], "score": [value, 0.0]}}}  # noqa: E731
    report = {"teacher": entry(0.5), "low": entry(0.1), "high": entry(0.9)}
    assert [name for name, _ in ranked(report, Plane(Ring(), 1))] == ["teacher", "low", "high"]
    assert [name for name, _ in ranked(report, Scenes.__new__(Scenes))] == ["teacher", "high", "low"]


def test_a_chart_starts_at_zero_and_ends_at_the_largest():
    chart = points([("a", {1.0: 0.5, 4.0: 1.0}), ("b", {2.0: 0.0})])
    assert [line["points"] for line in chart["lines"]] == ["90.0,90.0 360.0,0.0", "180.0,180.0"]
    assert chart["across"].ticks() == [(0.25 * n, str(n)) for n in range(5)]


def test_the_table_fits_a_terminal():
    measured = {"distance": [0.123456, 0.01], "right": [0.5, 0.01], "modes": [1.0, 0.0]}
    nfe = {"1": measured, "4": measured}
    report = {"teacher": {"nfe": nfe}, "consistency-continuous": {"evaluations_per_step": 10, "memory": 2, "nfe": nfe}}
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table(report, Plane(Ring(), 1)))
    text = console.export_text()
    assert (
        "…" not in text
        and "consistency-continuous" in text
        and text.count("0.123±0.010") == 4
        and "distance @4" in text
    )


def test_a_spread_is_written_where_there_is_one():
    assert spread([0.5, 0.01]) == "0.500±0.010" and spread([0.5, 0.0]) == "0.500"
    assert spread([64295.6, 6501.3]) == "6e+04"


@pytest.mark.parametrize(
    "arguments, line",
    [
        (["--world", "rong"], "write --world ring"),
        (["--objectives", "mean_flo"], "write --objectives mean_flow"),
        (["--budget", "0"], "budget = 0.0: input should be greater than 0"),
        (["--seeds", "0"], "seeds = 0: input should be greater than or equal to 1"),
        (["--world", "scenes", "--teacher-steps", "3"], 'apexgen: teacher_steps has no effect with world = "scenes"'),
        (["missing.toml"], "missing.toml: no such run file"),
        (["--objectives", "apex", "--budget", "500"], "which takes 150 to prepare; write --budget 30"),
    ],
)
def test_a_mistake_costs_a_line_and_nothing_is_trained(capsys, monkeypatch, tmp_path, arguments, line):
    monkeypatch.setattr("sys.argv", ["apexgen", "compare", "--folder", str(tmp_path / "new"), *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    told = capsys.readouterr().err.strip()
    assert stop.value.code == 2 and line in told and "\n" not in told
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "text, line",
    [
        ("buget = 5\n[contestants.lcm]", "unknown key buget: did you mean budget?"),
        ("[contestants.mine]\nname = 'apx'", 'contestants.mine: unknown objective "apx"; write name = "apex"'),
        (
            "[contestants.apex]\nwarm_up = 3",
            'contestants.apex: objective "apex" has no field "warm_up"; write warmup = 3',
        ),
        ("per_task = 3\n[contestants.lcm]", 'per_task has no effect with world = "ring"; remove it'),
        ("", "contestants is missing"),
        (
            "shared = {warm_up = 3}\n[contestants]\nmine = {name = 'apex'}",
            'contestants.mine with shared: objective "apex" has no field "warm_up"; write warmup = 3',
        ),
        (
            "shared = {clamp = 3}\n[contestants]\napex = {clamp = 1}",
            "shared.clamp has no effect where every contestant has its own; remove it",
        ),
    ],
)
def test_a_mistake_in_a_file_names_its_key(tmp_path, text, line):
    file = tmp_path / "contest.toml"
    file.write_text('world = "ring"\nbudget = 5\n' + text)
    with pytest.raises(ValueError) as error:
        load_terms(file, [], {}).objectives()
    assert line in str(error.value) and "\n" not in str(error.value)
