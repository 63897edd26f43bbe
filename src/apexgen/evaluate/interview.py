"""Put all questions of a benchmark to a judge, several at once, and keep every answer as it comes.

Each answer is a line of a JSONL file under a key of all that it depends on (judge, picture, question), so the same
command goes on after a kill, and a changed picture is judged anew. Who answers first changes nothing.
"""

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from rich.console import Console

from apexgen.evaluate.gallery import of_rank, of_ranks, progress_bar
from apexgen.evaluate.judge import Inquiry, Judge, NoAnswer, NoProbabilities, code_of
from apexgen.files import alone
from apexgen.parallel import take_place

FUSE = 20  # questions in a row without an answer, or none in its form, after which the judge is given up
LONGEST = 2000  # characters kept of what was said


@dataclass(frozen=True)
class Answer:
    """What came of an inquiry; value None is unanswered, and why says the reason."""

    value: Any
    said: str = ""
    why: str = ""


def interview(judge: Judge, inquiries: Sequence[Inquiry], log: Path, console: Console) -> list[Answer] | None:
    """The answer to each inquiry; those that `log` has are not asked again, unanswered ones are.

    Each of several ranks asks its share, into a log of its own; None where some are left to others.
    Raises ValueError for a picture that is missing or broken, a broken log, a judge that can't be used at all, or where
    another process is at it; OSError where the judge fails at 20 questions in a row. What was answered by then is kept.
    """
    team = take_place()
    keys = [inquiry.key(judge) for inquiry in inquiries]
    own = dict(list(dict(zip(keys, inquiries, strict=True)).items())[team.rank :: team.count])
    with alone(log.parent, team.rank):
        before = read_logs(log)
        left = {key: inquiry for key, inquiry in own.items() if key not in before or before[key].value is None}
        with progress_bar(console) as progress, _open_log(of_rank(log, team.rank)) as opened:
            task = progress.add_task(f"asking {judge.name}", total=len(own), completed=len(own) - len(left))
            with closing(_ask(judge, left, any(answer.value is not None for answer in before.values()))) as answered:
                for key, answer in answered:
                    _append(opened, key, left[key], answer)
                    progress.advance(task)
    answers = read_logs(log)
    return [answers[key] for key in keys] if answers.keys() >= set(keys) else None


def _ask(judge: Judge, left: Mapping[str, Inquiry], proved: bool) -> Generator[tuple[str, Answer]]:
    """Each inquiry's answer as it comes; a judge that is not proved has answered nothing yet."""
    with ThreadPoolExecutor(judge.workers) as pool:
        asked = {pool.submit(_put, judge, inquiry, key): key for key, inquiry in left.items()}
        try:
            yield from _as_they_come(judge, asked, proved)
        except BaseException:
            judge.close()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _as_they_come(judge: Judge, asked: dict[Future[Answer], str], proved: bool) -> Iterator[tuple[str, Answer]]:
    in_a_row = 0
    for future in as_completed(asked):
        try:
            answer = future.result()
        except NoProbabilities as reason:  # of a judge that told some it is one picture's trouble
            if not proved:
                raise
            answer = Answer(None, "", str(reason))
        proved = proved or answer.value is not None
        yield asked[future], answer
        in_a_row = in_a_row + 1 if answer.value is None else 0
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


def read_logs(log: Path) -> dict[str, Answer]:
    """The answers that all ranks have by now; one rank's answer is not undone by what another failed to get."""
    answers: dict[str, Answer] = {}
    for file in of_ranks(log):
        found = read_log(file)
        answers |= {key: answer for key, answer in found.items() if key not in answers or answer.value is not None}
    return answers


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
    with log.open("ab") as opened:
        whole = log.read_bytes()
        opened.truncate(whole.rfind(b"\n") + 1)
        yield opened


def _append(opened: BinaryIO, key: str, inquiry: Inquiry, answer: Answer) -> None:
    record = {"key": key, "id": inquiry.id, "value": answer.value, "said": answer.said, "why": answer.why}
    opened.write(json.dumps(record).encode() + b"\n")
    opened.flush()
