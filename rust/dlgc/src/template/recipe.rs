//! Recipes: what the dialogues of one structure are rendered to, and where their targets lie, as pieces to be copied.
//!
//! A recipe is made of [`Trace`]s: of the run over all messages, and, where targets are proved, of the runs that give each
//! turn's prompt and its rendering as the newest. That a prompt is how both of these begin is then true of the pieces, and
//! with them of every record of the structure; so is that a target holds the strings of its own message, each once, and
//! none of another. A record belongs to it if it has the same roles and fields, says something in each of them, without
//! marks or tags that the template names, and answers what the template asked as the traced one did; that is looked at for
//! each.
//!
//! What has no recipe is rendered and proved by itself (`law`). A recipe is only kept if it gives what that gives for the
//! record that it was made of.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use memchr::memmem::Finder;
use xxhash_rust::xxh3::xxh3_128;

use super::machine::{Part, Stage, Trace, traced};
use super::marks::{BEGIN, END};
use super::messages::{self, END_OF_THOUGHTS};
use super::skeleton::until_tag;
use super::{Mode, Rendered, Target, Template, Turn, by_block};
use crate::dialogue::{Dialogue, Role};
use crate::json::{Json, Node};

/// Recipes by structure.
#[derive(Default)]
pub(super) struct Recipes(Mutex<HashMap<u128, Known>>);

/// What is known of a structure.
enum Known {
    /// How many records had it, and how many of them gave no recipe.
    Seen(usize, u32),
    Recipe(Arc<Recipe>),
}

/// How many structures are kept; the table is emptied when it is full.
const KEPT: usize = 1 << 14;
/// Longer dialogues have none: proving each of their turns takes work that grows with the square of their length.
const LONGEST: usize = 256;
/// So many records are tried, each after four times as many as the one before: one that answers a template's question as
/// few do gives no recipe for the others.
const TRIED: u32 = 4;

/// How the dialogues of one structure are rendered.
struct Recipe {
    trace: Trace,
    row: Vec<Step>,
    /// How many places of the row are noted.
    places: usize,
    /// The places of the template's blocks, in order of their ends.
    blocks: Vec<[usize; 2]>,
    /// For each message, its target, if it has one that is proved.
    targets: Vec<Option<Slice>>,
}

/// Something to be copied, or a place to be noted.
enum Step {
    Scaffold(Box<str>),
    String(u32),
    Place(usize),
}

/// Where a target lies.
enum Slice {
    /// Between two places of the row.
    Shared { places: [usize; 2], stop: usize },
    /// In a row of its own, after its prompt.
    Own { prompt: Vec<Step>, target: Vec<Step>, stop: usize },
}

/// A record that may have a recipe.
struct Subject<'d> {
    /// What of it a recipe depends on.
    key: u128,
    /// What it says, in order.
    strings: Vec<&'d str>,
    /// Whether something of that holds a `<`.
    has_brackets: bool,
}

/// What both kinds of marks begin with.
static MARKS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\xef\xb7"));

fn has_marks(text: &str) -> bool {
    MARKS.find(text.as_bytes()).is_some()
}

/// Whether a text says something, without marks, and has no characters at its ends that are white space to some and not to
/// others.
fn is_plain(text: &str) -> bool {
    let core = text.trim().as_bytes();
    let is_odd = |byte: Option<&u8>| byte.is_none_or(|byte| (0x1C..=0x1F).contains(byte));
    !is_odd(core.first()) && !is_odd(core.last()) && !has_marks(text)
}

impl<'d> Subject<'d> {
    /// `None` where the record has no recipe.
    fn of(dialogue: &'d Dialogue<'_>, template: &Template, mode: Mode) -> Option<Self> {
        let Dialogue { messages, tools, documents, template_kwargs, running, .. } = dialogue;
        let around = [tools, documents, template_kwargs, running];
        if around.into_iter().any(Option::is_some) || messages.len() > LONGEST {
            return None;
        }
        let mut key = Vec::with_capacity(2 * messages.len() + 1);
        key.push(mode as u8);
        let mut strings = Vec::with_capacity(messages.len() + 4);
        let mut before = None;
        for message in messages {
            let merges =
                before.replace(message.role) == Some(message.role) && !template.abilities.takes_repeated(message.role);
            if merges || !message.tool_calls.is_empty() || message.state.is_some() {
                return None;
            }
            key.extend([message.role as u8, u8::from(message.reasoning.is_some())]);
            strings.push(&**message.content.as_ref()?);
            strings.extend(message.reasoning.as_deref());
            // Templates look at these; so they belong to the structure.
            for text in [&message.name, &message.tool_call_id] {
                let text = text.as_deref();
                key.extend(text.map_or(u64::MAX, |text| text.len() as u64).to_le_bytes());
                key.extend(text.unwrap_or_default().as_bytes());
                if text.is_some_and(has_marks) {
                    return None;
                }
            }
        }
        let has_bracket = |text: &&&str| memchr::memchr(b'<', text.as_bytes()).is_some();
        let mut has_brackets = false;
        for text in strings.iter().filter(has_bracket) {
            has_brackets = true;
            let (_, tag) = until_tag(text, &template.stops, &template.source);
            if !tag.is_empty() || text.contains(END_OF_THOUGHTS) {
                return None;
            }
        }
        strings.iter().all(|text| is_plain(text)).then(|| Self { key: xxh3_128(&key), strings, has_brackets })
    }
}

impl Template {
    /// A dialogue rendered by a recipe, if it has one.
    pub(super) fn by_recipe(&self, dialogue: &Dialogue<'_>, mode: Mode) -> Option<Rendered> {
        let subject = Subject::of(dialogue, self, mode)?;
        let rendered = self.recipe(&subject, dialogue, mode)?.render(&subject, dialogue, mode)?;
        debug_assert!(
            self.render_anew(dialogue, mode).is_ok_and(|anew| rendered.is_same(&anew)),
            "a recipe gives what comes of rendering"
        );
        Some(rendered)
    }

    /// The text of a dialogue by a recipe.
    pub(super) fn text_by_recipe(&self, dialogue: &Dialogue<'_>) -> Option<String> {
        let subject = Subject::of(dialogue, self, Mode::Blocks)?;
        let recipe = self.recipe(&subject, dialogue, Mode::Blocks)?;
        Some(follow(&recipe.row, &recipe.strings(&subject)?, recipe.places).0)
    }

    /// The recipe of a structure; made when it has paid to.
    fn recipe(&self, subject: &Subject<'_>, dialogue: &Dialogue<'_>, mode: Mode) -> Option<Arc<Recipe>> {
        // A panic elsewhere cannot have left a recipe half made.
        let lock = || self.recipes.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Where targets are proved it takes two runs for each of them.
        let first = if mode == Mode::Blocks { 1 } else { 1 + dialogue.messages.len() / 4 };
        let tried = match lock().entry(subject.key).or_insert(Known::Seen(0, 0)) {
            Known::Recipe(recipe) => return Some(Arc::clone(recipe)),
            Known::Seen(seen, tried) => {
                *seen += 1;
                if *tried == TRIED || *seen <= first << (2 * *tried) {
                    return None;
                }
                *tried += 1;
                *tried
            }
        };
        let made = self.make_recipe(subject, dialogue, mode).map(Arc::new);
        let mut known = lock();
        if known.len() >= KEPT {
            known.clear();
        }
        let seen = || Known::Seen(first << (2 * (tried - 1)), tried);
        known.insert(subject.key, made.as_ref().map_or_else(seen, |recipe| Known::Recipe(Arc::clone(recipe))));
        made
    }

    fn make_recipe(&self, subject: &Subject<'_>, dialogue: &Dialogue<'_>, mode: Mode) -> Option<Recipe> {
        let mut findings = Vec::new();
        let mut prepared = messages::prepare(dialogue, &self.abilities, self.state, &mut findings).ok()?;
        let mut strings = Vec::with_capacity(subject.strings.len());
        for (index, (message, said)) in prepared.iter_mut().zip(&dialogue.messages).enumerate() {
            for (text, is_reasoning) in [(&said.content, false), (&said.reasoning, true)] {
                let Some(text) = text else { continue };
                strings.push(Origin { message: index, is_reasoning });
                if number(&mut message.node, text, &traced(strings.len() as u32)) != 1 {
                    return None;
                }
            }
        }
        if !findings.is_empty() || strings.len() != subject.strings.len() {
            return None;
        }
        let aliased: Vec<Cow<'_, Node<'_>>> = prepared.iter().map(|message| messages::aliased(&message.node)).collect();
        let shown: Vec<&Node<'_>> = aliased.iter().map(|node| &**node).collect();
        let around = [None, None, None];
        let stage = self.stage(&shown, &around);
        let mut tracing = Tracing { template: self, stage, trace: Trace::new(strings.len() as u32), strings };
        let (row, blocks) = tracing.run(shown.len(), false)?;
        // Reasoning may be left out of what is history.
        let is_shown = |(index, origin): (usize, &Origin)| {
            origin.is_reasoning && mode != Mode::Blocks || tracing.strings_of(&row).any(|shown| shown == index)
        };
        if !tracing.strings.iter().enumerate().all(is_shown) {
            return None;
        }
        let mut cuts: Vec<usize> = Vec::new();
        let mut cut = |range: [usize; 2]| {
            cuts.extend(range);
            [cuts.len() - 2, cuts.len() - 1]
        };
        let blocks = blocks.into_iter().map(&mut cut).collect();
        let mut targets = Vec::with_capacity(prepared.len());
        for (position, message) in prepared.iter().enumerate() {
            let is_asked = mode != Mode::Blocks && message.role == Role::Assistant && position > 0;
            let found = if is_asked { tracing.target(&row, position) } else { None };
            targets.push(found.and_then(|found| match found {
                Found { start: Some(start), target, stop, .. } => {
                    Some(Slice::Shared { places: cut([start, start + target.len()]), stop })
                }
                Found { prompt, target, stop, .. } => (mode == Mode::Prove).then(|| {
                    let (prompt, target) = (steps(&prompt, &[]), steps(&target, &[]));
                    Slice::Own { prompt, target, stop }
                }),
            }));
        }
        let recipe = Recipe { trace: tracing.trace, row: steps(&row, &cuts), places: cuts.len(), blocks, targets };
        let anew = self.render_anew(dialogue, mode).ok()?;
        let is_same = recipe.render(subject, dialogue, mode).is_some_and(|rendered| rendered.is_same(&anew));
        is_same.then_some(recipe)
    }
}

/// What a run prints: bytes of scaffold, and strings by their numbers from [`STRINGS`] on.
type Printed = Vec<u32>;

const STRINGS: u32 = 1 << 8;

/// Whose a string is.
struct Origin {
    message: usize,
    is_reasoning: bool,
}

/// Runs over the messages of a record.
struct Tracing<'t> {
    template: &'t Template,
    stage: Stage<'t>,
    trace: Trace,
    strings: Vec<Origin>,
}

/// The target of a message.
struct Found {
    prompt: Printed,
    target: Printed,
    /// Where it begins in the row, if that begins with its prompt and goes on with it.
    start: Option<usize>,
    stop: usize,
}

impl Tracing<'_> {
    /// What the run over the first messages prints, and where the template's blocks lie in it.
    fn run(&mut self, count: usize, add_generation_prompt: bool) -> Option<(Printed, Vec<[usize; 2]>)> {
        let parts = self.trace.run(&self.template.program, self.stage, count, add_generation_prompt).ok()??;
        let (mut printed, mut open, mut blocks) = (Printed::new(), Vec::new(), Vec::new());
        for part in parts {
            match part {
                Part::String(number) => printed.push(STRINGS + number),
                Part::Scaffold(text) => {
                    for character in text.chars() {
                        match character {
                            BEGIN => open.push(printed.len()),
                            END => blocks.extend(open.pop().map(|start| [start, printed.len()])),
                            _ => {
                                let mut bytes = [0; 4];
                                printed.extend(character.encode_utf8(&mut bytes).bytes().map(u32::from));
                            }
                        }
                    }
                }
            }
        }
        Some((printed, blocks))
    }

    /// The strings of the messages that are printed, stripped or not.
    fn strings_of(&self, printed: &[u32]) -> impl Iterator<Item = usize> {
        printed.iter().filter_map(|symbol| Some(self.trace.root(symbol.checked_sub(STRINGS)?) as usize - 1))
    }

    /// The target of a message, if it is proved of every record of the structure.
    fn target(&mut self, row: &[u32], position: usize) -> Option<Found> {
        let (prompt, _) = self.run(position, true)?;
        let (newest, _) = self.run(position + 1, false)?;
        let turn = newest.strip_prefix(prompt.as_slice())?;
        let mut own: Vec<usize> = self.strings_of(turn).collect();
        own.sort_unstable();
        if !own.into_iter().eq((0..self.strings.len()).filter(|&index| self.strings[index].message == position)) {
            return None;
        }
        let end = turn.iter().rposition(|&symbol| symbol >= STRINGS)? + 1;
        let after: Vec<u8> = turn[end..].iter().map(|&byte| byte as u8).collect();
        let after = String::from_utf8(after).ok()?;
        // White space at the end of what is said must not be the beginning of a stop.
        let Template { stops, after_stop, .. } = self.template;
        if stops.iter().any(|stop| stop.is_empty() || stop.starts_with(char::is_whitespace)) {
            return None;
        }
        let found = stops.iter().filter_map(|stop| after.find(stop.as_str()).map(|at| (at, Reverse(stop.len()))));
        let (at, Reverse(stop)) = found.min()?;
        let rest = after[at + stop..].trim();
        if !rest.is_empty() && rest != after_stop.trim() {
            return None;
        }
        let target = turn[..end + at + stop].to_vec();
        let is_shared = row.strip_prefix(prompt.as_slice()).is_some_and(|rest| rest.starts_with(&target));
        Some(Found { start: is_shared.then_some(prompt.len()), prompt, target, stop })
    }
}

/// Numbers the strings of a message that are a text of the record; how many are.
fn number(node: &mut Node<'_>, text: &str, range: &Range<usize>) -> usize {
    match &mut node.value {
        Json::String(Cow::Borrowed(said)) if std::ptr::eq(*said, text) => {
            node.range = range.clone();
            1
        }
        Json::Array(elements) => elements.iter_mut().map(|node| number(node, text, range)).sum(),
        Json::Object(members) => members.iter_mut().map(|member| number(&mut member.node, text, range)).sum(),
        _ => 0,
    }
}

/// How to print something, and to note places in it.
fn steps(printed: &[u32], places: &[usize]) -> Vec<Step> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by_key(|&place| places[place]);
    let mut order = order.into_iter().peekable();
    let (mut steps, mut scaffold) = (Vec::new(), Vec::new());
    for at in 0..=printed.len() {
        let symbol = printed.get(at).copied();
        let is_place = order.peek().is_some_and(|&place| places[place] == at);
        if (is_place || symbol.is_none_or(|symbol| symbol >= STRINGS)) && !scaffold.is_empty() {
            let text = String::from_utf8(std::mem::take(&mut scaffold)).expect("cut between characters");
            steps.push(Step::Scaffold(text.into()));
        }
        while let Some(place) = order.next_if(|&place| places[place] == at) {
            steps.push(Step::Place(place));
        }
        match symbol {
            Some(symbol) if symbol >= STRINGS => steps.push(Step::String(symbol - STRINGS)),
            Some(byte) => scaffold.push(byte as u8),
            None => {}
        }
    }
    steps
}

/// Follows steps; the text, with the places that are noted in it.
fn follow(steps: &[Step], strings: &[&str], places: usize) -> (String, Vec<usize>) {
    let length = |step: &Step| match step {
        Step::Scaffold(text) => text.len(),
        Step::String(number) => strings[*number as usize - 1].len(),
        Step::Place(_) => 0,
    };
    let mut text = String::with_capacity(steps.iter().map(length).sum());
    let mut noted = vec![0; places];
    for step in steps {
        match step {
            Step::Scaffold(scaffold) => text.push_str(scaffold),
            Step::String(number) => text.push_str(strings[*number as usize - 1]),
            Step::Place(place) => noted[*place] = text.len(),
        }
    }
    (text, noted)
}

impl Recipe {
    /// All strings by their numbers, from 1; `None` where one of them answers other than it must.
    fn strings<'s>(&self, subject: &Subject<'s>) -> Option<Vec<&'s str>> {
        let mut strings = subject.strings.clone();
        for stripped in self.trace.stripped() {
            strings.push(stripped.map_or("", |stripped| stripped.apply(strings[stripped.of as usize - 1])));
        }
        // Most conditions are on tags.
        let conditions = self.trace.conditions().iter();
        let mut asked = conditions.filter(|condition| subject.has_brackets || !condition.is_on_brackets());
        asked.all(|condition| condition.holds(strings[condition.of as usize - 1])).then_some(strings)
    }

    fn render(&self, subject: &Subject<'_>, dialogue: &Dialogue<'_>, mode: Mode) -> Option<Rendered> {
        let strings = self.strings(subject)?;
        let (text, places) = follow(&self.row, &strings, self.places);
        let range = |[start, end]: [usize; 2]| places[start]..places[end];
        let blocks: Vec<Range<usize>> = self.blocks.iter().map(|&block| range(block)).collect();
        if mode == Mode::Blocks {
            let assistants =
                dialogue.messages.iter().enumerate().filter(|(_, message)| message.role == Role::Assistant);
            let assistants: Vec<_> = assistants.map(|(index, message)| (index, message.train)).collect();
            let (blocks, turns) = by_block(&assistants, blocks, &text).ok()?;
            return Some(Rendered { text, blocks, turns, ..Rendered::default() });
        }
        let trained = dialogue.messages.iter().enumerate().filter(|(_, message)| message.train);
        let turns = trained.map(|(message, _)| {
            let target = match self.targets[message].as_ref()? {
                Slice::Shared { places: [start, end], stop } => {
                    let target = text[places[*start]..places[*end]].to_owned();
                    Target { text: target, stop: *stop, shared: Some(places[*start]), ..Target::default() }
                }
                Slice::Own { prompt, target, stop } => {
                    let prompt = Some((follow(prompt, &strings, 0).0, Vec::new()));
                    let text = follow(target, &strings, 0).0;
                    Target { text, stop: *stop, own_row: true, prompt, ..Target::default() }
                }
            };
            Some(Turn { message, target: Ok(target) })
        });
        let turns = turns.collect::<Option<_>>()?;
        Some(Rendered { text, blocks, turns, ..Rendered::default() })
    }
}

impl Rendered {
    /// Whether nothing is found of either, and both are the same.
    fn is_same(&self, other: &Self) -> bool {
        let targets = |rendered: &Self| -> Option<Vec<(usize, Target)>> {
            rendered.turns.iter().map(|turn| Some((turn.message, turn.target.clone().ok()?))).collect()
        };
        let is_quiet = self.diagnostics.is_empty() && other.diagnostics.is_empty();
        let same = (&self.text, &self.blocks, &self.suppressed) == (&other.text, &other.blocks, &other.suppressed);
        is_quiet && same && targets(self).is_some_and(|own| targets(other) == Some(own))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::path::Path;

    use super::*;
    use crate::diagnostic::Severities;
    use crate::dialogue::{Location, Position};
    use crate::import::Importers;
    use crate::source::Record;
    use crate::template::TemplateOptions;
    use crate::validate::validate;

    const MODES: [Mode; 3] = [Mode::Prove, Mode::Whole, Mode::Blocks];

    /// Says its messages between tags.
    const PLAIN: &str = "{% for m in messages %}<|{{ m.role }}|>{{ m['content'] | trim }}<|end|>\n{% endfor %}\
        {% if add_generation_prompt %}<|assistant|>{% endif %}";

    fn load(source: &str) -> Option<Template> {
        let tokens = [("bos_token", "<s>"), ("eos_token", "</s>"), ("pad_token", "<pad>")];
        let special_tokens = tokens.map(|(name, text)| (name.to_owned(), text.to_owned())).to_vec();
        let stops = vec!["<|end|>".to_owned(), "</s>".to_owned()];
        let date = crate::template::Date::parse("2026-01-02");
        Template::load(source, &TemplateOptions { special_tokens, stops, date, ..TemplateOptions::default() }).ok()
    }

    /// Renders a dialogue, by its recipe if it has one, and anew; whether it had one.
    fn is_by_recipe(template: &Template, messages: &serde_json::Value, mode: Mode) -> bool {
        let bytes = serde_json::json!({ "messages": messages }).to_string().into_bytes();
        let location = Location::new("a.jsonl", Position::Line(1));
        let record = Record { location, bytes: &bytes };
        let validated = validate(&record, &Importers::default(), &Severities::default());
        let dialogue = validated.dialogues[0].dialogue.as_ref().expect("a dialogue");
        let Some(found) = template.by_recipe(dialogue, mode) else { return false };
        let anew = template.render_anew(dialogue, mode).expect("what has a recipe can be rendered");
        assert!(found.is_same(&anew), "{mode:?} {messages}\n{found:?}\n{anew:?}");
        true
    }

    /// Dialogues of one structure, told by its letters, that say different things.
    fn dialogues(roles: &str) -> Vec<serde_json::Value> {
        let texts = [
            "a",
            "Why?",
            " b ",
            "c\n",
            "\n\nd",
            "你好",
            "Qz7m0n0Zq",
            "end",
            "user",
            "x\u{3000}",
            "{{ e }}",
            "\\",
            "a\"b",
            "/think",
            "assistant\nuser",
            "\u{a0}f",
            "g  h",
            "1",
            "None",
            "é\u{301}",
            "]",
            "[INST] no [/INST]",
            "\ti\r\n",
            "1 < 2",
            "<p>j</p>",
            "</s>",
            "<tool",
            "<|end|>",
        ];
        let message = |index: usize, letter: char, shift: usize| {
            let text = texts[(index * 7 + shift) % texts.len()];
            match letter {
                's' => serde_json::json!({"role": "system", "content": text}),
                'u' => serde_json::json!({"role": "user", "content": text}),
                'r' => serde_json::json!({"role": "assistant", "reasoning_content": texts[shift], "content": text}),
                _ => serde_json::json!({"role": "assistant", "content": text}),
            }
        };
        let dialogue = |shift| roles.char_indices().map(|(index, letter)| message(index, letter, shift)).collect();
        (0..texts.len()).map(dialogue).collect()
    }

    /// Of dialogues of several structures, how many had a recipe.
    fn count(template: &Template, mode: Mode) -> usize {
        let structures = ["ua", "uaua", "sua", "suaua", "uauaua", "ur", "urur", "uaur", "uura", "aua"];
        let dialogues = structures.into_iter().flat_map(dialogues);
        dialogues.filter(|messages| is_by_recipe(template, messages, mode)).count()
    }

    #[test]
    fn most_dialogues_of_a_plain_template_have_a_recipe() {
        let template = load(PLAIN).expect("a template");
        assert!(count(&template, Mode::Prove) > 100);
        let tagged = PLAIN.replace("{{ m['content'] | trim }}", "{% generation %}{{ m.content }}{% endgeneration %}");
        assert!(count(&load(&tagged).expect("a template"), Mode::Blocks) > 100);
    }

    #[test]
    fn a_template_that_looks_into_what_is_said_has_none() {
        for look in [
            "{% if m.content | upper == 'B' %}!{% endif %}{{ m.content }}",
            "{{ m.content }}{{ m.content | length }}",
            "{{ m.content | tojson }}",
            "{{ m.content[0] }}{{ m.content[1:] }}",
            "{{ m }}{{ m.content }}",
            "{% if m.content > 'b' %}!{% endif %}{{ m.content }}",
            "{% if m.content == messages[0].content %}!{% endif %}{{ m.content }}",
            "{{ m.content.split('zz')[0] }}",
            "{{ m.content.replace('zz', 'y') }}",
            "{{ '%s' % m.content }}",
            "{{ [m.content] | join }}",
            "{{ m.content.strip('z') }}",
            "{% for c in m.content %}{{ c }}{% endfor %}",
            "{{ (m.content + 'x') | trim }}",
        ] {
            let source = PLAIN.replace("{{ m['content'] | trim }}", look);
            let template = load(&source).expect("a template");
            assert_eq!(MODES.map(|mode| count(&template, mode)), [0; 3], "{look}");
        }
    }

    #[test]
    fn what_a_template_asks_is_asked_of_every_record() {
        for ask in [
            "{% if 'Why' in m.content %}!{% endif %}{{ m.content }}",
            "{% if m.content.startswith(('a', '1')) %}!{% endif %}{{ m.content }}",
            "{% if m.content.strip().endswith('b') %}!{% endif %}{{ m.content }}",
            "{% if m.content == 'end' %}!{% endif %}{{ m.content }}",
            "{% set c %}({{ m.content }}){% endset %}{{ c }}{{ '' if c }}",
            "{% macro f(x) %}[{{ x }}]{% endmacro %}{{ f(m.content) + '.' }}",
            "{% set c = 'x' + m.content.lstrip('\\n') %}{{ c ~ '!' }}",
            "{{ {m.content: 1}.get('b', '') }}{{ m.content }}",
            "{{ (m.content + 1 | string) if m.content else '' }}",
        ] {
            let source = PLAIN.replace("{{ m['content'] | trim }}", ask);
            let template = load(&source).expect("a template");
            let found = MODES.map(|mode| count(&template, mode));
            assert!(found[0] > 20, "{ask}: {found:?}");
        }
    }

    #[test]
    #[expect(clippy::print_stdout, reason = "says what was skipped, and how much was compared")]
    fn real_templates_render_by_recipe_what_they_render_anew() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/templates");
        if !folder.exists() {
            println!("skipped: no real templates at hand");
            return;
        }
        let mut told = String::new();
        let mut sum = [0; 3];
        for entry in
            ["trl", "llama.cpp"].iter().flat_map(|name| std::fs::read_dir(folder.join(name)).expect("a folder"))
        {
            let path = entry.expect("an entry").path();
            if path.extension().is_none_or(|extension| extension != "jinja") {
                continue;
            }
            let Some(template) = load(&std::fs::read_to_string(&path).expect("text")) else { continue };
            let found = MODES
                .map(|mode| if mode == Mode::Blocks && !template.is_tagged() { 0 } else { count(&template, mode) });
            sum.iter_mut().zip(found).for_each(|(sum, found)| *sum += found);
            let name = path.file_name().expect("a name").to_string_lossy();
            writeln!(told, "{name}: {found:?}").expect("written");
        }
        println!("{told}{sum:?} of dialogues had a recipe");
        assert!(sum.iter().all(|&sum| sum > 1000), "{told}");
    }
}
