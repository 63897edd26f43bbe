"""The page: what is on it, and what its buttons do."""

from html import escape
from pathlib import Path
from typing import Any

from apexgen.app.cards import caption, cards, head
from apexgen.app.studio import FEW, LARGEST_SEED, MANY, MOST_PROMPTS, Pair, Studio
from apexgen.data.files import lines_of

HERE = Path(__file__).parent
STYLE, DICE = HERE / "style.css", HERE / "dice.svg"
KEPT = 120  # newest pairs of a sitting in the gallery
SHOW = """() => {
    const block = innerWidth < 640 ? 'start' : 'nearest';
    document.querySelector('#pair').scrollIntoView({block, behavior: 'smooth'});
}"""
WAITING = 64  # drawings that may wait for their turn


class Desk:
    """One studio's buttons, as functions of what stands in the fields; what they return goes into the components."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def draw(self, prompt: str, seed: object, steps: object, many_steps: object, kept: list[Pair]) -> tuple[Any, ...]:
        """One prompt."""
        return self._draw([prompt or ""], seed, steps, many_steps, kept)

    def draw_all(
        self, lines: str, seed: object, steps: object, many_steps: object, kept: list[Pair]
    ) -> tuple[Any, ...]:
        """A prompt a line."""
        prompts = [line for line in lines_of(lines or "") if line.strip()]
        return self._draw(prompts, seed, steps, many_steps, kept)

    def _draw(
        self, prompts: list[str], seed: object, steps: object, many_steps: object, kept: list[Pair]
    ) -> tuple[Any, ...]:
        import gradio as gr

        try:
            pairs = self.studio.draw(prompts, seed, steps, many_steps)
        except (ValueError, RuntimeError, OSError) as error:  # RuntimeError is also a device's memory that runs out
            lines = str(error).splitlines() or [type(error).__name__]
            mistake = isinstance(error, ValueError)  # of whoever asks; the log has all of ours
            # gradio's page shows no title of ours
            raise gr.Error(escape(f"Not drawn: {lines[0]}"), print_exception=not mistake) from error
        if unknown := self.studio.unknown_words(prompts):
            gr.Warning(escape(f"Drawn, but the model does not know: {', '.join(unknown[:8])}"))
        kept = [*pairs[::-1], *kept][:KEPT]
        return *show(pairs[0]), [(str(pair.few.file), caption(pair)) for pair in kept], kept


def show(pair: Pair) -> tuple[Any, ...]:
    """A pair beside one another, its cards, the slider, its downloads."""
    import gradio as gr

    few, many = pair.few, pair.many
    return (
        gr.Image(str(many.file), label=many.name),
        gr.Image(str(few.file), label=few.name),
        cards(pair),
        gr.ImageSlider((str(many.file), str(few.file)), visible=True),
        gr.DownloadButton(f"Download {many.name}", value=str(many.file), visible=True),
        gr.DownloadButton(f"Download {few.name}", value=str(few.file), visible=True),
    )


def read_prompts(file: str) -> str:
    """The lines of an uploaded file."""
    import gradio as gr

    try:
        return Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise gr.Error(
            "Not read: the file is no text in UTF-8; write one prompt a line.", print_exception=False
        ) from None


def build_page(studio: Studio, examples: list[str]) -> Any:
    """The page of a studio, a gradio Blocks, not launched; examples: prompts to begin with."""
    import gradio as gr

    desk = Desk(studio)
    with gr.Blocks(title="apexgen", analytics_enabled=False, delete_cache=(600, 86400)) as page:
        kept = gr.State([])
        gr.HTML(head(studio), padding=False)
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=310):
                prompt, one, settings = _one_prompt(desk, examples)
                lines, all_of_them = _many_prompts()
            with gr.Column(scale=3, min_width=310):
                results = _results()
        gr.HTML('<h2 class="apex-sitting">Drawn in this sitting; choose one to compare it again</h2>', padding=False)
        gallery = _gallery()
    inputs, outputs = [*settings, kept], [*results, gallery, kept]
    drawing: dict[str, Any] = {"outputs": outputs, "concurrency_limit": 1, "concurrency_id": "drawing"}
    drawing |= {"show_progress_on": results[:2]}
    with page:
        single = gr.on([one.click, prompt.submit], desk.draw, [prompt, *inputs], api_name="draw", **drawing)
        several = all_of_them.click(desk.draw_all, [lines, *inputs], api_name="draw_all", **drawing)
        for drawn in (single, several):  # on a phone the pictures are below all that was filled in
            drawn.success(None, js=SHOW, api_visibility="private", queue=False)

        @gallery.select(inputs=kept, outputs=[prompt, settings[0], *results], api_visibility="private", queue=False)
        def choose(kept: list[Pair], chosen: gr.SelectData) -> tuple[Any, ...]:
            pair = kept[chosen.index]
            return pair.few.prompt, pair.few.seed, *show(pair)

    page.queue(max_size=WAITING)
    return page


def _one_prompt(desk: Desk, examples: list[str]) -> tuple[Any, Any, list[Any]]:
    """The prompt's field, its button, and the settings that all drawing takes: seed, steps, steps of the teacher."""
    import gradio as gr

    first = examples[0] if examples else ""
    prompt = gr.Textbox(first, label="Prompt", lines=2, max_lines=4, placeholder="What to draw", elem_id="prompt")
    with gr.Row(elem_classes="apex-tight"):
        seed = gr.Number(0, label="Seed", precision=None, minimum=None, scale=3, min_width=120, elem_id="seed")
        dice = gr.Button("Throw the dice", icon=str(DICE), scale=0, min_width=52, elem_id="dice")
    dice.click(None, outputs=seed, js=f"() => Math.floor(Math.random() * {LARGEST_SEED - MOST_PROMPTS})")
    role = "Student" if desk.studio.model.distilled is not None else "Few"
    steps = gr.Radio(FEW, value=FEW[0], label=f"{role} steps", elem_id="steps")
    many = gr.Slider(1, MANY, value=MANY, step=1, label="Teacher steps", elem_id="teacher-steps")
    for number in (seed, steps, many):
        number.preprocess = lambda payload: payload  # the studio says what is wrong with it, in words
    one = gr.Button("Draw", variant="primary", elem_id="draw")
    if examples:
        gr.Examples(examples, prompt, label="Examples", elem_id="examples", api_visibility="private")
    return prompt, one, [seed, steps, many]


def _many_prompts() -> tuple[Any, Any]:
    import gradio as gr

    with gr.Accordion("Many prompts", open=False, elem_id="many"):
        lines = gr.Textbox(
            label="One a line", lines=5, max_lines=12, placeholder="a red ring\ntwo blue circles", elem_id="lines"
        )
        with gr.Row(elem_classes="apex-tight"):
            file = gr.UploadButton("Read a file", file_types=[".txt"], size="md", elem_id="file")
            button = gr.Button("Draw all", variant="primary", size="md", elem_id="draw-all")
        file.upload(read_prompts, file, lines, api_visibility="private")
    return lines, button


def _results() -> list[Any]:
    import gradio as gr

    shown = {"format": "png", "type": "filepath", "interactive": False, "buttons": ["fullscreen"]}
    with gr.Row(elem_classes="apex-tight", elem_id="pair"):
        pair = [gr.Image(show_label=False, min_width=140, elem_id=f"whole-{side}", **shown) for side in ("many", "few")]
    told = gr.HTML('<p class="apex-empty">Nothing drawn yet.</p>', padding=False, elem_id="told")
    slider = gr.ImageSlider(
        label="The same two: drag to compare", max_height=420, visible=False, elem_id="compare", **shown
    )
    with gr.Row(elem_classes="apex-tight"):
        downloads = [
            gr.DownloadButton("Download", visible=False, size="md", elem_id=f"get-{n}") for n in ("many", "few")
        ]
    return [*pair, told, slider, *downloads]


def _gallery() -> Any:
    import gradio as gr

    return gr.Gallery(
        label="Drawn in this sitting", show_label=False, format="png", type="filepath", columns=6, fit_columns=False,
        height="auto", allow_preview=False, buttons=["download_all"], interactive=False, object_fit="contain",
        elem_id="gallery",
    )  # fmt: skip
