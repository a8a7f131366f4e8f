//! A GGUF file as the source of tokenizer and chat template.
//!
//! In: a path. Out: the files of a tokenizer folder, made from the header of the file, so that everything behind works
//! as with an ordinary folder. What is guaranteed: the ids are those of the original tokenizer, or the file is refused
//! with what to do. Byte-level vocabularies prove it by a digest (see `pre_tokenizer`), SentencePiece ones by holding
//! everything that SentencePiece itself needs.

mod metadata;
mod pre_tokenizer;
mod vocabulary;

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use serde_json::{Map, Value, json};
use tokenizers::Tokenizer as Reference;

use super::files::{TEMPLATE, TEMPLATES};
use crate::error::{Error, ErrorKind, Result};

use metadata::{Metadata, Refused};
use vocabulary::{Synthesised, Vocabulary};

/// What can be done about a file that is refused.
const HINT: &str = "give the folder with the `tokenizer.json` of the model that this file was made from";

/// Whether a file is a GGUF one, by its first bytes.
pub(super) fn is_gguf(path: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == metadata::MAGIC
}

/// Reads a GGUF file: name and bytes of each file of a tokenizer folder.
///
/// # Errors
/// [`ErrorKind::Io`] where it cannot be read, [`ErrorKind::Tokenizer`] where it does not hold a tokenizer whose ids are
/// certain.
pub(super) fn load(path: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let refused =
        |message: String| Error::new(ErrorKind::Tokenizer, format!("`{}`: {message}", path.display())).hint(HINT);
    let file = File::open(path).map_err(|error| Error::io(path, error))?;
    let length = file.metadata().map_err(|error| Error::io(path, error))?.len();
    let wanted =
        |key: &str| key.starts_with("tokenizer.") || key == "general.architecture" || key.ends_with(".context_length");
    let metadata = Metadata::read(BufReader::new(file), length, wanted).map_err(|why| match why {
        Refused::Io(error) => Error::io(path, error),
        Refused::Bytes(message) => refused(message),
    })?;
    let Some(model) = metadata.text("tokenizer.ggml.model") else {
        return Err(refused("it holds no tokenizer".to_owned()).hint(
            "give the first of its parts if the file is split, else the folder with the model's `tokenizer.json`",
        ));
    };
    let vocabulary = Vocabulary::of(&metadata).map_err(refused)?;
    let tokenizer = match metadata.text("tokenizer.huggingface.json") {
        Some(json) => json.as_bytes().to_vec(),
        None => {
            let Synthesised { json, proof } = vocabulary.synthesise(model).map_err(refused)?;
            let bytes = json.to_string().into_bytes();
            if let Some((name, digests)) = proof {
                prove(&bytes, &vocabulary, digests).map_err(|why| match why {
                    Some(why) => refused(why),
                    None => refused(format!("its ids are not those that the pre-tokenizer `{name}` stands for")),
                })?;
            }
            bytes
        }
    };
    let mut files = vec![("tokenizer.json".to_owned(), tokenizer)];
    let mut add = |name: &str, value: Value| files.push((name.to_owned(), format!("{value:#}\n").into_bytes()));
    add("tokenizer_config.json", config(&metadata, &vocabulary));
    add("generation_config.json", generation_config(&vocabulary));
    if let Some(template) = metadata.text("tokenizer.chat_template") {
        files.push((TEMPLATE.to_owned(), template.as_bytes().to_vec()));
    }
    let named = metadata.texts_below("tokenizer.chat_template.");
    files.extend(named.map(|(name, template)| (format!("{TEMPLATES}{name}.jinja"), template.as_bytes().to_vec())));
    Ok(files)
}

/// Whether the ids of the probe have one of the digests; the reason where the reference cannot give ids.
fn prove(json: &[u8], vocabulary: &Vocabulary<'_>, digests: &[&str]) -> std::result::Result<(), Option<String>> {
    let ids = Reference::from_bytes(json)
        .and_then(|reference| reference.encode(pre_tokenizer::probe(), false))
        .map_err(|error| Some(error.to_string()))?;
    let first = vocabulary.id("bos_token_id").or_else(|| vocabulary.id("cls_token_id"));
    let last = vocabulary.id("seperator_token_id").or_else(|| vocabulary.id("eos_token_id"));
    if pre_tokenizer::proves(ids.get_ids(), first, last, digests) { Ok(()) } else { Err(None) }
}

fn config(metadata: &Metadata, vocabulary: &Vocabulary<'_>) -> Value {
    let mut config = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            config.insert(name.to_owned(), value);
        }
    };
    set("tokenizer_class", Some("PreTrainedTokenizerFast".into()));
    set("clean_up_tokenization_spaces", Some(false.into()));
    let architecture = metadata.text("general.architecture").unwrap_or_default();
    let length = metadata.integer(&format!("{architecture}.context_length")).filter(|&length| length > 0);
    set("model_max_length", length.map(Value::from));
    // The format spells one of its keys so.
    let named = [
        ("bos_token", "bos_token_id"),
        ("eos_token", "eos_token_id"),
        ("unk_token", "unknown_token_id"),
        ("sep_token", "seperator_token_id"),
        ("pad_token", "padding_token_id"),
        ("cls_token", "cls_token_id"),
        ("mask_token", "mask_token_id"),
    ];
    for (name, key) in named {
        set(name, vocabulary.named(key).map(Value::from));
    }
    for name in ["add_bos_token", "add_eos_token"] {
        set(name, metadata.bool(&format!("tokenizer.ggml.{name}")).map(Value::from));
    }
    Value::Object(config)
}

fn generation_config(vocabulary: &Vocabulary<'_>) -> Value {
    let mut stops: Vec<u32> = Vec::new();
    for id in ["eos_token_id", "eot_token_id", "eom_token_id"].iter().filter_map(|key| vocabulary.id(key)) {
        if !stops.contains(&id) {
            stops.push(id);
        }
    }
    if stops.is_empty() { json!({}) } else { json!({"eos_token_id": stops}) }
}

#[cfg(test)]
mod tests {
    use super::super::{Tokenizer, TokenizerFiles};
    use super::metadata::writer::Writer;
    use super::*;

    /// A SentencePiece vocabulary: `ab` merges before `bc`, unknown characters become bytes.
    fn sentence_piece() -> Writer {
        let bytes: Vec<String> = (0..=255).map(|byte| format!("<0x{byte:02X}>")).collect();
        let words = ["▁", "a", "b", "c", "ab", "bc", "▁ab", "<|end|>", "<|x|>", "[PAD9]"];
        let mut tokens = vec!["<unk>", "<s>", "</s>"];
        tokens.extend(bytes.iter().map(String::as_str));
        tokens.extend(words);
        let mut kinds = vec![2, 3, 3];
        kinds.extend([6; 256]);
        kinds.extend([1, 1, 1, 1, 1, 1, 1, 3, 4, 4]);
        let mut scores = vec![0.0; 259];
        scores.extend([-9.0, -8.0, -7.0, -6.0, -1.0, -2.0, -3.0, 0.0, 0.0, 0.0]);
        Writer::new()
            .text("general.architecture", "llama")
            .number("llama.context_length", 2048)
            .text("tokenizer.ggml.model", "llama")
            .texts("tokenizer.ggml.tokens", &tokens)
            .integers("tokenizer.ggml.token_type", &kinds)
            .floats("tokenizer.ggml.scores", &scores)
            .number("tokenizer.ggml.bos_token_id", 1)
            .number("tokenizer.ggml.eos_token_id", 2)
            .number("tokenizer.ggml.eot_token_id", 266)
            .number("tokenizer.ggml.unknown_token_id", 0)
            .number("tokenizer.ggml.padding_token_id", u32::MAX)
    }

    fn files(writer: &Writer) -> Result<TokenizerFiles> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, writer.bytes()).expect("a file");
        TokenizerFiles::load(&path)
    }

    fn refusal(writer: &Writer) -> String {
        files(writer).map(|_| ()).expect_err("it is refused").to_string()
    }

    #[test]
    fn scores_become_merges_and_spaces_become_marks() {
        let files = files(&sentence_piece()).expect("files");
        let tokenizer = Tokenizer::load(&files).expect("a tokenizer");
        // `▁abc`: `ab` before `bc`, then `▁ab`.
        assert_eq!(tokenizer.ids("abc").expect("ids"), [265, 262]);
        assert_eq!(tokenizer.ids("<|end|>bc<|x|>").expect("ids"), [266, 259, 264, 267]);
        let ids = tokenizer.ids("ab é").expect("ids");
        assert_eq!(ids, [265, 259, 3 + 0xC3, 3 + 0xA9]);
        assert_eq!(tokenizer.decode(&ids).expect("text"), "ab é");
        assert_eq!(tokenizer.stop_ids(&files), [2, 266]);
        assert_eq!(tokenizer.control_tokens(), ["</s>", "<s>", "<unk>", "<|end|>"]);
        assert_eq!(tokenizer.plain_added_tokens(), ["<|x|>"]);
        assert_eq!(tokenizer.vocabulary_size(), 268);
        assert_eq!(files.model_max_length(), Some(2048));
        let named = files.special_tokens();
        assert_eq!(
            named.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["bos_token", "eos_token", "unk_token"]
        );
    }

    #[test]
    fn whether_texts_get_a_space_before_them_is_said_by_the_file() {
        let tokenizer =
            Tokenizer::load(&files(&sentence_piece().bool("tokenizer.ggml.add_space_prefix", false)).expect("files"));
        assert_eq!(tokenizer.expect("a tokenizer").ids("abc").expect("ids"), [263, 262]);
    }

    #[test]
    fn templates_are_found_by_name() {
        let with = sentence_piece()
            .text("tokenizer.chat_template", "plain")
            .text("tokenizer.chat_template.tool_use", "with tools");
        let files = files(&with).expect("files");
        let templates = [("default", "plain"), ("tool_use", "with tools")];
        assert_eq!(files.chat_templates(), templates.map(|(name, source)| (name.to_owned(), source.to_owned())).into());
    }

    #[test]
    fn what_is_not_certain_is_refused_with_what_to_do() {
        let entries = |model: &str| {
            Writer::new()
                .text("tokenizer.ggml.model", model)
                .texts("tokenizer.ggml.tokens", &["a", "b", "ab"])
                .integers("tokenizer.ggml.token_type", &[1, 1, 1])
        };
        let byte_level = || entries("gpt2").texts("tokenizer.ggml.merges", &["a b"]);
        for (writer, expected) in [
            (Writer::new().text("general.architecture", "llama"), "it holds no tokenizer"),
            (entries("t5"), "its vocabulary is a Unigram one"),
            (entries("rwkv"), "the kind of its vocabulary, `rwkv`, is not known"),
            (byte_level(), "it names no pre-tokenizer"),
            (byte_level().text("tokenizer.ggml.pre", "default"), "the pre-tokenizer `default` is not known"),
            (byte_level().text("tokenizer.ggml.pre", "gpt-2"), "its ids are not those that the pre-tokenizer `gpt-2`"),
            (entries("gpt2").text("tokenizer.ggml.pre", "gpt-2"), "it holds no merges"),
            (entries("bert").text("tokenizer.ggml.pre", "x"), "the pre-tokenizer `x` is not known"),
            (entries("llama"), "it gives its tokens no scores"),
            (entries("llama").floats("tokenizer.ggml.scores", &[0.0]), "it has 3 tokens, and 1 scores"),
            (Writer::new().text("tokenizer.ggml.model", "llama"), "it holds no vocabulary"),
            (
                Writer::new().text("tokenizer.ggml.model", "llama").texts("tokenizer.ggml.tokens", &["a"]),
                "it does not say which entries",
            ),
            (
                Writer::new()
                    .text("tokenizer.ggml.model", "llama")
                    .texts("tokenizer.ggml.tokens", &["a", "a"])
                    .integers("tokenizer.ggml.token_type", &[1, 1])
                    .floats("tokenizer.ggml.scores", &[0.0, 0.0]),
                "the token `a` has two ids, 0 and 1",
            ),
            (
                sentence_piece().bool("tokenizer.ggml.remove_extra_whitespaces", true),
                "it changes text before it is split",
            ),
        ] {
            let found = refusal(&writer);
            assert!(found.contains(expected), "{found}");
            assert!(found.contains("hint: give the f"), "{found}");
        }
    }

    #[test]
    fn an_original_tokenizer_inside_is_taken_as_it_is() {
        let original = TokenizerFiles::builtin();
        let json = original.file("tokenizer.json").expect("the file");
        let text = std::str::from_utf8(json).expect("text");
        let files = files(&sentence_piece().text("tokenizer.huggingface.json", text)).expect("files");
        assert_eq!(files.file("tokenizer.json"), Some(json));
    }
}
