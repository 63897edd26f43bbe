"""Settings that do not go together are refused before any work; some may change when a run goes on."""

import pytest
import torch
from rich.console import Console

from apexgen import distill
from apexgen.config import dump_run, load_run, validate
from apexgen.objectives import described
from apexgen.objectives.apex import Apex
from apexgen.parallel import settle
from apexgen.train import resolved
from together import BY_TERM, FSDP, SHORT


def test_a_setting_without_effect_is_refused(monkeypatch):
    for table, why in [
        ({"offload": True}, 'write parallel = "fsdp"'),
        ({"reduce_gradients": "term"}, 'write parallel = "fsdp"'),
        ({"parallel": "fsdp", "compile": True}, "write compile = false"),
        ({"parallel": "fsdp", "optimizer": "adamw8bit"}, 'write optimizer = "adamw"'),
    ]:
        with pytest.raises(ValueError, match=why):
            validate({"train": table})
    with pytest.raises(ValueError, match="is of several processes and here is one"):
        settle(validate({"train": {"parallel": "ddp"}}))
    assert settle(validate({})) == validate({})
    monkeypatch.setenv("WORLD_SIZE", "4")
    settled = settle(validate({"train": {"batch": 2}})).train
    assert (settled.parallel, settled.processes, settled.samples) == ("ddp", 4, 8)
    with pytest.raises(ValueError, match=r'write parallel = "ddp"'):
        settle(validate({"train": {"parallel": "fsdp"}}))
    with pytest.raises(ValueError, match=r"train\.processes = 2 and here are 4"):
        settle(validate({"train": {"processes": 2}}))
    sharded = validate({"train": {"parallel": "fsdp", "offload": True}, "model": {"tune": "full"}})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="offload is for weights of an accelerator and here is none; write"):
        distill.check_run(sharded)


@pytest.mark.parametrize("setting", ["model.checkpointing=true", "train.parallel=fsdp"])
@pytest.mark.parametrize(
    ("name", "why"), [("dmd", "a second network"), ("mean_flow", "forward mode"), ("ladd", "a discriminator")]
)
def test_what_would_be_computed_again_with_other_weights_is_refused_before_any_work(tmp_path, setting, name, why):
    run = load_run(None, [f"folder={tmp_path}", f'objective={{name="{name}"}}', setting])
    with pytest.raises(ValueError, match=rf"does not go with {why}; write objective\."):
        distill.check_run(run)


DISCRETE, CONTINUOUS = '{name="consistency"}', '{name="consistency", form="continuous", difference=%s}'


@pytest.mark.parametrize(
    ("objective", "weights", "message"),
    [
        (CONTINUOUS % "1e-4", "bfloat16", r'"bfloat16" is too coarse for objective\.difference; write model\.weights'),
        (CONTINUOUS % "1e-4", "4bit", r'"4bit" is too coarse for objective\.difference; write model\.weights'),
        (CONTINUOUS % "0.0", "4bit", r'"4bit" does not go with forward mode; write model\.weights = "8bit"'),
    ],
)
def test_weights_that_can_not_give_a_derivative_are_refused_before_any_work(tmp_path, objective, weights, message):
    run = load_run(None, [f"folder={tmp_path}", f"objective={objective}", f"model.weights={weights}"])
    with pytest.raises(ValueError, match=message):
        distill.check_run(run)


@pytest.mark.parametrize(
    ("objective", "setting"),
    [
        (DISCRETE, "model.checkpointing=true"),  # whose steps are none of a derivative
        (DISCRETE, "model.weights=4bit"),
        (CONTINUOUS % "1e-4", "model.checkpointing=true"),
        (CONTINUOUS % "0.0", "model.weights=8bit"),
        ('{name="rcgm"}', "model.weights=4bit"),
    ],
)
def test_what_goes_together_is_not_refused(tmp_path, objective, setting):
    distill.check_run(load_run(None, [f"folder={tmp_path}", f"objective={objective}", setting]))


@pytest.mark.parametrize(
    ("objective", "settings", "message"),
    [
        (
            '{name="apex", anchor_share=0.25}',
            (),
            r"anchor_share = 0\.25 .*, 1, is all of it; write .*accumulate = 4, or",
        ),
        ('{name="apex", pair_steps=4}', (), r"pair_share = 0\.125 .*, 1, is all of it; write .*accumulate = 8, or"),
        ('{name="dmd", pair_steps=4}', (), r"is all of it; .*, or objective\.pair_share = 1\.0$"),
        (
            '{name="apex", pair_steps=4}',
            ("train.batch=4", "train.processes=2", "train.parallel=fsdp"),
            r"pair_share = 0\.125 .*, 8, is 1 in 2 processes, which must see as many each; .*accumulate = 2,",
        ),
    ],
)
def test_a_share_that_is_all_or_not_the_same_everywhere_is_refused(tmp_path, objective, settings, message):
    """A process that has no row of a term would hold up those that gather weights for it."""
    run = load_run(None, [f"folder={tmp_path}", f"objective={objective}", "train.batch=1", *settings])
    with pytest.raises(ValueError, match=message):
        distill.check_run(run)


def test_what_the_remedy_of_a_stopped_run_names_may_change_when_it_goes_on(tmp_path):
    """Too many bad records, a disk too small, a step that is not finite."""
    (tmp_path / "config.toml").write_text("")
    for changed in (
        "data.bad_limit=0.5", "train.keep=1", "train.save_every=1000", "train.on_divergence=skip",
        "train.preview_every=1", "train.preview_prompts=1", "train.evaluate_every=3",
    ):  # fmt: skip
        distill.check_run(load_run(None, [f"folder={tmp_path}", changed]))
    for changed in ("train.steps=700", "train.learning_rate=1", "data.limit=5", "model.rank=3"):
        with pytest.raises(ValueError, match=rf"begun with {changed.partition('=')[0]} = "):
            distill.check_run(load_run(None, [f"folder={tmp_path}", changed]))


def test_a_run_keeps_every_field_of_its_objective_and_a_default_written_out_is_no_other(tmp_path):
    """So that what a folder's file says stays so whatever a default becomes."""
    begun = resolved(load_run(None, [f"folder={tmp_path}", 'objective={name="apex", kl_weight=2.0}']))
    assert begun.objective["clamp"] == 1.0 and begun.objective["anchor"] == "teacher"
    (tmp_path / "config.toml").write_text(dump_run(begun))
    for same in ("kl_weight=2.0", "kl_weight=2.0, clamp=1.0", 'kl_weight=2.0, anchor="teacher", shift_scale=-1.0'):
        distill.check_run(load_run(None, [f"folder={tmp_path}", f'objective={{name="apex", {same}}}']))
    with pytest.raises(ValueError, match=r"begun with objective\.clamp = 1\.0, not 2\.0"):
        distill.check_run(load_run(None, [f"folder={tmp_path}", "objective={kl_weight=2.0, clamp=2.0}"]))
    distill.distill(load_run(None, [f"folder={tmp_path / 'run'}", *SHORT]), Console(quiet=True))
    assert load_run(tmp_path / "run" / "config.toml").objective == described(Apex(warmup=0))


def test_a_run_may_be_cut_anew_and_not_grow(tmp_path):
    (tmp_path / "config.toml").write_text('[train]\nbatch = 2\nprocesses = 4\nparallel = "ddp"\n')
    distill.check_run(load_run(None, [f"folder={tmp_path}", "train.batch=4", "train.accumulate=2"]))
    distill.check_run(load_run(None, [f"folder={tmp_path}", "train.batch=8", FSDP, BY_TERM]))
    with pytest.raises(ValueError, match=r"begun with train\.batch x train\.accumulate x processes = 8 .* not 6"):
        distill.check_run(load_run(None, [f"folder={tmp_path}", "train.batch=6"]))
