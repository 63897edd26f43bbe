"""The page's own HTML: the head line, and beside the pictures what each took."""

from html import escape

from apexgen.app.studio import Drawn, Pair, Studio


def head(studio: Studio) -> str:
    """What the page is about: the model, its family and size."""
    model = studio.model
    height, width = model.backbone.sides
    what = "student beside its teacher" if model.distilled is not None else "a pipeline, not distilled"
    facts = f"{escape(model.name)} &middot; {escape(model.backbone.family)} &middot; {width} x {height}"
    small = " apex-small" if max(height, width) < 256 else ""  # enlarged as it is, not blurred
    return f'<header class="apex-head{small}"><h1>apexgen</h1><p>{facts} &middot; {what}</p></header>'


def cards(pair: Pair) -> str:
    """Two cards, each below its picture, and how many times faster the few steps are."""
    times = pair.many.seconds / pair.few.seconds
    return (
        f'<div class="apex-cards">{_card(pair.many)}{_card(pair.few)}'
        f'<div class="apex-card apex-times"><b>{_short(times)} x</b><span>as fast in few steps</span></div></div>'
    )


def _card(drawn: Drawn) -> str:
    times = "evaluation" if drawn.evaluations == 1 else "evaluations"
    batch = f", in a batch of {drawn.batch}" if drawn.batch > 1 else ""
    return (
        f'<div class="apex-card"><span>{escape(drawn.name)}</span><b>{duration(drawn.seconds)}</b>'
        f"<span>{drawn.evaluations} {times}{batch}</span></div>"
    )


def caption(pair: Pair) -> str:
    """A line under a picture of the gallery."""
    return f"{pair.few.prompt} | {pair.few.name}, {duration(pair.few.seconds)}"


def duration(seconds: float) -> str:
    """Such as "6 ms" or "1.3 s"."""
    return f"{_short(seconds)} s" if seconds >= 1 else f"{_short(1000 * seconds)} ms"


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}"
