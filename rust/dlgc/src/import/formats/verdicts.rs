//! How sets say which answer is better: two answers whose names say it, two with a verdict beside them, a list with ranks
//! or scores, or one answer with a verdict.

use crate::json::{Json, Node};

/// What makes a record one of preferences.
pub(super) enum Verdict {
    /// The better and the worse answer.
    Sides(&'static str, &'static str),
    /// The worse answer; the better one stands where answers always do.
    Worse(&'static str),
    Compared(&'static Compared),
    Ranked(&'static Ranked),
    /// Says of one answer whether it is good.
    Judged(&'static str),
    /// Preferences of which no pairs are made.
    Unpaired(&'static str),
}

/// Two answers, and what says which is better.
pub(super) struct Compared {
    pub(super) answers: [&'static str; 2],
    by: &'static [&'static str],
    /// Above zero where the second is better, below where the first is.
    better: fn(&Node<'_>) -> f64,
}

/// A list of answers, each with a rank or a score.
pub(super) struct Ranked {
    pub(super) list: &'static str,
    pub(super) text: &'static str,
    by: &'static str,
    /// Whether the largest is the best, and not the first.
    is_score: bool,
}

/// Names of a better and a worse answer.
const SIDES: [(&str, &str); 4] = [
    ("chosen", "rejected"),
    ("chosen_messages", "rejected_messages"),
    ("chosen_response", "rejected_response"),
    ("preferred_output", "non_preferred_output"),
];
const COMPARED: [Compared; 7] = [
    Compared {
        answers: ["response_0", "response_1"],
        by: &["better_response_id"],
        better: |record| number(record, "better_response_id") - 0.5,
    },
    // Stanford's SHP: 1 is the first.
    Compared {
        answers: ["human_ref_A", "human_ref_B"],
        by: &["labels"],
        better: |record| 0.5 - number(record, "labels"),
    },
    Compared {
        answers: ["answer_0", "answer_1"],
        by: &["score_0", "score_1"],
        better: |record| number(record, "score_1") - number(record, "score_0"),
    },
    Compared {
        answers: ["response_1", "response_2"],
        by: &["preference_strength"],
        better: |record| number(record, "preference_strength"),
    },
    Compared {
        answers: ["response1", "response2"],
        by: &["overall_preference"],
        better: |record| number(record, "overall_preference"),
    },
    Compared { answers: ["conversation_a", "conversation_b"], by: &["winner"], better: winner },
    Compared { answers: ["response_a", "response_b"], by: &["winner"], better: winner },
];
const RANKED: [Ranked; 2] = [
    Ranked { list: "answers", text: "answer", by: "rank", is_score: false },
    Ranked { list: "completions", text: "response", by: "overall_score", is_score: true },
];
const UNPAIRED: [[&str; 2]; 3] = [["response_a", "winner_model_a"], ["completions", "labels"], ["responses", "scores"]];

/// What makes a record one of preferences, if anything does.
pub(super) fn of(record: &Node<'_>) -> Option<Verdict> {
    let has = |key: &&str| record.get_some(key).is_some();
    if let Some((better, worse)) = SIDES.into_iter().find(|(better, worse)| has(better) && has(worse)) {
        return Some(Verdict::Sides(better, worse));
    }
    let is_empty = |node: &Node<'_>| node.as_str() == Some("") || node.as_array().is_some_and(<[_]>::is_empty);
    let says = |key: &&str| record.get_some(key).is_some_and(|node| !is_empty(node));
    if let Some(worse) = ["rejected_response", "rejected_messages"].into_iter().find(says) {
        return Some(Verdict::Worse(worse));
    }
    if let Some(compared) = COMPARED.iter().find(|compared| compared.answers.iter().chain(compared.by).all(has)) {
        return Some(Verdict::Compared(compared));
    }
    if let Some(ranked) = RANKED.iter().find(|ranked| ranked.is_in(record)) {
        return Some(Verdict::Ranked(ranked));
    }
    if has(&"kto_tag") {
        return Some(Verdict::Judged("kto_tag"));
    }
    if let Some(label) = record.get_some("label") {
        // Classes may be called 0 and 1 too; beside a completion or a dialogue it would be a risk to think so.
        let is_beside_answer = ["completion", "messages", "conversation", "conversations"].iter().any(has);
        if label.as_bool().is_some() || is_beside_answer && truth(label).is_some() {
            return Some(Verdict::Judged("label"));
        }
    }
    let unpaired = UNPAIRED.into_iter().find(|fields| fields.iter().all(has) && !has(&"messages"));
    unpaired.map(|[_, field]| Verdict::Unpaired(field))
}

/// Whether a verdict says good or bad; tables hold it as text.
pub(super) fn truth(verdict: &Node<'_>) -> Option<bool> {
    let text = match &verdict.value {
        Json::Bool(value) => return Some(*value),
        Json::Number(text) | Json::String(text) => text.trim().to_lowercase(),
        _ => return None,
    };
    match &*text {
        "true" | "1" | "1.0" => Some(true),
        "false" | "0" | "0.0" | "-1" => Some(false),
        _ => None,
    }
}

impl Verdict {
    /// The field that says most clearly what the record is.
    pub(super) fn field(&self) -> &'static str {
        match self {
            Self::Sides(_, field) | Self::Worse(field) | Self::Judged(field) | Self::Unpaired(field) => field,
            Self::Compared(compared) => compared.by[0],
            Self::Ranked(ranked) => ranked.list,
        }
    }
}

impl Compared {
    /// The names of the better and the worse answer; `None` where neither is.
    pub(super) fn sides(&self, record: &Node<'_>) -> Option<(&'static str, &'static str)> {
        let [first, second] = self.answers;
        match (self.better)(record) {
            better if better > 0.0 => Some((second, first)),
            better if better < 0.0 => Some((first, second)),
            _ => None,
        }
    }
}

impl Ranked {
    fn is_in(&self, record: &Node<'_>) -> bool {
        let is_ranked = |answer: &Node<'_>| {
            answer.get(self.text).is_some_and(|text| text.as_str().is_some()) && !number(answer, self.by).is_nan()
        };
        record.get(self.list).and_then(Node::as_array).is_some_and(|list| list.iter().any(is_ranked))
    }

    /// How good an answer is; not a number where nothing is said of it.
    pub(super) fn worth(&self, answer: &Node<'_>) -> f64 {
        let number = number(answer, self.by);
        if self.is_score { number } else { -number }
    }
}

fn winner(record: &Node<'_>) -> f64 {
    match record.get("winner").and_then(Node::as_str) {
        Some("model_a") => -1.0,
        Some("model_b") => 1.0,
        _ => 0.0,
    }
}

fn number(object: &Node<'_>, key: &str) -> f64 {
    match object.get(key).map(|node| &node.value) {
        Some(Json::Number(text) | Json::String(text)) => text.trim().parse().unwrap_or(f64::NAN),
        _ => f64::NAN,
    }
}
