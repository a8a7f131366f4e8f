//! The vocabulary of a GGUF file, put into the parts of a `tokenizer.json`.
//!
//! In: the header. Out: the value of a `tokenizer.json`, or what is missing to make one that gives the same ids as the
//! original. Nothing is guessed: where the file leaves open how text is split or changed, it is refused.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::metadata::Metadata;
use super::pre_tokenizer::PreTokenizer;

/// Stands for a space in SentencePiece vocabularies.
const SPACE: char = '\u{2581}';
/// Work that deriving merges may take: the sum of the squared lengths of all tokens, in bytes.
const MOST_SPLITS: usize = 1 << 30;

/// Why a vocabulary is not used: what was found.
pub(super) type Found<T> = Result<T, String>;

/// What kind of token an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Made by merging.
    Normal,
    /// Stands for what the vocabulary lacks.
    Unknown,
    /// Special: found in text before it is split.
    Control,
    /// Found in text before it is split, but not special.
    Added,
    /// An id without a text.
    Unused,
    /// One byte, written `<0x0A>`.
    Byte,
}

/// The entries of a vocabulary.
#[derive(Debug)]
pub(super) struct Vocabulary<'m> {
    metadata: &'m Metadata,
    tokens: &'m [String],
    kinds: Vec<Kind>,
}

/// A `tokenizer.json`, and the digests that its ids must have.
#[derive(Debug)]
pub(super) struct Synthesised {
    pub(super) json: Value,
    /// The name of its pre-tokenizer, and the digests that prove it.
    pub(super) proof: Option<(String, &'static [&'static str])>,
}

impl<'m> Vocabulary<'m> {
    /// Reads the entries.
    pub(super) fn of(metadata: &'m Metadata) -> Found<Self> {
        let tokens = metadata.texts("tokenizer.ggml.tokens").ok_or("it holds no vocabulary")?;
        let kinds = metadata
            .integers("tokenizer.ggml.token_type")
            .ok_or("it does not say which entries of its vocabulary are control tokens")?;
        if kinds.len() != tokens.len() {
            return Err(format!("it has {} tokens, and kinds of {}", tokens.len(), kinds.len()));
        }
        let unknown = id(metadata, "unknown_token_id", tokens.len());
        let kind = |(index, &kind): (usize, &i64)| match kind {
            2 if unknown.is_some_and(|id| id as usize != index) => Kind::Unused,
            2 => Kind::Unknown,
            3 => Kind::Control,
            // Older converters filled ids that have no text in this way.
            4 if is_placeholder(&tokens[index]) => Kind::Unused,
            4 => Kind::Added,
            5 => Kind::Unused,
            6 => Kind::Byte,
            _ => Kind::Normal,
        };
        let kinds = kinds.iter().enumerate().map(kind).collect();
        Ok(Self { metadata, tokens, kinds })
    }

    /// The text of a token by the name of its key, such as `bos_token_id`.
    pub(super) fn named(&self, key: &str) -> Option<&'m str> {
        self.id(key).map(|id| self.tokens[id as usize].as_str())
    }

    /// The id that stands under a key; none where it lies outside the vocabulary, which some files write for "none".
    pub(super) fn id(&self, key: &str) -> Option<u32> {
        id(self.metadata, key, self.tokens.len())
    }

    /// Makes a `tokenizer.json`.
    pub(super) fn synthesise(&self, model: &str) -> Found<Synthesised> {
        let (json, proof) = match model {
            "gpt2" => {
                let (pre_tokenizer, proof) = self.pre_tokenizer()?;
                (self.byte_level(pre_tokenizer)?, Some(proof))
            }
            "llama" => (self.sentence_piece(true, &self.derived_merges()?)?, None),
            "gemma4" => (self.sentence_piece(false, &self.merges()?)?, None),
            "bert" => {
                let digests = PreTokenizer::word_piece(self.pre()?).ok_or_else(|| unknown_name(self.pre()))?;
                (self.word_piece()?, Some((self.pre()?.to_owned(), digests)))
            }
            "t5" => {
                return Err("its vocabulary is a Unigram one, of which it does not say how text is prepared".to_owned());
            }
            "no_vocab" | "none" => return Err("it holds no vocabulary".to_owned()),
            _ => return Err(format!("the kind of its vocabulary, `{model}`, is not known")),
        };
        Ok(Synthesised { json, proof })
    }

    fn pre(&self) -> Found<&'m str> {
        self.metadata.text("tokenizer.ggml.pre").ok_or_else(|| "it names no pre-tokenizer".to_owned())
    }

    fn pre_tokenizer(&self) -> Found<(&'static PreTokenizer, (String, &'static [&'static str]))> {
        let name = self.pre()?;
        let (known, digests) = PreTokenizer::named(name).ok_or_else(|| unknown_name(Ok(name)))?;
        Ok((known, (name.to_owned(), digests)))
    }

    /// Texts and ids of the entries that have a text; `spell` gives the text as the model writes it.
    fn entries(&self, spell: impl Fn(&str, Kind) -> String) -> Found<Map<String, Value>> {
        let mut entries = Map::with_capacity(self.tokens.len());
        for (index, (token, &kind)) in self.tokens.iter().zip(&self.kinds).enumerate() {
            if kind == Kind::Unused || token.is_empty() {
                continue;
            }
            if let Some(first) = entries.insert(spell(token, kind), Value::from(index)) {
                return Err(format!("the token `{token}` has two ids, {first} and {index}"));
            }
        }
        Ok(entries)
    }

    /// Tokens that are found in text before it is split.
    ///
    /// The format does not say whether they swallow white space beside them, or stand as words only: as for whoever
    /// runs the file, they do not.
    fn added_tokens(&self) -> Vec<Value> {
        let added = self.tokens.iter().zip(&self.kinds).enumerate().filter(|(_, (token, kind))| {
            matches!(kind, Kind::Control | Kind::Added | Kind::Unknown) && !token.is_empty()
        });
        added
            .map(|(index, (token, kind))| {
                json!({"id": index, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": *kind != Kind::Added})
            })
            .collect()
    }

    /// The pairs that are merged, in order.
    fn merges(&self) -> Found<Vec<[&'m str; 2]>> {
        let merges = self.metadata.texts("tokenizer.ggml.merges").ok_or("it holds no merges")?;
        let pair = |merge: &'m String| {
            // A token has at least one character, which may be a space.
            let first = merge.chars().next().map_or(0, char::len_utf8);
            let space = merge[first..].find(' ').ok_or_else(|| format!("the merge `{merge}` is no pair"))?;
            Ok([&merge[..first + space], &merge[first + space + 1..]])
        };
        merges.iter().map(pair).collect()
    }

    /// The pairs of tokens that make a token, the best first: SentencePiece files give each token a score instead.
    ///
    /// In the order of transformers' converter. Among pairs of one token it tells nothing apart: they only compete
    /// where they overlap.
    fn derived_merges(&self) -> Found<Vec<[&'m str; 2]>> {
        let scores = self.metadata.floats("tokenizer.ggml.scores").ok_or("it gives its tokens no scores")?;
        if scores.len() != self.tokens.len() {
            return Err(format!("it has {} tokens, and {} scores", self.tokens.len(), scores.len()));
        }
        if self.tokens.iter().map(|token| token.len() * token.len()).sum::<usize>() > MOST_SPLITS {
            return Err("its tokens are too long".to_owned());
        }
        let used = |&index: &usize| self.kinds[index] != Kind::Unused;
        let ids: HashMap<&str, usize> =
            (0..self.tokens.len()).filter(used).map(|index| (self.tokens[index].as_str(), index)).collect();
        let mut merges = Vec::new();
        for index in (0..self.tokens.len()).filter(used) {
            let token = self.tokens[index].as_str();
            for (at, _) in token.char_indices().skip(1) {
                let (left, right) = token.split_at(at);
                if let (Some(left_id), Some(right_id)) = (ids.get(left), ids.get(right)) {
                    let lengths = (left.chars().count(), right.chars().count());
                    merges.push((scores[index], lengths, index, (left_id, right_id), [left, right]));
                }
            }
        }
        merges.sort_by(|one, other| {
            let by_score = other.0.total_cmp(&one.0);
            by_score.then(other.1.cmp(&one.1)).then(one.2.cmp(&other.2)).then(one.3.cmp(&other.3))
        });
        Ok(merges.into_iter().map(|(.., pair)| pair).collect())
    }

    fn byte_level(&self, pre_tokenizer: &PreTokenizer) -> Found<Value> {
        let model = bpe(
            self.entries(|token, _| token.to_owned())?,
            &self.merges()?,
            json!({"unk_token": null, "fuse_unk": false, "byte_fallback": false,
                "ignore_merges": pre_tokenizer.ignore_merges}),
        );
        Ok(json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": self.added_tokens(),
            "normalizer": pre_tokenizer.normalizer(), "pre_tokenizer": pre_tokenizer.pre_tokenizer(),
            "post_processor": null,
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true},
            "model": model}))
    }

    /// A SentencePiece vocabulary with merges: spaces are written `▁`, and what has no token becomes bytes.
    ///
    /// `prefixed`: whether each piece of text gets a space before it where the file does not say.
    fn sentence_piece(&self, prefixed: bool, merges: &[[&str; 2]]) -> Found<Value> {
        let normalises =
            self.metadata.integers("tokenizer.ggml.precompiled_charsmap").is_some_and(|map| !map.is_empty());
        if normalises || self.metadata.bool("tokenizer.ggml.remove_extra_whitespaces") == Some(true) {
            return Err("it changes text before it is split, in a way that is not known".to_owned());
        }
        if self.metadata.text("general.architecture") == Some("phi3") && prefixed {
            // What runs such a file knows it from the model's name.
            return Err("its control tokens swallow white space, of which it says nothing".to_owned());
        }
        let prefixed = self.metadata.bool("tokenizer.ggml.add_space_prefix").unwrap_or(prefixed);
        let unknown = self.kinds.iter().position(|&kind| kind == Kind::Unknown).map(|index| index as u32);
        let unknown = self.id("unknown_token_id").or(unknown).map(|id| self.tokens[id as usize].as_str());
        let bytes = self.kinds.contains(&Kind::Byte);
        let space = SPACE.to_string();
        let mut normalizers = vec![json!({"type": "Replace", "pattern": {"String": " "}, "content": space})];
        let mut decoders = vec![
            json!({"type": "Replace", "pattern": {"String": space}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if prefixed {
            normalizers.insert(0, json!({"type": "Prepend", "prepend": space}));
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        let model = bpe(
            self.entries(|token, _| token.to_owned())?,
            merges,
            json!({"unk_token": unknown, "fuse_unk": true, "byte_fallback": bytes, "ignore_merges": false}),
        );
        Ok(json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": self.added_tokens(),
            "normalizer": {"type": "Sequence", "normalizers": normalizers}, "pre_tokenizer": null,
            "post_processor": null, "decoder": {"type": "Sequence", "decoders": decoders}, "model": model}))
    }

    /// A WordPiece vocabulary: the file marks the beginnings of words, a `tokenizer.json` what continues them.
    fn word_piece(&self) -> Found<Value> {
        let spell = |token: &str, kind: Kind| match token.strip_prefix(SPACE) {
            Some(begins) => begins.to_owned(),
            None if kind != Kind::Normal || token.starts_with('[') && token.ends_with(']') => token.to_owned(),
            None => format!("##{token}"),
        };
        let unknown = self.named("unknown_token_id").ok_or("it names no unknown token")?;
        Ok(json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": self.added_tokens(),
            "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                "strip_accents": null, "lowercase": true},
            "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": null,
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
            "model": {"type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100, "vocab": self.entries(spell)?}}))
    }
}

fn id(metadata: &Metadata, key: &str, count: usize) -> Option<u32> {
    let id = metadata.integer(&format!("tokenizer.ggml.{key}"))?;
    u32::try_from(id).ok().filter(|&id| (id as usize) < count)
}

fn is_placeholder(token: &str) -> bool {
    let number = token.strip_prefix("[PAD").and_then(|rest| rest.strip_suffix(']'));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn unknown_name(name: Found<&str>) -> String {
    match name {
        Ok(name) => format!("the pre-tokenizer `{name}` is not known"),
        Err(why) => why,
    }
}

fn bpe(vocab: Map<String, Value>, merges: &[[&str; 2]], options: Value) -> Value {
    let mut model =
        json!({"type": "BPE", "dropout": null, "continuing_subword_prefix": null, "end_of_word_suffix": null});
    let (Value::Object(model_members), Value::Object(options)) = (&mut model, options) else {
        unreachable!("both are written as objects");
    };
    model_members.extend(options);
    model_members.insert("vocab".to_owned(), Value::Object(vocab));
    model_members.insert("merges".to_owned(), json!(merges));
    model
}
