"""A run file says all there is to a run; a mistake in it is one line that names the key."""

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from apexgen.config import Run, dump_run, load_run, validate
from apexgen.size import Size

RUNS = {
    "default": {},
    "every table": {
        "folder": "runs/a b",
        "objective": {"name": "apex", "form": "mix", "shift": [-1.0, 0.5], "anchor": "data"},
        "model": {"path": "x/y", "tune": "lora", "rank": 8, "targets": ["to_q", "to_k"], "checkpointing": True},
        "data": {"source": 'a "quoted" \\ path', "limit": 5},
        "train": {"steps": 3, "learning_rate": 1e-05, "betas": [0.0, 0.999], "seed": 2**40 - 1},
    },
    "a task": {"model": {"lora": "a/b.safetensors", "lora_mode": "stack"}},
    "a preset": {"model": {"targets": "attention+mlp"}},
    "full tuning": {"model": {"tune": "full"}},
}


def mistake(tmp_path, text="", overrides=()):
    """The message of a run file, or of overrides, that must be refused: one line."""
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(ValueError) as caught:
        load_run(file, overrides)
    assert not isinstance(caught.value, ValidationError)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


@pytest.mark.parametrize("table", RUNS.values(), ids=RUNS)
def test_a_run_written_and_read_back_is_equal(tmp_path, table):
    run = validate(table)
    file = tmp_path / "config.toml"
    file.write_text(dump_run(run))
    assert load_run(file) == run
    assert dump_run(load_run(file)) == dump_run(run)


@pytest.mark.parametrize(
    ("written", "size"), [("1024", Size(1024, 1024)), ("64x64", Size(64, 64)), ('"768x1024"', Size(1024, 768))]
)
def test_a_size_is_a_side_or_width_and_height(written, size):
    run = load_run(None, [f"model.size={written}"])
    assert run.model.size == size
    assert validate(tomllib.loads(dump_run(run))) == run
    assert Size.read(size.written) == size


@pytest.mark.parametrize("written", ["0", "-1", "1.5", "true", "64x", "x64", "064", "64X64", "1x2x3", "[64, 64]", '""'])
def test_a_size_that_is_none_is_told_in_a_line(tmp_path, written):
    line = mistake(tmp_path, "", [f"model.size={written}"])
    assert line.startswith("model.size: ") and line.endswith("write 1024 for a square, or 768x1024, width first")


def test_a_lora_has_a_rank_and_full_tuning_has_none():
    assert validate({}).model.rank == 32
    assert validate({"model": {"tune": "full"}}).model.rank is None


def test_a_task_is_merged_unless_it_is_stacked_and_has_no_mode_without_a_file(tmp_path):
    assert load_run(None, ["model.lora=a.safetensors"]).model.lora_mode == "merge"
    assert load_run(None).model.lora_mode is None
    message = 'model: lora_mode is of a LoRA file; remove it, or write lora = "FILE.safetensors"'
    assert mistake(tmp_path, "", ["model.lora_mode=merge"]) == message
    full = ["model.tune=full", "model.lora=a.safetensors"]
    assert load_run(None, full).model.lora_mode == "merge"
    assert "no adapters to stack" in mistake(tmp_path, "", [*full, "model.lora_mode=stack"])


def test_without_a_file_there_are_the_defaults():
    assert load_run(None) == Run()


def test_the_caller_can_not_change_a_run():
    with pytest.raises(ValidationError):
        load_run(None).train.steps = 5


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.steps=100", 100),
        ("train.learning_rate=1e-4", 1e-4),
        ("train.learning_rate=1.e-4", 1e-4),
        ("train.ema=.5", 0.5),
        ("train.betas=[0.8, 0.9]", (0.8, 0.9)),
        ("model.tune=full", "full"),
        ('model.tune="full"', "full"),
        ("model.path=some/folder", "some/folder"),
        ("model.path=a=b", "a=b"),
        ("data.limit=7", 7),
        ("folder=runs/x", "runs/x"),
    ],
)
def test_an_override_has_the_type_of_its_key(override, expected):
    value = load_run(None, [override])
    for name in override.partition("=")[0].split("."):
        value = getattr(value, name)
    assert value == expected and type(value) is type(expected)


def test_a_number_without_a_leading_zero_is_one_for_an_objective_too():
    """Whose fields are checked for their exact type, and where a misread number would be a string."""
    assert load_run(None, ["objective.guidance_until=.5"]).objective["guidance_until"] == 0.5


def test_overrides_win_over_the_file_and_the_last_one_wins(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("[train]\nsteps = 5\nbatch = 6\n")
    train = load_run(file, ["train.steps=7", "train.steps=8"]).train
    assert (train.steps, train.batch) == (8, 6)


def test_an_objective_keeps_its_own_keys():
    assert load_run(None, ["objective.form=mix", "objective.x=0.5"]).objective == {"form": "mix", "x": 0.5}


@pytest.mark.parametrize(
    ("text", "unknown", "nearest"),
    [
        ("trian = 1", "trian", "train"),
        ("[train]\nstep = 1", "train.step", "train.steps"),
        ("[train]\nlearningrate = 1.0", "train.learningrate", "train.learning_rate"),
        ("[model]\nrnak = 4", "model.rnak", "model.rank"),
        ("[data]\nsources = 'x'", "data.sources", "data.source"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(tmp_path, text, unknown, nearest):
    message = mistake(tmp_path, text)
    assert f"unknown key {unknown}:" in message and f"did you mean {nearest}?" in message
    key, value = unknown, next(iter(tomllib.loads(text).values()))
    assert f"did you mean {nearest}?" in mistake(tmp_path, "", [f"{key}={value if '.' not in key else 1}"])


def test_where_nothing_is_near_the_valid_keys_are_listed(tmp_path):
    message = mistake(tmp_path, "[data]\nzzzzzzz = 1")
    assert "unknown key data.zzzzzzz" in message and "source" in message and "limit" in message


@pytest.mark.parametrize(
    "override",
    [
        "train.steps=0",
        "train.steps=-3",
        "train.steps=1.5",
        "train.steps=many",
        "train.batch=0",
        "train.learning_rate=0.0",
        "train.learning_rate=nan",
        "train.learning_rate=inf",
        "train.ema=1.0",
        "train.clip=-1.0",
        "train.betas=[0.9]",
        "train.betas=[2, 0.9]",
        "train.betas=[0.9, 1.0]",
        "train.keep=0",
        "train.seed=-1",
        "train.seed=1700000000000000000",
        "model.rank=0",
        "model.targets=5",
        "model.targets=[5]",
        "model.tune=adapter",
        "model.precision=float16",
        "data.limit=0",
        "train=5",
    ],
)
def test_a_value_out_of_range_is_refused_by_name(tmp_path, override):
    assert mistake(tmp_path, "", [override]).startswith(override.partition("=")[0])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.steps=0", " = 0: input should be greater than or equal to 1; write train.steps = 1000"),
        ("train.betas=5", " = 5: input should be a valid list; write train.betas = [0.9, 0.99]"),
        ("train.betas=[0.9]", ".1 is missing; write train.betas = [0.9, 0.99]"),
        ("train.betas=[2, 3]", ".0 = 2: input should be less than 1; write train.betas = [0.9, 0.99]"),
        ("train=5", " = 5: input should be a valid table; write train.KEY = VALUE"),
        (
            "model.weights=4bits",
            " = '4bits': input should be 'float32', 'bfloat16', '8bit' or '4bit'; write model.weights = \"4bit\"",
        ),
        ("model.rank=0", " = 0: input should be greater than or equal to 1; or remove model.rank"),
        ("train.track=wandb", " = 'wandb': input should be a valid list; or remove train.track"),
    ],
)
def test_a_wrong_value_is_refused_with_the_line_to_write(tmp_path, override, message):
    assert mistake(tmp_path, "", [override]) == override.partition("=")[0] + message


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ("atention", '"atention" is no preset; write targets = "attention"'),
        ("attention+mpl", '"attention+mpl" is no preset; write targets = "attention+mlp"'),
        ("linear", '"linear" is no preset; write targets = "all-linear"'),
        ('["all-linear"]', '"all-linear" is a preset, not a module; write targets = "all-linear"'),
    ],
)
def test_a_misspelt_preset_is_refused_with_the_nearest(tmp_path, targets, message):
    assert mistake(tmp_path, "", [f"model.targets={targets}"]).startswith(f"model.targets: {message}")


@pytest.mark.parametrize("override", ["train.steps", "=5", ".steps=3", "", "folder.x.y=1", "train.steps.x=1"])
def test_an_override_that_is_none_is_refused(tmp_path, override):
    mistake(tmp_path, "folder = 'a'\n[train]\nsteps = 3", [override])


@pytest.mark.parametrize("text", ["steps = ", "[train\nsteps = 1", "a = 1\na = 2", "= 5", "\x00"])
def test_broken_toml_is_named_with_its_place(tmp_path, text):
    assert re.search(r"run.toml is not valid TOML: .+ \(at ", mistake(tmp_path, text))


def test_a_file_that_is_no_text_is_named(tmp_path):
    file = tmp_path / "run.toml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not valid TOML"):
        load_run(file)


@pytest.mark.parametrize("path", ["none.toml", "."])
def test_a_missing_file_is_named(tmp_path, path):
    with pytest.raises(ValueError, match="no such run file"):
        load_run(tmp_path / Path(path))
