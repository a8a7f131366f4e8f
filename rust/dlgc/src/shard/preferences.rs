//! Rows of preferences: their columns, and how they are written and read.
//!
//! A row is a prompt and what is said after it: a better and a worse answer, or one that is good or bad. Every column has
//! one value for each row. `specs/shard.md` says what each means.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, UInt64Type};
use arrow_array::{ArrayRef, BooleanArray, Int32Array, ListArray, RecordBatch, StringArray, UInt64Array};
use arrow_schema::ArrowError;

use super::columns::{Column, Type, indices, int32, line, list};
use super::rows::numbers;
use super::{Judgement, Preference, Provenance, Row, RowKind};

/// Those of a better and a worse answer.
pub(super) const PAIRS: [Column; 19] = [
    ("prompt_ids", Type::NUMBERS),
    ("chosen_ids", Type::NUMBERS),
    ("rejected_ids", Type::NUMBERS),
    ("chosen_labels", Type::NUMBERS),
    ("rejected_labels", Type::NUMBERS),
    ("divergence", Type::Int32),
    ("negative", Type::String),
    ("dialogue_id", Type::String),
    ("file", Type::String),
    ("line", Type::Int32),
    ("window", Type::Int32),
    ("fold", Type::Int32),
    ("chosen_messages", Type::NUMBERS),
    ("rejected_messages", Type::NUMBERS),
    ("prompt_hash", Type::UInt64),
    ("chosen_hash", Type::UInt64),
    ("rejected_hash", Type::UInt64),
    ("chosen_target_hash", Type::UInt64),
    ("rejected_target_hash", Type::UInt64),
];

/// Those of an answer that is good or bad.
pub(super) const JUDGED: [Column; 14] = [
    ("prompt_ids", Type::NUMBERS),
    ("completion_ids", Type::NUMBERS),
    ("completion_labels", Type::NUMBERS),
    ("label", Type::Bool),
    ("negative", Type::String),
    ("dialogue_id", Type::String),
    ("file", Type::String),
    ("line", Type::Int32),
    ("window", Type::Int32),
    ("fold", Type::Int32),
    ("trained_messages", Type::NUMBERS),
    ("prompt_hash", Type::UInt64),
    ("completion_hash", Type::UInt64),
    ("completion_target_hash", Type::UInt64),
];

/// The columns of pairs.
pub(super) fn pairs(rows: &[Row]) -> Result<Vec<ArrayRef>, ArrowError> {
    let written = Written::of(rows);
    let divergence = written.preferences().map(|preference| match preference.judgement {
        Judgement::Pair { divergence } => divergence as i32,
        Judgement::Label(_) => unreachable!("the rows of a dataset are of one kind"),
    });
    let mut columns = vec![
        written.prompts()?,
        written.ids(0)?,
        written.ids(1)?,
        written.labels(0)?,
        written.labels(1)?,
        int32(divergence.collect()),
    ];
    columns.extend(written.origins());
    columns.extend([written.messages(0)?, written.messages(1)?]);
    columns.push(written.hashes(|preference, _| preference.prompt_hash, 0));
    columns.extend([0, 1].map(|answer| written.hashes(|_, origin| origin.text_hash, answer)));
    columns.extend([0, 1].map(|answer| written.hashes(|_, origin| origin.target_hash, answer)));
    Ok(columns)
}

/// The columns of answers that are good or bad.
pub(super) fn judged(rows: &[Row]) -> Result<Vec<ArrayRef>, ArrowError> {
    let written = Written::of(rows);
    let labels = written.preferences().map(|preference| preference.judgement == Judgement::Label(true));
    let mut columns = vec![
        written.prompts()?,
        written.ids(0)?,
        written.labels(0)?,
        Arc::new(BooleanArray::from_iter(labels.map(Some))),
    ];
    columns.extend(written.origins());
    columns.push(written.messages(0)?);
    columns.push(written.hashes(|preference, _| preference.prompt_hash, 0));
    columns.push(written.hashes(|_, origin| origin.text_hash, 0));
    columns.push(written.hashes(|_, origin| origin.target_hash, 0));
    Ok(columns)
}

/// Ids, labels and origin of an answer.
type Answer<'r> = (&'r [i32], &'r [i32], &'r Provenance);

/// Rows on their way into columns.
struct Written<'r> {
    rows: &'r [Row],
    answers: Vec<Vec<Answer<'r>>>,
}

impl<'r> Written<'r> {
    fn of(rows: &'r [Row]) -> Self {
        Self { rows, answers: rows.iter().map(|row| row.parts().collect()).collect() }
    }

    fn preferences(&self) -> impl Iterator<Item = &'r Preference> {
        self.rows.iter().map(|row| row.preference.as_ref().expect("the rows of a dataset are of one kind"))
    }

    fn answers(&self, number: usize) -> impl Iterator<Item = Answer<'r>> {
        self.answers.iter().map(move |answers| answers[number])
    }

    fn prompts(&self) -> Result<ArrayRef, ArrowError> {
        lists(self.rows.iter().map(Row::prompt_ids))
    }

    fn ids(&self, number: usize) -> Result<ArrayRef, ArrowError> {
        lists(self.answers(number).map(|(ids, ..)| ids))
    }

    fn labels(&self, number: usize) -> Result<ArrayRef, ArrowError> {
        lists(self.answers(number).map(|(_, labels, _)| labels))
    }

    fn messages(&self, number: usize) -> Result<ArrayRef, ArrowError> {
        let origins = || self.answers(number).map(|(.., origin)| &origin.trained_messages);
        list(origins().map(Vec::len), int32(origins().flat_map(|messages| indices(messages)).collect()))
    }

    fn hashes(&self, pick: fn(&Preference, &Provenance) -> u64, number: usize) -> ArrayRef {
        let both = self.preferences().zip(self.answers(number));
        Arc::new(UInt64Array::from_iter_values(both.map(|(preference, (.., origin))| pick(preference, origin))))
    }

    /// From `negative` to `fold`.
    fn origins(&self) -> [ArrayRef; 6] {
        let origins = || self.answers(0).map(|(.., origin)| origin);
        [
            Arc::new(StringArray::from_iter_values(self.preferences().map(|preference| &preference.negative))),
            Arc::new(StringArray::from_iter_values(origins().map(|origin| &origin.dialogue_id))),
            Arc::new(StringArray::from_iter_values(origins().map(|origin| &origin.file))),
            int32(origins().map(|origin| line(origin.line)).collect()),
            int32(origins().map(|origin| origin.window).collect()),
            int32(origins().map(|origin| origin.fold).collect()),
        ]
    }
}

fn lists<'r>(values: impl Iterator<Item = &'r [i32]>) -> Result<ArrayRef, ArrowError> {
    let values: Vec<&[i32]> = values.collect();
    list(values.iter().map(|list| list.len()), int32(values.concat()))
}

/// The columns of a batch.
pub(crate) struct Preferences<'b> {
    prompt_ids: &'b ListArray,
    prompt_hash: &'b UInt64Array,
    answers: Vec<Answers<'b>>,
    judgement: Judged<'b>,
    negative: &'b StringArray,
    dialogue_id: &'b StringArray,
    file: &'b StringArray,
    line: &'b Int32Array,
    window: &'b Int32Array,
    fold: &'b Int32Array,
}

/// Those about one of the answers.
struct Answers<'b> {
    ids: &'b ListArray,
    labels: &'b ListArray,
    messages: &'b ListArray,
    text_hash: &'b UInt64Array,
    target_hash: &'b UInt64Array,
}

/// The column that says what is said of the answers.
enum Judged<'b> {
    Divergence(&'b Int32Array),
    Label(&'b BooleanArray),
}

impl<'b> Preferences<'b> {
    /// `None` where they are not those of `specs/shard.md`.
    pub(super) fn of(batch: &'b RecordBatch) -> Option<Self> {
        let list = |name: &str| {
            let list = batch.column_by_name(name)?.as_list_opt::<i32>()?;
            list.values().as_primitive_opt::<Int32Type>().map(|_| list)
        };
        let hash = |name: &str| batch.column_by_name(name)?.as_primitive_opt::<UInt64Type>();
        let number = |name: &str| batch.column_by_name(name)?.as_primitive_opt::<Int32Type>();
        let text = |name: &str| batch.column_by_name(name)?.as_string_opt::<i32>();
        let answer = |name: &str, messages: &str| {
            Some(Answers {
                ids: list(&format!("{name}_ids"))?,
                labels: list(&format!("{name}_labels"))?,
                messages: list(messages)?,
                text_hash: hash(&format!("{name}_hash"))?,
                target_hash: hash(&format!("{name}_target_hash"))?,
            })
        };
        let (answers, judgement) = match batch.column_by_name("label") {
            None => {
                let both = [answer("chosen", "chosen_messages")?, answer("rejected", "rejected_messages")?];
                (Vec::from(both), Judged::Divergence(number("divergence")?))
            }
            Some(label) => (vec![answer("completion", "trained_messages")?], Judged::Label(label.as_boolean_opt()?)),
        };
        Some(Self {
            prompt_ids: list("prompt_ids")?,
            prompt_hash: hash("prompt_hash")?,
            answers,
            judgement,
            negative: text("negative")?,
            dialogue_id: text("dialogue_id")?,
            file: text("file")?,
            line: number("line")?,
            window: number("window")?,
            fold: number("fold")?,
        })
    }

    /// What its rows are.
    pub(super) fn kind(&self) -> RowKind {
        match self.judgement {
            Judged::Divergence(_) => RowKind::Preference,
            Judged::Label(_) => RowKind::Kto,
        }
    }

    /// Why a row cannot be taken for a prompt and what is said after it.
    pub(super) fn misfit(&self, index: usize) -> Option<String> {
        if self.prompt_ids.value_length(index) == 0 {
            return Some("the prompt is empty".to_owned());
        }
        self.answers.iter().find_map(|answer| {
            let (ids, labels) = (answer.ids.value_length(index), answer.labels.value_length(index));
            (ids != labels || ids == 0).then(|| format!("an answer of {ids} ids has {labels} labels"))
        })
    }

    /// A row.
    pub(super) fn row(&self, index: usize) -> Row {
        let prompt = numbers::<Int32Type>(self.prompt_ids, index);
        let judgement = match self.judgement {
            Judged::Divergence(column) => {
                Judgement::Pair { divergence: u64::try_from(column.value(index)).unwrap_or(u64::MAX) }
            }
            Judged::Label(column) => Judgement::Label(column.value(index)),
        };
        let preference = Preference {
            prompt: prompt.len() as u64,
            prompt_hash: self.prompt_hash.value(index),
            judgement,
            negative: self.negative.value(index).to_owned(),
        };
        let mut row =
            Row { labels: vec![crate::tokenize::UNTRAINED; prompt.len()], input_ids: prompt, ..Row::default() };
        for answer in &self.answers {
            let ids = numbers::<Int32Type>(answer.ids, index);
            let messages = numbers::<Int32Type>(answer.messages, index);
            row.provenance.push(Provenance {
                dialogue_id: self.dialogue_id.value(index).to_owned(),
                file: self.file.value(index).to_owned(),
                line: u64::try_from(self.line.value(index)).unwrap_or_default(),
                window: self.window.value(index),
                fold: self.fold.value(index),
                trained_messages: messages.into_iter().filter_map(|message| usize::try_from(message).ok()).collect(),
                text_hash: answer.text_hash.value(index),
                target_hash: answer.target_hash.value(index),
                length: ids.len() as u64,
                example: 0,
            });
            row.input_ids.extend(ids);
            row.labels.extend(numbers::<Int32Type>(answer.labels, index));
        }
        Row { preference: Some(preference), ..row }
    }
}
