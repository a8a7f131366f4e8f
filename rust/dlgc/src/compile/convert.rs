//! Converting: any input to dialogues in one format, a line each. Import and validation of a compilation, and a file.
//!
//! In: what a compilation takes. Out: the native shape, which loses nothing, or OpenAI's or ShareGPT's, which have no place
//! for some fields; each that is left out is counted.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::options::CompileOptions;
use super::outcome::{Compiled, Outcome};
use super::pipeline::{Destination, Pass, Ran, run};
use super::report::CompileReport;
use super::resume::Start;
use super::{Monitor, is_piece, total_bytes};
use crate::diagnostic::{Code, Diagnostic, Located, Severities};
use crate::dialogue::{Dialogue, Role, ToolCall};
use crate::error::{Error, ErrorKind, Result};
use crate::filter::{Filter, Known};
use crate::import::{Importers, Wanted};
use crate::json::{self, Json, Node, object, string};
use crate::shard::AtomicFile;
use crate::source::{self, Reader, Record};
use crate::validate::{Checked, validate_with_natives};

/// What dialogues are converted to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Target {
    /// The native shape, `specs/dialogue.schema.json`.
    #[default]
    Native,
    /// OpenAI's `messages`.
    OpenAi,
    /// ShareGPT's `conversations`, with LLaMA-Factory's names for tool use.
    ShareGpt,
}

impl Target {
    /// Reads its name.
    ///
    /// # Errors
    /// [`ErrorKind::Options`] for any other.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "native" => Ok(Self::Native),
            "openai" => Ok(Self::OpenAi),
            "sharegpt" => Ok(Self::ShareGpt),
            _ => Err(Error::new(ErrorKind::Options, format!("there is no format `{name}` to convert to"))
                .hint("there are `native`, `openai` and `sharegpt`")),
        }
    }
}

/// Converts inputs into one file of JSON lines, or to standard output for `-`.
///
/// # Errors
/// [`ErrorKind::Options`] and [`ErrorKind::Io`]; then no file was written.
pub fn convert(
    options: &CompileOptions,
    to: Target,
    wanted: Wanted,
    monitor: &mut dyn Monitor,
) -> Result<CompileReport> {
    let Some(output) = &options.output else {
        return Err(Error::new(ErrorKind::Options, "no output file is given"));
    };
    if wanted == Wanted::Pairs && to != Target::Native {
        let message = "preferences are written in the native format only";
        return Err(Error::new(ErrorKind::Options, message).hint("`--to native`"));
    }
    if output.is_dir() {
        let message = format!("`{}` is a folder; the dialogues go into one file", output.display());
        return Err(Error::new(ErrorKind::Options, message).hint("such as `-o dialogues.jsonl`"));
    }
    let to_stdout = output.as_os_str() == "-";
    if !to_stdout && output.exists() && !options.overwrite {
        let message = format!("`{}` is there already", output.display());
        return Err(Error::new(ErrorKind::Options, message).hint("`--overwrite` replaces it"));
    }
    let listing = source::list(&options.inputs)?;
    let converter = Converter {
        importers: Importers::new(&options.formats, options.assistant.as_deref(), wanted)?,
        severities: Severities::new(&options.severity)?,
        filter: options.condition.as_deref().map(Filter::parse).transpose()?,
        to,
        wanted,
    };
    let total = total_bytes(&listing.files);
    let reader = Reader::new(listing.files, options.max_record_bytes).joining(is_piece);
    let mut sink = if to_stdout { Lines::Stdout } else { Lines::File(Box::new(file(output)?)) };
    let ran = run(options.threads, &converter, reader, total, Start::default(), &mut sink, monitor)?;
    let Ran { tallies, skipped, .. } = ran.expect("only an interrupted run can find other inputs");
    if let Lines::File(file) = sink {
        file.commit()?;
    }
    let skipped = listing.skipped.into_iter().chain(skipped).collect();
    let mut report = CompileReport::of(options, tallies, skipped);
    let excluded = report.ledger.records.excluded;
    if wanted == Wanted::Pairs && report.ledger.dialogues.compiled == 0 && excluded > 0 && options.condition.is_none() {
        report.failure = Some(format!(
            "nothing was converted: {excluded} record(s) hold no preferences; without `--preferences` they become dialogues"
        ));
    }
    Ok(report)
}

fn file(output: &Path) -> Result<AtomicFile> {
    let name = output.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let folder: PathBuf = output.parent().map_or_else(PathBuf::new, Path::to_owned);
    AtomicFile::create(if folder.as_os_str().is_empty() { Path::new(".") } else { &folder }, &name)
}

/// Where the lines go.
enum Lines {
    Stdout,
    File(Box<AtomicFile>),
}

impl Destination for Lines {
    fn take(&mut self, _: &Record<'_>, outcome: Outcome, _: &[Located]) -> Result<()> {
        for line in outcome.dialogues.into_iter().filter_map(|compiled| compiled.line) {
            match self {
                Self::Stdout => {
                    std::io::stdout().lock().write_all(line.as_bytes()).map_err(|error| Error::io("-", error))?;
                }
                Self::File(file) => file.write_all(line.as_bytes()).map_err(|error| file.error(error))?,
            }
        }
        Ok(())
    }
}

struct Converter {
    importers: Importers,
    severities: Severities,
    filter: Option<Filter>,
    to: Target,
    wanted: Wanted,
}

impl Pass for Converter {
    fn record(&self, record: &Record<'_>) -> Result<Outcome> {
        let (validated, natives) = validate_with_natives(record, &self.importers, &self.severities);
        let format = validated.format.clone().unwrap_or_default();
        let dialogues = validated.dialogues.into_iter().zip(natives);
        let dialogues = dialogues.map(|(checked, native)| self.dialogue(checked, native, record, &format)).collect();
        Ok(Outcome { format: validated.format, dialogues, diagnostics: validated.diagnostics })
    }

    fn severities(&self) -> &Severities {
        &self.severities
    }
}

impl Converter {
    fn dialogue(&self, checked: Checked<'_>, given: Node<'_>, record: &Record<'_>, format: &Arc<str>) -> Compiled {
        let has = |fields: [&str; 2]| fields.iter().all(|field| given.get_some(field).is_some());
        let is_pair = has(["chosen", "rejected"]) || has(["completion", "label"]);
        if self.wanted == Wanted::Pairs && !is_pair {
            return Compiled { excluded: true, ..Compiled::default() };
        }
        let mut compiled = Compiled { diagnostics: checked.diagnostics, ..Compiled::default() };
        let Some(dialogue) = checked.dialogue else { return compiled };
        if let Some(filter) = &self.filter
            && !filter.keeps(&Known { dialogue: &dialogue, location: &record.location, format })
        {
            return Compiled { excluded: true, ..Compiled::default() };
        }
        let mut left_out = Vec::new();
        let line = match self.to {
            Target::Native => native(given, &dialogue),
            Target::OpenAi => openai(&dialogue, &given, &mut left_out),
            Target::ShareGpt => sharegpt(&dialogue, &given, &mut left_out),
        };
        if !left_out.is_empty() {
            left_out.sort_unstable();
            left_out.dedup();
            let names: Vec<String> = left_out.iter().map(|name| format!("`{name}`")).collect();
            let message = format!("the format has no place for {}", names.join(", "));
            let mut finding = Diagnostic::new(Code::FieldLeftOut, message);
            finding.severity = self.severities.of(finding.code);
            compiled.diagnostics.push(finding);
        }
        compiled.line = Some(line + "\n");
        compiled
    }
}

/// The record as its importer gave it, with the name that it would have in shards.
fn native(mut native: Node<'_>, dialogue: &Dialogue<'_>) -> String {
    let range = native.range.clone();
    if let Json::Object(members) = &mut native.value {
        members.retain(|member| member.key != "id");
        let id =
            json::Member { key: "id".into(), key_range: range.clone(), node: string(&range, dialogue.id.to_string()) };
        members.insert(0, id);
    }
    json::dumps(&native)
}

fn text<'t>(value: &'t str) -> Node<'t> {
    string(&(0..0), value)
}

fn list(elements: Vec<Node<'_>>) -> Node<'_> {
    Node::new(0..0, Json::Array(elements))
}

/// Arguments as JSON text, whatever they are in the record.
fn arguments(call: &ToolCall<'_>) -> String {
    call.arguments.as_str().map_or_else(|| json::dumps(&call.arguments), str::to_owned)
}

/// Names of what a dialogue holds that neither format has a place for.
fn left_out_of_both(dialogue: &Dialogue<'_>, native: &Node<'_>, left_out: &mut Vec<&'static str>) {
    for name in ["goal", "documents", "output_schema", "summaries", "chat_template_kwargs"] {
        left_out.extend(native.get_some(name).map(|_| name));
    }
    let messages = native.get("messages").or(native.get("conversation")).and_then(Node::as_array).unwrap_or_default();
    for name in ["expect", "citations", "annotations"] {
        left_out.extend(messages.iter().any(|message| message.get_some(name).is_some()).then_some(name));
    }
    left_out.extend(dialogue.messages.iter().any(|message| message.state.is_some()).then_some("state"));
}

fn openai(dialogue: &Dialogue<'_>, native: &Node<'_>, left_out: &mut Vec<&'static str>) -> String {
    left_out_of_both(dialogue, native, left_out);
    let mut messages = Vec::new();
    let mut open: Vec<String> = Vec::new();
    for (index, message) in dialogue.messages.iter().enumerate() {
        let mut members = vec![("role", text(message.role.name()))];
        let content = message.content.as_deref().map_or_else(|| Node::new(0..0, Json::Null), text);
        members.push(("content", content));
        members.extend(message.reasoning.as_deref().map(|reasoning| ("reasoning_content", text(reasoning))));
        if !message.tool_calls.is_empty() {
            open.clear();
            let results: Vec<_> =
                dialogue.messages[index + 1..].iter().take_while(|next| next.role == Role::Tool).collect();
            let calls = message.tool_calls.iter().enumerate().map(|(number, call)| {
                // A call without an id is called as the result that answers it says.
                let answered = results.get(number).and_then(|result| result.tool_call_id.as_deref());
                let id = call.id.as_deref().or(answered);
                let id = id.map_or_else(|| format!("call_{index}_{number}"), str::to_owned);
                open.push(id.clone());
                let function =
                    object(&(0..0), vec![("name", text(&call.name)), ("arguments", string(&(0..0), arguments(call)))]);
                object(&(0..0), vec![("id", string(&(0..0), id)), ("type", text("function")), ("function", function)])
            });
            members.push(("tool_calls", list(calls.collect())));
        }
        if message.role == Role::Tool {
            // A result without an id answers the first call that is open.
            let id = message.tool_call_id.as_deref().map(str::to_owned).or_else(|| open.first().cloned());
            open.retain(|other| Some(other) != id.as_ref());
            members.extend(id.map(|id| ("tool_call_id", string(&(0..0), id))));
        }
        members.extend(message.name.as_deref().map(|name| ("name", text(name))));
        if message.role == Role::Assistant && !message.train {
            members.push(("weight", Node::new(0..0, Json::Number("0".into()))));
        }
        messages.push(object(&(0..0), members));
    }
    let mut record = vec![("messages", list(messages))];
    record.extend(dialogue.tools.clone().map(|tools| ("tools", tools)));
    record.push(("id", text(&dialogue.id)));
    record.extend(dialogue.metadata.clone().map(|metadata| ("metadata", metadata)));
    json::dumps(&object(&(0..0), record))
}

fn sharegpt(dialogue: &Dialogue<'_>, native: &Node<'_>, left_out: &mut Vec<&'static str>) -> String {
    left_out_of_both(dialogue, native, left_out);
    let mut conversations = Vec::new();
    let mut system = None;
    for (index, message) in dialogue.messages.iter().enumerate() {
        let said = message.content.as_deref().unwrap_or_default();
        if index == 0 && message.role == Role::System {
            system = Some(text(said));
            continue;
        }
        let from = match message.role {
            Role::System | Role::Developer => "system",
            Role::User => "human",
            Role::Assistant => "gpt",
            Role::Tool => "observation",
        };
        left_out.extend(message.tool_call_id.as_ref().map(|_| "tool_call_id"));
        left_out.extend((message.role == Role::Assistant && !message.train).then_some("train"));
        let mut members = Vec::new();
        members.extend(message.reasoning.as_deref().map(|reasoning| ("reasoning_content", text(reasoning))));
        if message.tool_calls.is_empty() || !said.is_empty() {
            let mut turn = vec![("from", text(from)), ("value", text(said))];
            turn.append(&mut members);
            conversations.push(object(&(0..0), turn));
        }
        if !message.tool_calls.is_empty() {
            let call = |call: &ToolCall<'_>| -> Node<'static> {
                let parsed = json::parse(arguments(call).as_bytes())
                    .map_or_else(|_| string(&(0..0), arguments(call)), |parsed| parsed.root.into_owned_at(&(0..0)));
                object(&(0..0), vec![("name", string(&(0..0), call.name.to_string())), ("arguments", parsed)])
            };
            let calls: Vec<Node<'_>> = message.tool_calls.iter().map(call).collect();
            let value = if let [one] = calls.as_slice() { json::dumps(one) } else { json::dumps(&list(calls)) };
            let mut turn = vec![("from", text("function_call")), ("value", string(&(0..0), value))];
            turn.append(&mut members);
            conversations.push(object(&(0..0), turn));
        }
    }
    let mut record = vec![("conversations", list(conversations))];
    record.extend(system.map(|system| ("system", system)));
    let tools = dialogue.tools.as_ref().map(json::dumps);
    record.extend(tools.map(|tools| ("tools", string(&(0..0), tools))));
    record.push(("id", text(&dialogue.id)));
    record.extend(dialogue.metadata.clone().map(|metadata| ("metadata", metadata)));
    json::dumps(&object(&(0..0), record))
}
