"""Results of two collections of pictures, or of one and its prompts: FID, KID, CLIP score, diversity."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from apexgen.evaluate.clip import clip_scores, open_clip
from apexgen.evaluate.collection import Collection, digest_of, features_of
from apexgen.evaluate.distances import Kernel, fid, kid, warning
from apexgen.evaluate.features import Extractor
from apexgen.evaluate.gallery import read_manifest, read_seeds
from apexgen.evaluate.result import Result, data_digest
from apexgen.evaluate.variety import variety

ALL = "all"  # the column of every picture, beside those of the categories


def distances(
    benchmark: str,
    reference: Collection,
    drawn: Collection,
    extractor: Extractor,
    cache: Path,
    console: Console,
    seed: int = 0,
    known: dict[str, Any] | None = None,
) -> list[Result]:
    """FID, and KID times 1,000 with subsets of a seed, of drawn pictures and reference ones, all and by category."""
    real = features_of(reference.files, extractor, cache, console, "features of the reference")
    made = features_of(drawn.files, extractor, cache, console, "features of the drawn pictures")
    shared = shared_categories(reference, drawn)
    pairs = {ALL: (real, made)} | {name: (real[reference.rows(name)], made[drawn.rows(name)]) for name in shared}
    kernel = {name: kid(*pair, seed) for name, pair in pairs.items()}
    told = {"reference": digest_of(reference.files), "reference_n": len(reference.names)}
    settings = extractor.identity | told | {"implementation": f"torchmetrics {version('torchmetrics')}"}
    whole = kernel[ALL]
    subsets = {"seed": seed, "subsets": whole.subsets, "subset": whole.subset, "spread": "deviation over subsets"}
    biased = warning({name: min(map(len, pair)) for name, pair in pairs.items()})
    counts = {name: len(mine) for name, (_, mine) in pairs.items()}
    common = described(drawn) | {"judge": judged_by(extractor), "n": len(made), "counts": counts} | (known or {})
    return [
        Result(
            benchmark=f"{benchmark} FID",
            scores={name: fid(*pair) for name, pair in pairs.items()},
            settings=settings,
            notes=(biased,) if biased else (),
            **common,
        ),
        Result(
            benchmark=f"{benchmark} KID x 1000",
            scores={name: 1000 * found.value for name, found in kernel.items()},
            spread={name: 1000 * found.deviation for name, found in kernel.items() if found.subsets > 1},
            settings=settings | subsets,
            notes=_unlike(kernel),
            **common,
        ),
    ]


def _unlike(kernel: dict[str, Kernel]) -> tuple[str, ...]:
    """Which categories' KID was not taken on subsets as that of all was."""
    whole = kernel[ALL].subsets, kernel[ALL].subset
    other = {name: found for name, found in kernel.items() if (found.subsets, found.subset) != whole}
    told = ", ".join(f"{name} {found.subsets} of {found.subset:,}" for name, found in other.items())
    return (f"subsets of KID: all {whole[0]} of {whole[1]:,}, {told}",) if other else ()


def prompt_fit(
    benchmark: str,
    drawn: Collection,
    prompts: Sequence[str],
    clip: Path,
    cache: Path,
    console: Console,
    device: str = "cpu",
    known: dict[str, Any] | None = None,
) -> Result:
    """The CLIP score of pictures and their prompts, all and by category; ± is the standard error."""
    scores, cut = clip_scores(drawn.files, prompts, clip, cache, console, device)
    groups = {ALL: scores} | {name: scores[drawn.rows(name)] for name in categories(drawn)}
    extractor = open_clip(clip, device)
    notes = (f"{cut:,} prompts were longer than the CLIP reads, and cut",) if cut else ()
    counts = {name: len(group) for name, group in groups.items()}
    common = described(drawn) | {"judge": judged_by(extractor), "n": len(drawn.names), "counts": counts} | (known or {})
    return Result(
        benchmark=f"{benchmark} CLIP score",
        scores={name: float(group.mean()) for name, group in groups.items()},
        spread={name: float(group.std() / len(group) ** 0.5) for name, group in groups.items() if len(group) > 1},
        settings=extractor.identity
        | {
            "scale": "max(100 cos, 0)",
            "implementation": f"torchmetrics {version('torchmetrics')}, transformers {version('transformers')}",
            "data": _asked(prompts),
        },
        notes=notes,
        **common,
    )


def _asked(prompts: Sequence[str]) -> str:
    return data_digest(sorted(set(prompts)))


def diversity(
    benchmark: str,
    drawn: Collection,
    prompts: Sequence[str],
    extractor: Extractor,
    cache: Path,
    console: Console,
    known: dict[str, Any] | None = None,
) -> Result:
    """How unlike the pictures of one prompt are, and of different ones."""
    features = features_of(drawn.files, extractor, cache, console, "features of the drawn pictures")
    distance = "cosine" if extractor.weights else "rms"
    found = variety(features, prompts, distance)
    common = described(drawn) | {"judge": judged_by(extractor), "n": len(drawn.names)} | (known or {})
    return Result(
        benchmark=f"{benchmark} diversity",
        scores={"within": found.within, "between": found.between, "share": found.share},
        spread={"within": found.error},
        settings=extractor.identity | {"distance": distance, "prompts": found.prompts, "data": _asked(prompts)},
        **common,
    )


def judged_by(extractor: Extractor) -> str:
    """The judge's name in a result."""
    return f"{extractor.name} ({extractor.weights})" if extractor.weights else extractor.name


def categories(pictures: Collection) -> list[str]:
    """The names of the categories, none where all pictures are of one."""
    names = sorted(set(pictures.categories))
    return names if len(names) > 1 else []


def shared_categories(reference: Collection, drawn: Collection) -> list[str]:
    """The categories of which both have pictures. ValueError where one has a single picture of some."""
    names = [name for name in categories(reference) if name in categories(drawn)]
    for name in names:
        for pictures in (reference, drawn):
            if len(pictures.rows(name)) < 2:
                raise ValueError(f"{pictures.folder} holds one picture of {name!r}; give at least two of each category")
    return names


def described(drawn: Collection) -> dict[str, Any]:
    """Who drew pictures, and from which seeds, as fields of a result; their folder's name where nothing says."""
    told, seeds = read_manifest(drawn.folder), read_seeds(drawn.files)
    if not told:
        return {"model": drawn.folder.resolve().name, "seeds": seeds}
    evaluations = told["steps"] * (1 if told["guidance"] == 1 else 2)
    return {"model": f"{told['model']} {told['drawer']}", "evaluations": evaluations, "drawn": told, "seeds": seeds}
