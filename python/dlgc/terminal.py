"""What people see: progress, reports, one dialogue token by token. Talk goes to stderr, data to stdout."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dlgc.against import Compared, Piece
    from dlgc.api import Confirmation, Drift, Rendered, RenderedAnswers, RenderedRow, Report, TokenizerVerdict, Verdict

GREEN, RED, YELLOW, CYAN, BOLD, DIM, RESET = (f"\033[{code}m" for code in ("32", "31", "33", "36", "1", "2", "0"))
IGNORED = -100
TOO_MUCH = 3.0
"""Amplification above which a user is warned."""
RANK = {"error": 0, "warning": 1, "note": 2}
MOST_EXAMPLES = 9
"""On a page."""
EDGES = {"=": (GREEN, "[[", "]]"), "+": (RED, "{+", "+}"), "-": (RED, "{-", "-}")}
"""Around what is trained: by all who are asked, only by another, only by dlgc; in colour, and without."""
MARK = "▶"
"""Before the first token in which two answers differ."""


def talk(text: str) -> None:
    """Writes talk; where nobody listens any more, the work goes on."""
    with suppress(BrokenPipeError):
        sys.stderr.write(text)
        sys.stderr.flush()


def say(text: str) -> None:
    """Writes a line of talk."""
    talk(text.rstrip("\n") + "\n")


def use_color(choice: str, stream: TextIO) -> bool:
    """Whether to colour: as asked, else on a terminal, unless `NO_COLOR` is set."""
    if choice == "auto":
        return stream.isatty() and "NO_COLOR" not in os.environ
    return choice == "always"


def tokenizer_verdict(verdict: TokenizerVerdict) -> list[str]:
    """Returns which way a tokenizer's texts go, and what was compared."""
    if verdict.fast is None:
        return [f"by the reference: {verdict.why}"]
    lines = [f"by the fast path: {verdict.fast}"]
    if verdict.difference is None:
        return [*lines, f"{verdict.same:,} texts came out as by the reference: ids, places and text"]
    difference = verdict.difference
    lines += [f"different: {difference['text']!r}", f"  fast path: {difference['fast']}"]
    return [*lines, f"  reference: {difference['reference']}"]


def report(report: Report, output: str | None) -> None:
    """Writes the closing summary: examples of what was found, worst first, then counts of all, then the ledger.

    However much is wrong, it is one page: every code has its count and the places of three, and the worst are shown.
    """
    color = use_color("auto", sys.stderr)
    found = sorted(report.diagnostics.items(), key=lambda item: (RANK[item[1]["severity"]], -item[1]["count"], item[0]))
    shown = _examples(found)
    for code, tally in found:
        for example in tally["examples"][: shown[code]]:
            talk(_painted(example["rendered"], tally["severity"], color) + "\n")
    if any(tally["count"] > shown[code] for code, tally in found):
        for line in _counts(found, shown):
            say(line)
    for path, reason in report.skipped[:10]:
        say(f"skipped {path}: {reason}")
    if len(report.skipped) > 10:  # noqa: PLR2004  # a page of names helps nobody
        say(f"and {len(report.skipped) - 10:,} more files were skipped")
    for line in summary(report, output):
        say(line)
    difference = (report.encoding or {}).get("difference")
    if difference:
        say(f"began again with the reference tokenizer: the fast one erred on {difference['text']!r}; please report it")
    if report.failure:
        say(f"{RED if color else ''}failed:{RESET if color else ''} {report.failure}")


def _examples(found: list[tuple[str, dict[str, Any]]]) -> dict[str, int]:
    """Says how many examples of each code fit on the page: one of each first, then a second and a third.

    The places of those that do not fit stand beside the count.
    """
    shown = dict.fromkeys((code for code, _ in found), 0)
    left = MOST_EXAMPLES
    for number in range(1, 4):
        for code, tally in found:
            if tally["severity"] != "note" and left and len(tally["examples"]) >= number:
                shown[code] = number
                left -= 1
    return shown


def _counts(found: list[tuple[str, dict[str, Any]]], shown: dict[str, int]) -> list[str]:
    width = max(len(code) for code, _ in found)
    lines = []
    for code, tally in found:
        places = [PurePath(example["location"]).name for example in tally["examples"][shown[code] :]]
        more = tally["count"] - shown[code] - len(places)
        parts = [f"{shown[code]} above"] if shown[code] else []
        parts += ["also " * bool(parts) + ", ".join(places)] if places else []
        parts += [f"{more:,} more"] if more else []
        where = "   " + "; ".join(parts) if tally["count"] > shown[code] else ""
        lines.append(f"{tally['severity']:<8} {code:<{width}} {tally['count']:>12,}{where}".rstrip())
    return [*lines, "(`dlgc --explain CODE` says what a finding means and what to do)", ""]


def _painted(text: str, severity: str, color: bool) -> str:  # noqa: FBT001  # private, and named at its one caller
    if not color:
        return text
    head, _, rest = text.partition("\n")
    return f"{BOLD}{RED if severity == 'error' else YELLOW}{head}{RESET}\n{rest}"


def summary(report: Report, output: str | None) -> list[str]:
    """Returns the closing lines: what was read, what it became, what was lost and why."""
    records, dialogues, turns = (report.ledger[name] for name in ("records", "dialogues", "turns"))
    formats = ", ".join(f"{count:,} {name}" for name, count in sorted(report.formats.items()))
    untrained = sum(turns["untrained"].values())
    kinds = f"   ({formats})" if formats else ""
    lines = [f"went on from {report.resumed:,} records of an interrupted run"] if report.resumed else []
    lines += [
        _line("records", records["read"], "read", records, ("imported", "excluded", "rejected")) + kinds,
        _line("dialogues", dialogues["imported"], "imported", dialogues, _dialogue_parts(dialogues)),
    ]
    if not report.certificate:
        return [*lines, f"wrote {output}"] if output else lines
    lines.append(_line("turns", turns["total"], "in all", {**turns, "untrained": untrained}, ("trained", "untrained")))
    lines.extend(f"           {count:>12,} untrained: {reason}" for reason, count in sorted(turns["untrained"].items()))
    if report.ledger["faults"]:
        lines.append(f"files      {report.ledger['faults']:>12,} could not be read to their end")
    share = 100 * report.trained_tokens / report.tokens if report.tokens else 0.0
    trained = f"{report.trained_tokens:,} trained ({share:.1f} %)"
    lines.append(f"tokens     {report.tokens:>12,} in {report.rows:,} rows, {trained}")
    if report.utilisation is not None:
        lines.append(
            f"packed     {report.examples:>12,} examples, {100 * report.utilisation:.1f} % of the room is used"
        )
    amplification = report.tokens / report.source_tokens if report.source_tokens else 1.0
    if amplification > 1:
        lines.append(
            f"amplified  {amplification:>11.1f}x {report.source_tokens:,} tokens of dialogues, shown again as prompts"
        )
    lines.extend(answers(report.answers))
    lines.extend(_windows(report.windows))
    if amplification > TOO_MUCH:
        lines.append(
            "           this template changes history, or windows are narrow, so turns need rows of their own; "
            "`--train-on last_turn`, a template whose prompts nest, or a smaller `--min-context` costs less"
        )
    if report.manifest:
        length = report.manifest["max_length"]
        lines.append(f"max_length {length if length is not None else 'none':>12}")
    if output and report.manifest:
        lines.append(f"wrote {output}" + (" (demo: built-in tokenizer)" if report.manifest["demo"] else ""))
        if report.statement:
            lines.append(report.statement)
        if report.rejected:
            lines.append(f"rejected records are in {output.rstrip('/')}/rejects, byte for byte, with the reasons")
    return lines


def _windows(counts: dict[str, int]) -> list[str]:
    if not counts["windows"]:
        return []
    of = f"{counts['windows']:>12,} of {counts['dialogues']:,} dialogues that are longer than max_length"
    parts = []
    if counts["history"]:
        parts.append(f"each turn sees {100 * counts['shown'] / counts['history']:.0f} % of the messages before it")
    if counts["summaries"]:
        parts.append(f"{counts['summaries']:,} summaries of {counts['summary_tokens']:,} tokens")
    if counts["short"]:
        parts.append(f"{counts['short']:,} begin with less context than asked for")
    return [f"windows    {of}", *(f"           {part}" for part in parts)]


def answers(lengths: dict[str, Any] | None) -> list[str]:
    """Returns how long the answers of both sides are: who is shown longer ones as the better learns to write more."""
    if not lengths:
        return []
    lines = []
    for name in ("chosen", "rejected"):
        side = lengths[name]
        tokens = f"{side['mean']:,.1f} trained tokens on average, median {side['median']:,.1f}"
        lines.append(f"{name:<10} {side['answers']:>12,} answers of {tokens}")
    longer, shorter = lengths["chosen_longer"], lengths["chosen_shorter"]
    if longer is not None:
        pairs = f"longer in {100 * longer:.1f} % of the pairs, shorter in {100 * shorter:.1f} %"
        lines.append(f"           chosen is {pairs}")
    return lines


def splits(manifest: dict[str, Any]) -> list[str]:
    """Returns a line on each split: how much there is, and how full packed rows are."""
    lines = []
    for split, size in manifest["splits"].items():
        line = f"{split} {size['rows']:,} rows, {size['tokens']:,} tokens, {size['trained_tokens']:,} trained"
        if used := manifest.get("utilisation", {}).get(split):
            packing, room = manifest["options"]["packing"], manifest["max_length"]
            line += f"; {packing}: {size['examples']:,} examples, {100 * used:.1f} % of {room:,} tokens a row used"
        lines.append(line)
    return lines


def _dialogue_parts(dialogues: dict[str, int]) -> tuple[str, ...]:
    excluded = ("excluded",) if dialogues["excluded"] else ()
    return ("compiled", *excluded, "rejected")


def _line(name: str, total: int, verb: str, counts: dict[str, int], parts: tuple[str, ...]) -> str:
    shown = " + ".join(f"{counts[part]:,} {part}" for part in parts)
    return f"{name:<10} {total:>12,} {verb:<9} = {shown}"


def verdict(found: Verdict, shards: str) -> list[str]:
    """Returns what is wrong with a dataset, what is certified of it, and how much of that is confirmed."""
    lines = _problems(found)
    count = len(found.problems) + found.unlisted
    state = "sound" if count == 0 else f"not sound: {count:,} problem(s)"
    stops = f", {found.targets:,} targets that end in their stop" if found.targets else ""
    lines.append(f"{shards} is {state} ({found.files} files, {found.rows:,} rows{stops})")
    again = found.confirmation
    if again is None:
        if found.statement and not count:
            lines.append(found.statement)
            lines.append("confirmed from the shards: counts, ids, hashes, stops by id; the prompts only with --source")
        return lines
    lines.extend(_problems(again))
    lines.extend(f"note: {note}" for note in again.notes)
    said = f"{again.files:,} input(s) are what they were, {again.rows:,} rows came out again"
    if again.confirmed:
        lines.append(said)
        lines.append(f"{again.statement or 'nothing is trained'}: confirmed from the source")
    else:
        lines.append(f"not confirmed from the source: {len(again.problems) + again.unlisted:,} problem(s) ({said})")
    return lines


def _problems(found: Verdict | Confirmation) -> list[str]:
    lines = [f"{problem['place']}: {problem['message']}" for problem in found.problems]
    return [*lines, f"and {found.unlisted:,} more"] if found.unlisted else lines


def drift(found: Drift, shards: str) -> list[str]:
    """Returns what drifted, like differences together, and a verdict at the end."""
    alike: dict[str, list[dict[str, Any]]] = {}
    for canary in found.canaries:
        if difference := canary["difference"]:
            key = str((difference["kind"], difference["was"] or difference["rendered"], difference["now"]))
            alike.setdefault(key, []).append(canary)
    lines = []
    for first, *others in alike.values():
        lines.append(first["difference"]["rendered"].rstrip("\n"))
        if others:
            lines.append(f"so too: {_listed([canary['name'] for canary in others])}")
        lines.append("")
    for change in found.changes:
        parts = [f"{_listed(change[which])} {which}" for which in ("gone", "new") if change[which]]
        lines.append(f"drift[{change['name']}]: {'; '.join(parts)}")
    lines.extend(f"note: {note}" for note in found.notes)
    same = [canary["name"] for canary in found.canaries if not canary["difference"]]
    if alike and same:
        lines.append(f"the same: {', '.join(f'`{name}`' for name in same)}")
    verdict = "drifted" if found.drifted else "no drift"
    lines.append(f"{shards}: {verdict} ({len(same)} of {len(found.canaries)} canaries are the same, token by token)")
    return lines


def _listed(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(f"`{name}`" for name in names[:most]) + more


def show(rendered: Rendered, name: str, color: bool) -> None:  # noqa: FBT001  # private to the command line
    """Writes one dialogue token by token.

    Tokens are separated by a bar; what is trained is green, or stands in [[ ]] without colour. A line break inside a
    token is written as the sign for it; characters that take several tokens are followed by their number.
    """
    write = sys.stdout.write
    if rendered.answers:
        _answers(rendered, rendered.answers, name, color)
        return
    for number, row in enumerate(rendered.rows, start=1):
        trained = sum(label != IGNORED for label in row.labels)
        which = f", row {number} of {len(rendered.rows)}" if len(rendered.rows) > 1 else ""
        which += f", window {row.window + 1} of {len(rendered.windows)}" if len(rendered.windows) > 1 else ""
        write(f"{name}{which}: {len(row.input_ids):,} tokens, {trained:,} trained")
        write(" (green)\n\n" if color else ", in [[ ]]\n\n")
        _show_row(((piece, "=" if trained else "") for piece, trained in _pieces(row)), color)
    for turn in rendered.turns:
        if "code" in turn:
            write(f"\nmessage {turn['message']} is not trained: {turn['code']}: {turn['reason']}\n")
    _warnings(rendered)


def _warnings(rendered: Rendered) -> None:
    findings = [item for item in rendered.diagnostics if item["severity"] == "warning"]
    for item in findings:
        sys.stdout.write(f"\n{item['severity']}[{item['code']}]: {item['message']}\n")


def _answers(rendered: Rendered, answers: RenderedAnswers, name: str, color: bool) -> None:  # noqa: FBT001  # private
    """Writes a prompt once, then each answer; of a pair a sign stands before the first token that differs."""
    write, prompt = sys.stdout.write, answers.prompt
    same = ", the same for both answers" if len(answers.names) > 1 else ""
    write(f"{name}: a prompt of {prompt:,} tokens{same}\n\n")
    _show_row(((piece, "") for piece, _ in _pieces(rendered.rows[0], range(prompt))), color)
    verdict = {None: "", True: " (good)", False: " (bad)"}[answers.label]
    marked, parts = None, ""
    if answers.divergence is not None:
        marked = prompt + answers.divergence
        parts = f"; parts from the other answer at {MARK}, token {answers.divergence:,}"
    for number, (side, row) in enumerate(zip(answers.names, rendered.rows, strict=True)):
        tokens = range(prompt, len(row.input_ids))
        trained = sum(label != IGNORED for label in row.labels)
        shown = " (green)" if color else ", in [[ ]]"
        write("\n" if number else "")
        write(f"{side}{verdict}: {len(tokens):,} tokens, {trained:,} trained{shown}{parts}\n\n")
        _show_row(((piece, "=" if trained else "") for piece, trained in _pieces(row, tokens, marked)), color)
    _warnings(rendered)


def against(compared: Compared, name: str, color: bool) -> None:  # noqa: FBT001  # private to the command line
    """Writes TRL's row token by token with the targets of dlgc's rows, then what becomes of each turn, and why."""
    write, theirs = sys.stdout.write, compared.theirs
    limit = "none" if theirs.max_length is None else theirs.max_length
    twin = ", its own training template" if theirs.twin else ""
    write(f"{name}\n\n{_side('dlgc', compared.rows, compared.tokens, compared.trained)}\n")
    write(_side(f"TRL {theirs.version}", int(theirs.kept > 0), theirs.kept, theirs.trained))
    write(f"; assistant_only_loss={theirs.assistant_only}, max_length={limit}{twin}\n")
    if theirs.failed is not None:
        write(f"\nTRL makes no row of this dialogue:\n{theirs.failed}\n")
        return
    if theirs.refused is not None:
        write("\nTRL refuses assistant_only_loss=True, so its default is shown, loss on every token:\n")
        write(f"{theirs.refused}\n\n")
    for text in theirs.warned:
        write(f"\nTRL warns: {text}\n\n")
    _row_against(compared, color)
    for turn in compared.turns:
        write(f"message {turn.message:<3} TRL trains {turn.both} of its {turn.tokens} tokens\n")
        if turn.prompts:
            ours, other = (text.replace("\n", "⏎") for text in turn.prompts)
            has = f"has `{other}`" if ours != other else "has the same as other tokens"
            write(f"            after another text: a server sends `{ours}`, TRL's row {has}\n")
    _differences(compared, color)
    for note in compared.notes:
        write(f"note: {note}\n")


def _side(name: str, rows: int, tokens: int, trained: int) -> str:
    return f"{name:<11} {rows:>2} {'row' if rows == 1 else 'rows'}, {tokens:,} tokens, {trained:,} trained"


def _row_against(compared: Compared, color: bool) -> None:  # noqa: FBT001  # private
    write, theirs = sys.stdout.write, compared.theirs
    words = {"=": "green", "+": "red +", "-": "red -"}
    both, plus, minus = (
        f"{paint}{words[sign]}{RESET}" if color else f"{left} {right}" for sign, (paint, left, right) in EDGES.items()
    )
    write(f"trained by both {both}, only by TRL {plus}, only by dlgc {minus}\n\n")
    shown = [(_numbered(piece.text, piece.tokens), _sign(piece)) for piece in compared.pieces]
    places = [-1 if piece.place is None else piece.place for piece in compared.pieces]
    cut = next((at for at, place in enumerate(places) if place >= theirs.kept), len(shown))
    if shown[:cut]:
        _show_row(shown[:cut], color)
    if shown[cut:]:
        why = "the rest is cut off" if theirs.kept else "nothing that is trained is left, so TRL drops the dialogue"
        write(f"--- max_length={theirs.max_length}: {why} ---\n")
        _show_row(shown[cut:], color)
    write("" if shown[-1][0].endswith("\n") else "\n")


def _sign(piece: Piece) -> str:
    if piece.ours == piece.theirs:
        return "=" if piece.ours else ""
    return "-" if piece.ours else "+"


def _differences(compared: Compared, color: bool) -> None:  # noqa: FBT001  # private
    from dlgc.against import REASONS

    write = sys.stdout.write
    only = {"+": 0, "-": 0, "~": 0}
    write("\n")
    for found in compared.differences:
        only[found.sign] += found.tokens
        where = f" ({'message' if len(found.messages) == 1 else 'messages'} {', '.join(map(str, found.messages))})"
        line = f"{found.sign} {found.tokens:>6,}  {REASONS[found.reason][1]}{where if found.messages else ''}"
        write(f"{RED if color else ''}{line}{RESET if color else ''}\n")
    if not compared.differences:
        write("no difference: the same tokens are trained, after the same prompts\n")
    both = compared.trained - only["-"]
    write(f"tokens trained by both {both:,}, only by TRL {only['+']:,}, only by dlgc {only['-']:,}\n")


def _show_row(pieces: Iterable[tuple[str, str]], color: bool) -> None:  # noqa: FBT001  # private
    """Writes text by text, each with the sign of its edges, or none; then an empty line."""
    written: list[str] = []
    inside, ended = "", False
    for piece, sign in pieces:
        paint = EDGES[inside][0] if color and inside else ""
        if sign != inside:
            written += [_edge(inside, color, opens=False), "\n" * ended, _edge(sign, color, opens=True)]
        elif ended:
            written += [RESET if paint else "", "\n", paint]
        elif written:
            written.append(f"{DIM}|{RESET}{paint}" if color else "|")
        inside, ended = sign, piece.endswith("\n")
        written.append(piece.replace("\n", "⏎"))
    sys.stdout.write("".join([*written, _edge(inside, color, opens=False), "\n" * ended, "\n"]))


def _edge(sign: str, color: bool, *, opens: bool) -> str:  # noqa: FBT001  # private
    if not sign:
        return ""
    paint, left, right = EDGES[sign]
    if not color:
        return left if opens else right
    named = "" if sign == "=" else f"{BOLD}{sign}{RESET}{paint}"
    return f"{paint}{named}" if opens else RESET


def _pieces(row: RenderedRow, tokens: range | None = None, marked: int | None = None) -> Iterator[tuple[str, bool]]:
    """Yields tokens as text; tokens that share characters come as one, with their number; a sign stands before one."""
    text = row.text.encode()
    tokens = range(len(row.offsets)) if tokens is None else tokens
    index = tokens.start
    while index < tokens.stop:
        start, end = row.offsets[index]
        last = index
        while last + 1 < tokens.stop and row.offsets[last + 1][0] < end:
            last += 1
            end = max(end, row.offsets[last][1])
        piece = text[start:end].decode("utf-8", "replace")
        mark = MARK if marked is not None and index <= marked <= last else ""
        yield mark + _numbered(piece, last - index + 1), row.labels[index] != IGNORED
        index = last + 1


def _numbered(piece: str, tokens: int) -> str:
    return f"{piece}×{tokens}" if tokens > 1 else piece  # noqa: RUF001  # a sign
