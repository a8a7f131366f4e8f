"""Takes every set of the material beside the checkout through the importers, and writes `specs/real-sets.md`.

Records in, imported, excluded, compiled, rejected by code; for each set and code a count, excerpts, and whether the
rejection is right. A code without a verdict below fails the run, and so does a ledger that does not close.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import dlgc
from dlgc import _dlgc

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
TARGET = ROOT / "specs" / "real-sets.md"
NOT_QUOTED = {"smile": "a sensitive subject"}
# Much of this set is offensive: other records than the first ones.
CHOSEN = {"hh-rlhf": (429, 549, 1065)}
PROMPTS = "right: questions that nobody answers; there is nothing to train"
PAIRS = "right for supervised fine-tuning: `dlgc convert --preferences` takes all of them"
NO_CALLS = "the results are missing in the set, or the dialogue ends before them; the turns around are sound"

PLACE = re.compile(r"(?P<file>.+?)(?::(?P<line>\d+)|\[(?P<element>\d+)\])( .*)?")
RENDERER = _dlgc.Renderer(dlgc.CompileOptions(max_length="none").to_json())

# Whether a rejection or a warning is right, by set and code; `*` is any set.
VERDICTS = {
    ("bfcl", "no-assistant"): (
        "right: 240 questions that no function fits, and 16 (`live_relevance`) that one fits but whose answer the set "
        "does not have"
    ),
    ("bfcl", "tools-change"): (
        "right: a template shows all tools at the start, so the model would be shown one early; of about half of these "
        "records the turns before the change could be kept by hand"
    ),
    ("byu-chitchat", "no-assistant"): "right: only one person wrote; nobody answered",
    ("fastchat", "no-assistant"): (
        PROMPTS + " in this file; of 30 the answers lie in `gpt-4.jsonl`, and are compiled from there with the question"
    ),
    ("hh-rlhf", "preference-record"): PAIRS,
    ("llamafactory", "preference-record"): (
        PAIRS + "; 300 are pairs, and 300 single answers with a verdict, of which half are good and could be trained"
    ),
    ("llamafactory", "orphan-tool-result"): (
        "right: the result stands there, and its call only as prose in the answer before it, in no shape to be trained"
    ),
    ("tau-bench", "orphan-tool-result"): (
        "right: these are examples as text for a prompt (`few_shot_data`); the text shows results, but of the calls "
        "only the word `None`, or nothing"
    ),
    ("toolbench", "empty-dialogue"): "right: the search found no answer, and has no messages",
    ("xstest", "no-assistant"): PROMPTS + "; nearly the same questions with GPT-4's answers are compiled",
    ("*", "roles-assumed"): "right: the set names two people, and neither is the assistant",
    ("*", "unanswered-tool-call"): NO_CALLS,
    ("*", "state-not-trained"): "right: states are trained with `--state` only, and stay in the dialogues' columns",
    ("*", "undeclared-call"): (
        "right: the set's own tools do not have what the call gives; the model would learn to call what its prompt "
        "does not show"
    ),
    ("*", "empty-turn"): "right: the message is empty in the set, and would train an answer that says nothing",
    ("*", "unknown-field"): "right: the field is of the set's own, and does not decide what is trained",
    ("api-bank", "empty-file"): "right: one of the 214 files is empty in the set",
}


def main() -> None:
    if not DATA.is_dir():
        sys.exit("skipped: the real sets (../shared) are not here")
    rows: list[str] = []
    details: list[str] = []
    warnings: list[str] = []
    failed: list[str] = []
    for folder in sorted(path for path in DATA.iterdir() if path.is_dir()):
        report = dlgc.check(folder, max_length="none", max_rejects=1.0)
        rows.append(row(folder.name, report))
        failed += [f"{folder.name}: {line}" for line in open_lines(report.ledger)]
        for code, tally in sorted(report.diagnostics.items()):
            if tally["severity"] == "note":
                continue
            verdict = VERDICTS.get((folder.name, code)) or VERDICTS.get(("*", code))
            if verdict is None:
                failed.append(f"{folder.name}: no verdict on {code}: {tally['examples'][0]['rendered']}")
            (details if tally["severity"] == "error" else warnings).append(
                detail(folder.name, code, tally, verdict or "?")
            )
        print(rows[-1], flush=True)
    if failed:
        sys.exit("failed: " + "\n".join(failed))
    parts = [HEAD + "\n".join(rows), "## Rejections", "\n".join(details), "## Warnings", "\n".join(warnings)]
    TARGET.write_text("\n\n".join(parts), encoding="utf-8")
    print(f"{TARGET} written")


def row(name: str, report: dlgc.Report) -> str:
    """One line of the table."""
    records, dialogues, turns = (report.ledger[key] for key in ("records", "dialogues", "turns"))
    errors = {code: tally["count"] for code, tally in report.diagnostics.items() if tally["severity"] == "error"}
    formats = ", ".join(sorted(report.formats))
    counts = [records["read"], records["imported"], records["excluded"], records["rejected"]]
    counts += [dialogues["imported"], dialogues["compiled"], turns["trained"], sum(turns["untrained"].values())]
    cells = " | ".join(f"{count:,}" for count in counts)
    return f"| {name} | {formats} | {cells} | {', '.join(errors) or 'none'} |"


def open_lines(ledger: dict[str, Any]) -> list[str]:
    """Lines of the ledger that do not close."""
    records, dialogues, turns = (ledger[key] for key in ("records", "dialogues", "turns"))
    closes = {
        "records": records["read"] == records["imported"] + records["excluded"] + records["rejected"],
        "dialogues": dialogues["imported"] == dialogues["excluded"] + dialogues["compiled"] + dialogues["rejected"],
        "turns": turns["total"] == turns["trained"] + sum(turns["untrained"].values()),
    }
    return [f"the line of {name} is open" for name, closed in closes.items() if not closed]


def detail(name: str, code: str, tally: dict[str, Any], verdict: str) -> str:
    """What was rejected, three excerpts, and the verdict."""
    lines = [f"### {name}: `{code}`, {tally['count']:,} findings", "", f"{verdict[0].upper()}{verdict[1:]}.", ""]
    examples = tally["examples"]
    if name in CHOSEN:
        found = [example["location"].rpartition(":")[0] for example in examples]
        examples = [{**examples[0], "path": "$", "location": f"{found[0]}:{number}"} for number in CHOSEN[name]]
    for example in examples:
        place = example["location"].removeprefix(f"{DATA}/")
        if name in NOT_QUOTED:
            lines.append(f"- `{place}` `{example['path']}` (not quoted: {NOT_QUOTED[name]})")
        else:
            lines.append(f"- `{place}` `{example['path']}`: {excerpt(example)}")
    return "\n".join(lines) + "\n"


def excerpt(example: dict[str, Any]) -> str:
    """What the record says at the place of a finding, or its beginning where the finding is of the whole."""
    found = PLACE.fullmatch(example["location"])
    if found is None:
        return json.dumps(example["message"])
    record = json.loads(RENDERER.render_file(found["file"], int(found["line"] or found["element"])))["record"]
    start = 0
    if example["path"] != "$" and example["range"]:
        start = max(0, len(record.encode()[: example["range"]["start"]].decode(errors="ignore")) - 60)
    text = " ".join(record[start : start + 260].split())[:200]
    return f"`{text.replace('`', chr(39))}`"


HEAD = """\
# Real sets through the importers

Written by `python scripts/real_sets.py`: every set of real dialogues that the project has, as `dlgc check` takes it
(built-in tokenizer, no limit of length). *Excluded* are schemas, answer keys, ontologies and lists of tools or of sets;
the importers read what they need of them. A record may hold several dialogues (a tree of replies), and a file may be
one record (a dialogue or a tree in pieces, an object of values by slot). *Untrained* turns are those that an earlier
dialogue of the same tree trains, or that their record excludes. Each verdict was read again beside the originals;
findings are counted, of which a record may have several.

| set | formats | records | imported | excluded | rejected | dialogues | compiled | trained turns | untrained | codes |
| --- | --- | --: | --: | --: | --: | --: | --: | --: | --: | --- |
"""


if __name__ == "__main__":
    main()
