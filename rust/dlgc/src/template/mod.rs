//! Rendering: a dialogue becomes text, and the targets in it are found and proved on the text.
//!
//! In: a [`Dialogue`]. Out: a [`Rendered`]: the text that transformers' `apply_chat_template` would give for
//! [`Rendered::messages`], byte for byte, and a verdict for each assistant message. How a target is found and proved
//! on the text is in `law`; [`crate::tokenize`] proves it again on ids. Nothing here knows a template by name, and no
//! template needs `{% generation %}` tags: they only serve those who ask for what the tags mark.
//!
//! Templates are programs from strangers: they run with bounded fuel, depth and output, without loaders or files.

mod generation;
mod law;
mod marks;
mod messages;
mod probe;
mod python;
mod skeleton;

use std::ops::Range;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, UndefinedBehavior};
use xxhash_rust::xxh3::xxh3_128;

use crate::diagnostic::{Code, Diagnostic};
use crate::dialogue::{Dialogue, Role};
use crate::error::{Error, ErrorKind, Result};
use crate::json::{self, Json, Node};

use marks::Unmarked;
use skeleton::Skeleton;

pub use marks::SUPPRESS;
pub use messages::StateMode;
pub use probe::Abilities;
pub use python::Date;

/// Work that one rendering may take: about as many instructions, or 64 bytes of data each.
const FUEL: u64 = 20_000_000;
/// How deeply calls and blocks of a template may nest.
const RECURSION: usize = 200;
/// Longest template source that is read, in bytes.
const MAX_SOURCE: usize = 1 << 20;

/// A chat template, ready to render.
pub struct Template {
    environment: Environment<'static>,
    source: Arc<str>,
    context: Vec<(String, Value)>,
    kwargs: Vec<(String, Value)>,
    abilities: Abilities,
    stops: Vec<String>,
    /// Stops that the model declares, whether the template prints them or not.
    declared_stops: Vec<String>,
    /// Whether the template prints a stop after its last turn.
    prints_stop: bool,
    /// What the template prints after the stop of its last turn.
    after_stop: String,
    tagged: bool,
    outlines: law::Outlines,
    state: StateMode,
}

/// What a template needs to know beside its source.
#[derive(Debug, Clone, Default)]
pub struct TemplateOptions {
    /// Special tokens by name (`bos_token`, …), as transformers hands them over.
    pub special_tokens: Vec<(String, String)>,
    /// Template arguments of the whole run, as JSON; those of a record win.
    pub kwargs: Option<Node<'static>>,
    /// The day that `strftime_now` prints.
    pub date: Option<Date>,
    /// Texts of the model's own stop tokens.
    pub stops: Vec<String>,
    /// What becomes of `state`.
    pub state: StateMode,
}

/// How targets are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Each is proved by the law of the prompt.
    Prove,
    /// The template's `{% generation %}` blocks are taken as they are.
    Blocks,
}

/// A rendered dialogue.
#[derive(Debug, Default)]
pub struct Rendered {
    /// The text, as `apply_chat_template(messages, …)` gives it.
    pub text: String,
    /// The messages as they were handed to the template, as JSON text.
    pub messages: Vec<Node<'static>>,
    /// What the template's own `{% generation %}` blocks mark, in order.
    pub blocks: Vec<Range<usize>>,
    /// Where texts of control tokens begin that are to be encoded as ordinary text.
    pub suppressed: Vec<usize>,
    /// One verdict for each assistant message that is to be trained, in order.
    pub turns: Vec<Turn>,
    /// Tokens of the whole text; counted when it is tokenised.
    pub tokens: usize,
    /// What was normalised, and what is doubtful.
    pub diagnostics: Vec<Diagnostic>,
}

/// What became of an assistant message.
#[derive(Debug)]
pub struct Turn {
    /// Its index in the record.
    pub message: usize,
    /// Its target, or why it has none.
    pub target: std::result::Result<Target, Diagnostic>,
}

/// What the model has to generate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// Its text, from the end of the prompt to the end of the stop.
    pub text: String,
    /// Length of the stop at its end, in bytes.
    pub stop: usize,
    /// Where it begins in [`Rendered::text`], if that begins with its prompt and goes on with it.
    pub shared: Option<usize>,
    /// Whether the template prints no stop, and the model's own was put at the end.
    pub appended_stop: bool,
    /// Where texts of control tokens begin in it that are to be encoded as ordinary text.
    pub suppressed: Vec<usize>,
    /// The prompt, and where such texts begin in it; only for a target that is not shared.
    pub prompt: Option<(String, Vec<usize>)>,
}

impl Target {
    /// Its bytes in [`Rendered::text`], if it is shared.
    pub fn range(&self) -> Option<Range<usize>> {
        self.shared.map(|start| start..start + self.text.len())
    }
}

/// A piece of the rendered text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Byte range in the text.
    pub range: Range<usize>,
    /// The assistant message that is trained here; `None` where nothing is.
    pub trained: Option<usize>,
}

impl Rendered {
    /// The spans of the text: in order, without overlap or gap.
    ///
    /// ```
    /// use dlgc::template::{Rendered, Target, Turn};
    /// let target = Target { text: "cd".into(), stop: 1, shared: Some(2), ..Target::default() };
    /// let turns = vec![Turn { message: 1, target: Ok(target) }];
    /// let rendered =
    ///     Rendered { text: "abcdef".into(), turns, ..Rendered::default() };
    /// let spans: Vec<_> = rendered.spans().into_iter().map(|span| (span.range, span.trained)).collect();
    /// assert_eq!(spans, [(0..2, None), (2..4, Some(1)), (4..6, None)]);
    /// ```
    pub fn spans(&self) -> Vec<Span> {
        let mut spans = Vec::new();
        let mut at = 0;
        for turn in &self.turns {
            let Some(range) = turn.target.as_ref().ok().and_then(Target::range) else { continue };
            if at < range.start {
                spans.push(Span { range: at..range.start, trained: None });
            }
            at = range.end;
            spans.push(Span { range, trained: Some(turn.message) });
        }
        if at < self.text.len() {
            spans.push(Span { range: at..self.text.len(), trained: None });
        }
        spans
    }
}

impl Template {
    /// Compiles a template and probes what it can do.
    ///
    /// # Errors
    /// [`ErrorKind::Template`] for a syntax error, a template that needs the date where none is given, and one that
    /// cannot render a plain dialogue.
    pub fn load(source: &str, options: &TemplateOptions) -> Result<Self> {
        let fail = |message: String| Error::new(ErrorKind::Template, message);
        if source.len() > MAX_SOURCE {
            return Err(fail(format!("the chat template is larger than {MAX_SOURCE} bytes")));
        }
        let generation::Rewritten { source: rewritten, tagged } = generation::rewrite(source);
        let mut environment = Environment::new();
        // Jinja drops one line break at the end of a template, and so does the engine's default.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| fail(error.to_string()))?);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION);
        environment.set_debug(true);
        python::install(&mut environment, options.date);
        environment
            .add_template_owned("chat", rewritten)
            .map_err(|error| fail(describe(&error)).context("while reading the chat template"))?;
        let context = options.special_tokens.iter().map(|(name, text)| (name.clone(), Value::from(text))).collect();
        let kwargs = options.kwargs.as_ref().map(|node| members(node)).unwrap_or_default();
        let mut template = Self {
            environment,
            source: source.into(),
            context,
            kwargs,
            abilities: Abilities::default(),
            stops: options.stops.clone(),
            declared_stops: options.stops.clone(),
            prints_stop: true,
            after_stop: String::new(),
            tagged,
            outlines: law::Outlines::default(),
            state: options.state,
        };
        template.probe()?;
        Ok(template)
    }

    /// The source as it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it has `{% generation %}` blocks.
    pub fn is_tagged(&self) -> bool {
        self.tagged
    }

    /// What probing found.
    pub fn abilities(&self) -> &Abilities {
        &self.abilities
    }

    /// Texts that may end an assistant turn: learnt from the template, or declared by the model.
    pub fn stops(&self) -> &[String] {
        &self.stops
    }

    /// Renders a dialogue and proves its targets.
    ///
    /// # Errors
    /// A diagnostic where the template refuses the dialogue, or a field of it leaves no trace in the text.
    pub fn render(&self, dialogue: &Dialogue<'_>, mode: Mode) -> std::result::Result<Rendered, Diagnostic> {
        let mut diagnostics = Vec::new();
        let mut prepared = messages::prepare(dialogue, &self.abilities, self.state, &mut diagnostics)?;
        let mut around = [&dialogue.tools, &dialogue.documents, &dialogue.template_kwargs].map(Clone::clone);
        let scene = Scene::of(&prepared, &around);
        let row = self.run(&scene, scene.messages.len(), false)?;
        if !row.suppressed.is_empty() {
            prepared.iter_mut().for_each(|message| marks::unmark(&mut message.node));
            around.iter_mut().flatten().for_each(marks::unmark);
            let plain = self.run(&Scene::of(&prepared, &around), prepared.len(), false)?;
            if plain.text != row.text {
                let message = "the template looks into the text of a control token, so it cannot be told from one";
                return Err(Diagnostic::new(Code::ControlToken, message));
            }
        }
        messages::nothing_lost(&around, &prepared, &row.text)?;
        let (blocks, turns) = match mode {
            Mode::Prove => {
                // Proved on the messages as they are, marks and all: the marks are no part of any text.
                let skeleton =
                    Skeleton::of(&prepared.iter().map(|message| &message.node).collect::<Vec<_>>(), &self.stops);
                let turns = prepared.iter().enumerate().filter(|(_, message)| message.train);
                let verdict = |(position, message): (usize, &messages::Prepared)| {
                    let target = self.prove(&scene, &skeleton, position, &row);
                    Turn { message: message.source, target: target.map_err(|found| found.at(&message.range)) }
                };
                let turns: Vec<Turn> = turns.map(verdict).collect();
                // A template may print reasoning for the newest turn only: what counts is the turn's own target.
                for (message, turn) in prepared.iter().filter(|message| message.train).zip(&turns) {
                    let target = turn.target.as_ref().ok();
                    diagnostics.extend(target.and_then(|target| messages::reasoning_lost(message, &target.text)));
                }
                (row.blocks, turns)
            }
            Mode::Blocks => {
                diagnostics.extend(prepared.iter().filter_map(|message| messages::reasoning_lost(message, &row.text)));
                by_block(&prepared, row.blocks, &row.text)?
            }
        };
        let messages = prepared.into_iter().map(|message| message.node).collect();
        Ok(Rendered { text: row.text, messages, blocks, suppressed: row.suppressed, turns, tokens: 0, diagnostics })
    }

    /// Runs the template over the first `count` messages of a scene.
    fn run(
        &self,
        scene: &Scene,
        count: usize,
        add_generation_prompt: bool,
    ) -> std::result::Result<Unmarked, Diagnostic> {
        let mut context: Vec<(Value, Value)> = Vec::with_capacity(self.context.len() + 8);
        let mut set = |name: &str, value: Value| context.push((Value::from(name), value));
        // The same order as in transformers: later ones win.
        for (name, value) in self.context.iter().chain(&self.kwargs).chain(&scene.kwargs) {
            set(name, value.clone());
        }
        set("messages", Value::from(scene.messages[..count].to_vec()));
        set("tools", scene.tools.clone());
        set("documents", scene.documents.clone());
        set("add_generation_prompt", Value::from(add_generation_prompt));
        let template = self.environment.get_template("chat").expect("added at load");
        match template.render(Value::from_pairs(context)) {
            Ok(marked) => Ok(marks::strip(&marked)),
            Err(error) if error.kind() == minijinja::ErrorKind::OutOfFuel => {
                Err(Diagnostic::new(Code::TemplateLimit, "rendering needs more work than a template may have"))
            }
            Err(error) => Err(Diagnostic::new(Code::TemplateRefused, describe(&error))),
        }
    }
}

/// Takes the template's word for it: each block is an assistant message, as many as there are of both.
fn by_block(
    prepared: &[messages::Prepared],
    blocks: Vec<Range<usize>>,
    text: &str,
) -> std::result::Result<(Vec<Range<usize>>, Vec<Turn>), Diagnostic> {
    let assistants: Vec<_> = prepared.iter().filter(|message| message.role == Role::Assistant).collect();
    let turn = |message: usize, block: &Range<usize>| {
        let target = Target { text: text[block.clone()].to_owned(), shared: Some(block.start), ..Target::default() };
        Turn { message, target: Ok(target) }
    };
    if assistants.len() == blocks.len() {
        let (mut kept, mut turns) = (Vec::new(), Vec::new());
        for (message, block) in assistants.into_iter().zip(blocks).filter(|(message, _)| message.train) {
            turns.push(turn(message.source, &block));
            kept.push(block);
        }
        return Ok((kept, turns));
    }
    if assistants.iter().any(|message| !message.train) {
        let message = format!(
            "the template marks {} pieces of text for {} assistant messages, so one cannot be excluded",
            blocks.len(),
            assistants.len()
        );
        return Err(Diagnostic::new(Code::TemplateRefused, message));
    }
    let whole = blocks.first().map_or(0..0, |first| first.start..blocks.last().map_or(first.end, |last| last.end));
    let turns = assistants.iter().map(|message| turn(message.source, &whole)).collect();
    Ok((blocks, turns))
}

/// What a template is run on.
struct Scene {
    messages: Vec<Value>,
    tools: Value,
    documents: Value,
    kwargs: Vec<(String, Value)>,
    /// A hash of everything but the messages.
    around: u128,
}

impl Scene {
    /// Messages, and around them tools, documents and template arguments.
    fn of(prepared: &[messages::Prepared], around: &[Option<Node<'_>>; 3]) -> Self {
        let [tools, documents, kwargs] = around;
        let hashed: String =
            around.iter().map(|node| node.as_ref().map_or_else(String::new, json::dumps) + "\0").collect();
        Self {
            around: xxh3_128(hashed.as_bytes()),
            messages: prepared.iter().map(|message| messages::value(&message.node)).collect(),
            tools: tools.as_ref().map_or(Value::from(()), python::value),
            documents: documents.as_ref().map_or(Value::from(()), python::value),
            kwargs: kwargs.as_ref().map(members).unwrap_or_default(),
        }
    }

    /// The same around other messages.
    fn with_messages(&self, messages: &[Node<'static>]) -> Self {
        Self {
            messages: messages.iter().map(messages::value).collect(),
            tools: self.tools.clone(),
            documents: self.documents.clone(),
            kwargs: self.kwargs.clone(),
            around: self.around,
        }
    }
}

fn members(node: &Node<'_>) -> Vec<(String, Value)> {
    match &node.value {
        Json::Object(members) => {
            members.iter().map(|member| (member.key.clone().into_owned(), python::value(&member.node))).collect()
        }
        _ => Vec::new(),
    }
}

/// An engine's error in one line: what the template said itself, or what went wrong and where.
fn describe(error: &minijinja::Error) -> String {
    let detail = error.detail().map_or_else(|| error.kind().to_string(), ToOwned::to_owned);
    if detail.starts_with(python::RAISED) {
        return detail;
    }
    match error.line() {
        Some(line) => format!("{detail} (line {line} of the chat template)"),
        None => detail,
    }
}

/// A few characters of `text` around `at`, line breaks made visible.
fn excerpt(text: &str, at: usize) -> String {
    let start = (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text[start..].chars().take(24).collect::<String>().replace('\n', "\\n")
}

fn tail(text: &str) -> String {
    let skip = text.chars().count().saturating_sub(24);
    text.chars().skip(skip).collect::<String>().replace('\n', "\\n")
}
