"""Tables about a dataset, as Polars expressions over lazy scans."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlgc import shards as shards_
from dlgc import terminal

if TYPE_CHECKING:
    import polars as pl

    from dlgc.options import StrPath

SHORT = 3
"""Exchanges below which a dialogue teaches no multi-turn behaviour (the guide's first check)."""
FEW, MANY = 10_000, 50_000
"""Dialogues with which multi-turn behaviour is learnt well (the guide)."""

LONG = 8
"""Exchanges beyond which a dialogue is longer than the guide's three to eight."""
RARE = 20
"""Dialogues of an intent below which it is hardly learnt."""

ANSWERS = {"sft": (), "preference": ("chosen", "rejected"), "kto": ("completion",)}
"""What follows the prompt of a row, by what the rows are."""

LISTS = ("codes", "intents", "slots", "tools")


def rows(shards: StrPath, split: str = "train") -> pl.LazyFrame:
    """Returns one row for each row of a split, in tokens.

    `tokens`, `trained_tokens`, `targets`; of preferences `prompt`, and for each answer its tokens and `… trained`.
    """
    import polars as pl

    found = shards_.scan(shards, split)
    answers = ANSWERS[shards_.rows(shards_.manifest(shards))]
    if answers:
        is_trained = pl.element() != terminal.IGNORED
        trained = {f"{name} trained": pl.col(f"{name}_labels").list.eval(is_trained).list.sum() for name in answers}
        tokens = {name: pl.col(f"{name}_ids").list.len() for name in ("prompt", *answers)}
        return found.select(**tokens, **trained)
    return found.select(
        tokens=pl.col("input_ids").list.len(),
        trained_tokens=pl.col("assistant_masks").list.sum(),
        targets=pl.col("trained_messages").list.eval(pl.element().list.len()).list.sum(),
    )


def lengths(shards: StrPath, split: str = "train") -> pl.DataFrame:
    """Returns the distribution of row lengths: minimum, quartiles, 90th and 99th percentile, maximum, mean."""
    import polars as pl

    marks = {"min": 0.0, "25 %": 0.25, "50 %": 0.5, "75 %": 0.75, "90 %": 0.9, "99 %": 0.99, "max": 1.0}
    frame = rows(shards, split).collect()
    return pl.DataFrame(
        [
            {
                "per row": name,
                **{label: int(frame[name].quantile(mark) or 0) for label, mark in marks.items()},
                "mean": round(float(frame[name].mean() or 0), 1),  # type: ignore[arg-type]  # a mean of numbers
            }
            for name in frame.columns
        ]
    )


def by(shards: StrPath, column: str) -> pl.DataFrame:
    """Returns dialogues, compiled dialogues, turns and tokens by a column of `dialogues.arrow`."""
    import polars as pl

    return (
        shards_.scan_dialogues(shards)
        .group_by(column)
        .agg(
            dialogues=pl.len(),
            compiled=(pl.col("rows") > 0).sum(),
            turns=pl.col("assistant_turns").sum(),
            trained=pl.col("trained_turns").sum(),
            tokens=pl.col("tokens").sum(),
            trained_tokens=pl.col("trained_tokens").sum(),
        )
        .sort("dialogues", column, descending=[True, False])
        .collect()
    )


def most(shards: StrPath, column: str, count: int = 10) -> pl.DataFrame:
    """Returns how many dialogues have each value of a list column of `dialogues.arrow`, most frequent first."""
    import polars as pl

    return (
        shards_.scan_dialogues(shards)
        .select(pl.col(column).explode())
        .drop_nulls()
        .group_by(column)
        .agg(dialogues=pl.len())
        .sort("dialogues", column, descending=[True, False])
        .head(count)
        .collect()
    )


def rare(shards: StrPath, column: str = "intents", below: int = RARE) -> pl.DataFrame:
    """Returns the values of a list column that fewer dialogues have than that, rarest first."""
    import polars as pl

    found = most(shards, column, count=1 << 31)
    return found.filter(pl.col("dialogues") < below).sort("dialogues", column)


def checks(shards: StrPath, rare_below: int = RARE) -> list[str]:
    """Returns the guide's first checks: how many dialogues, of how many turns, and which intents are rare."""
    import polars as pl

    turns = pl.col("assistant_turns")
    dialogues = shards_.scan_dialogues(shards).filter(pl.col("rows") > 0)
    found = dialogues.select(
        count=pl.len(), short=(turns < SHORT).sum(), fit=turns.is_between(SHORT, LONG).sum(), long=(turns > LONG).sum()
    )
    count, short, fit, long = (int(value or 0) for value in found.collect().row(0))
    lines = []
    if not FEW <= count <= MANY:
        lines.append(f"{count:,} dialogues; multi-turn behaviour is learnt well from {FEW:,} to {MANY:,}")
    if count and fit < count:
        lines.append(
            f"{fit:,} dialogues ({100 * fit / count:.0f} %) have {SHORT} to {LONG} assistant turns, {short:,} have "
            f"fewer, {long:,} more"
        )
    scarce = rare(shards, below=rare_below)
    if scarce.height:
        named = ", ".join(f"`{name}` {count:,}" for name, count in scarce.head(8).iter_rows())
        more = f" and {scarce.height - 8:,} more" if scarce.height > 8 else ""  # noqa: PLR2004  # a line of names
        lines.append(f"{scarce.height:,} intents have fewer than {rare_below} dialogues: {named}{more}")
    return lines


def screen(shards: StrPath, rare_below: int = RARE) -> str:
    """Returns one screen of tables as text; intents of fewer dialogues than that are named."""
    import polars as pl

    found = shards_.manifest(shards)
    ledger = found["ledger"]
    parts = [
        f"{shards}: {', '.join(terminal.splits(found))}",
        (
            f"{ledger['records']['read']:,} records read, {ledger['dialogues']['compiled']:,} dialogues compiled, "
            f"{ledger['turns']['trained']:,} of {ledger['turns']['total']:,} assistant turns trained"
        ),
    ]
    files = by(shards, "file").with_columns(pl.col("file").str.split("/").list.last())
    lists = [most(shards, column, 5).rename({"dialogues": f"{column}: dialogues"}) for column in LISTS]
    with pl.Config(
        tbl_rows=6, tbl_cols=12, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True, thousands_separator=","
    ):
        parts.append(str(lengths(shards)))
        parts.extend("\n".join(lines) for lines in [terminal.answers(found.get("answers"))] if lines)
        tongues = "language" if by(shards, "language")["language"].drop_nulls().len() else "script"
        columns = ["type", tongues, "format", "split"]
        tables = [table for column in columns if (table := by(shards, column)).height > 1 or column == "type"]
        parts.extend(str(table) for table in (*tables, files))
        if any(table.height for table in lists):
            parts.append(str(pl.concat([table for table in lists if table.height], how="horizontal_extend")))
    if found["diagnostics"]:
        parts.append("diagnostics: " + ", ".join(f"{code} {count:,}" for code, count in found["diagnostics"].items()))
    if not found.get("answers"):  # the guide's first checks are of dialogues that are trained turn by turn
        parts.extend(f"check: {line}" for line in checks(shards, rare_below))
    return "\n".join(parts) + "\n"
