//! Formats that build things differently: one file each, in the words of `draft`.

mod anthropic;
mod api_bank;
mod asked;
mod bfcl;
mod blocks;
mod chatgpt;
mod cohere;
mod convlab;
mod crosswoz;
mod exchanges;
mod gemini;
mod hermes;
mod langchain;
mod loss;
mod material;
mod messages;
mod moss;
mod mt_bench;
mod multiwoz;
mod pairs;
mod parlai;
mod prompts;
mod python;
mod rendered;
mod responses;
mod rows;
mod sgd;
mod sharegpt;
mod single;
mod speakers;
mod strings;
mod system;
mod taskmaster;
mod tool_roles;
mod toolbench;
mod transcript;
mod trees;
mod ui_parts;
mod verdicts;
mod wildchat;
mod xstest;

use super::Format;

/// Those with shapes of their own.
pub(super) const FIRST: &[Format] = &[
    pairs::FORMAT,
    crosswoz::FORMAT,
    multiwoz::FORMAT,
    sgd::FORMAT,
    convlab::FORMAT,
    bfcl::FORMAT,
    toolbench::FORMAT,
    taskmaster::FORMAT,
    parlai::FORMAT,
    mt_bench::FORMAT,
    trees::NESTED,
    trees::FLAT,
    rows::FORMAT,
    api_bank::FORMAT,
    xstest::FORMAT,
    wildchat::FORMAT,
    gemini::FORMAT,
    chatgpt::FORMAT,
    moss::FORMAT,
    rendered::CHATML,
    rendered::LLAMA3,
    rendered::LLAMA2,
    rendered::ALPACA,
    rendered::GUANACO,
    rendered::REFGPT,
    hermes::FORMAT,
    tool_roles::FORMAT,
    loss::FORMAT,
    responses::FORMAT,
    cohere::FORMAT,
    langchain::FORMAT,
    ui_parts::FORMAT,
    anthropic::FORMAT,
    messages::TRAJECTORY,
    messages::ROLES,
    messages::ANSWER,
    messages::LEGACY,
    messages::FORMAT,
    sharegpt::FORMAT,
    single::XLAM,
    single::ALPACA,
    single::DOLLY,
    single::COMPLETION,
    single::RESPONSE,
    single::ORCA,
    single::QUERY,
    single::QUESTION,
    single::FIREFLY,
];

/// Those that take what nobody else does.
pub(super) const LAST: &[Format] = &[
    transcript::FORMAT,
    exchanges::FORMAT,
    material::FORMAT,
    strings::FORMAT,
    single::COLUMNS,
    speakers::FORMAT,
    prompts::FORMAT,
];

/// Whether a record holds a whole dialogue in a string.
pub(super) fn is_transcript(record: &crate::json::Node<'_>) -> bool {
    transcript::recognises(record)
}
