"""Every measurement, one after the other; one that fails does not stop the others.

    .venv/bin/python -m bench.all [--quick] [--only NAME ...] [--json] [--write]

Each is a process of its own with nothing else beside it, and the machine rests in between. Ends with a table
and one JSON object: what held, what did not, and of what there is no figure. `--quick` runs each for a few
seconds, to show that it works: its figures are worth nothing, and `--write` is refused with it.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.command import arguments, teller
from cordon.evidence import ROOT, Evidence
from cordon.failure import Failure

QUIET_S: Final = 5.0
LIMIT_S: Final = 3_600.0
"""Of one measurement; it is ended then."""


class QuickResults(Failure):
    """The figures of a quick run are not worth keeping: leave one of the two flags out."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One of them: its words, those of a quick run beside them, the figures that the table shows."""

    words: tuple[str, ...]
    quick: tuple[str, ...]
    shown: tuple[str, ...]

    @property
    def title(self) -> str:
        """As it is typed."""
        return " ".join(self.words)


def measurement(words: str, quick: str, shown: str) -> Measurement:
    """From three lines of words."""
    return Measurement(tuple(words.split()), tuple(quick.split()), tuple(shown.split()))


SMALL_HTTP: Final = "--rate 100 --seconds 3 --runs 1 --warm 500 --warm-seconds 1"
HTTP_FIGURES: Final = "p50_ms p99_ms achieved_rps"
ALL: Final = (
    measurement("score", "--seconds 2", "ratio_single ratio_batch"),
    measurement("explain", "--seconds 2", "ratio_single ratio_batch"),
    measurement("journal", "--seconds 1", "records_per_s append_p99_ms"),
    measurement("offline", "--transactions 20000 --runs 1", "tx_per_min_per_core"),
    measurement("store", "--cards 20 --transactions 800", "server_us"),
    measurement("memory", "--cards 20", "bytes_per_card"),
    measurement("decide", "--transactions 2000 --warm 500", "tps"),
    measurement("decide --catalogue handbook", "--transactions 2000 --warm 500", "tps"),
    *(
        measurement(f"http --alone --rate {rate}", SMALL_HTTP, HTTP_FIGURES)
        for rate in (1_000, 2_000, 4_000, 8_000)
    ),
    measurement("http --alone --rate 2000 --workers 2", SMALL_HTTP, HTTP_FIGURES),
    measurement("http --rate 1000", SMALL_HTTP, HTTP_FIGURES),
    measurement("http --rate 2000", SMALL_HTTP, HTTP_FIGURES),
    measurement(
        "freshness --rate 1000",
        "--rate 50 --seconds 3 --warm 300 --warm-seconds 1",
        "p50_ms p99_ms own_key_stale",
    ),
    measurement("stream", "--transactions 2000 --warm 500", "tps lost duplicates"),
    *(
        measurement(words, "--transactions 2000 --rate 100 --seconds 10", "tps tile_updates_per_s")
        for words in ("features", "features --catalogue handbook", "features --parallelism 2")
    ),
)  # fmt: skip


def main() -> None:
    """Measures; the status says whether everything held."""
    parser = arguments(__doc__)
    parser.add_argument("--quick", action="store_true", help="a few seconds each, to show that it works")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="measurements of these names")
    options = parser.parse_args()
    evidence = Evidence.begin("all")
    found = run(chosen(ALL, options), options, teller(options, evidence), call)
    print(table(found), file=sys.stderr)
    held = [name for name, result in found.items() if result.get("holds")]
    body = {
        "measurements": found,
        "held": held,
        "missed": [name for name, result in found.items() if "holds" in result and not result["holds"]],
        "not_measured": [name for name, result in found.items() if "holds" not in result],
        "quick": options.quick,
    }
    evidence.end(body, holds=len(held) == len(found) > 0)


def chosen(known: Sequence[Measurement], options: argparse.Namespace) -> list[Measurement]:
    """Those that are asked for. Raises `QuickResults`."""
    if options.quick and options.write:
        raise QuickResults("--quick shows that the measurements work; its figures are not kept: drop --write")
    return [one for one in known if not options.only or one.words[0] in options.only]


def run(
    wanted: Sequence[Measurement],
    options: argparse.Namespace,
    say: Callable[[str], None],
    measure: Callable[[Sequence[str]], dict[str, Any]],
) -> dict[str, dict[str, Any]]:
    """What each of them reported, by its title. `measure`: runs one from its words; blocks."""
    found = {}
    for number, one in enumerate(wanted):
        if number:
            time.sleep(0.0 if options.quick else QUIET_S)
        say(f"{number + 1} of {len(wanted)}: {one.title}")
        words = [*one.words, *(one.quick if options.quick else ()), "--json"]
        found[one.title] = measure([*words, "--write"] if options.write else words)
        say(row(one.title, one.shown, found[one.title]))
    return found


def call(words: Sequence[str]) -> dict[str, Any]:
    """Its report, or `error` where there is none."""
    command = [sys.executable, "-m", "cordon.main", "bench", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"not at its end after {LIMIT_S:.0f} s"}
    last = done.stdout.splitlines()[-1:]
    if not last:
        return {"error": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]}
    report: dict[str, Any] = json.loads(last[0])
    return report


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """One line a measurement."""
    shown = {one.title: one.shown for one in ALL}
    return "\n".join(row(name, shown.get(name, ()), result) for name, result in found.items())


def row(title: str, shown: Sequence[str], result: Mapping[str, Any]) -> str:
    """A measurement and its verdict for a person."""
    if "holds" not in result:
        return f"{title:40} not measured: {result.get('error')}"
    figures = ", ".join(f"{name} {result[name]:,}" for name in shown if name in result)
    return f"{title:40} {'holds' if result['holds'] else 'MISSED':8} {figures}"


if __name__ == "__main__":
    main()
