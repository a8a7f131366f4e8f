//! The catalogue: every code, what it means, why it matters, an example, and what to do.
//!
//! `specs/diagnostics.md` is generated from it. Codes are stable for ever.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something was normalised; counted.
    Note,
    /// Something is lost or doubtful, and the record is compiled all the same.
    Warning,
    /// The record, or the turn it is about, is not compiled.
    Error,
}

impl Severity {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What `dlgc --explain CODE` prints.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The code.
    pub code: Code,
    /// Its stable name.
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it means.
    pub meaning: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// What shows it.
    pub example: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

macro_rules! catalogue {
    ($($variant:ident $name:literal $severity:ident {
        meaning: $meaning:literal, why: $why:literal, example: $example:literal, remedy: $remedy:literal $(,)?
    })*) => {
        /// A rule, by its stable kebab-case name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $meaning] $variant,)*
        }

        impl Code {
            /// The whole catalogue, in the order in which the data meets the rules.
            pub const CATALOGUE: &'static [Entry] = &[$(Entry {
                code: Code::$variant, name: $name, severity: Severity::$severity,
                meaning: $meaning, why: $why, example: $example, remedy: $remedy,
            },)*];
        }
    };
}

catalogue! {
    UnreadableFile "unreadable-file" Error {
        meaning: "A file, or what is left of it, cannot be read.",
        why: "Records may be missing; nothing after the place of the error was seen.",
        example: "permission denied, or the disk reports an error in the middle",
        remedy: "Mend the file or its permissions; the other files have been read.",
    }
    TruncatedGzip "truncated-gzip" Error {
        meaning: "A gzip stream ends or breaks before its end.",
        why: "What came before the break was compiled; what came after is lost.",
        example: "a download that stopped half-way",
        remedy: "Fetch or compress the file again.",
    }
    BrokenContainer "broken-container" Error {
        meaning: "A zstd file, an archive or a Parquet file ends or breaks before its end.",
        why: "What came before the break was compiled; what came after is lost.",
        example: "a download that stopped half-way, a member whose checksum is wrong",
        remedy: "Fetch or write the file again.",
    }
    UnsupportedContainer "unsupported-container" Error {
        meaning: "A file is of a kind that dlgc does not read.",
        why: "Nothing of it is compiled.",
        example: "an xz file, an encrypted zip, a zip inside a tar",
        remedy: "Unpack or convert it, and name what comes out.",
    }
    PlainText "plain-text" Error {
        meaning: "A file is text and holds no JSON: a chat that was exported, a transcript, Markdown, a table without its ending.",
        why: "Nobody can be certain where a message begins and who says it; nothing of it is compiled.",
        example: "12/31/23, 9:15 PM - Ann: hello",
        remedy: "Write each dialogue as one record of JSON; how it would look is said with the file.",
    }
    FileChanged "file-changed" Error {
        meaning: "A file changed while it was read.",
        why: "The rows may be of the old content, the new one, or half of each; nobody could confirm them.",
        example: "a log that is still written to",
        remedy: "Compile again when the file is at rest, or compile a copy.",
    }
    BrokenArray "broken-array" Error {
        meaning: "An array or an object of records is broken between two of them.",
        why: "Past some breaks nobody can tell where a record begins; what follows is not read then.",
        example: "[{…} {…}]",
        remedy: "Repair the file, or store one record a line (JSONL), where a broken record costs only itself.",
    }
    EmptyFile "empty-file" Warning {
        meaning: "A file, or a member of an archive, holds no record.",
        why: "An export that failed looks like this.",
        example: "a file of 0 bytes, or `[]`",
        remedy: "Leave it out if that is meant.",
    }
    WrongColumns "wrong-columns" Error {
        meaning: "A row of a CSV or TSV file has more or fewer cells than its first row names columns.",
        why: "A cell went astray, and nobody can say which.",
        example: "an answer with a comma in it, and no quotes around it",
        remedy: "Quote cells that hold the delimiter, a quote or a line break.",
    }
    RecordTooLarge "record-too-large" Error {
        meaning: "A record is larger than the limit.",
        why: "Records are held in memory whole; the limit keeps memory bounded.",
        example: "one line of 100 MB",
        remedy: "Raise `--max-record-bytes` if this is one dialogue; only the head of the record is kept in rejects.",
    }
    InvalidUtf8 "invalid-utf8" Error {
        meaning: "A record holds bytes that are not UTF-8.",
        why: "There is no text to train on, and guessing an encoding corrupts it silently.",
        example: "a file saved as GB18030 or Latin-1",
        remedy: "Convert the file to UTF-8.",
    }
    InvalidJson "invalid-json" Error {
        meaning: "A record is not JSON.",
        why: "Nothing in it can be trusted.",
        example: "{\"messages\": [}",
        remedy: "Look at the caret: what was expected stands beside it.",
    }
    LoneSurrogate "lone-surrogate" Error {
        meaning: "A string holds half of a surrogate pair.",
        why: "It is no text: it has no UTF-8 form, so no tokenizer can read it.",
        example: "\"\\ud83d\"",
        remedy: "An emoji was cut in two when the file was written; mend the writer.",
    }
    NonFiniteNumber "non-finite-number" Error {
        meaning: "A record holds `NaN` or `Infinity`.",
        why: "JSON has no such numbers; Python writes them, other readers fail.",
        example: "{\"score\": NaN}",
        remedy: "Write null, or leave the field out.",
    }
    JsonTooDeep "json-too-deep" Error {
        meaning: "A record is nested deeper than 256 levels.",
        why: "Deep nesting exhausts the stack of careless readers.",
        example: "[[[[…]]]]",
        remedy: "No dialogue needs this; look at what wrote the file.",
    }
    NotADialogue "not-a-dialogue" Note {
        meaning: "A record is a schema, an answer key or the like: it says something about dialogues and is none.",
        why: "It is counted as excluded; the importer of its set reads it where it is needed.",
        example: "{\"service_name\": …, \"slots\": […], \"intents\": […]}",
        remedy: "Nothing, unless it was meant as a dialogue.",
    }
    TooManySpeakers "too-many-speakers" Error {
        meaning: "More than two people speak, and nothing says who of them is the assistant.",
        why: "A chat template knows one user and one assistant; guessing would train the wrong one's words.",
        example: "three names in `speaker`",
        remedy: "Map the names to roles in `dlgc.toml`: `[formats.NAME]` with `roles = { … }`.",
    }
    RolesAssumed "roles-assumed" Warning {
        meaning: "Who speaks, or where, was told from names and order alone.",
        why: "The first speaker is taken for the user and the second for the assistant, who is trained.",
        example: "{\"dialog\": [\"Hi!\", \"Hello, how can I help?\"]}",
        remedy: "Look at one with `dlgc show`; write the format down in `dlgc.toml`, or name the assistant with `--assistant`.",
    }
    OrphanReply "orphan-reply" Warning {
        meaning: "In a file of messages that name their parent, some lead to no root.",
        why: "They belong to no dialogue and are not compiled.",
        example: "{\"message_id\": \"b\", \"parent_id\": \"a\"} without any \"a\"",
        remedy: "Add the file that holds the parents, or leave them out.",
    }
    FieldLeftOut "field-left-out" Warning {
        meaning: "A field of the dialogue has no place in the format that it is converted to.",
        why: "It is lost on that way; the native format keeps it.",
        example: "`state` in OpenAI's messages",
        remedy: "`--to native` keeps everything.",
    }
    ToolsChange "tools-change" Error {
        meaning: "Some tools become available only in the middle of the dialogue.",
        why: "Chat templates show all tools at the beginning; the model would be shown, and trained with, a tool that it did not have.",
        example: "BFCL's `missed_function`",
        remedy: "Split the dialogue where the tools change, or leave it out.",
    }
    UnknownFormat "unknown-format" Error {
        meaning: "A record has the shape of no known format.",
        why: "Guessing which field is the assistant's would train on the wrong words.",
        example: "{\"text\": \"…\"}",
        remedy: "Give `conversation` or `messages` (role, content), or ShareGPT's `conversations` (from, value).",
    }
    PreferenceRecord "preference-record" Error {
        meaning: "A record holds preferences: a better and a worse answer, ranked ones, or one with a verdict (`kto_tag`, or a \
                  `label` that is true or false).",
        why: "Compiling it for supervised fine-tuning would train the rejected answers.",
        example: "{\"messages\": […], \"label\": false}",
        remedy: "`--rows preference` compiles pairs, `--rows kto` single answers with a verdict too; `dlgc convert --preferences` \
                 writes them in the native format.",
    }
    NoPreference "no-preference" Error {
        meaning: "Rows of preferences are made, and a record holds none that they could be made of: it is a dialogue, or one \
                  answer with a verdict where pairs are wanted.",
        why: "Nothing says which answer is better; to guess it would train the wrong one.",
        example: "{\"messages\": […]} with `--rows preference`",
        remedy: "Compile dialogues by themselves with `--rows sft`, and answers with a verdict with `--rows kto`.",
    }
    WrongType "wrong-type" Error {
        meaning: "A field has a value of the wrong type, or lacks a part that it must have.",
        why: "The field would be dropped or misread.",
        example: "{\"role\": \"user\", \"content\": 42}",
        remedy: "See `specs/dialogue.schema.json`.",
    }
    UnknownRole "unknown-role" Error {
        meaning: "A message has a role that is none of system, developer, user, assistant and tool.",
        why: "Whether to train on it cannot be known.",
        example: "{\"role\": \"bot\", …}",
        remedy: "Rename the role.",
    }
    EmptyDialogue "empty-dialogue" Error {
        meaning: "A record has no messages.",
        why: "There is nothing to learn from it.",
        example: "{\"messages\": []}",
        remedy: "Leave it out.",
    }
    NoAssistant "no-assistant" Error {
        meaning: "A dialogue has no assistant message.",
        why: "Nothing in it can be trained.",
        example: "a prompt without its answer",
        remedy: "Check the role names if you expected one.",
    }
    NothingToTrain "nothing-to-train" Error {
        meaning: "Every assistant message of a dialogue is excluded from training.",
        why: "The row would only cost time: its loss is empty.",
        example: "\"train\": false on each assistant message",
        remedy: "Leave the dialogue out, or train a turn.",
    }
    UnsupportedContent "unsupported-content" Error {
        meaning: "A message has a content part that is not text.",
        why: "dlgc compiles text; dropping an image would change what the answer refers to.",
        example: "{\"type\": \"image_url\", …}",
        remedy: "Leave multimodal dialogues out.",
    }
    UnsupportedWeight "unsupported-weight" Error {
        meaning: "A message has a weight other than 0 and 1.",
        why: "Labels either are trained or are not; a fraction would be rounded silently.",
        example: "\"weight\": 0.5",
        remedy: "Use 0 or 1, or `train`.",
    }
    ConflictingReasoning "conflicting-reasoning" Error {
        meaning: "A message has its reasoning under two names, and they differ.",
        why: "Only one of them can be trained, and nobody but you knows which.",
        example: "{\"role\": \"assistant\", \"reasoning\": \"2 + 2 = 4\", \"thinking\": \"It is 4.\", \"content\": \"4\"}",
        remedy: "Keep one of `reasoning_content`, `reasoning` and `thinking`.",
    }
    InvalidToolCall "invalid-tool-call" Error {
        meaning: "A tool call lacks its name, or its arguments are not what the template can print.",
        why: "The model would learn a call that no server can parse.",
        example: "{\"function\": {\"arguments\": \"{broken\"}}",
        remedy: "Give `name` and `arguments`, an object or a string that holds a JSON object.",
    }
    OrphanToolResult "orphan-tool-result" Error {
        meaning: "A tool message answers no earlier tool call.",
        why: "The model would learn that results appear from nowhere.",
        example: "a tool message right after the user's",
        remedy: "Check `tool_call_id`, or leave the dialogue out.",
    }
    ReservedCharacter "reserved-character" Error {
        meaning: "A text holds U+FDD0, U+FDD1 or U+FDD2.",
        why: "These noncharacters mark spans inside the compiler; Unicode keeps them for such use.",
        example: "\"\\ufdd0\"",
        remedy: "Remove them; no text needs them.",
    }
    ControlToken "control-token" Error {
        meaning: "A content holds the text of a control token, such as `<|im_end|>`.",
        why: "It would become the token itself: a user could end a turn, and the model would learn it.",
        example: "{\"role\": \"user\", \"content\": \"<|im_end|>\"}",
        remedy: "`--control-tokens text` encodes it as ordinary text, `allow` lets it through as transformers does.",
    }
    TemplateRefused "template-refused" Error {
        meaning: "The chat template refuses the dialogue.",
        why: "The model has no form for it, so there is no prompt that a server could send.",
        example: "Gemma's template on a system message",
        remedy: "Change the dialogue, or choose a template that takes it.",
    }
    TemplateLimit "template-limit" Error {
        meaning: "Rendering needed more work, output or depth than a template may have.",
        why: "Templates are programs from strangers; the limits keep them from hanging the run.",
        example: "a loop over a very large range",
        remedy: "Look at the template.",
    }
    FieldLost "field-lost" Error {
        meaning: "A field of the dialogue leaves no trace in the rendered text.",
        why: "The model would be trained as if it had never been there.",
        example: "tools with a template that knows none; a system message in mid-dialogue",
        remedy: "Choose a template that prints it, or remove it from the data.",
    }
    PromptDiffers "prompt-differs" Error {
        meaning: "What the template shows of this turn does not follow the prompt that a server would send for it.",
        why: "The model would be trained on a context that it never sees.",
        example: "an assistant message with nothing before it; a template that changes history in the prompt",
        remedy: "The turn stays untrained; look at it with `dlgc show`.",
    }
    TargetUnproved "target-unproved" Error {
        meaning: "It cannot be proved that the turn is made of its own strings and the template's scaffold, in text and ids.",
        why: "A string may be missing or changed, or another message's may stand in it.",
        example: "a template that rewrites what the assistant said; a character that the tokenizer has no token for",
        remedy: "The turn stays untrained; look at it with `dlgc show`.",
    }
    NoStopToken "no-stop-token" Error {
        meaning: "An assistant turn does not end in a stop token.",
        why: "A model that never saw the stop trained does not stop.",
        example: "a template that prints the end of turn with the next user message",
        remedy: "Use a template that closes the assistant's turn.",
    }
    AnswerNotNested "answer-not-nested" Error {
        meaning: "An answer of preferences is not, id by id, one continuation of its prompt in which each turn follows its own: \
                  the template shows a turn otherwise once others follow it, or the answer does not begin where a server \
                  would ask for it.",
        why: "A pair has one row; no row holds every turn as the model will be asked for it.",
        example: "a template that drops the reasoning of earlier turns, and an answer of several exchanges",
        remedy: "Let the answers part at their last exchange, or take `--train-on last_turn`.",
    }
    IdenticalAnswers "identical-answers" Error {
        meaning: "Both answers of a pair are the same, or train the same tokens.",
        why: "Nothing is preferred; as good and bad, the same tokens would be trained both ways.",
        example: "{\"chosen\": \"Yes.\", \"rejected\": \"Yes.\"}",
        remedy: "Leave it out; where both differ in the source, see what the template or the importer makes of them.",
    }
    DialogueTooLong "dialogue-too-long" Error {
        meaning: "A dialogue has more tokens than `max_length`, and `--window reject` refuses it.",
        why: "Cut at the end it would lose its last targets.",
        example: "an hour of chat, compiled for a context of 4096",
        remedy: "Raise `--max-length`, or leave `--window` at `cover`.",
    }
    DialogueDropped "dialogue-dropped" Warning {
        meaning: "A dialogue has more tokens than `max_length`, and `--window drop` leaves it out.",
        why: "Its turns are not trained.",
        example: "an hour of chat, compiled for a context of 4096",
        remedy: "Raise `--max-length`, or leave `--window` at `cover`.",
    }
    TurnTooLong "turn-too-long" Error {
        meaning: "A turn does not fit a window, though that shows nothing but the head, the question and the turn.",
        why: "Cut, it would be trained without its end; it stays untrained.",
        example: "an answer of 5,000 tokens, compiled for a context of 4096",
        remedy: "Raise `--max-length`, or cut the message where it makes sense.",
    }
    TurnCut "turn-cut" Warning {
        meaning: "A turn that fits no window is cut at `max_length`, as `--long-turns cut` asks for.",
        why: "As much as fits is trained, neither the rest nor the stop: the certificate counts such turns.",
        example: "an answer of 5,000 tokens, compiled for a context of 4096",
        remedy: "Raise `--max-length`, or leave `--long-turns` at `leave`: then the turn stays untrained.",
    }
    HeadTooLong "head-too-long" Error {
        meaning: "System messages, tools and documents, which every window shows, have more tokens than `max_length`.",
        why: "Nothing fits beside them.",
        example: "forty tools, compiled for a context of 512",
        remedy: "Raise `--max-length`, or keep the tools that the dialogue needs.",
    }
    OutsideWindow "outside-window" Warning {
        meaning: "A turn lies before the most recent messages that fit, and `--window last` trains only those.",
        why: "It stays untrained.",
        example: "the first turns of an hour of chat",
        remedy: "Leave `--window` at `cover`, which trains every turn.",
    }
    TurnTruncated "turn-truncated" Warning {
        meaning: "A row is cut at `max_length` before a turn in it ends, as `--window truncate` asks for.",
        why: "Without its end the model would not learn to stop; the turn stays untrained.",
        example: "the last turns of an hour of chat",
        remedy: "Leave `--window` at `cover`, which trains every turn.",
    }
    InternalError "internal-error" Error {
        meaning: "dlgc failed on a record.",
        why: "It is a bug; the record is rejected so that the run can go on.",
        example: "a panic inside a library",
        remedy: "Please report the record, which is in `rejects/`.",
    }
    DuplicateKey "duplicate-key" Warning {
        meaning: "An object has a key twice.",
        why: "The last value wins, as in Python; the first one is not seen.",
        example: "{\"content\": \"a\", \"content\": \"b\"}",
        remedy: "Mend the writer.",
    }
    UnknownField "unknown-field" Warning {
        meaning: "A message has a field that dlgc does not know; it is ignored.",
        why: "A misspelt `train` would train what you meant to exclude.",
        example: "{\"role\": \"assistant\", \"trian\": false, …}",
        remedy: "Mend the name, or remove the field.",
    }
    StateNotTrained "state-not-trained" Warning {
        meaning: "A message has `state`, which the default leaves out.",
        why: "The model learns the text of a task-oriented dialogue but not its structure.",
        example: "{\"state\": {\"intent\": \"book_train\", …}}",
        remedy: "`--state json-before` or `json-after` trains it, `context` shows it, `ignore` is the default.",
    }
    ReasoningLost "reasoning-lost" Warning {
        meaning: "Reasoning leaves no trace in the rendered text.",
        why: "The template does not print it there; a reasoning model would learn to answer without it.",
        example: "reasoning in history with a template that drops it",
        remedy: "Choose a template that keeps reasoning.",
    }
    UndeclaredCall "undeclared-call" Warning {
        meaning: "A tool call does not fit the tools that the dialogue declares.",
        why: "The model would learn to call functions, or to give arguments, that its prompt does not have.",
        example: "`tools` declares `weather(city)`, and a message calls `weather(town=\"Ulm\")`",
        remedy: "Mend `tools` or the call; `undeclared-call = \"error\"` in `dlgc.toml` leaves such dialogues out.",
    }
    UnansweredToolCall "unanswered-tool-call" Warning {
        meaning: "A tool call in mid-dialogue has no result.",
        why: "The next turn refers to something that the model never sees.",
        example: "two parallel calls and one result",
        remedy: "Add the result, or leave the dialogue out.",
    }
    EmptyTurn "empty-turn" Warning {
        meaning: "An assistant message says nothing.",
        why: "The model learns to answer with an immediate stop.",
        example: "{\"role\": \"assistant\", \"content\": \"\"}",
        remedy: "Leave it out, or set `\"train\": false`.",
    }
    StopNotAToken "stop-not-a-token" Warning {
        meaning: "The stop that the template prints is not one token of this tokenizer.",
        why: "Template and tokenizer belong to different models; a server waits for one token.",
        example: "Gemma's template with Qwen's tokenizer",
        remedy: "Use the template of the tokenizer's model. `--strict` and training refuse it.",
    }
    TrailingContext "trailing-context" Note {
        meaning: "What follows the last assistant message was cut.",
        why: "Nothing after it can be trained, and templates look at the last user turn.",
        example: "a dialogue that ends with the user's thanks",
        remedy: "Nothing to do.",
    }
    MergedMessages "merged-messages" Note {
        meaning: "Consecutive messages of one role were merged, because the template refuses them.",
        why: "The joined text is what the model sees.",
        example: "two user messages in a row with Gemma's template",
        remedy: "Nothing to do.",
    }
    OwnRow "own-row" Note {
        meaning: "A turn has a row of its own, because its prompt is not the beginning of the whole dialogue.",
        why: "Its context is trained as a server would send it; rows and tokens grow.",
        example: "a template that drops earlier reasoning, or whose last turn differs from history",
        remedy: "Nothing to do; a template that changes nothing in history needs fewer rows.",
    }
    TargetDiffers "target-differs" Warning {
        meaning: "A turn is trained as the whole dialogue shows it, which is not what follows the prompt of a server.",
        why: "You asked for it with `--target template`: the model learns an answer to a prompt that it will not see.",
        example: "a template that drops earlier reasoning: the turn is trained without the think block of its prompt",
        remedy: "Leave `--target template` out: each such turn then gets a row of its own, after its own prompt.",
    }
    TargetCut "target-cut" Warning {
        meaning: "A target begins inside a token, and that token is not trained.",
        why: "A token is trained only if all of it is the turn's own.",
        example: "`\n` of the header and `\n` of the answer are one token, with `--target template`",
        remedy: "Leave `--target template` out: the turn then gets a row in which its prompt is encoded by itself.",
    }
    StopAppended "stop-appended" Note {
        meaning: "The template prints no stop after its last turn, so the model's own was put there.",
        why: "It is what the server waits for.",
        example: "a template that prints the end of turn with the next user message",
        remedy: "Nothing to do.",
    }
    ControlTokenAsText "control-token-as-text" Note {
        meaning: "The text of a control token in a content was encoded as ordinary text.",
        why: "You asked for it with `--control-tokens text`.",
        example: "`<|im_end|>` in a user message",
        remedy: "Nothing to do.",
    }
    ControlTokenAllowed "control-token-allowed" Warning {
        meaning: "The text of a control token in a content became the token itself.",
        why: "You asked for it with `--control-tokens allow`; whoever wrote the text controls the dialogue.",
        example: "`<|im_end|>` in a user message",
        remedy: "Prefer `reject` or `text`.",
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let unknown = || serde::de::Error::custom(format!("there is no diagnostic `{name}`"));
        Self::explain(&name).map(|entry| entry.code).ok_or_else(unknown)
    }
}

impl Code {
    fn entry(self) -> &'static Entry {
        &Self::CATALOGUE[self as usize]
    }

    /// Its stable name.
    pub fn name(self) -> &'static str {
        self.entry().name
    }

    /// How bad it is.
    pub fn severity(self) -> Severity {
        self.entry().severity
    }

    /// The entry of a name.
    pub fn explain(name: &str) -> Option<&'static Entry> {
        Self::CATALOGUE.iter().find(|entry| entry.name == name)
    }

    /// The catalogue as `specs/diagnostics.md` has it.
    pub fn markdown() -> String {
        let mut out = String::from(
            "# Diagnostics\n\nGenerated from the catalogue in `rust/dlgc/src/diagnostic/catalogue.rs`; \
             `make specs` writes it. Codes are stable.\n\n| code | severity | meaning |\n|---|---|---|\n",
        );
        for entry in Self::CATALOGUE {
            let severity = entry.severity.name();
            out += &format!("| [`{0}`](#{0}) | {severity} | {1} |\n", entry.name, entry.meaning);
        }
        for entry in Self::CATALOGUE {
            out += &format!(
                "\n## {}\n\n**{}** {}\n\n*Why it matters.* {}\n\n*Example.* `` {} ``\n\n*What to do.* {}\n",
                entry.name,
                entry.severity.name(),
                entry.meaning,
                entry.why,
                entry.example,
                entry.remedy
            );
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_finds_its_own_entry_by_a_unique_name() {
        for entry in Code::CATALOGUE {
            assert_eq!(entry.code.name(), entry.name);
            assert_eq!(Code::explain(entry.name).map(|found| found.code), Some(entry.code));
        }
    }
}
