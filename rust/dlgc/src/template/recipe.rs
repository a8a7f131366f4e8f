//! Recipes: what the dialogues of one structure are rendered to, and where their targets lie, as pieces to be copied.
//!
//! A recipe is made of [`Trace`](super::machine::Trace)s: of the run over all messages, and, where targets are proved, of the runs that give each
//! turn's prompt and its rendering as the newest. That a prompt is how both of these begin is then true of the pieces, and
//! with them of every record of the structure; so is that a target holds the strings of its own message, each once, and
//! none of another. A record belongs to it if it has the same roles and fields, says something in each of them, without
//! marks or tags that the template names, and answers what the template asked as the traced one did; that is looked at for
//! each.
//!
//! Prompt and target of a turn depend on the messages up to it only, so what is proved of them is known for every
//! structure that begins so. What has no recipe is rendered and proved by itself (`law`). A recipe is only kept if it
//! gives what that gives for the record that it was made of.

pub(super) mod making;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use memchr::memmem::Finder;
use xxhash_rust::xxh3::xxh3_128;

use super::machine::{Condition, Way, Ways};
use super::messages::{self, END_OF_THOUGHTS};
use super::skeleton::until_tag;
use super::{Mode, Prompt, Rendered, StateMode, Target, Template, Turn, assistants, by_block};
use crate::dialogue::{Dialogue, Role};
use making::Printed;

/// Recipes by structure.
#[derive(Default)]
pub(super) struct Recipes {
    known: Mutex<Table<Known>>,
    /// What is proved of turns, by the structure up to them; `None` of those of which nothing is.
    turns: Mutex<Table<Option<Arc<Proved>>>>,
    pub(super) ways: Ways,
}

/// What is known by structure; it is emptied when it is full.
struct Table<V> {
    found: HashMap<u128, V>,
    /// How much it holds: steps, or what is printed.
    size: usize,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self { found: HashMap::new(), size: 0 }
    }
}

impl<V> Table<V> {
    fn make_room(&mut self, size: usize) {
        if self.found.len() >= KEPT || self.size + size > MOST {
            self.found.clear();
            self.size = 0;
        }
    }

    /// What is known of a structure, or what is if nothing was.
    fn or_insert(&mut self, key: u128, value: V) -> &mut V {
        if !self.found.contains_key(&key) {
            self.make_room(0);
        }
        self.found.entry(key).or_insert(value)
    }

    fn insert(&mut self, key: u128, value: V, size: usize) {
        self.make_room(size);
        self.size += size;
        self.found.insert(key, value);
    }
}

/// What is known of a structure.
enum Known {
    /// How many records had it, and how many of them gave no recipe.
    Seen(usize, u32),
    Recipe(Arc<Recipe>),
}

/// What is asked of a recipe.
pub(super) type Asked = Option<Mode>; // `None` is the text alone

/// The record of a structure that gives its recipe: making one takes as long as rendering a few.
const SEEN: usize = 4;
/// How many structures are kept, and how many turns; and how much of both, in steps and in bytes of what is printed.
const KEPT: usize = 1 << 14;
const MOST: usize = 1 << 20;
/// Longer dialogues have none: proving each of their turns takes work that grows with the square of their length.
const LONGEST: usize = 256;
/// How many steps a recipe may have: each row of its own has those of its prompt.
const MOST_STEPS: usize = 1 << 14;
/// So many records are tried, each after four times as many as the one before: one that answers a template's question as
/// few do gives no recipe for the others.
const TRIED: u32 = 4;

/// How the dialogues of one structure are rendered.
struct Recipe {
    /// Which strings are copied or asked, and how each is stripped.
    strings: Vec<(usize, Vec<Way>)>,
    /// What must hold of some of those.
    conditions: Vec<(usize, Condition)>,
    row: Vec<Step>,
    /// How many places of the row are noted.
    places: usize,
    /// The places of the template's blocks, in order of their ends.
    blocks: Vec<[usize; 2]>,
    /// For each message, its target, if it has one that is proved.
    targets: Vec<Option<Slice>>,
    /// How many steps there are in all.
    size: usize,
}

/// Something to be copied, or a place to be noted.
enum Step {
    Scaffold(Box<str>),
    String(usize),
    Place(usize),
}

/// What is true of a turn in every record whose structure begins so.
struct Proved {
    prompt: Printed,
    target: Printed,
    /// Length of the stop at its end.
    stop: usize,
    conditions: Vec<Condition>,
}

/// Where a target lies.
enum Slice {
    /// Between two places of the row.
    Shared { places: [usize; 2], stop: usize },
    /// In a row of its own, after its prompt.
    Own { prompt: Vec<Step>, target: Vec<Step>, stop: usize },
}

/// A record that may have a recipe.
pub(super) struct Subject<'d> {
    /// What of it a recipe depends on, and where that ends for each message.
    structure: Vec<u8>,
    ends: Vec<usize>,
    key: u128,
    /// What it says, in order, and the numbers of that for each message, counted from 1.
    pub(super) strings: Vec<&'d str>,
    pub(super) numbers: Vec<Range<u32>>,
    roles: Vec<Role>,
    /// Whether something of that holds a `<`.
    has_brackets: bool,
}

/// What all marks begin with.
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

/// Whether a message may follow another one without being merged with it.
fn may_follow(before: Role, role: Role, template: &Template) -> bool {
    before != role || template.abilities.takes_repeated(role)
}

/// The number of the string that comes next.
fn after(strings: &[&str]) -> u32 {
    strings.len() as u32 + 1
}

impl<'d> Subject<'d> {
    /// `None` where the record has no recipe.
    pub(super) fn of(dialogue: &'d Dialogue<'_>, template: &Template, asked: Asked) -> Option<Self> {
        let is_short = dialogue.messages.len() <= LONGEST;
        Some(is_short.then(|| Self::read(dialogue, template))??.asked(asked))
    }

    /// Some of its messages; `None` where these have no recipe.
    pub(super) fn part(&self, shown: &[usize], asked: Asked) -> Option<Self> {
        if shown.len() > LONGEST {
            return None;
        }
        let (mut structure, mut ends) = (vec![0], Vec::with_capacity(shown.len()));
        let (mut strings, mut numbers) = (Vec::with_capacity(self.strings.len()), Vec::with_capacity(shown.len()));
        for &message in shown {
            let start = message.checked_sub(1).map_or(1, |before| self.ends[before]);
            structure.extend_from_slice(&self.structure[start..self.ends[message]]);
            ends.push(structure.len());
            let said = self.numbers[message].clone();
            numbers.push(after(&strings)..after(&strings) + said.len() as u32);
            strings.extend_from_slice(&self.strings[said.start as usize - 1..said.end as usize - 1]);
        }
        let roles = shown.iter().map(|&message| self.roles[message]).collect();
        let part = Self { structure, ends, key: 0, strings, numbers, roles, has_brackets: self.has_brackets };
        Some(part.asked(asked))
    }

    /// What is asked of it is part of its structure.
    fn asked(mut self, asked: Asked) -> Self {
        self.structure[0] = asked.map_or(u8::MAX, |mode| mode as u8);
        self.key = xxh3_128(&self.structure);
        self
    }

    /// Whether one message may follow another without being merged with it.
    pub(super) fn may_follow(&self, before: usize, message: usize, template: &Template) -> bool {
        may_follow(self.roles[before], self.roles[message], template)
    }

    /// `None` where nothing of the record can be told from its structure.
    pub(super) fn read(dialogue: &'d Dialogue<'_>, template: &Template) -> Option<Self> {
        let Dialogue { messages, tools, documents, template_kwargs, running, .. } = dialogue;
        let around = [tools, documents, template_kwargs];
        let has_state = running.is_some() || messages.iter().any(|message| message.state.is_some());
        if around.into_iter().any(Option::is_some) || has_state && template.state != StateMode::Ignore {
            return None;
        }
        let mut structure = Vec::with_capacity(20 * messages.len() + 1);
        structure.push(0); // what is asked
        let mut ends = Vec::with_capacity(messages.len());
        let mut strings = Vec::with_capacity(messages.len() + 4);
        let mut numbers = Vec::with_capacity(messages.len());
        let mut roles: Vec<Role> = Vec::with_capacity(messages.len());
        for message in messages {
            let follows = roles.last().is_none_or(|&before| may_follow(before, message.role, template));
            if !follows || !message.tool_calls.is_empty() {
                return None;
            }
            roles.push(message.role);
            let first = after(&strings);
            structure.extend([message.role as u8, u8::from(message.reasoning.is_some())]);
            strings.push(&**message.content.as_ref()?);
            strings.extend(message.reasoning.as_deref());
            numbers.push(first..after(&strings));
            // Templates look at these; so they belong to the structure.
            for text in [&message.name, &message.tool_call_id] {
                let text = text.as_deref();
                structure.extend(text.map_or(u64::MAX, |text| text.len() as u64).to_le_bytes());
                structure.extend(text.unwrap_or_default().as_bytes());
                if text.is_some_and(has_marks) {
                    return None;
                }
            }
            ends.push(structure.len());
        }
        let has_bracket = |text: &&&str| memchr::memchr(b'<', text.as_bytes()).is_some();
        let mut has_brackets = false;
        for text in strings.iter().filter(has_bracket) {
            has_brackets = true;
            let (_, tag) = until_tag(text, &template.stops, &template.tags);
            if !tag.is_empty() || text.contains(END_OF_THOUGHTS) {
                return None;
            }
        }
        let read = Self { structure, ends, key: 0, strings, numbers, roles, has_brackets };
        read.strings.iter().all(|text| is_plain(text)).then_some(read)
    }

    /// What a turn's prompt and target depend on.
    fn key_upto(&self, message: usize) -> u128 {
        xxh3_128(&self.structure[1..self.ends[message]])
    }
}

impl Template {
    /// A dialogue rendered by a recipe, if it has one.
    pub(super) fn by_recipe(&self, subject: &Subject<'_>, dialogue: &Dialogue<'_>, mode: Mode) -> Option<Rendered> {
        let rendered = self.recipe(subject, dialogue, Some(mode))?.render(subject, dialogue, mode)?;
        debug_assert!(
            self.render_anew(dialogue, mode).is_ok_and(|anew| rendered.is_same(&anew)),
            "a recipe gives what comes of rendering"
        );
        Some(rendered)
    }

    /// The text of a dialogue by a recipe.
    pub(super) fn text_by_recipe(&self, subject: &Subject<'_>, dialogue: &Dialogue<'_>) -> Option<String> {
        let text = self.recipe(subject, dialogue, None)?.text(subject)?;
        debug_assert!(
            self.unproved(dialogue, 0, false).is_ok_and(|(anew, suppressed)| anew == text && suppressed.is_empty()),
            "a recipe gives what comes of rendering"
        );
        Some(text)
    }

    /// The recipe of a structure; made when it has paid to.
    fn recipe(&self, subject: &Subject<'_>, dialogue: &Dialogue<'_>, asked: Asked) -> Option<Arc<Recipe>> {
        // A panic elsewhere cannot have left a recipe half made.
        let lock = || self.recipes.known.lock().unwrap_or_else(PoisonError::into_inner);
        let seen_and_tried = match lock().or_insert(subject.key, Known::Seen(0, 0)) {
            Known::Recipe(recipe) => return Some(Arc::clone(recipe)),
            Known::Seen(seen, tried) => {
                *seen += 1;
                if *tried == TRIED || *seen < SEEN << (2 * *tried) {
                    return None;
                }
                // Where targets are proved it takes two runs for each of them that is not known.
                let unknown = if proves(asked) { self.unknown_turns(subject, dialogue) } else { 0 };
                if *seen < (SEEN + unknown / 4) << (2 * *tried) {
                    return None;
                }
                *tried += 1;
                Known::Seen(*seen, *tried)
            }
        };
        let made = self.make_recipe(subject, dialogue, asked).map(Arc::new);
        let recipe = made.as_ref().map(|recipe| Known::Recipe(Arc::clone(recipe)));
        let size = made.as_ref().map_or(1, |recipe| recipe.size);
        lock().insert(subject.key, recipe.unwrap_or(seen_and_tried), size);
        made
    }

    /// How many turns of a record there are of which it is not known whether something is proved.
    fn unknown_turns(&self, subject: &Subject<'_>, dialogue: &Dialogue<'_>) -> usize {
        let known = self.recipes.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let turns = (1..dialogue.messages.len()).filter(|&turn| dialogue.messages[turn].role == Role::Assistant);
        turns.filter(|&turn| !known.found.contains_key(&subject.key_upto(turn))).count()
    }
}

/// Whether targets are proved.
fn proves(asked: Asked) -> bool {
    matches!(asked, Some(Mode::Prove | Mode::Whole))
}

/// Follows steps; the text, with the places that are noted in it.
fn follow(steps: &[Step], strings: &[&str], places: usize) -> (String, Vec<usize>) {
    let length = |step: &Step| match step {
        Step::Scaffold(text) => text.len(),
        Step::String(index) => strings[*index].len(),
        Step::Place(_) => 0,
    };
    let mut text = String::with_capacity(steps.iter().map(length).sum());
    let mut noted = vec![0; places];
    for step in steps {
        match step {
            Step::Scaffold(scaffold) => text.push_str(scaffold),
            Step::String(index) => text.push_str(strings[*index]),
            Step::Place(place) => noted[*place] = text.len(),
        }
    }
    (text, noted)
}

impl Recipe {
    /// The strings that it uses; `None` where one of them answers other than it must.
    fn strings<'s>(&self, subject: &Subject<'s>) -> Option<Vec<&'s str>> {
        let stripped =
            |(index, ways): &(usize, Vec<Way>)| ways.iter().fold(subject.strings[*index], |text, way| way.apply(text));
        let strings: Vec<&str> = self.strings.iter().map(stripped).collect();
        // Most conditions are on tags.
        let mut asked = self.conditions.iter().filter(|(_, asked)| subject.has_brackets || !asked.is_on_brackets());
        asked.all(|(index, condition)| condition.holds(strings[*index])).then_some(strings)
    }

    fn text(&self, subject: &Subject<'_>) -> Option<String> {
        Some(follow(&self.row, &self.strings(subject)?, self.places).0)
    }

    fn render(&self, subject: &Subject<'_>, dialogue: &Dialogue<'_>, mode: Mode) -> Option<Rendered> {
        let strings = self.strings(subject)?;
        let (text, places) = follow(&self.row, &strings, self.places);
        let range = |[start, end]: [usize; 2]| places[start]..places[end];
        let blocks: Vec<Range<usize>> = self.blocks.iter().map(|&block| range(block)).collect();
        let states = dialogue.messages.iter().filter_map(|message| message.state.as_ref());
        let diagnostics = states.map(messages::state_left_out).collect();
        if mode == Mode::Blocks {
            let (blocks, turns) = by_block(&assistants(dialogue), blocks, &text).ok()?;
            return Some(Rendered { text, blocks, turns, diagnostics, ..Rendered::default() });
        }
        let trained = dialogue.messages.iter().enumerate().filter(|(_, message)| message.train);
        let turns = trained.map(|(message, _)| {
            let target = match self.targets[message].as_ref()? {
                Slice::Shared { places: [start, end], stop } => {
                    let target = text[places[*start]..places[*end]].to_owned();
                    Target { text: target, stop: *stop, shared: Some(places[*start]), ..Target::default() }
                }
                Slice::Own { prompt, target, stop } => {
                    let prompt = Some(Prompt::of(&text, 0, &follow(prompt, &strings, 0).0, Vec::new()));
                    let text = follow(target, &strings, 0).0;
                    Target { text, stop: *stop, own_row: true, prompt, ..Target::default() }
                }
            };
            Some(Turn { message, target: Ok(target) })
        });
        let turns = turns.collect::<Option<_>>()?;
        Some(Rendered { text, blocks, turns, diagnostics, ..Rendered::default() })
    }
}

impl Rendered {
    /// Whether both are the same, and each has its targets.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let targets = |rendered: &Self| -> Option<Vec<(usize, Target)>> {
            rendered.turns.iter().map(|turn| Some((turn.message, turn.target.clone().ok()?))).collect()
        };
        let same = (&self.text, &self.blocks, &self.suppressed) == (&other.text, &other.blocks, &other.suppressed);
        same && self.diagnostics == other.diagnostics && targets(self).is_some_and(|own| targets(other) == Some(own))
    }
}

#[cfg(test)]
pub(super) mod tests {
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

    pub(in crate::template) fn load(source: &str) -> Option<Template> {
        let tokens = [("bos_token", "<s>"), ("eos_token", "</s>"), ("pad_token", "<pad>")];
        let special_tokens = tokens.map(|(name, text)| (name.to_owned(), text.to_owned())).to_vec();
        let stops = vec!["<|end|>".to_owned(), "</s>".to_owned()];
        let date = crate::template::Date::parse("2026-01-02");
        Template::load(source, &TemplateOptions { special_tokens, stops, date, ..TemplateOptions::default() }).ok()
    }

    /// Hands over a dialogue.
    pub(in crate::template) fn with_dialogue<T>(
        messages: &serde_json::Value,
        run: impl FnOnce(&Dialogue<'_>) -> T,
    ) -> T {
        let bytes = serde_json::json!({ "messages": messages }).to_string().into_bytes();
        let location = Location::new("a.jsonl", Position::Line(1));
        let record = Record { location, bytes: &bytes };
        let validated = validate(&record, &Importers::default(), &Severities::default());
        run(validated.dialogues[0].dialogue.as_ref().expect("a dialogue"))
    }

    /// Renders a dialogue, by its recipe if it has one, and anew; whether it had one.
    fn is_by_recipe(template: &Template, messages: &serde_json::Value, mode: Mode) -> bool {
        with_dialogue(messages, |dialogue| has_recipe(template, messages, dialogue, mode))
    }

    fn has_recipe(template: &Template, messages: &serde_json::Value, dialogue: &Dialogue<'_>, mode: Mode) -> bool {
        let subject = |asked| Subject::of(dialogue, template, asked);
        if let Some(text) = subject(None).and_then(|subject| template.text_by_recipe(&subject, dialogue)) {
            let (anew, suppressed) = template.unproved(dialogue, 0, false).expect("what has a recipe can be rendered");
            assert!(text == anew && suppressed.is_empty(), "{messages}\n{text}\n{anew}");
        }
        let found = subject(Some(mode)).and_then(|subject| template.by_recipe(&subject, dialogue, mode));
        let Some(found) = found else { return false };
        let anew = template.render_anew(dialogue, mode).expect("what has a recipe can be rendered");
        assert!(found.is_same(&anew), "{mode:?} {messages}\n{found:?}\n{anew:?}");
        true
    }

    /// Dialogues of one structure, told by its letters, that say different things.
    pub(in crate::template) fn dialogues(roles: &str) -> Vec<serde_json::Value> {
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
    fn a_table_that_is_full_is_emptied() {
        let mut table = Table::default();
        for key in 0..3 {
            table.insert(key, (), MOST / 2);
        }
        assert_eq!((table.found.len(), table.size), (1, MOST / 2));
        (0..=KEPT).for_each(|key| table.insert(key as u128 + 3, (), 1));
        assert!(table.found.len() <= KEPT && table.size <= MOST);
        (0..=KEPT).for_each(|key| *table.or_insert(key as u128 + (1 << 64), ()) = ());
        assert!(table.found.len() <= KEPT);
    }

    /// Real templates by name, if they are at hand.
    pub(in crate::template) fn real_templates() -> Option<Vec<(String, Template)>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/templates");
        let read =
            |name| std::fs::read_dir(folder.join(name)).expect("a folder").map(|entry| entry.expect("it").path());
        let load = |path: std::path::PathBuf| {
            let is_template = path.extension().is_some_and(|extension| extension == "jinja");
            let template = is_template.then(|| load(&std::fs::read_to_string(&path).expect("text"))).flatten()?;
            Some((path.file_name()?.to_string_lossy().into_owned(), template))
        };
        folder.exists().then(|| ["trl", "llama.cpp"].into_iter().flat_map(read).filter_map(load).collect())
    }

    #[test]
    #[expect(clippy::print_stdout, reason = "says what was skipped, and how much was compared")]
    fn real_templates_render_by_recipe_what_they_render_anew() {
        let mut told = String::new();
        let mut sum = [0; 3];
        let Some(templates) = real_templates() else {
            println!("skipped: no real templates at hand");
            return;
        };
        for (name, template) in templates {
            let found = MODES
                .map(|mode| if mode == Mode::Blocks && !template.is_tagged() { 0 } else { count(&template, mode) });
            sum.iter_mut().zip(found).for_each(|(sum, found)| *sum += found);
            writeln!(told, "{name}: {found:?}").expect("written");
        }
        println!("{told}{sum:?} of dialogues had a recipe");
        assert!(sum.iter().all(|&sum| sum > 1000), "{told}");
    }
}
