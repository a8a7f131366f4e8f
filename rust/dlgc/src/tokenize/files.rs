//! A tokenizer folder, or a GGUF file that holds the same: read once and copied into every dataset.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::AddedToken;

use super::gguf;
use crate::error::{Error, ErrorKind, Result};

/// Names of special tokens that transformers hands to templates (`SPECIAL_TOKENS_ATTRIBUTES`).
const SPECIAL: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// Files that are copied beside the shards, if they are there.
const COMPANIONS: [&str; 4] = ["tokenizer_config.json", "special_tokens_map.json", TEMPLATE, "generation_config.json"];
/// The default chat template, where it is a file.
pub(super) const TEMPLATE: &str = "chat_template.jinja";
/// Folder of the chat templates that have a name, where they are files.
pub(super) const TEMPLATES: &str = "additional_chat_templates/";
/// A `model_max_length` above this is a placeholder (transformers writes 1e30).
const LARGEST_SANE_LENGTH: u64 = 100_000_000;

/// What a tokenizer folder holds.
#[derive(Debug, Clone)]
pub struct TokenizerFiles {
    /// Where it came from; `builtin` for the embedded one.
    pub origin: String,
    /// Name and bytes of each file.
    pub files: Vec<(String, Vec<u8>)>,
    config: Value,
    special_tokens_map: Value,
    generation_config: Value,
}

/// The tokenizer inside the wheel, trained by `scripts/train_tokenizer.py` on the project's own examples.
const BUILTIN: [(&str, &[u8]); 4] = [
    ("tokenizer.json", include_bytes!("../../assets/builtin/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../../assets/builtin/tokenizer_config.json")),
    ("chat_template.jinja", include_bytes!("../../assets/builtin/chat_template.jinja")),
    ("generation_config.json", include_bytes!("../../assets/builtin/generation_config.json")),
];

impl TokenizerFiles {
    /// The embedded tokenizer.
    pub fn builtin() -> Self {
        let files = BUILTIN.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
        Self::new("builtin".to_owned(), files).expect("the embedded files are read by a test")
    }

    /// Reads a folder, the folder that holds a `tokenizer.json`, or a GGUF file.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where it does not exist, [`ErrorKind::Tokenizer`] where it holds no `tokenizer.json`.
    pub fn load(path: &Path) -> Result<Self> {
        if path.is_file() && gguf::is_gguf(path) {
            return Self::new(path.to_string_lossy().into_owned(), gguf::load(path)?);
        }
        let folder: PathBuf = if path.file_name().is_some_and(|name| name == "tokenizer.json") {
            path.parent().map_or_else(PathBuf::new, Path::to_owned)
        } else {
            path.to_owned()
        };
        if !folder.exists() {
            return Err(Error::io(&folder, crate::source::no_such_file())
                .hint("`--tokenizer` takes a folder with a `tokenizer.json`, a GGUF file, or `builtin`"));
        }
        if folder.is_file() {
            return Err(other_format(&folder, &folder));
        }
        let main = folder.join("tokenizer.json");
        if !main.exists() {
            return Err(no_tokenizer_json(&folder));
        }
        let read = |path: PathBuf| std::fs::read(&path).map_err(|error| Error::io(path, error));
        let mut files = vec![("tokenizer.json".to_owned(), read(main)?)];
        for name in COMPANIONS {
            let path = folder.join(name);
            if path.exists() {
                files.push((name.to_owned(), read(path)?));
            }
        }
        for (name, path) in named_templates(&folder)? {
            files.push((name, read(path)?));
        }
        Self::new(path.to_string_lossy().into_owned(), files)
    }

    fn new(origin: String, files: Vec<(String, Vec<u8>)>) -> Result<Self> {
        let json = |name: &str| -> Result<Value> {
            let Some((_, bytes)) = files.iter().find(|(found, _)| found == name) else {
                return Ok(Value::Null);
            };
            serde_json::from_slice(bytes)
                .map_err(|error| Error::new(ErrorKind::Tokenizer, format!("`{name}` of `{origin}`: {error}")))
        };
        let config = json("tokenizer_config.json")?;
        let special_tokens_map = json("special_tokens_map.json")?;
        let generation_config = json("generation_config.json")?;
        Ok(Self { origin, files, config, special_tokens_map, generation_config })
    }

    /// The bytes of a file.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.iter().find(|(found, _)| found == name).map(|(_, bytes)| bytes.as_slice())
    }

    /// Puts the templates that are really used beside the tokenizer, as transformers reads them: the default one, and
    /// another by name.
    pub fn set_chat_templates(&mut self, default: &str, named: Option<(&str, &str)>) {
        self.files.retain(|(found, _)| found != TEMPLATE && !found.starts_with(TEMPLATES));
        let named = named.map(|(name, source)| (format!("{TEMPLATES}{name}.jinja"), source.as_bytes().to_vec()));
        self.files.extend(named);
        self.files.push((TEMPLATE.to_owned(), default.as_bytes().to_vec()));
    }

    /// Special tokens by name, as transformers hands them to templates.
    pub fn special_tokens(&self) -> Vec<(String, String)> {
        let text = |config: &Value, name: &str| match config.get(name) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Object(token)) => token.get("content").and_then(Value::as_str).map(ToOwned::to_owned),
            _ => None,
        };
        let known = SPECIAL.iter().filter_map(|name| {
            let text = text(&self.config, name).or_else(|| text(&self.special_tokens_map, name))?;
            Some(((*name).to_owned(), text))
        });
        // Tokens that a model names itself, such as `image_token`.
        let named = [self.config.get("extra_special_tokens"), self.config.get("model_specific_special_tokens")];
        let named = named.into_iter().flatten().filter_map(Value::as_object).flat_map(|tokens| {
            let text = |token: &Value| token.as_str().or_else(|| token.get("content")?.as_str()).map(ToOwned::to_owned);
            tokens.iter().filter_map(move |(name, token)| Some((name.clone(), text(token)?)))
        });
        known.chain(named).collect()
    }

    /// Added tokens by id, as `tokenizer_config.json` has them.
    pub(super) fn declared_tokens(&self) -> Vec<(u32, AddedToken)> {
        let flag = |token: &Value, name: &str| token.get(name).and_then(Value::as_bool).unwrap_or(false);
        let token = |(id, token): (&String, &Value)| {
            let content = token.get("content").and_then(Value::as_str)?;
            let special = flag(token, "special");
            let normalized = token.get("normalized").and_then(Value::as_bool).unwrap_or(!special);
            let token = AddedToken::from(content, special)
                .single_word(flag(token, "single_word"))
                .lstrip(flag(token, "lstrip"))
                .rstrip(flag(token, "rstrip"))
                .normalized(normalized);
            Some((id.parse().ok()?, token))
        };
        let listed = self.config.get("added_tokens_decoder").and_then(Value::as_object);
        let mut tokens: Vec<_> = listed.into_iter().flatten().filter_map(token).collect();
        tokens.sort_by_key(|(id, _)| *id);
        tokens
    }

    /// `model_max_length`, unless it is a placeholder.
    pub fn model_max_length(&self) -> Option<u64> {
        let length = self.config.get("model_max_length")?.as_f64()?;
        (length >= 1.0 && length < LARGEST_SANE_LENGTH as f64).then_some(length as u64)
    }

    /// Ids that stop generation: `generation_config.json`, else the tokenizer's `eos_token`.
    pub fn stop_ids(&self, id_of: impl Fn(&str) -> Option<u32>) -> Vec<u32> {
        let ids: Vec<u32> = match self.generation_config.get("eos_token_id") {
            Some(Value::Array(ids)) => {
                ids.iter().filter_map(Value::as_u64).filter_map(|id| id.try_into().ok()).collect()
            }
            Some(id) => id.as_u64().and_then(|id| id.try_into().ok()).into_iter().collect(),
            None => Vec::new(),
        };
        if !ids.is_empty() {
            return ids;
        }
        let eos = self.special_tokens().into_iter().find(|(name, _)| name == "eos_token");
        eos.and_then(|(_, text)| id_of(&text)).into_iter().collect()
    }

    /// The chat templates of this folder by name, as transformers reads them: files come before the configuration, and
    /// of two with one name the later counts. A single one is `default`.
    pub fn chat_templates(&self) -> BTreeMap<String, String> {
        let of_file = |(name, bytes): &(String, Vec<u8>)| {
            let name = match name.strip_prefix(TEMPLATES) {
                Some(name) => name.strip_suffix(".jinja")?,
                None if name == TEMPLATE => "default",
                None => return None,
            };
            Some((name.to_owned(), String::from_utf8_lossy(bytes).into_owned()))
        };
        let in_files: BTreeMap<String, String> = self.files.iter().filter_map(of_file).collect();
        if !in_files.is_empty() {
            return in_files;
        }
        let listed = |entry: &Value| {
            Some((entry.get("name")?.as_str()?.to_owned(), entry.get("template")?.as_str()?.to_owned()))
        };
        match self.config.get("chat_template") {
            Some(Value::String(source)) => [("default".to_owned(), source.clone())].into(),
            Some(Value::Array(entries)) => entries.iter().filter_map(listed).collect(),
            _ => BTreeMap::new(),
        }
    }
}

/// Files of chat templates that have a name, in the order of their names.
fn named_templates(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let folder = folder.join(TEMPLATES);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(|error| Error::io(&folder, error))? {
        let path = entry.map_err(|error| Error::io(&folder, error))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".jinja") && path.is_file() {
            found.push((format!("{TEMPLATES}{name}"), path));
        }
    }
    found.sort();
    Ok(found)
}

/// What is in a folder that holds no `tokenizer.json`, and what to do.
fn no_tokenizer_json(folder: &Path) -> Error {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut names: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
    names.sort();
    let known = names.iter().find(|path| Format::of(path).is_some());
    known.map_or_else(
        || {
            let message = format!("`{}` holds no `tokenizer.json`", folder.display());
            Error::new(ErrorKind::Tokenizer, message)
                .hint("give the folder that `AutoTokenizer.save_pretrained` writes")
        },
        |path| other_format(folder, path),
    )
}

/// A vocabulary in a form that is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Gguf,
    SentencePiece,
    Tiktoken,
    Tekken,
    Rwkv,
    Slow,
}

impl Format {
    fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy().to_lowercase();
        let ends = |ending: &str| name.ends_with(ending);
        Some(match () {
            () if ends(".gguf") => Self::Gguf,
            () if ends(".tiktoken") || name == "tiktoken.model" => Self::Tiktoken,
            () if ends(".model") || ends(".spm") => Self::SentencePiece,
            () if name == "tekken.json" => Self::Tekken,
            () if name.contains("rwkv") && ends(".txt") => Self::Rwkv,
            () if name == "vocab.json" || name == "merges.txt" || name == "vocab.txt" => Self::Slow,
            () => return None,
        })
    }
}

fn other_format(given: &Path, file: &Path) -> Error {
    let refused = |what: &str| Error::new(ErrorKind::Tokenizer, format!("`{}` {what}", given.display()));
    let convert =
        "convert it once: `AutoTokenizer.from_pretrained(DIR).save_pretrained(NEW_DIR)` writes `tokenizer.json`";
    match Format::of(file) {
        Some(Format::Gguf) if given == file => refused("is no GGUF file"),
        Some(Format::Gguf) => refused("holds no `tokenizer.json`, but a GGUF file")
            .hint(format!("give the file itself: `--tokenizer {}`", file.display())),
        Some(Format::SentencePiece) => refused("holds a SentencePiece model, and no `tokenizer.json`").hint(convert),
        Some(Format::Slow) => refused("holds the lists of a tokenizer, and no `tokenizer.json`").hint(convert),
        Some(Format::Tiktoken) => refused("holds tiktoken ranks, which do not say how text is split").hint(
            "give the model's `tokenizer.json`; transformers makes one of a `tiktoken.Encoding`: \
             `transformers.integrations.tiktoken.convert_tiktoken_to_fast(encoding, NEW_DIR)`",
        ),
        Some(Format::Tekken) => refused("holds a `tekken.json`, and no `tokenizer.json`")
            .hint("give a folder of the model that has a `tokenizer.json`"),
        Some(Format::Rwkv) => refused("holds an RWKV vocabulary, which no `tokenizer.json` can express")
            .hint("its tokenizer takes the longest match, which the reference does not know"),
        None => refused("is no tokenizer that is known")
            .hint("`--tokenizer` takes a folder with a `tokenizer.json`, a GGUF file, or `builtin`"),
    }
}
