"""The script behind `make bench` counts right, and sees rows that differ: each kind of difference is planted once."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import sys
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import bench_encode
import bench_page
import bench_peers
import corpora
import numpy as np
import pyarrow as pa
import pytest
from bench_equal import Rows, compare
from bench_page import Figures, Run
from bench_run import FailedError, measure

if TYPE_CHECKING:
    from pathlib import Path

FIRST, SECOND, THIRD = ([1, 2, 3], [-100, 2, 3]), ([4, 5], [-100, 5]), ([6], [6])


def rows(*packed: list[tuple[list[int], list[int]]]) -> Rows:
    """Rows of examples, each ids and labels."""
    return Rows.of(
        pa.table(
            {
                "input_ids": [[id_ for ids, _ in row for id_ in ids] for row in packed],
                "labels": [[label for _, labels in row for label in labels] for row in packed],
                "seq_lengths": [[len(ids) for ids, _ in row] for row in packed],
            }
        )
    )


def test_the_same_rows_are_equal() -> None:
    found = compare(rows([FIRST, SECOND], [THIRD]), rows([FIRST, SECOND], [THIRD]))
    assert found.is_equal
    assert (found.rows, found.examples, found.only_dlgc, found.only_trl, found.first) == (2, 3, 0, 0, None)


@pytest.mark.parametrize(
    ("theirs", "first", "only"),
    [
        (rows([FIRST, ([4, 9], [-100, 9])], [THIRD]), "row 0, token 4: ids [5] here, [9] with TRL", (1, 1)),
        (rows([FIRST, ([4, 5], [4, 5])], [THIRD]), "row 0, token 3: labels [-100, 5] here, [4, 5] with TRL", (1, 1)),
        (rows([FIRST], [SECOND], [THIRD]), "row 0, 5 tokens here, 3 with TRL", (0, 0)),
        (rows([FIRST, SECOND]), "row 1 is only on one side", (1, 0)),
    ],
    ids=["ids", "labels", "packing", "missing row"],
)
def test_rows_that_differ_are_told(theirs: Rows, first: str, only: tuple[int, int]) -> None:
    found = compare(rows([FIRST, SECOND], [THIRD]), theirs)
    assert not found.is_equal
    assert found.first == first
    assert (found.only_dlgc, found.only_trl) == only
    assert "**Not equal**" in bench_page.equality(dataclasses.asdict(found))


def test_examples_without_a_trained_token_are_counted_apart() -> None:
    found = compare(rows([FIRST]), rows([FIRST], [([7, 8], [-100, -100])], [THIRD]))
    assert (found.only_trl, found.untrained) == (2, 1)


def test_rows_are_read_across_chunks() -> None:
    table = pa.table({"input_ids": [[1, 2], [3]], "labels": [[1, -100], [3]]})
    found = Rows.of(pa.concat_tables([table, table.slice(1)]))
    assert [found.row(index)[0].tolist() for index in range(3)] == [[1, 2], [3], [3]]
    assert [labels.tolist() for _, labels in found.examples()] == [[1, -100], [3], [3]]
    assert np.issubdtype(found.input_ids.dtype, np.int64)


def run(seconds: float, **fields: float | str | None) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "seconds": seconds,
        "startup": 1.0,
        "processor": seconds + 1,
        "peak": 100.0,
        "tokens": 2_000_000,
    }
    return dataclasses.asdict(Run(**{**plain, **fields}))


def test_figures_are_medians_of_equal_runs() -> None:
    found = Figures.of([run(4.0), run(1.0), run(2.0, peak=300.0)], 10_000_000)
    assert (found.seconds, found.spread, found.rate, found.token_rate) == (2.0, "1.00 to 4.00", 5.0, 1.0)
    assert found.peak == 300.0
    assert found.same("tokens") == 2_000_000
    with pytest.raises(ValueError, match="`tokens` differs"):
        Figures.of([run(1.0), run(1.0, tokens=3)], 1).same("tokens")


def results() -> dict[str, Any]:
    about = {"bytes": 10_000_000, "dialogues": 1000, "messages": 7000, "left_out": 3, "unique": 0.5}
    equal = {"rows": 5, "rows_of_trl": 5, "equal": 5, "examples": 9, "only_dlgc": 0, "only_trl": 0, "untrained": 0}
    counts = {"rows": 5, "trained": 1_500_000}
    of_all = {"machine": {"processors": "2 processors", "memory": "3 GiB"}, "times": 7}
    pipeline = {
        **of_all,
        "date": "2026-01-02",
        "versions": ["trl 1.2.3", "torch 4"],
        "runs": {"english": {"dlgc, 1 thread": [run(0.1, **counts)], bench_page.TRL: [run(5.0, **counts)]}},
        "equal": {"english": {**equal, "first": None}},
    }
    counted = {
        "one": [run(0.1, **counts)],
        "two": [run(0.2, **counts)],
        bench_page.of_family("two"): [run(5.0, **counts)],
    }
    families = {
        **pipeline,
        "runs": {"english": counted},
        "corpora": {"english": {**about, "left_out": 4}},
        "templates": {"one": "first", "two": "second"},
        "beside_trl": "two",
    }
    alone = {
        **of_all,
        "date": "2026-01-03",
        "versions": ["gigatoken 4.5"],
        "runs": {"english": {"qwen3": {"dlgc, 1 thread": [run(1.0)], bench_page.REFERENCE: [run(3.0, digest="a")]}}},
        "ids": {"english": {"qwen3": {"dlgc, 1 thread": "equal"}}},
        "bytes": {"english": 9_000_000},
        "missing": {"fastokens 0": "no wheel"},
    }
    report = {"bytes": 1_000_000, "whole": 2.5, "load": 0.5, "seconds": {"read": 0.5, "parse": 1.0}}
    passes = {**of_all, "date": "2026-01-04", "versions": ["dlgc 0"], "runs": {"As TRL": {"english": [report]}}}
    return {
        "quick": False,
        "corpora": {"english": about},
        "parts": {"pipeline": pipeline, "families": families, "tokenizers": alone, "passes": passes},
    }


def test_the_page_has_every_part_with_its_ratios() -> None:
    page = bench_page.page(results(), "make bench")
    row = (
        "| dlgc, 1 thread | 0.10 | 0.10 to 0.10 | 100.0 | 20.00 | 50.0 | 1.00 | 1.1 | 100 | 5 | 2,000,000 | 1,500,000 |"
    )
    assert row in page
    assert "Ids and labels of all 5 rows are TRL's, row for row." in page
    assert "### English, 10.0 MB, 4 left out" in page
    assert "| one | first | 0.10 | 0.10 to 0.10 | 100.0 | 100 % | 20.00 |  | 1.00 | 100 | 5 | 2,000,000 |" in page
    assert "| two | second | 0.20 | 0.20 to 0.20 | 50.0 | 50 % | 10.00 | 25.0 | 1.00 | 100 | 5 | 2,000,000 |" in page
    assert "two: Ids and labels of all 5 rows are TRL's, row for row." in page
    assert "| qwen3: dlgc, 1 thread | 1.00 | 1.00 to 1.00 | 9.0 | 2.00 | 3.0 | 1.00 | 100 | equal |" in page
    assert "- fastokens 0: not installable here: no wheel" in page
    assert "| everything else | 0.50 | 500.0 | 25 % |" in page
    assert "| whole | 2.00 | 2000.0 | 100 % |" in page
    assert "| English | 10.0 | 1,000 | 10,000 | 7.0 | 50.0 % | 3 |" in page
    assert "Measured on 2026-01-02, 7 times, on 2 processors, 3 GiB: trl 1.2.3, torch 4." in page
    assert "mean nothing" not in page


def test_a_part_that_was_not_measured_is_not_on_the_page() -> None:
    short = results()
    del short["parts"]["pipeline"], short["parts"]["families"], short["parts"]["passes"]
    page = bench_page.page(short | {"quick": True}, "x")
    assert "## Whole pipelines" not in page
    assert "## Tokenisers alone" in page
    assert "its figures mean nothing" in page


def test_every_table_has_as_many_cells_as_columns() -> None:
    lines = bench_page.page(results(), "make bench").splitlines()
    heads = [index for index, line in enumerate(lines) if line.startswith("| ---")]
    assert len(heads) == 5
    for index in heads:
        columns = lines[index - 1].count("|")
        table = list(itertools.takewhile(lambda line: line.startswith("|"), lines[index - 1 :]))
        assert len(table) > 2
        assert {row.count("|") for row in table} == {columns}


def test_ids_are_told_by_digest_and_by_number() -> None:
    reference = Figures.of([run(1.0, digest="a")], 1)
    assert bench_page.ids_against(Figures.of([run(1.0, digest="a")], 1), reference) == "equal"
    assert bench_page.ids_against(Figures.of([run(1.0)], 1), reference) == "equal"
    assert bench_page.ids_against(Figures.of([run(1.0, digest="b")], 1), reference) == "**differ**, +0 tokens"
    assert bench_page.ids_against(Figures.of([run(1.0, tokens=5)], 1), reference).startswith("**differ**, -1,999,995")


def test_the_picture_draws_bars_to_scale() -> None:
    drawn = ET.fromstring(bench_page.picture(results()))  # noqa: S314  # our own
    bars = [element for element in drawn.iter() if element.get("class") in ("ours", "theirs")]
    widths = [float(bar.get("width", 0)) for bar in bars]
    assert [bar.get("class") for bar in bars] == ["ours", "theirs", "ours", "theirs"]
    assert widths[0] / widths[1] == pytest.approx(50, rel=0.02)
    assert widths[2] / widths[3] == pytest.approx(3, rel=0.02)


def test_peers_are_pinned_and_a_refusal_is_one_line_without_paths() -> None:
    assert [peer.name for peer in bench_peers.peers("# why\na==1.0  # x\n\nb==2.0rc1\n")] == ["a 1.0", "b 2.0rc1"]
    with pytest.raises(ValueError, match="expected `name==version`, found `a>=1`"):
        bench_peers.peers("a>=1\n")
    assert bench_page.REFERENCE in {peer.name for peer in bench_peers.peers()}
    said = "WARNING: x\nERROR: No matching distribution found for a==1.0 in /home/me/wheels/a\n"
    assert bench_peers.reason(said) == "No matching distribution found for a==1.0 in …"


def test_texts_are_what_messages_say(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None},
        {"role": "tool", "content": "b"},
    ]
    (tmp_path / "d.jsonl").write_text(json.dumps({"messages": messages, "tools": "[]"}) + "\n")
    assert bench_encode.said(tmp_path / "d.jsonl") == ["a\nb\n"]


def test_a_corpus_has_the_fields_that_trl_knows(tmp_path: Path) -> None:
    record = {
        "id": "1",
        "metadata": {},
        "messages": [{"role": "assistant", "content": "a", "weight": 0}],
        "tools": [{"type": "function"}],
    }
    (tmp_path / "c.jsonl").write_text(json.dumps(record) + "\n" + json.dumps({"messages": [], "tools": []}) + "\n")
    assert list(corpora.for_both(tmp_path / "c.jsonl")) == [
        {"messages": [{"role": "assistant", "content": "a"}], "tools": '[{"type": "function"}]'},
        {"messages": []},
    ]


def test_a_process_is_measured_on_the_processors_that_it_may_have() -> None:
    script = "import os, time; kept = bytearray(64_000_000); print(len(os.sched_getaffinity(0))); time.sleep(0.1)"
    before = os.sched_getaffinity(0)
    found = measure([sys.executable, "-c", script], 1)
    assert found.printed == "1\n"
    assert found.wall > 0.1
    assert found.peak > 64
    kept = bytearray(b"1" * 200_000_000)  # of the one that measures, and no part of what is measured
    assert measure([sys.executable, "-c", script], 1).peak < len(kept) / 1e6
    assert os.sched_getaffinity(0) == before
    with pytest.raises(FailedError, match="ended with 3: why"):
        measure([sys.executable, "-c", "import sys; sys.stderr.write('why'); sys.exit(3)"], 1)


def test_the_memory_of_children_is_counted() -> None:
    child = "kept = bytearray(b'1' * 100_000_000); import time; time.sleep(1.5)"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    assert measure([sys.executable, "-c", script], 1, several=True).peak > 100
