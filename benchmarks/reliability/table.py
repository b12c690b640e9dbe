"""The page about the figures, written from their JSON.

python -m benchmarks.reliability.table docs/reliability.json docs/reliability.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.reliability.target import TARGETS


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table.

    Attributes:
        text: what it says.
        path: keys of the figure, a target's name after the first.
        form: of a value.
        bound: what is asked, in words; empty for a figure that is only told.
        holds: whether a value is as asked.
    """

    text: str
    path: tuple[str, ...]
    form: str
    bound: str = ""
    holds: Callable[[Any], bool] | None = None


def _most(limit: float) -> Callable[[Any], bool]:
    return lambda value: bool(value <= limit)


def _least(limit: float) -> Callable[[Any], bool]:
    return lambda value: bool(value >= limit)


def _overload(times: str) -> list[Row]:
    over = ("load", "overload", times)
    start = f"{times} C: "
    return [
        Row(start + "answers in time, of C", (*over, "goodput_share"), "{:.0%}", "≥ 95 %", _least(0.95)),
        Row(start + "p99 of refusals, ms", (*over, "refused_p99_ms"), "{:.1f}", "≤ 25", _most(25)),
        Row(start + "refusals without Retry-After", (*over, "without_retry_after"), "{}", "0", _most(0)),
        Row(start + "requests neither served nor refused", (*over, "other"), "{}", "0", _most(0)),
        Row(start + "computed answers that came too late", (*over, "late_share"), "{:.0%}"),
        Row(start + "memory on top, MiB", (*over, "memory_mib"), "{:.0f}", "≤ 64", _most(64)),
        Row(
            start + "p99 from 2 s after, of unloaded p50",
            (*over, "after_p99_times"),
            "{:.1f} x",
            "≤ 4 x",
            _most(4),
        ),
    ]


ROWS = [
    Row("capacity C, answers a second", ("load", "capacity"), "{:.1f}"),
    Row("p50 of a lone client, ms", ("load", "unloaded_p50_ms"), "{:.1f}"),
    Row("0.7 C: requests", ("load", "steady", "requests"), "{:,}"),
    Row("0.7 C: not served", ("load", "steady", "failures"), "{}", "0", _most(0)),
    Row("0.7 C: p99, of unloaded p50", ("load", "steady", "p99_times"), "{:.1f} x", "≤ 4 x", _most(4)),
    Row("0.7 C at random times: p99, of unloaded p50", ("load", "steady", "random_p99_times"), "{:.1f} x"),
    *_overload("5"),
    *_overload("20"),
    Row(
        "SIGTERM at 0.7 C: accepted requests lost",
        ("ending", "terminate", "0.7", "accepted_lost"),
        "{}",
        "0",
        _most(0),
    ),
    Row(
        "SIGTERM at 5 C: accepted requests lost",
        ("ending", "terminate", "5", "accepted_lost"),
        "{}",
        "0",
        _most(0),
    ),
    Row("SIGTERM: processes left running", ("ending", "terminate", "5", "left_running"), "{}", "0", _most(0)),
    Row("workers killed: clients without an answer", ("ending", "kill", "hung"), "{}", "0", _most(0)),
    Row("workers killed: failed answers", ("ending", "kill", "failed"), "{}"),
    Row("workers killed: serves afterwards", ("ending", "kill", "alive_after"), "{}", "True", _least(1)),
    Row("computed after their deadline", ("ending", "deadlines", "computed_late"), "{:.0f}", "0", _most(0)),
    Row("slow sockets", ("sockets", "sockets"), "{:,}"),
    Row(
        "slow sockets: p99 of others, of theirs without",
        ("sockets", "p99_times"),
        "{:.1f} x",
        "≤ 2 x",
        _most(2),
    ),
    Row("slow sockets: others not served", ("sockets", "failures"), "{}", "0", _most(0)),
    Row("mixed requests", ("endurance", "requests"), "{:,}"),
    Row("mixed requests: MiB for 100,000", ("endurance", "mib_per_100k"), "{:.1f}", "≤ 2", _most(2)),
    Row("mixed requests: descriptors more", ("endurance", "descriptors"), "{}", "0", _most(0)),
    Row("mixed requests: threads more", ("endurance", "threads"), "{}", "0", _most(0)),
    Row("schemathesis: examples for an operation", ("contract", "examples"), "{:,}"),
    Row("schemathesis: cases", ("contract", "cases"), "{:,}"),
    Row("schemathesis: failures", ("contract", "failures"), "{}", "0", _most(0)),
    Row("bare model, images a second", ("throughput", "bare_per_second"), "{:.1f}"),
    Row("throughput, of the bare model's", ("throughput", "share"), "{:.0%}", "≥ 90 %", _least(0.9)),
    Row("the same with decoding, images a second", ("throughput", "decoding_per_second"), "{:.1f}"),
    Row("throughput, of that", ("throughput", "share_of_decoding"), "{:.0%}"),
    Row("overhead of a request, ms", ("throughput", "overhead_ms"), "{:.1f}", "≤ 3", _most(3)),
]

HEAD = """# Reliability under load

<!-- written by python -m benchmarks.reliability from reliability.json -->

The server beside two others with the same model: LitServe, with its batching, and FastAPI as its tutorial
writes an app (`benchmarks/reliability/peers`). The same driver asks all three, on the same machine, one after
another. It is an open loop: a request is due at its time whatever became of the others, and its latency
counts from then. C is what a server answers in a second within {bound:g} s, by the best number of clients,
measured on it in the same run. A client leaves after {patience:g} s. The load has a core of its own.

`make reliability` measures this again; the small sizes are among the tests.
"""

#: What stands below the table.
FOOT = """
- 0.7 C and more come at even intervals. At random times one server that works on one request after another
  cannot keep p99 within 4 times the time of a request: by queueing theory it is about 7 times.
- A request that is refused costs the server its first line: nothing of its body is kept, and no part of the
  application runs. What is let in is reckoned by the time of the last answers, to half of the deadline.
- The bare model computes batches of decoded images, in a program that does nothing else; with decoding it
  does what a server has to do on the same cores, without the sockets. Where the server has one core, decoding
  takes its part of it.
- Peers have a tenth of the time at 0.7 C and of the mixed requests, and a quarter of the other times.
- Workers are all processes below the one that was started; those of LitServe include the one that listens.
  Where that one goes on after SIGTERM no request is lost, but nothing has ended either.
- Slow sockets send a head or a body byte by byte, or read nothing; those that the server closes come again
  after 2.5 to 7.5 s.
- Schemathesis runs all of its checks. Bytes that are no image, and numbers that depend on the model, are
  refused with 400, 413, 415 or 422, which a schema cannot say.
"""


def value_at(found: dict[str, Any], row: Row, target: str) -> Any:
    """A target's value for a row; None where it has none."""
    place: Any = found.get(row.path[0], {}).get(target)
    for key in row.path[1:]:
        place = place.get(key) if isinstance(place, dict) else None
    return place


def missed(found: dict[str, Any], target: str = "tesela") -> list[str]:
    """Rows whose value is not as asked."""
    values = [(row, value_at(found, row, target)) for row in ROWS]
    return [row.text for row, value in values if row.holds and value is not None and not row.holds(value)]


def page(found: dict[str, Any]) -> str:
    """The page as Markdown."""
    from benchmarks.reliability.plan import BOUND

    about = found["machine"]
    lines = [HEAD.format(bound=BOUND, patience=2 * BOUND)]
    lines.append(
        f"Size: {found['size']}. Model: `{found['model']}`; "
        "long runs, signals and the document with `vit_nano`. "
        f"Machine: {about['cores']} cores, Python {about['python']}, torch {about['torch']}.\n"
    )
    lines.append(f"| figure | asked | {' | '.join(TARGETS)} |\n|---|---|{'---|' * len(TARGETS)}")
    for row in ROWS:
        cells = []
        for target in TARGETS:
            value = value_at(found, row, target)
            cells.append("" if value is None else row.form.format(value))
        if any(cells):
            lines.append(f"| {row.text} | {row.bound} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n" + FOOT


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(page(json.loads(Path(sys.argv[1]).read_text("utf-8"))), "utf-8")
