//! The reference: the pinned `tokenizers` crate with one `tokenizer.json`.
//!
//! In: the file, and the added tokens that are declared beside it. Out: the [`Reference`], which takes long to read, and
//! its outline ([`read_outline`]), which does not: the same parts and added tokens, without the vocabulary. Where a
//! tokenizer was tested before ([`super::tested`]), no more of its vocabulary is read than the texts need that are compared
//! with it ([`Source::limited`]).

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use foldhash::fast::RandomState;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, ModelWrapper, PostProcessorWrapper, Tokenizer as Reference};

use super::encode::fail;
use super::limited::Listed;
use super::tested::{self, Kept};
use crate::error::{Error, ErrorKind, Result};
use crate::panics::caught;

/// What a tokenizer is made of, read without the reference. Only BPE is.
#[derive(Deserialize, Serialize)]
#[serde(bound(deserialize = "V: Deserialize<'de>", serialize = "V: Serialize"))]
pub(super) struct File<'j, V = Ids<'j>> {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    added_tokens: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    normalizer: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pre_tokenizer: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    post_processor: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decoder: Option<Value>,
    #[serde(borrow)]
    pub(super) model: Model<'j, V>,
}

#[derive(Deserialize, Serialize)]
#[serde(bound(deserialize = "V: Deserialize<'de>", serialize = "V: Serialize"))]
pub(super) struct Model<'j, V = Ids<'j>> {
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropout: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unk_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    continuing_subword_prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_of_word_suffix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fuse_unk: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    byte_fallback: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ignore_merges: Option<bool>,
    pub(super) vocab: V,
    #[serde(borrow, skip_serializing)]
    pub(super) merges: Vec<Merge<'j>>,
}

/// Ids by text.
pub(super) type Ids<'j> = HashMap<Text<'j>, u32, RandomState>;

/// The same as the reference has them.
struct Whole(Vocab);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Whole;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("ids by text")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> std::result::Result<Self::Value, A::Error> {
                let mut vocab = Vocab::default();
                while let Some((text, id)) = pairs.next_entry()? {
                    vocab.insert(text, id);
                }
                Ok(Whole(vocab))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

#[derive(Clone, Deserialize, Serialize, PartialEq, Eq, Hash)]
#[serde(transparent)]
pub(super) struct Text<'j>(#[serde(borrow)] pub(super) Cow<'j, str>);

/// Two texts, or both in one with a space between them.
pub(super) enum Merge<'j> {
    Pair(Text<'j>, Text<'j>),
    Line(Text<'j>),
}

impl Merge<'_> {
    /// What it merges. `None` for a line that is none, such as a version.
    pub(super) fn sides(&self) -> Option<(&str, &str)> {
        match self {
            Self::Pair(Text(left), Text(right)) => Some((left, right)),
            Self::Line(Text(line)) => {
                line.split_once(' ').filter(|(_, right)| !line.starts_with("#version") && !right.contains(' '))
            }
        }
    }
}

impl<'de: 'j, 'j> Deserialize<'de> for Merge<'j> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Either<'j>(PhantomData<Merge<'j>>);
        impl<'de: 'j, 'j> Visitor<'de> for Either<'j> {
            type Value = Merge<'j>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a merge")
            }

            fn visit_borrowed_str<E: de::Error>(self, line: &'de str) -> std::result::Result<Self::Value, E> {
                Ok(Merge::Line(Text(line.into())))
            }

            fn visit_str<E: de::Error>(self, line: &str) -> std::result::Result<Self::Value, E> {
                Ok(Merge::Line(Text(line.to_owned().into())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sides: A) -> std::result::Result<Self::Value, A::Error> {
                match (sides.next_element()?, sides.next_element()?, sides.next_element::<Text<'_>>()?) {
                    (Some(left), Some(right), None) => Ok(Merge::Pair(left, right)),
                    _ => Err(de::Error::custom("a merge has two sides")),
                }
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}

impl Model<'_, Whole> {
    /// The same as a model of the reference, without dropout.
    fn into_reference(self) -> Result<BPE> {
        let owned = |merge: Merge<'_>| merge.sides().map(|(left, right)| (left.to_owned(), right.to_owned()));
        let merges: Option<Merges> = self.merges.into_iter().map(owned).collect();
        let mut builder = BPE::builder()
            .vocab_and_merges(self.vocab.0, merges.ok_or_else(|| fail("a merge has two sides"))?)
            .fuse_unk(self.fuse_unk.unwrap_or_default())
            .byte_fallback(self.byte_fallback.unwrap_or_default())
            .ignore_merges(self.ignore_merges.unwrap_or_default());
        if let Some(text) = self.unk_token {
            builder = builder.unk_token(text);
        }
        if let Some(prefix) = self.continuing_subword_prefix {
            builder = builder.continuing_subword_prefix(prefix);
        }
        if let Some(suffix) = self.end_of_word_suffix {
            builder = builder.end_of_word_suffix(suffix);
        }
        builder.build().map_err(fail)
    }
}

impl<'j, V: Deserialize<'j>> File<'j, V> {
    /// `None` where it is none of a BPE.
    pub(super) fn read(json: &'j [u8]) -> Option<Self> {
        serde_json::from_slice::<Self>(json)
            .ok()
            .filter(|file| file.model.r#type.as_deref().is_none_or(|kind| kind == "BPE"))
    }
}

impl File<'_> {
    /// The file of the same tokenizer with no more of its vocabulary than added tokens, their ids, and the names of bytes.
    pub(super) fn outline(&mut self) -> Option<Vec<u8>> {
        let mut few = Ids::default();
        for token in self.added_tokens.iter().filter_map(Value::as_array).flatten() {
            let text = Text(token.get("content")?.as_str()?.to_owned().into());
            let id = token.get("id")?.as_u64()?.try_into().ok()?;
            few.insert(text.clone(), self.model.vocab.get(&text).copied().unwrap_or(id));
        }
        let bytes = ByteLevel::alphabet().into_iter().map(String::from);
        for text in bytes.chain(self.model.unk_token.clone()).map(|text| Text(text.into())) {
            let id = self.model.vocab.get(&text).copied();
            few.extend(id.map(|id| (text, id)));
        }
        let whole = std::mem::replace(&mut self.model.vocab, few);
        let json = serde_json::to_value(&*self);
        self.model.vocab = whole;
        let mut json = json.ok()?;
        json["model"]["merges"] = Value::Array(Vec::new());
        json["model"]["vocab"].as_object_mut()?.sort_keys(); // the same again for the same tokenizer
        serde_json::to_vec(&json).ok()
    }
}

/// The tokenizer of an outline.
pub(super) fn read_outline(json: &[u8], declared: &[(u32, AddedToken)]) -> Option<Reference> {
    let mut outline = prepared(Reference::from_bytes(json).ok()?).ok()?;
    declare(&mut outline, declared).ok()?;
    Some(outline)
}

/// How often texts are compared with a part of it, which takes a fiftieth of the time to make.
pub(super) const OFTEN: usize = 8;

/// One tokenizer.
pub(super) struct Source {
    /// The name of the notes on it, if there are any.
    key: Option<String>,
    json: Arc<[u8]>,
    /// The SHA-256 of that.
    digest: OnceLock<String>,
    declared: Vec<(u32, AddedToken)>,
    /// All of it but the vocabulary, if it has been found to be that.
    outline: Option<Reference>,
    /// What trims offsets, which only what equals transformers' bits may see, in the tokenizers where something does.
    post_processor: Option<PostProcessorWrapper>,
    whole: OnceLock<std::result::Result<Reference, String>>,
    /// What its vocabulary is, for who needs little of it.
    listed: OnceLock<Option<Listed>>,
    /// Whether texts are to be compared with it, and how often some were compared with a part of it.
    is_begun: AtomicBool,
    limited: AtomicUsize,
}

impl Source {
    /// With all that there is.
    pub(super) fn new(
        json: Arc<[u8]>,
        declared: Vec<(u32, AddedToken)>,
        outline: Option<Reference>,
        whole: Reference,
    ) -> Self {
        let outline = outline.filter(|outline| is_outline_of(outline, &whole));
        let post_processor = whole.get_post_processor().filter(|found| changes_offsets(found)).cloned();
        Self {
            key: None,
            json,
            digest: OnceLock::new(),
            declared,
            outline,
            post_processor,
            whole: OnceLock::from(Ok(without_post_processor(whole))),
            listed: OnceLock::new(),
            is_begun: true.into(),
            limited: 0.into(),
        }
    }

    /// With an outline that was found to be right before; the whole is read when it is needed.
    pub(super) fn unread(
        key: Option<String>,
        json: Arc<[u8]>,
        declared: Vec<(u32, AddedToken)>,
        outline: Reference,
    ) -> Self {
        let post_processor = outline.get_post_processor().filter(|found| changes_offsets(found)).cloned();
        Self {
            key,
            json,
            digest: OnceLock::new(),
            declared,
            outline: Some(outline),
            post_processor,
            whole: OnceLock::new(),
            listed: OnceLock::new(),
            is_begun: false.into(),
            limited: 0.into(),
        }
    }

    /// The SHA-256 of its file.
    pub(super) fn digest(&self) -> &str {
        self.digest.get_or_init(|| crate::hex(&Sha256::digest(&self.json)))
    }

    /// Has the texts compared that wait for it. Its vocabulary is read beside the work, and what its file is told by.
    pub(super) fn begin(self: &Arc<Self>) {
        if !self.is_begun.swap(true, Ordering::Relaxed) {
            let source = Arc::clone(self);
            // Without a thread it is read when it is needed.
            let read = move || {
                source.listed();
                source.digest();
            };
            let _ = thread::Builder::new().name("dlgc-vocabulary".to_owned()).spawn(read);
        }
    }

    fn listed(&self) -> Option<&Listed> {
        let noted = |key: &String| Listed::again(&tested::recall(key, Kept::Listed)?, &self.json);
        let anew = || {
            let listed = Listed::read(&self.json)?;
            if let Some(key) = &self.key {
                tested::remember(key, Kept::Listed, 0, &listed.write());
            }
            Some(listed)
        };
        let listed = || self.key.as_ref().and_then(noted).or_else(anew);
        self.listed.get_or_init(|| caught(listed).ok().flatten()).as_ref()
    }

    /// The whole, with no more of its vocabulary than comes into some texts; `None` where that cannot be told, and where
    /// it was asked for often: then there is so much to do that the whole is worth reading.
    pub(super) fn limited(&self, texts: &[&str]) -> Option<Reference> {
        if self.limited.fetch_add(1, Ordering::Relaxed) >= OFTEN || self.ready().is_some() {
            return None;
        }
        self.limited_to(texts)
    }

    pub(super) fn limited_to(&self, texts: &[&str]) -> Option<Reference> {
        let outline = self.outline.as_ref()?;
        let limited = || self.listed()?.limited(outline, &self.json, texts);
        caught(limited).ok().flatten().map(without_post_processor)
    }

    pub(super) fn json(&self) -> &[u8] {
        &self.json
    }

    /// Everything but the vocabulary. Texts that it has an id for have that one.
    pub(super) fn parts(&self) -> Result<&Reference> {
        self.outline.as_ref().map_or_else(|| self.whole(), Ok)
    }

    pub(super) fn post_processor(&self) -> Option<&PostProcessorWrapper> {
        self.post_processor.as_ref()
    }

    pub(super) fn has_outline(&self) -> bool {
        self.outline.is_some()
    }

    /// The whole of it, without its post-processor; waits until it is read.
    pub(super) fn whole(&self) -> Result<&Reference> {
        let read = || {
            let read = || match &self.outline {
                Some(outline) => with_vocabulary(outline, &self.json),
                None => read_whole(&self.json, &self.declared),
            };
            let whole = caught(read).unwrap_or_else(|said| Err(fail(said)));
            whole.map(without_post_processor).map_err(|error| error.to_string())
        };
        self.whole.get_or_init(read).as_ref().map_err(fail)
    }

    /// Whether it was asked for, or is there.
    pub(super) fn is_begun(&self) -> bool {
        self.is_begun.load(Ordering::Relaxed) || self.whole.get().is_some()
    }

    /// The same, if it has been read.
    pub(super) fn ready(&self) -> Option<&Reference> {
        self.whole.get()?.as_ref().ok()
    }
}

/// Offsets are those of the text; what a post-processor makes of them is another matter.
fn without_post_processor(mut reference: Reference) -> Reference {
    reference.with_post_processor(None::<PostProcessorWrapper>);
    reference
}

/// Whether a post-processor may change ids or offsets where no special tokens are added.
fn changes_offsets(post_processor: &PostProcessorWrapper) -> bool {
    match post_processor {
        PostProcessorWrapper::ByteLevel(bytes) => bytes.trim_offsets,
        PostProcessorWrapper::Template(_) => false,
        PostProcessorWrapper::Sequence(steps) => steps.as_ref().iter().any(changes_offsets),
        _ => true,
    }
}

/// Whether an outline says the same as the whole.
fn is_outline_of(outline: &Reference, whole: &Reference) -> bool {
    let parts = |reference: &Reference| {
        let ModelWrapper::BPE(bpe) = reference.get_model() else { return None };
        let flags = (bpe.fuse_unk, bpe.byte_fallback, bpe.ignore_merges, bpe.dropout.is_some());
        let texts =
            [&bpe.unk_token, &bpe.continuing_subword_prefix, &bpe.end_of_word_suffix].map(Option::<String>::clone);
        let parts = [
            serde_json::to_value(reference.get_normalizer()),
            serde_json::to_value(reference.get_pre_tokenizer()),
            serde_json::to_value(reference.get_post_processor()),
            serde_json::to_value(reference.get_decoder()),
        ];
        let parts: Vec<Value> = parts.into_iter().collect::<std::result::Result<_, _>>().ok()?;
        Some((flags, texts, parts, reference.get_added_tokens_decoder()))
    };
    let bytes = |reference: &Reference| -> Vec<Option<u32>> {
        let mut letters: Vec<char> = ByteLevel::alphabet().into_iter().collect();
        letters.sort_unstable();
        letters.into_iter().map(|letter| reference.token_to_id(&letter.to_string())).collect()
    };
    parts(outline).is_some_and(|outline| parts(whole) == Some(outline)) && bytes(outline) == bytes(whole)
}

/// The whole of which something is known to be the outline. Giving the reference's model its parts takes a fraction of the
/// time in which it reads them, and of the memory.
fn with_vocabulary(outline: &Reference, json: &[u8]) -> Result<Reference> {
    let file = File::<Whole>::read(json).ok_or_else(|| fail("`tokenizer.json` is none of a BPE any more"))?;
    let mut whole = outline.clone();
    whole.with_model(file.model.into_reference()?);
    Ok(whole)
}

/// Reads a `tokenizer.json`; flags that are declared beside it win, as in transformers.
pub(super) fn read_whole(json: &[u8], declared: &[(u32, AddedToken)]) -> Result<Reference> {
    let reference = Reference::from_bytes(json)
        .map_err(|error| Error::new(ErrorKind::Tokenizer, format!("`tokenizer.json` cannot be read: {error}")))?;
    let mut reference = prepared(reference)?;
    declare(&mut reference, declared)?;
    Ok(reference)
}

fn declare(reference: &mut Reference, declared: &[(u32, AddedToken)]) -> Result<()> {
    let known = reference.get_added_tokens_decoder();
    let mut changed = Vec::new();
    for (id, token) in declared {
        if reference.token_to_id(&token.content) != Some(*id) {
            let message = format!(
                "`tokenizer_config.json` gives the added token `{}` the id {id}, `tokenizer.json` does not",
                token.content
            );
            return Err(Error::new(ErrorKind::Tokenizer, message)
                .hint("`AutoTokenizer.from_pretrained(DIR).save_pretrained(NEW_DIR)` writes files that agree"));
        }
        if known.get(id) != Some(token) {
            changed.push(token.clone());
        }
    }
    reference.add_tokens(changed).map_err(fail)?;
    Ok(())
}

/// A tokenizer without what somebody's training script left in it: padding, truncation and dropout are not part of a
/// text's ids.
fn prepared(mut reference: Reference) -> Result<Reference> {
    reference.with_padding(None);
    reference.with_truncation(None).map_err(fail)?;
    if let ModelWrapper::BPE(bpe) = reference.get_model()
        && bpe.dropout.is_some()
    {
        let mut bpe = bpe.clone();
        bpe.dropout = None;
        reference.with_model(bpe);
    }
    Ok(reference)
}
