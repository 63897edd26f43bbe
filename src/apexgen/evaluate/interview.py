"""Put all questions of a benchmark to a judge, several at once, and keep every answer as it comes.

Each answer is a line of a JSONL file under a key of all that it depends on (judge, picture, question), so the same
command goes on after a kill, and a changed picture is judged anew. Who answers first changes nothing.
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from apexgen.evaluate.judge import Inquiry, Judge, NoAnswer, code_of

FUSE = 20  # questions in a row that the judge fails to take before it is given up
LONGEST = 2000  # characters kept of what was said


@dataclass(frozen=True)
class Answer:
    """What came of an inquiry; value None is unanswered, and why says the reason."""

    value: Any
    said: str = ""
    why: str = ""


def interview(judge: Judge, inquiries: Sequence[Inquiry], log: Path, console: Console) -> list[Answer]:
    """The answer to each inquiry; those that `log` has are not asked again, unanswered ones are.

    Raises ValueError for a picture that is missing or broken, a broken log, or a judge that can't be used at all;
    OSError where the judge fails at 20 questions in a row. What was answered by then is kept.
    """
    keys = [inquiry.key(judge) for inquiry in inquiries]
    answers = read_log(log)
    left = {
        key: inquiry
        for key, inquiry in zip(keys, inquiries, strict=True)
        if key not in answers or answers[key].value is None
    }
    with _progress(console) as progress, _open_log(log) as opened, ThreadPoolExecutor(judge.workers) as pool:
        total = len(set(keys))
        task = progress.add_task(f"asking {judge.name}", total=total, completed=total - len(left))
        asked = {pool.submit(_put, judge, inquiry, key): key for key, inquiry in left.items()}
        try:
            for key, answer in _as_they_come(judge, asked):
                answers[key] = answer
                _append(opened, key, left[key], answer)
                progress.advance(task)
        except BaseException:
            judge.close()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [answers[key] for key in keys]


def _as_they_come(judge: Judge, asked: dict[Future[Answer], str]) -> Iterator[tuple[str, Answer]]:
    in_a_row = 0
    for future in as_completed(asked):
        answer = future.result()
        yield asked[future], answer
        in_a_row = in_a_row + 1 if answer.why and not answer.said else 0
        if in_a_row >= FUSE:
            raise OSError(
                f"{judge.name}: no answer to {FUSE} questions in a row ({answer.why}); the same command goes on"
            )


def _put(judge: Judge, inquiry: Inquiry, key: str) -> Answer:
    picture, said = inquiry.view.open(), ""
    try:
        for _ in range(judge.tries):
            value, said = inquiry.demand.put(judge, picture, inquiry.question, inquiry.system, code_of(key))
            if value is not None:
                return Answer(value, said[:LONGEST])
    except NoAnswer as reason:
        return Answer(None, "", str(reason))
    return Answer(None, said[:LONGEST] or "(nothing)", "not in the form asked for")


def read_log(log: Path) -> dict[str, Answer]:
    """The answers of a log by their inquiry's key, the last where there are several; a last line cut short is none."""
    if not log.is_file():
        return {}
    answers, lines = {}, log.read_bytes().split(b"\n")[:-1]  # whole lines alone
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            answers[record["key"]] = Answer(record["value"], record["said"], record["why"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{log}, line {number}, is no answer; remove that line") from None
    return answers


def count_unanswered(answers: Sequence[Answer], console: Console) -> int:
    """How many are unanswered, told with the reasons."""
    reasons: dict[str, int] = {}
    for answer in answers:
        if answer.value is None:
            reasons[answer.why] = reasons.get(answer.why, 0) + 1
    for reason, count in reasons.items():
        console.print(f"{count} unanswered, counted as wrong: {reason}", soft_wrap=True, markup=False)
    return sum(reasons.values())


@contextmanager
def _open_log(log: Path) -> Iterator[BinaryIO]:
    """The log, to be appended to; a line that a kill cut short is taken away."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as opened:
        whole = log.read_bytes()
        opened.truncate(whole.rfind(b"\n") + 1)
        yield opened


def _append(opened: BinaryIO, key: str, inquiry: Inquiry, answer: Answer) -> None:
    record = {"key": key, "id": inquiry.id, "value": answer.value, "said": answer.said, "why": answer.why}
    opened.write(json.dumps(record).encode() + b"\n")
    opened.flush()


def _progress(console: Console) -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=console)
