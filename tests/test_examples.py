"""The example dialogues: many, each its own, all compiled, and every case of the guide among them."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import dlgc

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "examples" / "dialogues"
DIALOGUES: list[dict[str, Any]] = [
    json.loads(line)
    for path in sorted(FOLDER.glob("*.jsonl"))
    for line in path.read_text(encoding="utf-8").splitlines()
]
LARGEST_OVERLAP = 0.3


def identifier(dialogue: dict[str, Any]) -> str:
    return str(dialogue["id"])


def assistant_messages(dialogue: dict[str, Any]) -> list[dict[str, Any]]:
    return [message for message in dialogue["conversation"] if message["role"] == "assistant"]


def expectations(dialogue: dict[str, Any]) -> set[str]:
    return {message["expect"] for message in assistant_messages(dialogue) if "expect" in message}


def steps(dialogue: dict[str, Any]) -> str:
    """Returns a letter for each message: its role's, C for a call, R for a call after reasoning."""
    letters = ""
    for message in dialogue["conversation"]:
        called = message.get("tool_call") or message.get("tool_calls")
        letters += message["role"][0] if not called else "R" if message.get("reasoning_content") else "C"
    return letters


def json_blocks(dialogue: dict[str, Any]) -> list[Any]:
    contents = "\n".join(message.get("content") or "" for message in assistant_messages(dialogue))
    return [json.loads(block) for block in re.findall(r"```json\n(.+?)\n```", contents, flags=re.DOTALL)]


def five_grams(dialogue: dict[str, Any]) -> set[tuple[str, ...]]:
    """Returns the 5-grams of what is said and thought: of characters in mostly Han text, else of words."""
    said = [message.get(field) for message in dialogue["conversation"] for field in ("content", "reasoning_content")]
    texts = [text for text in said if isinstance(text, str)]
    whole = "".join(texts)
    mostly_han = len(re.findall(r"[\u3400-\u9fff]", whole)) > len(re.findall(r"[A-Za-z]", whole))
    grams: set[tuple[str, ...]] = set()
    for text in texts:
        units = re.findall(r"\S" if mostly_han else r"\w+", text.lower())
        grams.update(zip(*(units[start:] for start in range(5)), strict=False))
    return grams


def test_there_are_at_least_a_hundred_with_ids_of_their_own() -> None:
    assert len(DIALOGUES) >= 100
    assert len({identifier(dialogue) for dialogue in DIALOGUES}) == len(DIALOGUES)


def test_no_two_share_much_of_what_they_say() -> None:
    grams = {identifier(dialogue): five_grams(dialogue) for dialogue in DIALOGUES}
    overlaps = {
        (left, right): len(grams[left] & grams[right]) / min(len(grams[left]), len(grams[right]))
        for left, right in combinations(grams, 2)
    }

    assert all(grams.values())
    assert {pair: overlap for pair, overlap in overlaps.items() if overlap > LARGEST_OVERLAP} == {}


def test_all_compile() -> None:
    report = dlgc.check(FOLDER)

    assert report.rejected == 0
    assert report.failure is None
    assert report.ledger["dialogues"]["compiled"] == len(DIALOGUES)
    assert set(report.ledger["turns"]["untrained"]) <= {"excluded-by-record"}
    # The default leaves `state` out and says so; nothing else is odd about them.
    assert set(report.diagnostics) == {"state-not-trained"}


def test_every_type_is_there_in_both_languages() -> None:
    found = {(dialogue.get("type"), dialogue.get("metadata", {}).get("language")) for dialogue in DIALOGUES}

    assert found >= {(kind, language) for kind in ("chat", "task", "tool") for language in ("en", "zh")}


def test_most_have_at_least_three_rounds() -> None:
    long = [dialogue for dialogue in DIALOGUES if steps(dialogue).count("u") >= 3]

    assert len(long) >= 0.8 * len(DIALOGUES)


@pytest.mark.parametrize(("case", "least"), [("clarify", 20), ("refuse", 8)])
def test_the_case_is_there(case: str, least: int) -> None:
    assert sum(case in expectations(dialogue) for dialogue in DIALOGUES) >= least


def test_there_are_counter_examples_that_are_answered_although_they_look_like_a_refusal_or_a_question() -> None:
    answered = [dialogue for dialogue in DIALOGUES if "answer" in expectations(dialogue)]

    assert sum(not expectations(dialogue) & {"clarify", "refuse"} for dialogue in answered) >= 8


def test_there_are_mistakes_that_are_shown_and_not_trained() -> None:
    trained = [{message.get("train", True) for message in assistant_messages(dialogue)} for dialogue in DIALOGUES]

    assert trained.count({True, False}) >= 2


def test_there_are_whole_chains_of_reasoning_call_result_and_answer() -> None:
    assert sum(bool(re.search(r"Rt+(Rt+)*a", steps(dialogue))) for dialogue in DIALOGUES) >= 8
    assert sum(bool(re.search(r"[RC]t+[RC]t+a", steps(dialogue))) for dialogue in DIALOGUES) >= 5
    assert sum("tt" in steps(dialogue) for dialogue in DIALOGUES) >= 3


def test_states_lead_to_their_goals() -> None:
    with_goal = [dialogue for dialogue in DIALOGUES if "goal" in dialogue]

    assert len(with_goal) >= 15
    for dialogue in with_goal:
        last = [message["state"] for message in assistant_messages(dialogue) if "state" in message][-1]
        assert last["intent"] == dialogue["goal"]["intent"], dialogue["id"]
        assert last["slots"].items() >= dialogue["goal"]["slots"].items(), dialogue["id"]


def test_json_blocks_obey_their_output_schema() -> None:
    structured = [dialogue for dialogue in DIALOGUES if "output_schema" in dialogue]

    assert len(structured) >= 4
    for dialogue in structured:
        blocks = json_blocks(dialogue)
        assert blocks, dialogue["id"]
        for block in blocks:
            Draft202012Validator(dialogue["output_schema"]).validate(block)
    assert not [dialogue["id"] for dialogue in DIALOGUES if json_blocks(dialogue) and dialogue not in structured]


def test_citations_name_documents_and_stand_in_the_text() -> None:
    with_documents = [dialogue for dialogue in DIALOGUES if "documents" in dialogue]

    assert len(with_documents) >= 10
    for dialogue in with_documents:
        documents = {document["id"] for document in dialogue["documents"]}
        cited = [set(message.get("citations", [])) for message in assistant_messages(dialogue)]
        written = [set(re.findall(r"\[(\w+)\]", message["content"])) for message in assistant_messages(dialogue)]
        assert any(cited), dialogue["id"]
        assert cited == written, dialogue["id"]
        assert set().union(*cited) <= documents, dialogue["id"]


def test_summaries_end_with_an_exchange_and_leave_something_over() -> None:
    summarised = [dialogue for dialogue in DIALOGUES if "summaries" in dialogue]

    assert len(summarised) >= 6
    for dialogue in summarised:
        ends = [summary["upto"] for summary in dialogue["summaries"]]
        assert ends == sorted(set(ends)), dialogue["id"]
        assert ends[-1] < len(dialogue["conversation"]) - 1, dialogue["id"]
        assert all(dialogue["conversation"][end]["role"] == "assistant" for end in ends), dialogue["id"]
