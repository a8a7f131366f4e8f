//! Schemas, ontologies, answers and tool descriptions: no dialogues, but read by the importers of the sets that they
//! belong to.

use super::super::{Context, Format, When, names};
use crate::diagnostic::{Code, Diagnostic};
use crate::json::Node;

pub(super) const FORMAT: Format = Format { name: "material", when: When::Is(is_material), import: no_dialogue };

fn is_material(record: &Node<'_>) -> bool {
    let has = |keys: &[&str]| keys.iter().all(|key| record.get(key).is_some());
    let all = |test: fn(&Node<'_>) -> bool| {
        record.as_object().is_some_and(|members| members.len() > 1 && members.iter().all(|member| test(&member.node)))
    };
    has(&["service_name", "slots", "intents"]) // the schemas of SGD and MultiWOZ 2.2
        || has(&["id", "ground_truth"]) // the answers of BFCL
        || has(&["name", "description", "parameters"]) // functions
        || has(&["类名", "input_parameters"]) // the functions of API-Bank
        || has(&["api_list", "query"]) // the questions of ToolBench
        || ["file_name", "hf_hub_url", "ms_hub_url", "script_url"].iter().any(|key| record.get_some(key).is_some()) // LLaMA-Factory's list of sets
        || names::lists(record).is_empty()
            && all(|values| values.as_array().is_some_and(|values| values.iter().all(|value| value.as_str().is_some()))) // values by slot
}

fn no_dialogue<'a>(record: Node<'a>, context: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    context.notes.push(
        Diagnostic::new(Code::NotADialogue, "the record is no dialogue, but says something about others")
            .at(&(record.range.start..record.range.start + 1)),
    );
    Ok(Vec::new())
}
