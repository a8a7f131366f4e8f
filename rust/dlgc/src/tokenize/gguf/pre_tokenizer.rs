//! Pre-tokenizers of byte-level vocabularies: a GGUF file only names how text is split before it is merged.
//!
//! The name is a claim, and the digest its proof: converters find the name by a digest of the ids that the original
//! tokenizer gives for one text, [`PROBE`], made to tell pre-tokenizers apart. The tokenizer that is made from a file
//! has to give ids with the same digest. Only names are listed that were also checked against vectors of the original
//! or a `tokenizer.json` of the same family; how is said beside each.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// How one name splits text.
#[derive(Debug)]
pub(super) struct PreTokenizer {
    /// Names that mean this, with the SHA-256 of the ids of [`PROBE`], written as Python writes a list.
    names: &'static [(&'static str, &'static [&'static str])],
    /// Whether the text is composed (Unicode's NFC) first.
    nfc: bool,
    splits: &'static [Split],
    /// Whether a word that is a token is taken whole, whatever the merges say.
    pub(super) ignore_merges: bool,
}

#[derive(Debug, Clone, Copy)]
enum Split {
    /// At each match.
    Regex(&'static str),
    /// Each digit alone.
    Digits,
    /// Words as GPT-2 has them; always the last.
    Words,
}

/// The text by which converters tell pre-tokenizers apart.
const PROBE: [&str; 6] = [
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n",
    "🚀 (normal) 😶\u{200d}🌫\u{fe0f} (multiple emojis concatenated) ✅ 🦙🦙",
    " 3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 ",
    "កាន់តែពិសេសអាច😁 ?我想在apple工作1314151天～ ------=======",
    " нещо на Български ''''''```````\"\"\"\"......!!!!!!??????",
    " I've been 'told he's there, 'RE you sure? 'M not sure I'll make it, 'D you like some tea? We'Ve a'lL",
];

const KNOWN: [PreTokenizer; 8] = [
    // Vectors of the original.
    PreTokenizer {
        names: &[("gpt-2", &["3ce83efda5659b07b1ad37ca97ca5797ea4285d9b9ab0dc679e4a720c9da7454"])],
        nfc: false,
        splits: &[Split::Words],
        ignore_merges: false,
    },
    // A `tokenizer.json` of the family, as others describe it.
    PreTokenizer {
        names: &[("smollm", &["855059429035d75a914d1eda9f10a876752e281a054a7a3d421ef0533e5b6249"])],
        nfc: false,
        splits: &[Split::Digits, Split::Words],
        ignore_merges: false,
    },
    // Vectors, and a `tokenizer.json` of the family.
    PreTokenizer {
        names: &[(
            "qwen2",
            &[
                "d4540891389ea895b53b399da6ac824becc30f2fba0e9ddbb98f92e55ca0e97c",
                "e636dc30a262dcc0d8c323492e32ae2b70728f4df7dfe9737d9f920a282b8aea",
            ],
        )],
        nfc: true,
        splits: &[Split::Regex(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )],
        ignore_merges: false,
    },
    // Vectors, and a `tokenizer.json` of the family.
    PreTokenizer {
        names: &[
            ("llama-bpe", &["0ef9807a4087ebef797fc749390439009c3b9eda9ad1a097abbe738f486c01e5"]),
            ("smaug-bpe", &["c136ed14d01c2745d4f60a9596ae66800e2b61fa45643e72436041855ad4089d"]),
        ],
        nfc: false,
        splits: &[Split::Regex(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )],
        ignore_merges: true,
    },
    // Two `tokenizer.json` of the family.
    PreTokenizer {
        names: &[("gpt-4o", &["ccc2ef013c104be7bae2965776d611e1d7a8a2a9c547dd93a682c9a9fc80352e"])],
        nfc: false,
        splits: &[Split::Regex(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )],
        ignore_merges: false,
    },
    // A `tokenizer.json` of the family.
    PreTokenizer {
        names: &[
            ("deepseek-v3", &["877081d19cf6996e2c4ff0e1236341e9b7bde288f5311a56a937f0afbbb3aeb5"]),
            ("joyai-llm", &["b4b8ca1f9769494fbd956ebc4c249de6131fb277a4a3345a7a92c7dd7a55808d"]),
        ],
        nfc: false,
        splits: &[
            Split::Regex(r"\p{N}{1,3}"),
            Split::Regex(r"[一-龥぀-ゟ゠-ヿ]+"),
            Split::Regex(
                "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
            ),
        ],
        ignore_merges: false,
    },
    // Vectors of the original.
    PreTokenizer {
        names: &[("deepseek-llm", &["049ecf7629871e3041641907f3de7c733e4dbfdc736f57d882ba0b0845599754"])],
        nfc: false,
        splits: &[
            Split::Regex("[\r\n]"),
            Split::Regex(
                r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+",
            ),
            Split::Regex(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
            Split::Regex(r"\s+$"),
            Split::Regex(r"[一-龥ࠀ-一가-퟿]+"),
            Split::Digits,
        ],
        ignore_merges: false,
    },
    // Vectors of the original.
    PreTokenizer {
        names: &[("deepseek-coder", &["347715f544604f9118bb75ed199f68779f423cabb20db6de6f31b908d04d7821"])],
        nfc: false,
        splits: &[
            Split::Regex("[\r\n]"),
            Split::Regex(r"\s?\p{L}+"),
            Split::Regex(r"\s?\p{P}+"),
            Split::Regex(r"[一-龥ࠀ-一가-퟿]+"),
            Split::Digits,
        ],
        ignore_merges: false,
    },
];

impl PreTokenizer {
    /// The pre-tokenizer of a name, and the digests that prove it.
    pub(super) fn named(name: &str) -> Option<(&'static Self, &'static [&'static str])> {
        KNOWN.iter().find_map(|known| {
            let (_, digests) = known.names.iter().find(|(listed, _)| *listed == name)?;
            Some((known, *digests))
        })
    }

    /// The digests of a name that stands for WordPiece over lowercased words.
    pub(super) fn word_piece(name: &str) -> Option<&'static [&'static str]> {
        // Vectors of the original.
        const BERT: &[&str] = &["0876d13b50744004aa9aeae05e7b0647eac9d801b5ba4668afc01e709c15e19f"];
        (name == "bert-bge").then_some(BERT)
    }

    /// `normalizer` of a `tokenizer.json`.
    pub(super) fn normalizer(&self) -> Value {
        if self.nfc { json!({"type": "NFC"}) } else { Value::Null }
    }

    /// `pre_tokenizer` of a `tokenizer.json`.
    pub(super) fn pre_tokenizer(&self) -> Value {
        let words = matches!(self.splits.last(), Some(Split::Words));
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": words});
        let steps = self.splits.iter().filter_map(|split| match split {
            Split::Regex(regex) => {
                Some(json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false}))
            }
            Split::Digits => Some(json!({"type": "Digits", "individual_digits": true})),
            Split::Words => None,
        });
        let steps: Vec<Value> = steps.chain([bytes]).collect();
        json!({"type": "Sequence", "pretokenizers": steps})
    }
}

/// The text whose ids prove a pre-tokenizer.
pub(super) fn probe() -> String {
    PROBE.concat()
}

/// Whether these ids of [`probe`] have one of the digests; the original may have put a token before or after them.
pub(super) fn proves(ids: &[u32], first: Option<u32>, last: Option<u32>, digests: &[&str]) -> bool {
    let listed = |first: Option<u32>, last: Option<u32>| {
        let ids: Vec<u32> = first.into_iter().chain(ids.iter().copied()).chain(last).collect();
        let digest = crate::hex(&Sha256::digest(format!("{ids:?}").as_bytes()));
        digests.contains(&digest.as_str())
    };
    listed(None, None) || listed(first, None) || listed(None, last) || listed(first, last)
}
