"""The command line: `dlgc compile | check | convert | show | stats | verify | verify-tokenizer | repack`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import signal
import sys
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_args, get_type_hints

import dlgc
from dlgc import _dlgc, options, terminal
from dlgc.progress import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EPILOG = """\
examples:
  dlgc compile raw/ -o shards/ --tokenizer models/qwen3      chats to training rows, with the model's own template
  dlgc check raw/                                            what is wrong with the data, and where
  dlgc show raw/chats.jsonl:17 --tokenizer models/qwen3      one dialogue, token by token: what would be trained
  dlgc show raw/chats.jsonl:17 --against trl                 the same beside what TRL itself would train
  dlgc convert raw/ -o chats.jsonl --to openai               any known format to one
  dlgc compile raw/ -o shards/ --where "reward = 1" --split validation=0.05
  dlgc compile pairs/ -o shards/ --rows preference           better and worse answers to rows for DPO
  dlgc repack shards/ -o packed/ --packing bfd               the same examples in fuller rows, without tokenising
  dlgc stats shards/                                         one screen of tables
  dlgc verify shards/                                        is this dataset what it was when it was compiled?
  dlgc verify shards/ --source raw/                          does every row come out of the sources again?
  dlgc verify shards/ --tokenizer models/served              would this model be shown what it was trained on?
  dlgc verify-tokenizer models/qwen3                         is it encoded fast, and exactly as by the reference?
  python -m dlgc.train shards/ --model models/qwen3          fine-tune through TRL

Options may also stand in `dlgc.toml` in the current folder (`max_length = 2048`); flags win. There, too, a table
`[severity]` says what is an error, a warning or a note (`unknown-field = "error"`), and tables `[formats.NAME]`
describe formats of your own (`messages = "ticket.thread"`, `role = "author"`, `content = "body"`).
That a tokenizer is encoded as by the reference is noted, with its tables, in `$DLGC_CACHE_DIR`, or `dlgc` in the user's
cache folder, so that the next start is faster; the notes may be deleted, and an empty `DLGC_CACHE_DIR` keeps none.
Exit status: 0 clean; 1 nothing compiled, too many records rejected, a dataset not sound, or drift; 2 the run failed and
wrote nothing.
"""


PACKING = (
    "how examples share rows of up to max_length tokens: none; bfd, best fit in one pass; bfd-global, best fit over "
    "all rows; trl-bfd, exactly as TRL packs"
)


class _Parser(argparse.ArgumentParser):
    """Errors in the voice of the rest: what is wrong, then a hint."""

    def error(self, message: str) -> NoReturn:
        """Ends with status 2."""
        terminal.say(f"error: {message}\nhint: `{self.prog} --help` lists the options")
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dlgc",
        description="The dialogue compiler: raw multi-turn dialogues to training rows that are provably right.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dlgc {dlgc.__version__}")
    parser.add_argument("--explain", metavar="CODE", help="say what a diagnostic means and what to do")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands", parser_class=_Parser)

    compile_ = _command(commands, "compile", "compile dialogues into a dataset of token rows")
    _inputs(compile_)
    compile_.add_argument("-o", "--output", required=True, metavar="DIR", help="the dataset's folder")
    compile_.add_argument("--overwrite", action="store_true", help="replace a dataset that is already there")
    compile_.add_argument("--split", metavar="SHARES", help="such as validation=0.05,test=0.05 (default: all train)")
    compile_.add_argument("--stratify", metavar="SQL", help="what each split has its share of: intent, domain, …")
    compile_.add_argument(
        "--folds", type=int, metavar="K", help="number dialogues for cross-validation, in column `fold`"
    )
    compile_.add_argument("--packing", choices=get_args(options.Packing), help=PACKING + " (default: none)")
    compile_.add_argument("--shard-tokens", type=int, metavar="N", help="tokens of a shard (default: 67,108,864)")
    _rendering(compile_)
    _running(compile_)

    check = _command(commands, "check", "validate, render and tokenise, and write nothing")
    _inputs(check)
    _rendering(check)
    _running(check)

    convert = _command(commands, "convert", "write dialogues of any known format as JSON lines of one")
    _inputs(convert)
    convert.add_argument("-o", "--output", required=True, metavar="FILE", help="the file, or - for standard output")
    convert.add_argument("--to", choices=get_args(options.Format), default="native", help="default: native")
    convert.add_argument("--preferences", action="store_true", help="pairs of answers instead of dialogues")
    convert.add_argument("--overwrite", action="store_true", help="replace a file that is already there")
    convert.add_argument("--max-record-bytes", type=int, metavar="N", help="largest record that is read")
    _running(convert)

    show = _command(commands, "show", "one dialogue, token by token, with what is trained")
    show.add_argument(
        "record",
        metavar="FILE:N",
        help="line N of a file, or element N of its array, from 1; `FILE:N#K` its dialogue K, where it has several",
    )
    show.add_argument("--json", action="store_true", help="everything that is known of it, as JSON")
    show.add_argument(
        "--against",
        choices=get_args(options.Against),
        help="what TRL itself would train of it: with `assistant_only_loss`, or as `SFTConfig()` has it",
    )
    show.add_argument("--color", choices=["auto", "always", "never"], default="auto", help="default: on a terminal")
    _rendering(show)

    stats = _command(commands, "stats", "one screen of tables about a dataset")
    stats.add_argument("shards", metavar="SHARDS", help="the dataset's folder")
    stats.add_argument(
        "--rare", type=int, default=20, metavar="N", help="name intents of fewer dialogues (default: 20)"
    )

    repack = _command(commands, "repack", "put the examples of a dataset into other rows, without tokenising")
    repack.add_argument("shards", metavar="SHARDS", help="the dataset's folder")
    repack.add_argument("-o", "--output", required=True, metavar="DIR", help="the new dataset's folder")
    repack.add_argument("--packing", required=True, choices=get_args(options.Packing), help=PACKING)
    repack.add_argument("--overwrite", action="store_true", help="replace a dataset that is already there")
    repack.add_argument("--shard-tokens", type=int, default=1 << 26, metavar="N", help="default: 67,108,864")
    repack.add_argument("--json", action="store_true", help="the new manifest as JSON on standard output")

    _verify_arguments(_command(commands, "verify", "check a dataset: from itself, or against what is to serve"))
    _verify_tokenizer_arguments(
        _command(commands, "verify-tokenizer", "say which way a tokenizer's texts go, and prove it")
    )
    return parser


def _verify_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Check a dataset from itself: digests, ledger, lengths, hashes, stop tokens. With --source, compile its "
        "sources again too, and compare every row. With --tokenizer or --chat-template, check instead that they would "
        "show a model what the dataset did: the manifest's canaries, small fixed dialogues, are compiled with both and "
        "compared token by token."
    )
    parser.add_argument("shards", metavar="SHARDS", help="the dataset's folder")
    parser.add_argument("--json", action="store_true", help="the verdict as JSON")
    parser.add_argument(
        "--source", nargs="+", metavar="INPUT", help="what the dataset was made from: every row must come out again"
    )
    drift = parser.add_argument_group("drift")
    drift.add_argument("--tokenizer", metavar="DIR", help="the tokenizer that is to serve, with its own template")
    drift.add_argument("--chat-template", metavar="NAME|FILE", help="the template that is to serve")


def _verify_tokenizer_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Say whether a tokenizer is made of parts that are known, so that its texts are encoded fast, or why not, and "
        "compare what comes of texts with the reference, the tokenizers library. Exit status 2 if anything differs."
    )
    parser.add_argument("tokenizer", metavar="DIR", help="a folder with a tokenizer.json, a GGUF file, or builtin")
    parser.add_argument("--strings", type=int, default=20_000, metavar="N", help="random texts (default: %(default)s)")
    parser.add_argument("--whole", action="store_true", help="every character in every kind of place too: minutes")
    parser.add_argument("--json", action="store_true", help="the verdict as JSON")


def _command(commands: Any, name: str, purpose: str) -> argparse.ArgumentParser:  # noqa: ANN401  # argparse hides it
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=purpose, description=purpose[0].upper() + purpose[1:] + "."
    )
    return parser


def _inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="files, folders, globs, or - for standard input: JSON lines, arrays or objects keyed by id, CSV, TSV, "
        "Parquet; also in gzip, zstd, tar and zip",
    )
    group = parser.add_argument_group("what is taken")
    add = group.add_argument
    add("--where", metavar="SQL", help='dialogues that meet a condition over their metadata, such as "reward = 1"')
    add(
        "--assistant",
        metavar="SPEAKER|both",
        help="who is trained where a set names no roles (default: who speaks second)",
    )


def _rendering(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is rendered and trained")
    add = group.add_argument
    add(
        "--tokenizer",
        metavar="DIR|FILE",
        help="folder with a tokenizer.json, a GGUF file, or `builtin` (default: builtin, as a demo)",
    )
    add("--chat-template", metavar="NAME|FILE", help="a template file, or the name of one of the tokenizer's")
    add("--template-path", metavar="DIR", help="folder in which templates are found by name")
    add("--template-kwargs", metavar="JSON", help='template arguments, such as {"enable_thinking": false}')
    add("--date", metavar="YYYY-MM-DD", help="the day that templates print; the clock is never read")
    add(
        "--rows",
        choices=get_args(options.Rows),
        help="sft: sequences (default); preference: prompts with a better and a worse answer, for DPO; kto: prompts "
        "with one that is good or bad",
    )
    add("--max-length", metavar="N", help="token budget of a row, or `none` (default: 4096, or less if the model's is)")
    add(
        "--window",
        choices=get_args(options.Window),
        help="longer dialogues: cover every turn once, each with recent context (default), or lose some as others do",
    )
    add("--min-context", type=float, metavar="SHARE", help="of the budget, that each target keeps (default: 0.5)")
    add("--long-turns", choices=get_args(options.LongTurns), help="turns that fit no window (default: leave untrained)")
    add("--summary", choices=get_args(options.Summary), help="of what a window leaves out (default: auto)")
    add("--summary-place", choices=get_args(options.SummaryPlace), help="where it stands (default: system)")
    add("--summary-wording", metavar="TEXT", help="what is written around {summary}")
    add("--summary-cache", metavar="DIR", help="for `--summary cache`: what a callable has written from Python")
    add("--summary-share", type=float, metavar="SHARE", help="most of the budget for it (default: 0.25)")
    add(
        "--target",
        choices=get_args(options.Target),
        help="inference: after the prompt that a server sends (default); template: as the whole dialogue shows it",
    )
    add("--mask", choices=get_args(options.Mask), help="exact: proved targets (default); template: its own marks")
    add("--train-on", choices=get_args(options.TrainOn), help="default: all_assistant")
    add("--state", choices=get_args(options.State), help="what becomes of intent and slots (default: ignore)")
    add("--control-tokens", metavar="POLICY", help="`<|im_end|>` in content: reject (default), text or allow; by role")
    add("--max-record-bytes", type=int, metavar="N", help="largest record that is read (default: 64 MiB)")


def _running(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the run")
    group.add_argument("--threads", type=int, metavar="N", help="worker threads (default: one a core)")
    group.add_argument("--max-rejects", type=float, metavar="SHARE", help="more rejects than this fail (default: 0.01)")
    group.add_argument("--strict", action="store_true", help="no rejects, and no warnings that put the result in doubt")
    group.add_argument("--json", action="store_true", help="the report as JSON on standard output")


def _options(arguments: argparse.Namespace) -> dict[str, object]:
    """Options of `dlgc.toml`, then those of the command line."""
    names = {field.name for field in dataclasses.fields(options.CompileOptions)}
    found: dict[str, object] = {}
    config = Path("dlgc.toml")
    if config.is_file():
        try:
            found = tomllib.loads(config.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise dlgc.OptionsError(f"`dlgc.toml`: {error}") from error
        unknown = sorted(set(found) - names)
        if unknown:
            raise dlgc.OptionsError(f"`dlgc.toml`: no such option: {', '.join(unknown)}")
    flags = get_type_hints(options.CompileOptions)
    for name, value in vars(arguments).items():
        if name not in names or value is None or (flags[name] is bool and value is False):
            continue
        found[name] = value
    for name, read in READERS.items():
        value = found.get(name)
        if isinstance(value, str):
            found[name] = read(value)
    return found


def _length(text: str) -> int | str:
    if text in ("auto", "none"):
        return text
    if not text.isdigit():
        raise dlgc.OptionsError(f"`--max-length` must be a number, `auto` or `none`, found `{text}`")
    return int(text)


def _kwargs(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise dlgc.OptionsError(f"`--template-kwargs` is no JSON: {error}") from error


def _shares(text: str) -> dict[str, float]:
    """Reads `validation=0.05,test=0.05`."""
    shares = {}
    for part in text.split(","):
        name, _, share = part.partition("=")
        try:
            shares[name.strip()] = float(share)
        except ValueError:
            raise dlgc.OptionsError(
                f"`--split` takes shares by name, found `{part}`\nhint: such as validation=0.05,test=0.05"
            ) from None
    return shares


READERS: dict[str, Callable[[str], object]] = {"max_length": _length, "template_kwargs": _kwargs, "split": _shares}
"""Options that are written as text on the command line and mean something else."""


def _compile(arguments: argparse.Namespace) -> int:
    chosen = _options(arguments)
    if "tokenizer" not in chosen:
        terminal.say(
            "note: no --tokenizer: the built-in one is used, and the dataset is a demo that trains no real model"
        )
    with progress("compiling") as tick:
        report = dlgc.compile(arguments.inputs, arguments.output, progress=tick, **chosen)
    return _finish(arguments, report, str(arguments.output))


def _check(arguments: argparse.Namespace) -> int:
    with progress("checking") as tick:
        report = dlgc.check(arguments.inputs, progress=tick, **_options(arguments))
    return _finish(arguments, report, None)


def _convert(arguments: argparse.Namespace) -> int:
    chosen = _options(arguments)
    with progress("converting") as tick:
        report = dlgc.convert(
            arguments.inputs,
            arguments.output,
            to=arguments.to,
            preferences=arguments.preferences,
            progress=tick,
            **chosen,
        )
    return _finish(arguments, report, arguments.output)


def _print_json(value: object) -> None:
    # In one piece: the encoder's own are written one by one, thousands of them.
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def _finish(arguments: argparse.Namespace, report: dlgc.Report, output: str | None) -> int:
    if arguments.json:
        _print_json(dataclasses.asdict(report))
    else:
        terminal.report(report, output)
    return 1 if report.failure else 0


def _show(arguments: argparse.Namespace) -> int:
    matched = re.fullmatch(r"(.+?)(?::(\d+)|\[(\d+)\])(?:#(\d+))?", arguments.record)
    if not matched:
        raise dlgc.OptionsError(f"`{arguments.record}` names no record\nhint: `FILE:N` is line or element N, from 1")
    path, number, dialogue = matched[1], int(matched[2] or matched[3]), int(matched[4] or 1)
    chosen = _options(arguments)
    found = _dlgc.Renderer(dlgc.CompileOptions.of(chosen).to_json()).render_file(path, number, dialogue)
    if arguments.json and not arguments.against:
        sys.stdout.write(found + "\n")
        return 1 if json.loads(found)["text"] is None else 0
    try:
        rendered = dlgc.Rendered.from_json(found)
    except dlgc.RejectedError as error:
        for item in error.diagnostics:
            terminal.say(str(item["rendered"]))
        return 1
    color = terminal.use_color(arguments.color, sys.stdout)
    if rendered.dialogues > 1 and not matched[4]:
        terminal.say(f"note: the record holds {rendered.dialogues} dialogues, this is the first: `#2` shows the next")
    if not arguments.against:
        terminal.show(rendered, f"{path}:{number}", color)
        return 0
    if rendered.answers:
        raise dlgc.OptionsError("`--against` compares what is trained of a dialogue, not of preferences")
    from dlgc import against

    compared = against.compare(rendered, json.loads(json.loads(found)["record"]), arguments.against, **chosen)
    if arguments.json:
        _print_json(dataclasses.asdict(compared))
    else:
        terminal.against(compared, f"{path}:{number}", color)
    return 0


def _stats(arguments: argparse.Namespace) -> int:
    from dlgc import analysis

    sys.stdout.write(analysis.screen(arguments.shards, arguments.rare))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    if arguments.tokenizer or arguments.chat_template:
        if arguments.source:
            raise dlgc.OptionsError("`--source` confirms a dataset, `--tokenizer` tells drift: one at a time")
        return _drift(arguments)
    with progress("confirming") as tick:
        verdict = dlgc.verify(arguments.shards, source=arguments.source, progress=tick)
    if arguments.json:
        _print_json(dataclasses.asdict(verdict))
    else:
        sys.stdout.writelines(line + "\n" for line in terminal.verdict(verdict, arguments.shards))
    return 0 if verdict.sound else 1


def _verify_tokenizer(arguments: argparse.Namespace) -> int:
    verdict = dlgc.verify_tokenizer(arguments.tokenizer, strings=arguments.strings, whole=arguments.whole)
    if arguments.json:
        _print_json(dataclasses.asdict(verdict))
    else:
        sys.stdout.writelines(line + "\n" for line in terminal.tokenizer_verdict(verdict))
    return 2 if verdict.difference else 0


def _repack(arguments: argparse.Namespace) -> int:
    manifest = dlgc.repack(
        arguments.shards,
        arguments.output,
        packing=arguments.packing,
        overwrite=arguments.overwrite,
        shard_tokens=arguments.shard_tokens,
    )
    if arguments.json:
        _print_json(manifest)
    else:
        for line in terminal.splits(manifest):
            terminal.say(line)
        terminal.say(f"wrote {arguments.output}")
    return 0


def _drift(arguments: argparse.Namespace) -> int:
    drift = dlgc.drift(arguments.shards, tokenizer=arguments.tokenizer, chat_template=arguments.chat_template)
    if arguments.json:
        _print_json(dataclasses.asdict(drift))
    else:
        sys.stdout.writelines(line + "\n" for line in terminal.drift(drift, arguments.shards))
    return 1 if drift.drifted else 0


COMMANDS = {
    "compile": _compile,
    "check": _check,
    "convert": _convert,
    "show": _show,
    "stats": _stats,
    "verify": _verify,
    "verify-tokenizer": _verify_tokenizer,
    "repack": _repack,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    if parsed.explain:
        entry = _dlgc.explain(parsed.explain)
        if entry is None:
            terminal.say(f"error: there is no diagnostic `{parsed.explain}`\nhint: `specs/diagnostics.md` lists them")
            return 2
        sys.stdout.write(entry)
        return 0
    if not parsed.command:
        parser.print_help()
        return 2
    return _run(parsed)


def _interrupt(*_: object) -> NoReturn:
    """Asks the run to stop; who asks again is obeyed at once."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise KeyboardInterrupt


def _run(parsed: argparse.Namespace) -> int:
    """Runs a command; what goes wrong becomes a line and a status."""
    status = 2
    before = None
    with suppress(ValueError):  # not in the main thread: then somebody else has the signals
        before = signal.signal(signal.SIGINT, _interrupt)
    try:
        status = COMMANDS[parsed.command](parsed)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has gone; say nothing, and let the interpreter not try again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except KeyboardInterrupt:
        terminal.say("interrupted; nothing was committed (the same command goes on from the last whole shard)")
        status = 130
    except OSError as error:
        # The core's text names the file and says what the system said; Python would print the number too.
        terminal.say(f"error: {error.strerror or error}")
    except (dlgc.DlgcError, ImportError) as error:
        terminal.say(f"error: {error}")
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)
    return status


if __name__ == "__main__":
    sys.exit(main())
