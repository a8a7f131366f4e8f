//! The header of a GGUF file: its keys and values, and nothing that lies behind them.
//!
//! In: bytes and how many there are. Out: the values whose keys are asked for. A header comes from strangers: each
//! length is held against what is left of the file before anything is read or allocated for it, lists do not nest, and
//! a header larger than [`LARGEST`] is refused. Tensors are never read, however large the file.

use std::collections::BTreeMap;
use std::io::{self, Read};

/// Largest header that is read, in bytes; the largest in use have about twenty million.
const LARGEST: u64 = 1 << 28;
/// Longest list that is kept; the largest vocabularies have a quarter of a million entries.
const LONGEST_LIST: u64 = 1 << 22;
/// Most keys of a header; the largest have about a hundred.
const MOST_KEYS: u64 = 1 << 16;
/// The first bytes of every GGUF file.
pub(super) const MAGIC: [u8; 4] = *b"GGUF";

/// Why a header is not read.
#[derive(Debug)]
pub(super) enum Refused {
    /// What the system said.
    Io(io::Error),
    /// What is wrong with the bytes.
    Bytes(String),
}

type Found<T> = Result<T, Refused>;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Any kind of whole number that an `i64` holds.
    Integer(i64),
    /// Yes or no.
    Bool(bool),
    /// A text.
    Text(String),
    /// A list of whole numbers.
    Integers(Vec<i64>),
    /// A list of numbers with fractions.
    Floats(Vec<f32>),
    /// A list of texts.
    Texts(Vec<String>),
    /// What describes no tokenizer: a single fraction, a list of truth values.
    Other,
}

/// What a header says, of the keys that were asked for.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    values: BTreeMap<String, Value>,
}

impl Metadata {
    /// Reads the header of a file of `length` bytes; `wanted` says which keys are kept.
    pub(super) fn read(source: impl Read, length: u64, wanted: impl Fn(&str) -> bool) -> Found<Self> {
        let mut header = Header { source, left: length.min(LARGEST), cut: length > LARGEST };
        if length < 24 || header.array()? != MAGIC {
            return Err(refused("it does not begin as a GGUF file does"));
        }
        let version = u32::from_le_bytes(header.array()?);
        if version.swap_bytes() == 2 || version.swap_bytes() == 3 {
            return Err(refused("it is big-endian; only little-endian files are read"));
        }
        if version != 2 && version != 3 {
            return Err(refused(format!("it has version {version} of the format; versions 2 and 3 are read")));
        }
        let _tensors = header.u64()?;
        let count = header.u64()?;
        if count > MOST_KEYS {
            return Err(refused(format!("{count} keys are more than {MOST_KEYS}")));
        }
        let mut metadata = Self::default();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..count {
            let key = header.text()?;
            let kind = Kind::of(u32::from_le_bytes(header.array()?))?;
            if wanted(&key) {
                let value = header.value(kind).map_err(|why| why.about(&key))?;
                metadata.values.insert(key.clone(), value);
            } else {
                header.skip(kind).map_err(|why| why.about(&key))?;
            }
            if !seen.insert(key.clone()) {
                return Err(refused(format!("the key `{key}` stands twice in it")));
            }
        }
        Ok(metadata)
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match self.values.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A truth value.
    pub(super) fn bool(&self, key: &str) -> Option<bool> {
        match self.values.get(key)? {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// A whole number.
    pub(super) fn integer(&self, key: &str) -> Option<i64> {
        match self.values.get(key)? {
            Value::Integer(value) => Some(*value),
            _ => None,
        }
    }

    /// A list of texts.
    pub(super) fn texts(&self, key: &str) -> Option<&[String]> {
        match self.values.get(key)? {
            Value::Texts(texts) => Some(texts),
            _ => None,
        }
    }

    /// A list of whole numbers.
    pub(super) fn integers(&self, key: &str) -> Option<&[i64]> {
        match self.values.get(key)? {
            Value::Integers(values) => Some(values),
            _ => None,
        }
    }

    /// A list of numbers with fractions.
    pub(super) fn floats(&self, key: &str) -> Option<&[f32]> {
        match self.values.get(key)? {
            Value::Floats(values) => Some(values),
            _ => None,
        }
    }

    /// Keys that begin with `prefix`, and their texts.
    pub(super) fn texts_below<'m>(&'m self, prefix: &'m str) -> impl Iterator<Item = (&'m str, &'m str)> {
        self.values.iter().filter_map(move |(key, value)| match value {
            Value::Text(text) => Some((key.strip_prefix(prefix)?, text.as_str())),
            _ => None,
        })
    }
}

fn refused(message: impl Into<String>) -> Refused {
    Refused::Bytes(message.into())
}

impl Refused {
    fn about(self, key: &str) -> Self {
        match self {
            Self::Bytes(message) => Self::Bytes(format!("`{key}`: {message}")),
            Self::Io(error) => Self::Io(error),
        }
    }
}

/// The kinds of values, as the format numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unsigned(u8),
    Signed(u8),
    Float32,
    Float64,
    Bool,
    Text,
    List,
}

impl Kind {
    fn of(number: u32) -> Found<Self> {
        Ok(match number {
            0 => Self::Unsigned(1),
            1 => Self::Signed(1),
            2 => Self::Unsigned(2),
            3 => Self::Signed(2),
            4 => Self::Unsigned(4),
            5 => Self::Signed(4),
            6 => Self::Float32,
            7 => Self::Bool,
            8 => Self::Text,
            9 => Self::List,
            10 => Self::Unsigned(8),
            11 => Self::Signed(8),
            12 => Self::Float64,
            _ => return Err(refused(format!("{number} is no kind of value"))),
        })
    }

    /// The fewest bytes that a value of this kind takes.
    fn width(self) -> u64 {
        match self {
            Self::Unsigned(width) | Self::Signed(width) => u64::from(width),
            Self::Float32 => 4,
            Self::Bool => 1,
            Self::Float64 | Self::Text => 8,
            Self::List => 12,
        }
    }
}

/// Bytes of a header, and how many are left of it.
struct Header<R> {
    source: R,
    left: u64,
    /// Whether the file goes on behind [`LARGEST`].
    cut: bool,
}

impl<R: Read> Header<R> {
    /// Takes `count` bytes from what is left.
    fn take(&mut self, count: u64) -> Found<()> {
        match self.left.checked_sub(count) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None if self.cut => Err(refused(format!("the header is larger than {LARGEST} bytes"))),
            None => Err(refused("the file ends within the header")),
        }
    }

    fn array<const N: usize>(&mut self) -> Found<[u8; N]> {
        self.take(N as u64)?;
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes).map_err(Refused::Io)?;
        Ok(bytes)
    }

    fn u64(&mut self) -> Found<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Found<String> {
        let length = self.u64()?;
        self.take(length)?;
        // Not larger than what the file is known to hold.
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| refused("a text is too long"))?];
        self.source.read_exact(&mut bytes).map_err(Refused::Io)?;
        String::from_utf8(bytes).map_err(|_| refused("a text is no UTF-8"))
    }

    fn integer(&mut self, kind: Kind) -> Found<Option<i64>> {
        Ok(match kind {
            Kind::Unsigned(1) => Some(i64::from(u8::from_le_bytes(self.array()?))),
            Kind::Signed(1) => Some(i64::from(i8::from_le_bytes(self.array()?))),
            Kind::Unsigned(2) => Some(i64::from(u16::from_le_bytes(self.array()?))),
            Kind::Signed(2) => Some(i64::from(i16::from_le_bytes(self.array()?))),
            Kind::Unsigned(4) => Some(i64::from(u32::from_le_bytes(self.array()?))),
            Kind::Signed(4) => Some(i64::from(i32::from_le_bytes(self.array()?))),
            Kind::Unsigned(_) => i64::try_from(self.u64()?).ok(),
            _ => Some(i64::from_le_bytes(self.array()?)),
        })
    }

    fn value(&mut self, kind: Kind) -> Found<Value> {
        Ok(match kind {
            Kind::Unsigned(_) | Kind::Signed(_) => self.integer(kind)?.map_or(Value::Other, Value::Integer),
            Kind::Float32 | Kind::Float64 => {
                self.discard(kind.width())?;
                Value::Other
            }
            Kind::Bool => Value::Bool(self.array::<1>()? != [0]),
            Kind::Text => Value::Text(self.text()?),
            Kind::List => {
                let (kind, count) = self.list()?;
                if count > LONGEST_LIST {
                    return Err(refused(format!("a list of {count} values is longer than {LONGEST_LIST}")));
                }
                match kind {
                    Kind::Unsigned(_) | Kind::Signed(_) => {
                        let numbers = (0..count).map(|_| self.integer(kind).map(Option::unwrap_or_default));
                        Value::Integers(numbers.collect::<Found<_>>()?)
                    }
                    Kind::Float32 => {
                        let number = |_| Ok(f32::from_le_bytes(self.array()?));
                        Value::Floats((0..count).map(number).collect::<Found<_>>()?)
                    }
                    Kind::Text => Value::Texts((0..count).map(|_| self.text()).collect::<Found<_>>()?),
                    _ => {
                        self.discard(count * kind.width())?;
                        Value::Other
                    }
                }
            }
        })
    }

    /// What a list holds, and how many; that many fit into what is left.
    fn list(&mut self) -> Found<(Kind, u64)> {
        let kind = Kind::of(u32::from_le_bytes(self.array()?))?;
        let count = self.u64()?;
        if kind == Kind::List {
            return Err(refused("a list of lists is not read"));
        }
        match count.checked_mul(kind.width()) {
            Some(bytes) if bytes <= self.left => Ok((kind, count)),
            _ => Err(refused(format!("a list of {count} values does not fit into the header"))),
        }
    }

    fn skip(&mut self, kind: Kind) -> Found<()> {
        match kind {
            Kind::Text => {
                let length = self.u64()?;
                self.discard(length)
            }
            Kind::List => match self.list()? {
                (Kind::Text, count) => (0..count).try_for_each(|_| self.skip(Kind::Text)),
                (kind, count) => self.discard(count * kind.width()),
            },
            _ => self.discard(kind.width()),
        }
    }

    fn discard(&mut self, count: u64) -> Found<()> {
        self.take(count)?;
        let copied = io::copy(&mut self.source.by_ref().take(count), &mut io::sink()).map_err(Refused::Io)?;
        if copied == count { Ok(()) } else { Err(Refused::Io(io::ErrorKind::UnexpectedEof.into())) }
    }
}

/// Writes headers, for tests.
#[cfg(test)]
pub(super) mod writer {
    /// A header under construction.
    pub(in super::super) struct Writer {
        entries: Vec<Vec<u8>>,
    }

    fn text_bytes(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
    }

    impl Writer {
        pub(in super::super) fn new() -> Self {
            Self { entries: Vec::new() }
        }

        /// An entry of any kind, its value as bytes.
        pub(in super::super) fn raw(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
            self.entries.push([&text_bytes(key)[..], &kind.to_le_bytes(), value].concat());
            self
        }

        pub(in super::super) fn text(self, key: &str, value: &str) -> Self {
            self.raw(key, 8, &text_bytes(value))
        }

        pub(in super::super) fn number(self, key: &str, value: u32) -> Self {
            self.raw(key, 4, &value.to_le_bytes())
        }

        pub(in super::super) fn bool(self, key: &str, value: bool) -> Self {
            self.raw(key, 7, &[u8::from(value)])
        }

        pub(in super::super) fn list(self, key: &str, kind: u32, values: &[Vec<u8>]) -> Self {
            let head = [&kind.to_le_bytes()[..], &(values.len() as u64).to_le_bytes()].concat();
            self.raw(key, 9, &[head, values.concat()].concat())
        }

        pub(in super::super) fn texts(self, key: &str, values: &[&str]) -> Self {
            let values: Vec<Vec<u8>> = values.iter().map(|value| text_bytes(value)).collect();
            self.list(key, 8, &values)
        }

        pub(in super::super) fn integers(self, key: &str, values: &[i32]) -> Self {
            let values: Vec<Vec<u8>> = values.iter().map(|value| value.to_le_bytes().to_vec()).collect();
            self.list(key, 5, &values)
        }

        pub(in super::super) fn floats(self, key: &str, values: &[f32]) -> Self {
            let values: Vec<Vec<u8>> = values.iter().map(|value| value.to_le_bytes().to_vec()).collect();
            self.list(key, 6, &values)
        }

        /// The bytes of a file without tensors.
        pub(in super::super) fn bytes(&self) -> Vec<u8> {
            let mut bytes = b"GGUF".to_vec();
            bytes.extend(3_u32.to_le_bytes());
            bytes.extend(0_u64.to_le_bytes());
            bytes.extend((self.entries.len() as u64).to_le_bytes());
            bytes.extend(self.entries.concat());
            bytes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::writer::Writer;
    use super::*;

    fn read(bytes: &[u8]) -> Found<Metadata> {
        Metadata::read(bytes, bytes.len() as u64, |key| key.starts_with("keep"))
    }

    fn refusal(bytes: &[u8]) -> String {
        match read(bytes) {
            Err(Refused::Bytes(message)) => message,
            Err(Refused::Io(error)) => format!("io: {error}"),
            Ok(_) => "read".to_owned(),
        }
    }

    fn sample() -> Writer {
        Writer::new()
            .text("drop.text", "long")
            .texts("drop.texts", &["a", "bc"])
            .integers("drop.integers", &[1, 2])
            .raw("drop.float", 12, &1.5_f64.to_le_bytes())
            .text("keep.text", "käse")
            .number("keep.number", 7)
            .bool("keep.bool", true)
            .texts("keep.texts", &["", "x y"])
            .integers("keep.integers", &[-1, 3])
            .floats("keep.floats", &[0.5])
    }

    #[test]
    fn wanted_values_are_kept_and_the_others_skipped() {
        let metadata = read(&sample().bytes()).expect("a header");
        assert_eq!(metadata.text("keep.text"), Some("käse"));
        assert_eq!(metadata.integer("keep.number"), Some(7));
        assert_eq!(metadata.bool("keep.bool"), Some(true));
        assert_eq!(metadata.texts("keep.texts"), Some(&[String::new(), "x y".to_owned()][..]));
        assert_eq!(metadata.integers("keep.integers"), Some(&[-1, 3][..]));
        assert_eq!(metadata.floats("keep.floats"), Some(&[0.5][..]));
        assert_eq!(metadata.text("drop.text"), None);
        assert_eq!(metadata.text("keep.number"), None);
    }

    #[test]
    fn a_header_cut_anywhere_is_refused() {
        let bytes = sample().bytes();
        for length in 0..bytes.len() {
            assert_ne!(refusal(&bytes[..length]), "read", "{length} bytes");
        }
    }

    #[test]
    fn what_follows_the_header_is_not_read() {
        let bytes = sample().bytes();
        let mut longer = std::io::Cursor::new([&bytes[..], &[255; 64]].concat());
        Metadata::read(&mut longer, 1 << 40, |_| true).expect("a header");
        assert_eq!(longer.position(), bytes.len() as u64);
    }

    #[test]
    fn lengths_that_lie_are_refused_before_anything_is_read_for_them() {
        let huge = u64::MAX.to_le_bytes();
        let list = |kind: u32, count: u64| [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat();
        for (kind, value, expected) in [
            (8, huge.to_vec(), "the file ends within the header"),
            (9, list(8, u64::MAX), "does not fit into the header"),
            (9, list(4, 1 << 40), "does not fit into the header"),
            (9, list(9, 0), "a list of lists is not read"),
            (13, vec![0], "13 is no kind of value"),
            (8, [&1_u64.to_le_bytes()[..], &[0xFF]].concat(), "a text is no UTF-8"),
        ] {
            for key in ["keep", "drop"] {
                let found = refusal(&Writer::new().raw(key, kind, &value).bytes());
                let skipped = key == "drop" && expected.ends_with("UTF-8");
                assert!(found.contains(if skipped { "read" } else { expected }), "{key}: {found}");
            }
        }
        // A list as long as the file says the file is, and longer than any vocabulary.
        let bytes = Writer::new().raw("keep", 9, &list(0, LONGEST_LIST + 1)).bytes();
        let Err(Refused::Bytes(found)) = Metadata::read(&bytes[..], 1 << 40, |_| true) else { panic!("it was read") };
        assert!(found.contains("longer than"), "{found}");
    }

    #[test]
    fn other_versions_and_keys_given_twice_are_refused() {
        let mut bytes = sample().bytes();
        bytes[4..8].copy_from_slice(&1_u32.to_le_bytes());
        assert!(refusal(&bytes).contains("version 1 of the format"));
        bytes[4..8].copy_from_slice(&3_u32.to_be_bytes());
        assert!(refusal(&bytes).contains("big-endian"));
        assert!(refusal(&sample().number("keep.number", 8).bytes()).contains("`keep.number` stands twice"));
        assert!(refusal(b"GGML and something behind it").contains("does not begin"));
        let mut many = sample().bytes();
        many[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(refusal(&many).contains("keys are more than"));
    }
}
