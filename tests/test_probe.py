"""What a shift is to each family: exactly nothing, erased by a norm of the text, or seen, and by which part."""

from io import StringIO
from math import isnan, nan

import pytest
import torch
from rich.console import Console

from apexgen.backbones.diffusion import load_backbone
from apexgen.condition import Condition
from apexgen.distill import unseen_shift
from apexgen.encode import encode, probe_prompts
from apexgen.flow import endpoint, interpolate, normal
from apexgen.objectives import build_objective
from apexgen.probe import (
    NONE,
    OTHER,
    SHIFTS,
    TIMES,
    USUAL,
    Numbers,
    Row,
    in_both_places,
    measure,
    parse_shift,
    probe,
    summary,
    tables,
)
from apexgen.shift import scalar
from pipelines import BUILDERS, SQUARE
from small import backbone, embedded, short_run

PROMPTS = ["a red ring", "a photo of the two blue rings", "three white squares"]
NORMALISED = {"qwen": 1e-5, "lumina2": 1e-3, "zimage": 1e-1, "scenes": 0.1}  # and how small the share of a scale is


# SANA's norm of the text is behind a projection: on random weights its biases are what is seen.
@pytest.fixture(scope="module", params=[*(name for name in BUILDERS if name != "sana"), "scenes"])
def name(request):
    return request.param


@pytest.fixture(scope="module")
def net(folders, name):
    if name == "scenes":
        return embedded()
    net = load_backbone(folders[name])
    net.size = SQUARE
    return net


@pytest.fixture(scope="module")
def rows(net):
    shifts = [*SHIFTS, *in_both_places([(1.0, 0.5), (2.0, 0.0)])]
    return {row.shift or row.name: row for row in probe(net, PROMPTS, shifts)}


def test_no_shift_is_exactly_nothing(rows):
    row = rows[Numbers(1.0, 0.0)]
    assert row.velocity == (0.0,) * len(TIMES) and row.share == row.text == row.attention == 0
    assert row.verdict == "invisible" and "control" in row.advice


def test_a_scale_is_invisible_just_where_the_text_is_normalised(rows, name):
    for a in (0.5, 2.0):
        row = rows[Numbers(a, 0.0)]
        if name in NORMALISED:
            assert row.share < NORMALISED[name] and row.verdict == "invisible"
            assert row.text < 0.15 and row.advice == "normalised away: make a negative"
            assert f"({a:g}, 0)" in summary(list(rows.values()))
        else:
            assert row.verdict != "invisible" and row.text > 0.8 * abs(a - 1)


def test_the_sign_is_seen_by_every_family_and_by_its_attention(rows, name):
    row = rows[Numbers(-1.0, 0.0)]
    assert row.verdict == "visible" and row.advice == "use it"
    if name == "scenes":  # whose projection is trained: the GELU within it bends
        assert 1.5 < row.attention < 2.1
    else:
        assert row.attention == pytest.approx(2, abs=0.1)  # the norm is odd, the projection's bias is the mean's


def test_what_is_added_to_every_token_is_not_seen_by_the_attention_of_a_linear_projection(rows, name):
    row = rows[Numbers(1.0, 0.5)]
    if name in NORMALISED:
        assert row.attention > 0.1  # its norm makes of a sum a scale of each token's own
    else:
        assert row.text > 0.3 and row.attention < 1e-5 and "attention" in row.advice


def test_the_pooled_vector_alone_is_seen_where_there_is_one(rows, net):
    has_one = net.encode_text(PROMPTS).pooled is not None
    for shift in [*SHIFTS[:4], *SHIFTS[5:9]]:
        assert rows[shift].pooled > 1e-3 if has_one else isnan(rows[shift].pooled)


@pytest.mark.parametrize("share, advice", [(0.05, "normalised away: make a negative"), (0.8, "use it")])
def test_what_is_visible_is_not_called_normalised_away(share, advice):
    """SANA's biases, before its norm, may leave enough of a scale that the norm takes much of."""
    assert Row("", Numbers(0.5, 0.0), (share,), share, nan, 0.1, 0.1).advice == advice


def test_other_prompts_are_the_scale(rows):
    assert rows[OTHER].share == 1 and rows[NONE].share > 0.1
    assert min(rows[OTHER].velocity) > 0 and isnan(rows[OTHER].text)


def test_a_row_is_its_definition(net):
    a, b = net.encode_text(PROMPTS[:1]), net.encode_text(PROMPTS[1:2])
    found, other, _ = measure(net, [a, b], b, [Numbers(-0.5, 1.0)], [0.5], seed=3)
    generator, expected = torch.Generator().manual_seed(3), []
    half, one = torch.full((1, 1, 1, 1), 0.5), torch.ones(1, 1, 1, 1)
    with torch.no_grad():
        for c, c_other in ((a, b), (b, a)):
            w, z = (normal((1, *net.latent_shape()), generator) for _ in range(2))
            x = interpolate(endpoint(w, net(w, one, one, c), one), z, half)
            v = net(x, half, half, c)
            changed = [net(x, half, half, told) - v for told in (c.shift(scalar(-0.5, 1.0)), c_other)]
            expected.append(torch.stack([difference.norm() / v.norm() for difference in changed]))
    shifted, another = torch.stack(expected).mean(0).tolist()
    assert found.velocity[0] == pytest.approx(shifted, rel=1e-4)
    assert other.velocity[0] == pytest.approx(another, rel=1e-4)
    assert found.share == pytest.approx(shifted / another, rel=1e-4)


def test_half_precision_hides_nothing_and_the_network_is_left_as_it_was():
    net = backbone()
    exact = probe(net, PROMPTS)
    net.precision = torch.bfloat16
    assert repr(probe(net, PROMPTS)) == repr(exact)
    assert net.precision == torch.bfloat16
    assert not any(module._forward_hooks for module in net.network.modules())


def printed(thing, width=80):
    console = Console(file=StringIO(), width=width)
    console.print(thing)
    return console.file.getvalue()


def test_the_tables_fit_a_terminal_and_say_what_to_do(rows):
    text = printed(tables(list(rows.values())))
    assert "\u2026" not in text and text.count("(0.5, 1) ") == text.count("after") // len(USUAL) * 2
    assert "use it" in text and "no shift: a control" in text and OTHER in text


def warned(objective, fields, *settings):
    net = embedded()
    corpus = encode(short_run("unused", *settings).data, net, pictures=False)
    return unseen_shift(build_objective(objective, fields), net, corpus)


@pytest.mark.parametrize("settings", [["data.limit=12"], ["data.limit=1"]])
def test_a_run_with_an_invisible_shift_is_told_so_in_a_line(settings):
    text = warned("apex", {"shift_scale": 0.5}, *settings)
    assert text.startswith("the shifted condition is invisible to this network: a = 0.5, b = 0 ")
    assert text.endswith("write objective.shift_scale = -1.0") and "\n" not in text


def test_other_runs_are_not_warned():
    assert warned("apex", {}) == warned("apex", {"fake_told": "other"}) is warned("dmd", {}) is None


def test_one_prompt_is_no_scale():
    with pytest.raises(ValueError, match=r"--prompts: .* at least two different ones"):
        probe(backbone(), ["a ring", "a ring"])


def test_a_file_of_prompts_that_is_no_text_is_named(tmp_path):
    (tmp_path / "prompts.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"^--prompts .*prompts\.txt: it is no text of UTF-8; save it as such$"):
        probe_prompts("scenes", tmp_path / "prompts.txt")


@pytest.mark.parametrize("text", ["", "a", "1", "1,2,3", "-1;0", "nan,0", "1,inf"])
def test_a_shift_that_is_no_pair_is_refused(text):
    with pytest.raises(ValueError, match=r"--shift .*: write two numbers, such as --shift -1,0"):
        parse_shift(text)


def test_conditions_are_not_changed(net):
    c = net.encode_text(PROMPTS)
    kept = Condition(c.embeds.clone(), c.mask.clone(), c.pooled)
    measure(net, [c.select([0]), c.select([1])], c.select([2]), SHIFTS, [0.5])
    assert torch.equal(c.embeds, kept.embeds) and torch.equal(c.mask, kept.mask)
