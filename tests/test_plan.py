"""A plan says what a run would take, writes nothing, and is refused where the disk can't hold it."""

import json
import re
from dataclasses import replace

import pytest
from rich.console import Console

from apexgen import checkpoint
from apexgen.config import dump_run
from apexgen.cost import most_held
from apexgen.distill import distill, encode_run
from apexgen.least import least_memory, read_outline
from apexgen.parallel import settle
from apexgen.plan import Plan, describe, make_plan, refuse_impossible, show_plan
from apexgen.room import check_room, checkpoints_held, size
from small import EMBEDDED, short_run, tiny, trainer

QUIET = Console(quiet=True)
PLAN = Plan(
    parameters=10, trainable=2, memory={"weights": 40, "activations": 8}, records=12, seen=8, measured=2, seconds=0.5,
    checkpoint=100, disk_needed=300, disk_free=10_000, memory_there=50, evaluations=2.0,
)  # fmt: skip


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_a_plan_is_what_the_run_then_takes(tmp_path, tune):
    folder = tmp_path / "run"
    settings = (f"model.tune={tune}", "train.accumulate=2", "train.batch=3")
    plan = make_plan(short_run(folder, *settings))
    assert not folder.exists()
    made = trainer(folder, *settings)
    made.advance()
    path = checkpoint.save(tmp_path, made.state(), "", keep=1)
    assert plan.checkpoint == pytest.approx(sum(file.stat().st_size for file in path.iterdir()), rel=0.05)
    assert plan.trainable == sum(weight.numel() for weight in made.student.weights.values())
    assert (plan.records, plan.seen, plan.measured) == (12, 4 * 6, 3)
    assert plan.memory["gradients"] == 4 * plan.trainable
    assert plan.memory["optimizer"] == pytest.approx(8 * plan.trainable, rel=0.01)
    assert ("teacher's copy" in plan.memory) == (tune == "full")
    assert plan.memory["activations"] > 0 and plan.seconds > 0


def test_a_stream_of_the_hub_is_not_read_to_its_end_to_be_counted(tmp_path):
    """Where it is encoded at the step, and no limit says how much of it is read."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "p.jsonl").write_text("".join(json.dumps({"text": f"a {n}"}) + "\n" for n in range(30)))
    limited = short_run(tmp_path / "run", f"data.source=hub:{tmp_path / 'data'}", "data.encode=step")
    whole = limited.model_copy(update={"data": limited.data.model_copy(update={"limit": None})})
    counted, not_counted = make_plan(limited), make_plan(whole)
    assert (counted.records, not_counted.records) == (12, None)
    assert describe(whole, not_counted)["samples per epoch"].startswith("not counted")


def test_a_network_has_the_parameters_it_came_with(tmp_path):
    lora, full = (make_plan(short_run(tmp_path / "run", f"model.tune={tune}")) for tune in ("lora", "full"))
    assert lora.parameters == full.parameters == full.trainable


def test_the_disk_holds_one_checkpoint_more_than_is_kept_and_no_more_than_are_saved(tmp_path):
    held = [
        checkpoints_held(short_run(tmp_path, "train.steps=10", "train.save_every=3", f"train.keep={keep}").train)
        for keep in (1, 3, 100)
    ]
    assert held == [2, 4, 4]  # at steps 3, 6, 9 and 10


def test_each_of_several_processes_holds_its_part(tmp_path, monkeypatch):
    alone = make_plan(short_run(tmp_path, "model.tune=full"))
    monkeypatch.setenv("WORLD_SIZE", "4")
    run = settle(short_run(tmp_path, "model.tune=full", "train.parallel=fsdp"))
    sharded = make_plan(run)
    for part in ("trained weights", "teacher's copy", "optimizer", "average"):
        assert sharded.memory[part] == pytest.approx(alone.memory[part] / 4, rel=1e-6), part
    assert sharded.memory["gradients"] == alone.memory["gradients"]  # until the step's end
    by_term = settle(short_run(tmp_path, "model.tune=full", "train.parallel=fsdp", "train.reduce_gradients=term"))
    assert make_plan(by_term).memory["gradients"] == pytest.approx(alone.memory["gradients"] / 4, rel=1e-6)
    assert sharded.memory["weights"] == alone.memory["weights"]  # of the encoders
    assert 0 < sharded.memory["a block, gathered"] < alone.memory["trained weights"]
    assert (sharded.seen, sharded.checkpoint) == (4 * alone.seen, alone.checkpoint)
    assert describe(run, sharded)["memory"].endswith("in each of 4 processes, a part of the trained weights each")
    copied = make_plan(settle(short_run(tmp_path)))
    assert copied.memory["gradients"] == 4 * copied.trainable and "a block, gathered" not in copied.memory


def test_what_only_several_processes_hold_is_planned_without_a_step(tmp_path, monkeypatch):
    """By the headers, and as a step would have it but for what only a step shows."""
    monkeypatch.setenv("WORLD_SIZE", "8")
    whole = ("objective.anchor_share=1.0", "objective.pair_share=1.0")
    shared = ("model.tune=full", "train.parallel=fsdp", "train.reduce_gradients=term", *whole)
    run = settle(short_run(tmp_path / "run", *shared))
    stepped, there = show_plan(run, QUIET), sum(least_memory(run, read_outline(tiny())).values())
    monkeypatch.setattr("apexgen.plan.memory_there", lambda: there)
    monkeypatch.setattr("apexgen.trial.open_student", lambda *_: pytest.fail("it was opened"))
    plan = show_plan(run, QUIET)
    assert (plan.seconds, plan.evaluations, plan.measured) == (None, None, 0) and "activations" not in plan.memory
    for name in ("parameters", "trainable", "records", "seen", "encoded"):
        assert getattr(plan, name) == getattr(stepped, name), name
    assert plan.checkpoint == pytest.approx(stepped.checkpoint, rel=1e-3)
    for part, count in plan.memory.items():
        assert part == "weights" or count == pytest.approx(stepped.memory[part], rel=0.01), part
    said = describe(run, plan)
    assert said["not known"].startswith("activations, seconds") and "seconds per step" not in said


def test_what_the_disk_can_not_hold_is_refused_with_the_most_that_it_can(tmp_path):
    def needed(run, free):
        return replace(PLAN, disk_needed=100 * checkpoints_held(run.train), disk_free=free)

    run = short_run(tmp_path, "train.steps=100", "train.save_every=1", "train.keep=20")
    refuse_impossible(run, needed(run, 2100))
    with pytest.raises(ValueError, match=r"train\.keep = 6$"):
        refuse_impossible(run, needed(run, 799))
    nearest = short_run(tmp_path, "train.steps=100", "train.save_every=1", "train.keep=6")
    refuse_impossible(nearest, needed(nearest, 799))
    with pytest.raises(ValueError, match=r"; write train\.save_every = 100$"):
        refuse_impossible(run, needed(run, 150))
    with pytest.raises(ValueError, match=r"write folder = on a disk with 2\.1 kB free"):
        refuse_impossible(run, needed(run, 50))


def test_the_best_is_given_up_last_but_one(tmp_path):
    run = short_run(
        tmp_path, "train.steps=100", "train.save_every=1", "train.evaluate_every=10", "train.keep_best=one_step_score"
    )
    assert checkpoints_held(run.train) == 4  # two newest, the best, a new one
    for free, words in (
        (399, "write train.keep = 1"),
        (299, "remove train.keep_best and write train.keep = 1"),
        (199, "remove train.keep_best and write train.save_every = 100"),
    ):
        with pytest.raises(ValueError, match=rf"; {words}$"):
            check_room(run, 100, free)
    check_room(run, 100, 400)


def test_what_the_memory_can_not_hold_is_refused_with_the_same_step_in_parts(tmp_path):
    run = short_run(tmp_path, "train.batch=12", "train.accumulate=2")
    plan = replace(PLAN, memory={"weights": 40, "activations": 24}, memory_there=50)
    with pytest.raises(ValueError, match=r"needs 64\.0 B of memory .*batch = 4 and train\.accumulate = 6, a step"):
        refuse_impossible(run, plan)
    refuse_impossible(short_run(tmp_path, "train.batch=4"), replace(plan, memory={"weights": 40, "activations": 8}))
    with pytest.raises(ValueError, match=r'write model\.weights = "bfloat16" and '):
        refuse_impossible(run, replace(plan, memory_there=41))
    twice = r"write model\.checkpointing = true and train\.batch = 2 and train\.accumulate = 12$"
    with pytest.raises(ValueError, match=twice):
        refuse_impossible(run, replace(plan, memory_there=41, checkpointed=6))


def test_a_run_beyond_any_disk_is_refused_and_nothing_is_written(tmp_path):
    folder = tmp_path / "run"
    run = short_run(folder, "train.keep=1000000000", "train.steps=1000000000", "train.save_every=1")
    with pytest.raises(ValueError, match=rf"^{re.escape(str(folder))} needs .* free; write train\.keep = \d+$"):
        show_plan(run, QUIET)
    assert list(tmp_path.iterdir()) == []


def test_a_plan_for_a_folder_of_another_run_is_refused(tmp_path):
    tmp_path.joinpath("config.toml").write_text(dump_run(short_run(tmp_path)))
    with pytest.raises(ValueError, match=r"begun with train\.batch"):
        show_plan(short_run(tmp_path, "train.batch=5"), QUIET)


def test_the_plan_is_described_in_full(tmp_path):
    lines = describe(short_run(tmp_path, "train.accumulate=4"), PLAN)
    assert lines["steps"] == "4 of 8 samples" and lines["memory"] == "48.0 B"
    assert lines["  activations"] == "8.0 B (from one step of 2)"
    assert lines["disk"] == "300.0 B needed for checkpoints, 10.0 kB free"


def test_the_cache_is_counted_from_a_few_records_and_refused_where_it_has_no_room(tmp_path, small_disk):
    run = short_run(tmp_path / "run", "data.limit=200", f"data.cache={tmp_path / 'cache'}")
    run = run.model_copy(update={"objective": {"name": "flow_matching"}})
    plan = make_plan(run)
    encode_run(run, QUIET)
    written = sum(file.stat().st_size for file in (tmp_path / "cache").glob("*/*.safetensors"))
    assert plan.encoded == pytest.approx(written, rel=0.1)
    assert f"{size(plan.encoded)} in {tmp_path / 'cache'} (from 16 records)" == describe(run, plan)["encoded"]
    assert plan.cached == 0
    [texts] = (tmp_path / "cache").glob("texts-*")
    for name in (f"{texts.name}/.partial-7-a.safetensors", "texts-of-another-model/a.safetensors"):
        (tmp_path / "cache" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "cache" / name).write_bytes(bytes(1000))  # which is none of this run's
    assert make_plan(run).cached == written
    kept = run.model_copy(update={"data": run.data.model_copy(update={"cache": str(small_disk / "cache")})})
    refuse_impossible(kept, replace(plan, encoded=400_000))
    for encoded, way in ((800_000, r'data\.cache_dtype = "bfloat16"'), (10**9, r"data\.cache = on a larger disk")):
        with pytest.raises(ValueError, match=rf"/cache needs .* for what is encoded and its disk .*; write {way}"):
            refuse_impossible(kept, replace(plan, encoded=encoded))
    both = kept.model_copy(update={"folder": str(small_disk / "run")})
    with pytest.raises(ValueError, match="for checkpoints"):
        refuse_impossible(both, replace(plan, encoded=400_000, checkpoint=60_000, disk_free=500_000))
    assert make_plan(short_run(tmp_path / "step", "data.encode=step")).encoded == 0


def test_the_cost_that_is_planned_is_the_one_that_the_run_then_tells(tmp_path):
    plan = make_plan(short_run(tmp_path))
    distill(short_run(tmp_path), QUIET)
    assert plan.evaluations == json.loads((tmp_path / "run.json").read_text())["evaluations_per_step"]
    # The demo's anchor and its pairs see half of a step; of a pair's six steps four are guided.
    assert plan.evaluations == 11 - 3 / 2 + (10 + 3) / 2


def test_what_a_larger_batch_holds_is_told_by_two_smaller_ones(tmp_path):
    """In bfloat16 autocast copies every weight once, which no larger batch has more of: a third of what two hold."""
    settings = ("model.precision=bfloat16", "train.batch=12")
    planned, made = make_plan(short_run(tmp_path, *settings)), trainer(tmp_path, *settings)
    own = [*made.student.backbone.network.parameters(), *made.student.trained.values(), *made.student.average.values()]
    made.step = made.run.train.steps - 1
    assert planned.measured == 8
    assert planned.memory["activations"] == pytest.approx(most_held(made.advance, own), rel=0.02)


def test_of_a_generator_that_moves_now_and_then_the_step_is_planned_in_which_it_does(tmp_path):
    settings = ('objective={name="dmd", warmup=1}', "train.steps=5")
    every = make_plan(short_run(tmp_path, *settings))
    third = make_plan(short_run(tmp_path, *settings, "objective.generator_every=3"))
    assert third.memory["activations"] == every.memory["activations"]
    assert every.evaluations == 7 and third.evaluations == pytest.approx((7 + 4 + 4) / 3, abs=0.01)


def test_sizes_are_in_units_of_a_thousand():
    assert [size(count) for count in (0, 999, 1000, 13_800_000, 2 * 10**15)] == [
        "0.0 B", "999.0 B", "1.0 kB", "13.8 MB", "2,000.0 TB",
    ]  # fmt: skip


def test_a_run_is_refused_by_a_small_disk_before_anything_is_written(small_disk):
    with pytest.raises(ValueError, match=r"/run needs 27\.\d MB for checkpoints and its disk has .* kB free; write "):
        distill(short_run(small_disk / "run", *EMBEDDED), QUIET)
    assert list(small_disk.iterdir()) == []
