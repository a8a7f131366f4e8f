"""Packing: nothing is lost or cut, TRL's rows are met exactly, and packed rows train as their examples do."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from jsonschema import Draft202012Validator

import dlgc
from dlgc import _dlgc

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
TRL_ROWS = 1000
METHODS = ("bfd", "bfd-global", "trl-bfd")
TRL = pytest.mark.skipif(find_spec("trl") is None, reason="TRL is not installed: pip install 'dlgc[train]'")


def seeded(seed: object) -> random.Random:
    return random.Random(str(seed))  # noqa: S311  # lengths, not secrets


def write(path: Path, count: int, seed: int, splits: tuple[str, ...] = ("train",)) -> Path:
    """Writes dialogues of random length, some of which come with reasoning and so become several rows."""
    chance = seeded(seed)
    lines = []
    for number in range(count):
        messages: list[dict[str, str]] = []
        for turn in range(chance.choice((1, 1, 1, 2, 3))):
            words = " ".join(chance.choices(("tea", "bread", "rain", "chess", "茶", "α"), k=chance.randrange(1, 40)))
            messages += [{"role": "user", "content": f"{number}.{turn} {words}?"}]
            messages += [{"role": "assistant", "content": words[: chance.randrange(1, 30)].strip() or "."}]
        lines.append(json.dumps({"id": f"d{number}", "messages": messages, "split": chance.choice(splits)}))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def rows_of(folder: Path, split: str = "train") -> list[dict[str, Any]]:
    return dlgc.scan(folder, split).collect().to_dicts()


def examples_of(folder: Path, split: str = "train") -> Iterator[dict[str, Any]]:
    """Every example with all that is said of it."""
    for row in rows_of(folder, split):
        lengths = row.pop("seq_lengths", [len(row["input_ids"])])
        row.pop("example", None)
        assert sum(lengths) == len(row["input_ids"]) == len(row["labels"]) == len(row["assistant_masks"])
        end = 0
        for at, length in enumerate(lengths):
            start, end = end, end + length
            example: dict[str, Any] = {
                name: row[name][start:end] for name in ("input_ids", "labels", "assistant_masks")
            }
            yield example | {name: values[at] for name, values in row.items() if name not in example}


def counted(folder: Path, split: str = "train") -> Counter[str]:
    return Counter(json.dumps(example) for example in examples_of(folder, split))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More dialogues than TRL packs together, in two splits."""
    path = tmp_path_factory.mktemp("raw") / "raw.jsonl"
    return write(path, 2300, 7, ("train", "train", "train", "validation"))


@pytest.fixture(scope="module")
def compiled(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same dialogues with every method."""
    folder = tmp_path_factory.mktemp("compiled")
    for packing in ("none", *METHODS):
        dlgc.compile(raw, folder / packing, packing=packing, max_length=512)
    return {packing: folder / packing for packing in ("none", *METHODS)}


# --- lengths -------------------------------------------------------------------------------------------------------


@TRL
def test_trl_bfd_makes_the_bins_of_trl_for_ten_thousand_lists() -> None:
    chance = seeded(20261123)
    crossing = 0
    for number in range(10_000):
        max_length = chance.choice((1, 2, 7, 64, 100, 512, 1024, 2048, 4096))
        size = chance.randrange(900, 1500) if number % 200 == 0 else chance.randrange(1, 40)
        kinds = chance.choice((1, 3, 10, max_length))  # few kinds make many ties
        pool = [chance.randint(1, max_length) for _ in range(kinds)]
        if chance.random() < 0.3:
            pool.append(max_length)
        lengths = chance.choices(pool, k=size)
        crossing += size > 1000
        parts = [lengths[start : start + TRL_ROWS] for start in range(0, size, TRL_ROWS)]
        theirs = [bin_ for start, part in enumerate(parts) for bin_ in _trl(part, start * TRL_ROWS, max_length)]

        assert _dlgc.pack_lengths("trl-bfd", lengths, max_length) == theirs, (number, lengths)
    assert crossing > 25


def _trl(lengths: list[int], first: int, max_length: int) -> list[list[int]]:
    """What TRL's own function makes of one batch: of each row the numbers of its examples."""
    import trl.data_utils

    values = np.repeat(np.arange(first, first + len(lengths), dtype=np.int32), lengths)
    offsets = np.cumsum([0, *lengths], dtype=np.int32)
    table = pa.table({"input_ids": pa.ListArray.from_arrays(offsets, values)})
    packed = trl.data_utils._pack_bfd(table, max_length)  # noqa: SLF001  # the very function
    lists, seq_lengths = packed["input_ids"].combine_chunks(), packed["seq_lengths"].to_pylist()
    tokens, offset = lists.values.to_numpy(), 0
    bins = []
    for row in seq_lengths:
        starts = offset + np.cumsum([0, *row])
        bins.append(tokens[starts[:-1]].tolist())
        offset = int(starts[-1])
    return bins


@pytest.mark.parametrize("method", ["none", *METHODS])
def test_every_example_is_in_one_row_in_one_piece_and_no_row_is_too_long(method: str) -> None:
    chance = seeded(method)
    for size in (0, 1, 2, 999, 1000, 1001, 4096, 4097, 9000):
        max_length = chance.choice((64, 1000, 4096))
        lengths = [min(max_length, max(1, int(chance.lognormvariate(4, 1.2)))) for _ in range(size)]
        bins = _dlgc.pack_lengths(method, lengths, max_length)

        assert sorted(at for row in bins for at in row) == list(range(size))
        assert all(sum(lengths[at] for at in row) <= max_length for row in bins)


def test_looking_at_all_examples_never_takes_more_rows_than_trl() -> None:
    chance = seeded(3)
    for _ in range(100):
        max_length, size = chance.choice((64, 200, 512)), chance.randrange(900, 4000)
        pool = [chance.randint(1, max_length) for _ in range(chance.choice((3, 10, 1000)))]
        lengths = chance.choices(pool, k=size)
        rows = {method: len(_dlgc.pack_lengths(method, lengths, max_length)) for method in METHODS}

        assert rows["bfd-global"] <= rows["trl-bfd"]


def test_lengths_that_fit_into_no_row_are_refused() -> None:
    for length in (0, 11):
        with pytest.raises(dlgc.OptionsError, match=f"an example of {length} tokens; expected 1 to 10"):
            _dlgc.pack_lengths("bfd", [3, length], 10)
    with pytest.raises(dlgc.OptionsError, match="`wrapped` is no method of packing"):
        _dlgc.pack_lengths("wrapped", [3], 10)


# --- datasets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("packing", METHODS)
def test_packing_keeps_the_multiset_of_examples(packing: str, seed: int, tmp_path: Path) -> None:
    chance = seeded(seed)
    raw = write(tmp_path / "raw.jsonl", chance.randrange(1, 250), seed, ("train", "test")[: 1 + seed % 2])
    options: dict[str, Any] = {"max_length": chance.choice((300, 512, 2000)), "max_rejects": 1.0}
    plain = dlgc.compile(raw, tmp_path / "plain", **options)
    packed = dlgc.compile(raw, tmp_path / "packed", packing=packing, **options)

    assert packed.manifest is not None
    assert packed.manifest["ledger"] == dlgc.manifest(tmp_path / "plain")["ledger"]
    assert packed.examples == plain.rows
    for split, size in packed.manifest["splits"].items():
        assert counted(tmp_path / "packed", split) == counted(tmp_path / "plain", split)
        rows = rows_of(tmp_path / "packed", split)
        lengths = [len(row["input_ids"]) for row in rows]
        assert max(lengths, default=0) <= options["max_length"]
        assert (len(rows), sum(lengths)) == (size["rows"], size["tokens"])
        numbers = [number for row in rows for number in row["example"]]
        assert sorted(numbers) == list(range(size.get("examples", 0)))
        used = packed.manifest["utilisation"].get(split)
        assert used is None if not rows else used == round(sum(lengths) / len(rows) / options["max_length"], 6)
    assert dlgc.verify(tmp_path / "packed", source=raw).sound


@TRL
def test_rows_of_trl_bfd_are_those_of_trl(compiled: dict[str, Path]) -> None:
    import trl

    for split in ("train", "validation"):
        plain = dlgc.open(compiled["none"], split).select_columns(["input_ids", "labels"])
        theirs = trl.pack_dataset(plain, 512, "bfd", {"keep_in_memory": True})
        ours = dlgc.open(compiled["trl-bfd"], split).select_columns(theirs.column_names)

        assert theirs.column_names == ["input_ids", "labels", "seq_lengths"]
        assert ours[:] == theirs[:]
    assert len(plain) < TRL_ROWS < len(dlgc.open(compiled["none"], "train"))


def test_a_packed_dataset_keeps_to_its_specification(compiled: dict[str, Path], raw: Path) -> None:
    schema = json.loads((ROOT / "specs" / "manifest.schema.json").read_text(encoding="utf-8"))
    (section,) = (ROOT / "specs" / "shard.md").read_text(encoding="utf-8").split("## Packed rows")[1:]
    for packing in METHODS:
        manifest = dlgc.manifest(compiled[packing])
        Draft202012Validator(schema).validate(manifest)
        assert manifest["options"]["packing"] == packing
        for split in ("train", "validation"):
            columns = dlgc.scan(compiled[packing], split).collect_schema().names()
            assert columns[:11] == dlgc.scan(compiled["none"], split).collect_schema().names()
            assert columns[11:] == ["seq_lengths", "example"]
            assert all(f"| `{name}` |" in section for name in columns[11:])
    verdict = dlgc.verify(compiled["bfd-global"], source=raw)
    assert verdict.sound
    assert verdict.confirmation is not None
    examples = sum(size["rows"] for size in dlgc.manifest(compiled["none"])["splits"].values())
    assert (verdict.confirmation.rows, verdict.rows) == (
        examples,
        sum(size["rows"] for size in dlgc.manifest(compiled["bfd-global"])["splits"].values()),
    )


def test_the_statement_tells_examples_from_rows(compiled: dict[str, Path]) -> None:
    plain, packed = (dlgc.verify(compiled[packing]).statement for packing in ("none", "bfd"))
    certificate = dlgc.manifest(compiled["bfd"])["certificate"]
    assert plain is not None
    assert packed is not None
    targets, rest = plain.split(" in ", 1)
    rows, rest = rest.split(",", 1) if rest.count(" rows,") == 0 else rest.split(" rows,", 1)

    assert packed == f"{targets} in {rows} examples, packed in {certificate['rows']:,} rows,{rest}"
    assert certificate["examples"] == dlgc.manifest(compiled["none"])["certificate"]["rows"]


def test_any_number_of_threads_packs_the_same_bytes(raw: Path, compiled: dict[str, Path], tmp_path: Path) -> None:
    for packing in METHODS:
        for threads in (1, 3):
            out = tmp_path / f"{packing}-{threads}"
            dlgc.compile(raw, out, packing=packing, max_length=512, threads=threads)
            assert contents(out) == contents(compiled[packing])


@pytest.mark.parametrize("packing", METHODS)
def test_an_interrupted_run_goes_on_to_the_same_rows(packing: str, raw: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    options: dict[str, Any] = {"packing": packing, "max_length": 512, "shard_tokens": 30_000, "threads": 2}
    dlgc.compile(raw, whole, **options)

    class EnoughError(Exception):
        pass

    for records in (900, 1700):

        def stop(*done: int | None, records: int = records) -> None:
            if (done[2] or 0) >= records:
                raise EnoughError

        with pytest.raises(EnoughError):
            dlgc.compile(raw, out, progress=stop, **options)
        assert not (out / "manifest.json").exists()
    report = dlgc.compile(raw, out, **options)

    assert report.resumed > 1000
    assert contents(out) == contents(whole)
    assert len(list((out / "train").glob("*.arrow"))) > 1


def test_rows_of_any_length_are_not_packed(raw: Path, tmp_path: Path) -> None:
    for packing in METHODS:
        with pytest.raises(dlgc.OptionsError, match="packs rows up to `max_length`, and that is `none`\nhint: give"):
            dlgc.compile(raw, tmp_path / "out", packing=packing, max_length="none")
    assert not (tmp_path / "out").exists()


# --- repack --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["none", *METHODS])
@pytest.mark.parametrize("after", ["none", *METHODS])
def test_repacking_comes_to_what_compiling_would_have_made(
    before: str, after: str, compiled: dict[str, Path], tmp_path: Path
) -> None:
    manifest = dlgc.repack(compiled[before], tmp_path / "out", packing=after)  # type: ignore[arg-type]  # of the list

    assert contents(tmp_path / "out") == contents(compiled[after])
    assert manifest == dlgc.manifest(compiled[after])


def test_repacked_shards_end_at_their_size_and_hold_the_same_rows(compiled: dict[str, Path], tmp_path: Path) -> None:
    for packing in ("none", *METHODS):
        out = tmp_path / packing
        dlgc.repack(compiled["bfd"], out, packing=packing, shard_tokens=20_000)
        assert len(list((out / "train").glob("*.arrow"))) > 3
        for split in ("train", "validation"):
            assert rows_of(out, split) == rows_of(compiled[packing], split)
        assert dlgc.verify(out).sound


def test_repacking_refuses_what_would_lose_a_dataset(compiled: dict[str, Path], raw: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(compiled["none"], tmp_path / "shards"))
    before = contents(folder)
    for out in (folder, folder / "inside", tmp_path):
        with pytest.raises(dlgc.OptionsError, match="are not two folders beside each other"):
            dlgc.repack(folder, out, packing="bfd", overwrite=True)
    shutil.copytree(compiled["bfd"], tmp_path / "taken")
    with pytest.raises(dlgc.ShardError, match="already holds a dataset"):
        dlgc.repack(folder, tmp_path / "taken", packing="bfd")
    with pytest.raises(dlgc.ShardError, match="is no dataset"):
        dlgc.repack(tmp_path / "nothing", tmp_path / "out", packing="bfd")
    with pytest.raises(dlgc.OptionsError, match="unknown variant `wrapped`"):
        dlgc.repack(folder, tmp_path / "out", packing="wrapped")  # type: ignore[arg-type]  # that is the point
    assert contents(folder) == before
    dlgc.repack(folder, tmp_path / "taken", packing="trl-bfd", overwrite=True)
    assert contents(tmp_path / "taken") == contents(compiled["trl-bfd"])

    dlgc.compile(raw, tmp_path / "long", max_length="none")
    with pytest.raises(dlgc.OptionsError, match="and that is `none`"):
        dlgc.repack(tmp_path / "long", tmp_path / "out", packing="bfd")
    (folder / "dialogues.arrow").write_bytes(b"other")
    with pytest.raises(dlgc.ShardError, match=r"dialogues.arrow` is not what was written"):
        dlgc.repack(folder, tmp_path / "out", packing="bfd")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_an_interrupted_repacking_is_begun_anew(compiled: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    broken = Path(shutil.copytree(compiled["none"], tmp_path / "broken"))
    whole = (broken / "dialogues.arrow").read_bytes()
    (broken / "dialogues.arrow").write_bytes(b"other")
    with pytest.raises(dlgc.ShardError, match="is not what was written"):
        dlgc.repack(broken, out, packing="bfd-global")
    assert (out / ".dlgc-incomplete").exists()
    (broken / "dialogues.arrow").write_bytes(whole)
    dlgc.repack(broken, out, packing="bfd-global")
    assert contents(out) == contents(compiled["bfd-global"])


# --- verify --------------------------------------------------------------------------------------------------------


def spoil(folder: Path, name: str, change: Any) -> list[str]:  # noqa: ANN401  # a function of a column's lists
    """Changes a column of the first shard, with a digest that fits; what `verify` finds then."""
    path = folder / "train" / "data-00000.arrow"
    table = pa.ipc.open_stream(path.read_bytes()).read_all()
    at = table.schema.get_field_index(name)
    values = table.column(at).to_pylist()
    change(values)
    table = table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table)
    found = dlgc.verify(folder)
    return [problem["message"] for problem in found.problems if " row " in problem["place"]]


def test_what_is_wrong_with_packed_rows_is_found(compiled: dict[str, Path], tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(compiled["bfd"], tmp_path / name))

    def border(lists: list[list[int]]) -> None:
        lists[0][0] += 1
        lists[0][1] -= 1

    def total(lists: list[list[int]]) -> None:
        lists[0][0] += 1

    def twice(lists: list[list[int]]) -> None:
        lists[1][0] = lists[0][0]

    def fewer(lists: list[list[int]]) -> None:
        lists[0].pop()

    def other(lists: list[list[int]]) -> None:
        lists[3][1] ^= 1

    assert "the decoded ids do not have the text hash" in spoil(copy("border"), "seq_lengths", border)[0]
    assert "but `seq_lengths` of" in spoil(copy("total"), "seq_lengths", total)[0]
    assert "is in another row too" in spoil(copy("twice"), "example", twice)[0]
    assert "the columns of its examples have" in spoil(copy("fewer"), "line", fewer)[0]
    assert spoil(copy("hash"), "text_hash", other) == ["the decoded ids do not have the text hash of the compilation"]
    folder = copy("utilisation")
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["utilisation"]["train"] = 1.0
    path.write_text(json.dumps(manifest), encoding="utf-8")
    assert "the utilisation of `train` is said to be" in dlgc.verify(folder).problems[0]["message"]
    manifest["options"]["packing"] = "none"
    path.write_text(json.dumps(manifest), encoding="utf-8")
    assert "the columns are not those of" in str(dlgc.verify(folder).problems)


def test_sources_that_changed_are_found_behind_packed_rows(
    compiled: dict[str, Path], raw: Path, tmp_path: Path
) -> None:
    lines = raw.read_text(encoding="utf-8").splitlines()
    lines[5] = lines[5].replace("5.0 ", "9.9 ", 1)
    changed = tmp_path / "raw.jsonl"
    changed.write_text("\n".join(lines), encoding="utf-8")
    verdict = dlgc.verify(compiled["bfd-global"], source=changed)

    assert verdict.confirmation is not None
    assert not verdict.sound
    assert verdict.confirmation.rows == 2299
    places = [problem["place"] for problem in verdict.confirmation.problems]
    assert f"{changed}:6" in places or f"{raw}:6" in places


# --- the command line ----------------------------------------------------------------------------------------------


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "dlgc", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_line_packs_and_packs_again_and_says_how_full_rows_are(
    compiled: dict[str, Path], raw: Path, tmp_path: Path
) -> None:
    size = dlgc.manifest(compiled["bfd"])["splits"]["train"]
    used = 100 * dlgc.manifest(compiled["bfd"])["utilisation"]["train"]
    out, again = tmp_path / "out", tmp_path / "again"

    done = run("compile", raw, "-o", out, "--packing", "bfd", "--max-length", "512")
    assert done.returncode == 0, done.stderr
    assert "packed            2,300 examples, 99." in done.stderr
    assert contents(out) == contents(compiled["bfd"])

    done = run("repack", out, "-o", again, "--packing", "trl-bfd")
    assert done.returncode == 0, done.stderr
    assert "trl-bfd: " in done.stderr
    assert contents(again) == contents(compiled["trl-bfd"])

    said = f"bfd: {size['examples']:,} examples, {used:.1f} % of 512 tokens a row used"
    assert said in run("stats", out).stdout
    done = run("repack", out, "-o", again, "--packing", "bfd")
    assert (done.returncode, "`--overwrite` replaces it" in done.stderr) == (2, True)


# --- training ------------------------------------------------------------------------------------------------------


@pytest.mark.train
@TRL
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_rows_train_as_their_examples_do(attention: str, tmp_path: Path) -> None:
    import torch

    from dlgc.train import Options
    from dlgc.train.data import Shards
    from dlgc.train.model import write_builtin
    from dlgc.train.run import prepare

    raw = write(tmp_path / "raw.jsonl", 24, 1)
    dlgc.compile(raw, tmp_path / "none", tokenizer="builtin", max_length=512)
    for packing in METHODS:
        dlgc.repack(tmp_path / "none", tmp_path / packing, packing=packing)
    model = tmp_path / "tiny"
    shutil.copytree(tmp_path / "none" / "tokenizer", model)
    write_builtin(model, Shards.open(tmp_path / "none"), seed=0)

    def found(packing: str, *, apart: bool = True) -> tuple[float, torch.Tensor]:
        given = {"data_path": tmp_path / packing, "model": model, "output_dir": tmp_path / "out", "full": True}
        settings = {"attn_implementation": attention, "gradient_checkpointing": False, "bf16": False, "use_cpu": True}
        job = prepare(Options.of({**given, **settings}))
        rows = [job.trainer.train_dataset[at] for at in range(len(job.trainer.train_dataset))]
        job.trainer.data_collator.padding_free &= apart
        batch = job.trainer.data_collator(rows)
        assert ("attention_mask" in batch) == (packing == "none" or not apart)
        assert job.trainer.args.model_init_kwargs["attn_implementation"] == attention
        job.trainer.model.train()
        loss = job.trainer.compute_loss(job.trainer.model, dict(batch))
        loss.backward()
        gradient = [parameter.grad.flatten() for parameter in job.trainer.model.parameters()]
        return float(loss.detach()), torch.cat(gradient)

    loss, gradient = found("none")
    for packing in METHODS:
        packed_loss, packed_gradient = found(packing)
        assert packed_loss == pytest.approx(loss, rel=1e-6)
        assert float((packed_gradient - gradient).norm() / gradient.norm()) < 1e-5
    together_loss, together = found("bfd", apart=False)
    assert together_loss == pytest.approx(loss, rel=0.05)  # looks as it should
    assert float((together - gradient).norm() / gradient.norm()) > 0.05


@pytest.mark.train
@TRL
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning")
def test_packed_rows_without_their_borders_are_not_trained(compiled: dict[str, Path], tmp_path: Path) -> None:
    from dlgc.train import Options
    from dlgc.train.run import prepare

    folder = Path(shutil.copytree(compiled["bfd"], tmp_path / "shards"))
    for path in (folder / "train").glob("*.arrow"):
        table = pa.ipc.open_stream(path.read_bytes()).read_all().drop_columns(["seq_lengths"])
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table)

    with pytest.raises(dlgc.ShardError, match="is packed, but its rows have no `seq_lengths`"):
        prepare(Options.of({"data_path": folder, "model": None, "output_dir": tmp_path / "out"}))
