//! Rendering: a dialogue becomes text, and the targets in it are found and proved on the text.
//!
//! In: a [`Dialogue`]. Out: a [`Rendered`]: the text that transformers' `apply_chat_template` would give for
//! [`Rendered::messages`], byte for byte, and a verdict for each assistant message. How a target is found and proved
//! on the text is in `law`; [`crate::tokenize`] proves it again on ids. Nothing here knows a template by name, and no
//! template needs `{% generation %}` tags: they only serve those who ask for what the tags mark.
//!
//! Templates are programs from strangers: they run with bounded fuel, depth and output, without loaders or files.

mod date;
mod generation;
mod law;
mod machine;
mod marks;
mod messages;
mod numbers;
mod parts;
mod probe;
mod program;
mod recipe;
mod shown;
mod skeleton;
mod traces;

use std::borrow::Cow;
use std::cell::LazyCell;
use std::ops::Range;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use crate::diagnostic::{Code, Diagnostic};
use crate::dialogue::{Dialogue, Role};
use crate::error::{Error, ErrorKind, Result};
use crate::json::{self, Node};

use law::History;
use machine::{Failure, Stage};
use marks::Unmarked;
use program::Program;
use recipe::Subject;
use skeleton::Skeleton;

pub use date::Date;
pub use marks::SUPPRESS;
pub use messages::StateMode;
pub use parts::{Part, Whole};
pub use probe::Abilities;

/// Prefix of what `raise_exception` says, to tell a template's refusal from its mistakes.
const SAYS: &str = "the template says: ";
/// Longest template source that is read, in bytes.
const MAX_SOURCE: usize = 1 << 20;

/// A chat template, ready to render.
pub struct Template {
    program: Program,
    source: Arc<str>,
    /// The names of its tags.
    tags: skeleton::Names,
    tokens: Vec<(String, String)>,
    kwargs: Option<Node<'static>>,
    date: Option<Date>,
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
    traces: traces::Traces,
    recipes: recipe::Recipes,
    trust: numbers::Trust,
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
    /// Each is what the rendering of the whole dialogue shows of its message, proved by its own strings.
    Whole,
    /// The template's `{% generation %}` blocks are taken as they are.
    Blocks,
}

/// A rendered dialogue.
#[derive(Debug, Default)]
pub struct Rendered {
    /// The text, as `apply_chat_template(messages, …)` gives it.
    pub text: String,
    /// The messages as they were handed to the template; empty where nobody may look at them.
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
#[derive(Debug, Clone)]
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
    /// Whether it has a row of its own: its prompt does not nest, as text or (found when it is tokenised) as ids.
    pub own_row: bool,
    /// Where texts of control tokens begin in it that are to be encoded as ordinary text.
    pub suppressed: Vec<usize>,
    /// Whether it is not what follows the prompt of a server; only where whole dialogues are trained as they show.
    pub differs: bool,
    /// The prompt; only for a target that is not shared.
    pub prompt: Option<Prompt>,
}

/// A prompt that goes on otherwise than the text of the whole dialogue: as far as that goes with it, it is held once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompt {
    /// How many bytes of [`Rendered::text`] it begins with.
    pub begins: usize,
    /// How it goes on.
    pub rest: String,
    /// Where texts of control tokens begin in it that are to be encoded as ordinary text.
    pub suppressed: Vec<usize>,
}

impl Prompt {
    /// What begins with so much of a text and goes on by itself: the same of as much as it can begin with.
    fn of(text: &str, begins: usize, rest: &str, suppressed: Vec<usize>) -> Self {
        let mut more = common_prefix(&text.as_bytes()[begins..], rest.as_bytes());
        while !rest.is_char_boundary(more) {
            more -= 1;
        }
        Self { begins: begins + more, rest: rest[more..].to_owned(), suppressed }
    }

    /// Its text, with room for more; `whole` is [`Rendered::text`].
    pub(crate) fn text(&self, whole: &str, room: usize) -> String {
        let mut text = String::with_capacity(self.begins + self.rest.len() + room);
        text.push_str(&whole[..self.begins]);
        text.push_str(&self.rest);
        text
    }
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
        let program =
            Program::read(&rewritten).map_err(|message| fail(message).context("while reading the chat template"))?;
        let mut template = Self {
            program,
            source: source.into(),
            tags: skeleton::Names::of(source),
            tokens: options.special_tokens.clone(),
            kwargs: options.kwargs.clone(),
            date: options.date,
            abilities: Abilities::default(),
            stops: options.stops.clone(),
            declared_stops: options.stops.clone(),
            prints_stop: true,
            after_stop: String::new(),
            tagged,
            outlines: law::Outlines::default(),
            traces: traces::Traces::default(),
            recipes: recipe::Recipes::default(),
            trust: numbers::Trust::default(),
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
        if let Some(subject) = Subject::of(dialogue, self, Some(mode)) {
            if let Some(rendered) = self.by_recipe(&subject, dialogue, mode) {
                return Ok(rendered);
            }
            let whole = Whole::of(self, subject, dialogue);
            if let Some(rendered) = whole.and_then(|whole| self.by_numbers(&whole.all(), dialogue, mode)) {
                return Ok(rendered);
            }
        }
        self.render_anew(dialogue, mode)
    }

    /// The same of a part of a dialogue; `shown` is what it shows, as a dialogue by itself.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn render_part(
        &self,
        part: &Part<'_, '_>,
        shown: &Dialogue<'_>,
        mode: Mode,
    ) -> std::result::Result<Rendered, Diagnostic> {
        let subject = part.whole.subject.part(&part.shown, Some(mode));
        let by_recipe = subject.and_then(|subject| self.by_recipe(&subject, shown, mode));
        match by_recipe.or_else(|| self.by_numbers(part, shown, mode)) {
            Some(rendered) => Ok(rendered),
            None => self.render_anew(shown, mode),
        }
    }

    /// Without a recipe.
    fn render_anew(&self, dialogue: &Dialogue<'_>, mode: Mode) -> std::result::Result<Rendered, Diagnostic> {
        let mut diagnostics = Vec::new();
        let marked = messages::prepare(dialogue, &self.abilities, self.state, &mut diagnostics)?;
        let marked_around = around(dialogue);
        // Proofs are made on the messages as they are, marks and all: the marks are no part of any text.
        let aliased: Vec<Cow<'_, Node<'_>>> = marked.iter().map(|message| messages::aliased(&message.node)).collect();
        let shown: Vec<&Node<'_>> = aliased.iter().map(|node| &**node).collect();
        let stage = self.stage(&shown, &marked_around);
        let rendering = match mode {
            Mode::Prove | Mode::Whole => Rendering::Recorded(Box::new(History::new(&self.program, stage)?)),
            Mode::Blocks => Rendering::Plain(self.run(stage, shown.len(), false)?),
        };
        let row = rendering.row();
        let mut unmarked = None;
        if !row.suppressed.is_empty() {
            let mut plain = marked.clone();
            let mut around = marked_around.clone();
            plain.iter_mut().for_each(|message| marks::unmark(&mut message.node));
            around.iter_mut().flatten().for_each(marks::unmark);
            let aliased: Vec<Cow<'_, Node<'_>>> =
                plain.iter().map(|message| messages::aliased(&message.node)).collect();
            let shown: Vec<&Node<'_>> = aliased.iter().map(|node| &**node).collect();
            if self.run(self.stage(&shown, &around), shown.len(), false)?.text != row.text {
                let message = "the template looks into the text of a control token, so it cannot be told from one";
                return Err(Diagnostic::new(Code::ControlToken, message));
            }
            drop(aliased);
            unmarked = Some((plain, around));
        }
        let (prepared, around) = unmarked.as_ref().map_or((&marked, &marked_around), |(plain, around)| (plain, around));
        let nodes: Vec<&Node<'_>> = prepared.iter().map(|message| &message.node).collect();
        let skeleton = LazyCell::new(|| Skeleton::of(&nodes, &self.stops, &self.tags));
        self.nothing_lost(prepared, around, &skeleton, &row.text, mode)?;
        let (blocks, turns) = match &rendering {
            Rendering::Recorded(history) => {
                let turns = self.prove(history, prepared, &skeleton, &marked_around, mode);
                // A template may print reasoning for the newest turn only: what counts is the turn's own target.
                for (message, turn) in prepared.iter().filter(|message| message.train).zip(&turns) {
                    let target = turn.target.as_ref().ok();
                    diagnostics.extend(target.and_then(|target| messages::reasoning_lost(message, &target.text)));
                }
                (row.blocks.clone(), turns)
            }
            Rendering::Plain(row) => {
                diagnostics.extend(prepared.iter().filter_map(|message| messages::reasoning_lost(message, &row.text)));
                let assistants = prepared.iter().filter(|message| message.role == Role::Assistant);
                let assistants: Vec<_> = assistants.map(|message| (message.source, message.train)).collect();
                by_block(&assistants, row.blocks.clone(), &row.text)?
            }
        };
        let Unmarked { text, suppressed, .. } = rendering.into_row();
        Ok(Rendered { text, messages: Vec::new(), blocks, suppressed, turns, tokens: 0, diagnostics })
    }

    /// What a server would send for the last message of a dialogue, and where texts of control tokens begin in it that
    /// are to be encoded as ordinary text.
    ///
    /// # Errors
    /// A diagnostic where the template refuses it.
    pub fn prompt(&self, dialogue: &Dialogue<'_>) -> std::result::Result<(String, Vec<usize>), Diagnostic> {
        self.unproved(dialogue, 1, true)
    }

    /// The messages of a dialogue as the template gets them.
    ///
    /// # Errors
    /// A diagnostic where one of them cannot be brought into the form that it takes.
    pub fn messages(&self, dialogue: &Dialogue<'_>) -> std::result::Result<Vec<(usize, Node<'static>)>, Diagnostic> {
        let prepared = messages::prepare(dialogue, &self.abilities, self.state, &mut Vec::new())?;
        let unmarked = |mut message: messages::Prepared<'_>| {
            marks::unmark(&mut message.node);
            (message.source, message.node.into_owned_at(&(0..0)))
        };
        Ok(prepared.into_iter().map(unmarked).collect())
    }

    /// The text of a whole dialogue, and where texts of control tokens begin in it; nothing is proved of it.
    ///
    /// # Errors
    /// A diagnostic where the template refuses it.
    pub fn text(&self, dialogue: &Dialogue<'_>) -> std::result::Result<(String, Vec<usize>), Diagnostic> {
        match Subject::of(dialogue, self, None).and_then(|subject| self.text_by_recipe(&subject, dialogue)) {
            Some(text) => Ok((text, Vec::new())),
            None => self.unproved(dialogue, 0, false),
        }
    }

    /// The text of a part of a dialogue, or what a server would send for its last message; `shown` gives what it shows, as a
    /// dialogue by itself.
    ///
    /// # Errors
    /// A diagnostic where the template refuses it.
    pub fn text_of_part<'v>(
        &self,
        part: &Part<'_, '_>,
        is_prompt: bool,
        shown: impl Fn() -> Dialogue<'v>,
    ) -> std::result::Result<(String, Vec<usize>), Diagnostic> {
        let without = usize::from(is_prompt);
        let anew = || self.unproved(&shown(), without, is_prompt);
        match self.text_by_numbers(part, without, is_prompt, anew) {
            Some(text) => Ok((text, Vec::new())),
            None => anew(),
        }
    }

    fn unproved(
        &self,
        dialogue: &Dialogue<'_>,
        without: usize,
        add_generation_prompt: bool,
    ) -> std::result::Result<(String, Vec<usize>), Diagnostic> {
        let prepared = messages::prepare(dialogue, &self.abilities, self.state, &mut Vec::new())?;
        let around = around(dialogue);
        let shown: Vec<Cow<'_, Node<'_>>> = prepared.iter().map(|message| messages::aliased(&message.node)).collect();
        let shown: Vec<&Node<'_>> = shown.iter().map(|node| &**node).collect();
        let count = shown.len().saturating_sub(without);
        let rendered = self.run(self.stage(&shown, &around), count, add_generation_prompt)?;
        Ok((rendered.text, rendered.suppressed))
    }

    /// What the template is run on.
    fn stage<'a>(&'a self, messages: &'a [&'a Node<'a>], around: &'a [Option<Node<'a>>; 3]) -> Stage<'a> {
        let [tools, documents, arguments] = around;
        Stage {
            messages,
            tools: tools.as_ref(),
            documents: documents.as_ref(),
            tokens: &self.tokens,
            defaults: self.kwargs.as_ref().and_then(Node::as_object).unwrap_or_default(),
            arguments: arguments.as_ref().and_then(Node::as_object).unwrap_or_default(),
            date: self.date,
            numbered: None,
        }
    }

    /// Runs the template over the first `count` messages.
    fn run(
        &self,
        stage: Stage<'_>,
        count: usize,
        add_generation_prompt: bool,
    ) -> std::result::Result<Unmarked, Diagnostic> {
        let text = machine::run(&self.program, stage, count, add_generation_prompt).map_err(refused)?;
        Ok(marks::strip(&text))
    }
}

/// The rendering of all messages.
enum Rendering<'a> {
    /// Recorded, so that prompts can be had from it.
    Recorded(Box<History<'a>>),
    /// By itself, for who asks for no prompts.
    Plain(Unmarked),
}

impl Rendering<'_> {
    fn row(&self) -> &Unmarked {
        match self {
            Self::Recorded(history) => &history.row,
            Self::Plain(row) => row,
        }
    }

    fn into_row(self) -> Unmarked {
        match self {
            Self::Recorded(history) => history.into_row(),
            Self::Plain(row) => row,
        }
    }
}

/// Why a template gives no text, as a diagnostic.
fn refused(failure: Failure) -> Diagnostic {
    match failure {
        Failure::Limit => Diagnostic::new(Code::TemplateLimit, "rendering needs more work than a template may have"),
        Failure::Refused(message) => Diagnostic::new(Code::TemplateRefused, message),
        Failure::Rejoined => Diagnostic::new(Code::InternalError, "a branch was not taken up again"),
    }
}

/// What stands around the messages.
fn around<'d>(dialogue: &'d Dialogue<'_>) -> [Option<Node<'d>>; 3] {
    [&dialogue.tools, &dialogue.documents, &dialogue.template_kwargs].map(|node| node.as_ref().map(Node::lent))
}

/// A hash of what stands around the messages.
fn hash_of(around: &[Option<Node<'_>>; 3]) -> u128 {
    let hashed: String = around.iter().map(|node| node.as_ref().map_or_else(String::new, json::dumps) + "\0").collect();
    xxh3_128(hashed.as_bytes())
}

/// How much two texts, or lists of tokens, have in common at their beginning.
pub(crate) fn common_prefix<T: PartialEq>(one: &[T], other: &[T]) -> usize {
    const BLOCK: usize = 64;
    let blocks = one.chunks_exact(BLOCK).zip(other.chunks_exact(BLOCK)).take_while(|(one, other)| one == other).count();
    let rest = one[blocks * BLOCK..].iter().zip(&other[blocks * BLOCK..]);
    blocks * BLOCK + rest.take_while(|(one, other)| one == other).count()
}

/// Where assistant messages stand that are shown as they are in the dialogue, and whether each is trained.
fn assistants(dialogue: &Dialogue<'_>) -> Vec<(usize, bool)> {
    let all = dialogue.messages.iter().enumerate().filter(|(_, message)| message.role == Role::Assistant);
    all.map(|(index, message)| (index, message.train)).collect()
}

/// Takes the template's word for it: each block is an assistant message, as many as there are of both. Of each assistant
/// message it is said where it stands and whether it is trained.
fn by_block(
    assistants: &[(usize, bool)],
    blocks: Vec<Range<usize>>,
    text: &str,
) -> std::result::Result<(Vec<Range<usize>>, Vec<Turn>), Diagnostic> {
    let turn = |message: usize, block: &Range<usize>| {
        let target = Target { text: text[block.clone()].to_owned(), shared: Some(block.start), ..Target::default() };
        Turn { message, target: Ok(target) }
    };
    if assistants.len() == blocks.len() {
        let (mut kept, mut turns) = (Vec::new(), Vec::new());
        for (&(message, _), block) in assistants.iter().zip(blocks).filter(|((_, is_trained), _)| *is_trained) {
            turns.push(turn(message, &block));
            kept.push(block);
        }
        return Ok((kept, turns));
    }
    if assistants.iter().any(|(_, is_trained)| !is_trained) {
        let message = format!(
            "the template marks {} pieces of text for {} assistant messages, so one cannot be excluded",
            blocks.len(),
            assistants.len()
        );
        return Err(Diagnostic::new(Code::TemplateRefused, message));
    }
    let whole = blocks.first().map_or(0..0, |first| first.start..blocks.last().map_or(first.end, |last| last.end));
    let turns = assistants.iter().map(|&(message, _)| turn(message, &whole)).collect();
    Ok((blocks, turns))
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
