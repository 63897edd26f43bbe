"""A judge from a folder on this machine: any model that transformers opens for pictures and text, greedy."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from apexgen.evaluate.judge import THINKING, TOKENS, without_thoughts
from apexgen.evaluate.weights import TOKENIZER, best_device, find_weights, name_of, open_judge, open_processor

EXAMPLE = "Qwen/Qwen3-VL-8B-Instruct"
NEEDED = ("config.json", "preprocessor_config.json|processor_config.json", *TOKENIZER)


@dataclass(frozen=True)
class Vlm:
    """An opened model and its processor; one question at a time, and once, since it would say the same again."""

    name: str  # its folder's
    weights: str  # their hash
    model: Any
    processor: Any
    lock: Any  # the network is one, whoever asks
    workers: int = 1
    tries: int = 1

    def settings(self) -> dict[str, Any]:
        """What its answers depend on."""
        return {
            "backend": "transformers",
            "weights": self.weights,
            "precision": str(self.model.dtype).removeprefix("torch."),
        }

    @torch.no_grad()
    def ask(self, picture: Image.Image, question: str, system: str, text_first: bool = False) -> str:
        """The likeliest token after the likeliest token, without thoughts."""
        inputs = self._inputs(picture, question, system, text_first)
        greedy = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "max_new_tokens": self._tokens}
        with self.lock:
            tokens = self.model.generate(**inputs, **greedy, temperature=None, top_p=None, top_k=None)
        said = str(self.processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
        return without_thoughts(said)

    @torch.no_grad()
    def chance(self, picture: Image.Image, question: str, answers: tuple[str, ...]) -> float:
        """The probability of the distinct first tokens of the answers."""
        with self.lock:
            logits = self.model(**self._inputs(picture, question, "")).logits[0, -1]
        encode = self.processor.tokenizer.encode
        first = {encode(answer, add_special_tokens=False)[0] for answer in answers}
        chances = logits.float().softmax(-1)
        return min(float(chances[sorted(first)].sum()), 1.0)

    def close(self) -> None:
        """Nothing to end."""

    @property
    def _tokens(self) -> int:
        """The most of an answer: more of one whose template thinks and can't be told not to."""
        template = str(self.processor.chat_template)
        return THINKING if "<think>" in template and "enable_thinking" not in template else TOKENS

    def _inputs(self, picture: Image.Image, question: str, system: str, text_first: bool = False) -> Any:
        content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
        if text_first:
            content.reverse()
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if system:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
        template = str(self.processor.chat_template)
        thinking = {"enable_thinking": False} if "enable_thinking" in template else {}
        inputs = self.processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt", **thinking
        )
        return inputs.to(self.model.device, dtype=self.model.dtype)


def find_vlm(name: str) -> Path:
    """The folder of a model, or of a repository that was downloaded; ValueError, naming what to download, for none."""
    return find_weights("--judge", name, EXAMPLE, NEEDED)


def open_vlm(name: str) -> Vlm:
    """Open a model, its code not run. ValueError, one line, where there is none that can judge."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from apexgen.drawer import hash_weights

    folder = find_vlm(name)
    processor = open_processor(AutoProcessor, folder)
    if getattr(processor, "chat_template", None) is None or not hasattr(processor, "tokenizer"):
        raise ValueError(f"--judge {folder} has no chat template; take an instruction-tuned model, such as {EXAMPLE}")
    model = open_judge(AutoModelForImageTextToText, folder, best_device(), "auto")
    return Vlm(name_of(name), hash_weights([folder]), model, processor, threading.Lock())
