"""The README's table of numbers, from the results that commands have written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- numbers -->", "<!-- /numbers -->"
SMALL = 1e-3

HTTP = tuple(
    (
        f"http_{kind}_{rate}",
        f"cordon bench http --rate {rate}{words}",
        f"{what} at {rate:,}/s, p99 in ms",
        "p99_ms",
    )
    for kind, words, what in (
        ("beside", "", "HTTP decisions beside the whole stack"),
        ("alone", " --alone", "HTTP decisions, service and store alone"),
    )
    for rate in (1_000, 2_000, 4_000, 8_000)
)

ROWS: tuple[tuple[str, str, str, str], ...] = (
    ("parity_handbook", "cordon parity --catalogue handbook", "decisions recomputed", "decisions"),
    ("parity_handbook", "cordon parity --catalogue handbook", "feature values that differ", "mismatch"),
    ("parity_handbook_lockstep", "cordon parity --catalogue handbook --fast-lane off",
     "decisions on Flink's values alone", "decisions"),
    ("parity_handbook_lockstep", "cordon parity --catalogue handbook --fast-lane off",
     "feature values that differ", "mismatch"),
    ("parity_payments", "cordon parity --catalogue payments", "decisions recomputed", "decisions"),
    ("parity_payments", "cordon parity --catalogue payments", "feature values that differ", "mismatch"),
    ("parity_published", "cordon parity --published", "rows of the handbook's published features", "rows"),
    ("parity_published", "cordon parity --published", "rows that differ, all of them ties", "mismatch"),
    ("drill_flink", "cordon drill flink", "stored slots after two kills of Flink", "tiles"),
    ("drill_flink", "cordon drill flink", "slots that are wrong", "wrong"),
    ("drill_redis", "cordon drill redis", "stored slots after a loss of Redis", "tiles"),
    ("drill_redis", "cordon drill redis", "slots that are wrong", "wrong"),
    ("drill_service", "cordon drill service", "decisions answered while the service was killed", "answered"),
    ("drill_service", "cordon drill service", "that journal, topic or query store lack", "missing"),
    ("drill_service", "cordon drill service", "that one of them has twice", "doubled"),
    ("drill_tamper", "cordon drill tamper", "damages to a journal found and named, of seven", "found"),
    ("drill_tamper", "cordon drill tamper", "records verified a second", "verify_records_per_s"),
    ("drill_explain", "cordon drill explain", "past decisions explained", "explained"),
    ("drill_explain", "cordon drill explain", "greatest difference from `shap`", "max_abs_diff_shap"),
    ("drill_erase", "cordon drill erase", "answers that show a person before an erasure", "readable_before"),
    ("drill_erase", "cordon drill erase", "and after it, in eleven places", "readable_after"),
    ("evaluate_handbook", "cordon evaluate handbook", "ROC AUC, four test folds", "auc"),
    ("evaluate_handbook", "cordon evaluate handbook", "average precision", "ap"),
    ("evaluate_handbook", "cordon evaluate handbook", "card precision at 100", "cp100"),
    ("demo", "make demo ARGS=--once", "decisions over HTTP, p99 in ms", "p99_ms"),
    ("demo", "make demo ARGS=--once", "vectors lacking an own earlier transaction", "own_key_stale"),
    ("demo", "make demo ARGS=--once", "precision of what was stopped", "precision"),
    ("demo", "make demo ARGS=--once", "recall after the first of each campaign", "recall"),
    *HTTP,
    ("decide", "cordon bench decide", "decisions a second of one process, from Kafka", "tps"),
    ("decide_handbook", "cordon bench decide --catalogue handbook",
     "decisions a second of one process, handbook's catalogue, rules alone", "tps"),
    ("stream", "cordon bench stream", "transactions a second through the whole stream", "tps"),
    ("freshness_1000", "cordon bench freshness --rate 1000",
     "from the request until it is in Flink's state in Redis, at 1,000/s, p99 in ms", "p99_ms"),
    ("freshness_1000", "cordon bench freshness --rate 1000",
     "decisions lacking an own earlier transaction, at 1,000/s", "own_key_stale"),
    ("features", "cordon bench features", "Flink alone, tile updates a second", "tile_updates_per_s"),
    ("features_handbook", "cordon bench features --catalogue handbook",
     "Flink alone, handbook's catalogue, transactions a second", "tps"),
    ("journal", "cordon bench journal", "durable records a second", "records_per_s"),
    ("store", "cordon bench store", "an observed transaction in Redis, server's us", "server_us"),
    ("rules", "cordon rules bench", "one rule as served, in ns", "ns_per_rule"),
    ("rules", "cordon rules bench", "30 rules over 1,000,000 stored decisions, in s", "backtest_s"),
    ("drill_replay", "cordon drill replay", "past decisions replayed after a restart", "replayed"),
    ("drill_replay", "cordon drill replay", "that are not the very same", "different"),
    ("memory", "cordon bench memory", "bytes of a card with 100 transactions in 90 days", "bytes_per_card"),
    ("offline", "cordon bench offline", "training rows a minute on one core", "tx_per_min_per_core"),
    ("score", "cordon bench score", "one row scored, times faster than XGBoost", "ratio_single"),
    ("explain", "cordon bench explain", "one row explained, times faster than XGBoost", "ratio_single"),
)  # fmt: skip


def table(results: Path) -> str:
    """Markdown table of what has been measured; rows without a result are left out."""
    lines = ["| what | value | command | commit |", "|---|---|---|---|"]
    for name, command, what, key in ROWS:
        found = _read(results / f"{name}.json")
        if key in found:
            lines.append(f"| {what} | {_shown(found[key])} | `{command}` | `{str(found['commit'])[:7]}` |")
    machines = {_machine(_read(path)) for path in results.glob("*.json")} - {""}
    return (
        "\n".join([*lines, "", f"Measured on: {'; '.join(sorted(machines))}."]) if machines else "None yet."
    )


def fill(readme: str, results: Path) -> str:
    """The README with its table made anew. Raises `ValueError` without the markers."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table(results)}\n{END}{after}"


def _read(path: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def _machine(result: Mapping[str, Any]) -> str:
    machine = result.get("machine")
    return f"{machine['cpu']}, {machine['cores']} cores" if isinstance(machine, dict) else ""


def _shown(value: object) -> str:
    if isinstance(value, float) and 0 < abs(value) < SMALL:
        return f"{value:.1e}"
    return f"{value:,}" if isinstance(value, int | float) else str(value)
