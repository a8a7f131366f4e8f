"""Takes every set of the material beside the checkout through the importers, and writes `specs/real-sets.md`.

Records in, imported, excluded, compiled, rejected by code; for each set and code a count, excerpts, and whether the
rejection is right. A code without a verdict below fails the run, and so does a ledger that does not close.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import dlgc

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
TARGET = ROOT / "specs" / "real-sets.md"
NOT_QUOTED = {"smile": "a sensitive subject", "hh-rlhf": "offensive in part"}
PROMPTS = "right: questions that nobody answers; there is nothing to train"
PAIRS = (
    "right for supervised fine-tuning, which would train the rejected answers; `dlgc convert --preferences` takes them"
)

# Whether a rejection is right, by set and code.
VERDICTS = {
    ("bfcl", "no-assistant"): "right: of these questions the set has no answer (no function fits, or none is given)",
    ("bfcl", "tools-change"): "right: a template shows all tools at the start, so the model would be shown one early",
    ("byu-chitchat", "no-assistant"): "right: only one person wrote; nobody answered",
    ("fastchat", "no-assistant"): PROMPTS + "; 30 of them have answers in `gpt-4.jsonl`, which are compiled",
    ("hh-rlhf", "preference-record"): PAIRS,
    ("llamafactory", "preference-record"): PAIRS,
    ("llamafactory", "orphan-tool-result"): "right: the result stands there without the call that it answers",
    ("tau-bench", "orphan-tool-result"): "right: the text shows results, but of the calls only the word `None`",
    ("toolbench", "empty-dialogue"): "right: the search found no answer, and has no messages",
    ("xstest", "no-assistant"): PROMPTS + "; the same with GPT-4's answers are compiled",
}


def main() -> None:
    if not DATA.is_dir():
        sys.exit("skipped: the real sets (../shared) are not here")
    rows, details, failed = [], [], []
    for folder in sorted(path for path in DATA.iterdir() if path.is_dir()):
        report = dlgc.check(folder, max_length="none", max_rejects=1.0)
        rows.append(row(folder.name, report))
        failed += [f"{folder.name}: {line}" for line in open_lines(report.ledger)]
        for code, tally in sorted(report.diagnostics.items()):
            if tally["severity"] == "error":
                verdict = VERDICTS.get((folder.name, code))
                if verdict is None:
                    failed.append(f"{folder.name}: no verdict on {code}: {tally['examples'][0]['rendered']}")
                details.append(detail(folder.name, code, tally, verdict or "?"))
        print(rows[-1], flush=True)
    if failed:
        sys.exit("failed: " + "\n".join(failed))
    TARGET.write_text(HEAD + "\n".join(rows) + "\n\n## Rejections\n\n" + "\n".join(details), encoding="utf-8")
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
    for example in tally["examples"]:
        place = example["location"].removeprefix(f"{DATA}/")
        if name in NOT_QUOTED:
            lines.append(f"- `{place}` `{example['path']}` (not quoted: {NOT_QUOTED[name]})")
        else:
            lines.append(f"- `{place}` `{example['path']}`: {excerpt(example)}")
    return "\n".join(lines) + "\n"


def excerpt(example: dict[str, Any]) -> str:
    """The line of the record that is shown with a finding."""
    shown = [
        line.partition("| ")[2] for line in example["rendered"].splitlines() if line.partition("|")[0].strip().isdigit()
    ]
    return f"`{shown[0].strip().replace('`', chr(39))}`" if shown else json.dumps(example["message"])


HEAD = """\
# Real sets through the importers

Written by `python scripts/real_sets.py`: every set of real dialogues that the project has, as `dlgc check` takes it
(built-in tokenizer, no limit of length). *Excluded* are schemas, answer keys and lists of tools, which the importers
read where they are needed. A record may hold several dialogues (a tree of replies). *Untrained* turns are those that an
earlier dialogue of the same tree trains, or that their record excludes.

| set | formats | records | imported | excluded | rejected | dialogues | compiled | trained turns | untrained | codes |
| --- | --- | --: | --: | --: | --: | --: | --: | --: | --: | --- |
"""


if __name__ == "__main__":
    main()
