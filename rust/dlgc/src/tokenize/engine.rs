//! A tokenizer at work: the reference, what encodes as it does, and whether they agreed in this run.
//!
//! In: text. Out: [`Encoded`]. A [`Known`] is read and tested once, and every run of the process that needs the same one
//! shares it; an [`Engine`] is what one run knows of it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokenizers::{AddedToken, Tokenizer as Reference};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::encode::{Encoded, fail};
use super::fast::{Fast, Tables};
use super::limited::in_halves;
use super::proof::{Difference, Texts, compare, lengths, scalars};
use super::reference::{File, Source, read_outline, read_whole};
use super::sections::{Sections, put};
use super::tested::{self, Kept};
use crate::error::{Error, ErrorKind, Result};
use crate::panics::caught;

/// Of the texts of a run one in so many, by their hash, is compared with the reference, which takes as long for one as we
/// take for fifty; and the first ones as far as they have so many bytes together.
const FIRST: usize = 1 << 14;
const ONE_IN: u64 = 2048;
/// So many of their first bytes are hashed, with their length.
const HASHED: usize = 1 << 10;
/// Longer texts are not: the reference takes a hundred bytes of memory for each of theirs.
const LONGEST: usize = 1 << 20;
/// So many bytes of text wait for it at most, before it has been read.
const MOST_WAITING: usize = 4 << 20;
/// A run in which fewer bytes than this are encoded, by a tokenizer that was tested before, does without the first ones: it
/// would be over long before the reference is read.
const SMALL: usize = 1 << 20;
/// So many random texts are compared when a tokenizer is loaded.
const AT_LOAD: usize = 400;

/// The reference, and what encodes as it does where that is known.
pub(super) struct Known {
    pub(super) source: Arc<Source>,
    /// Or why the reference does all the work.
    fast: std::result::Result<Fast, String>,
}

/// What a run does with it, and what it found out.
pub(super) struct Engine {
    known: Arc<Known>,
    /// Why the reference does all the work of this run, though there is a fast path.
    refused: Option<String>,
    /// Bytes that were encoded, and of how many it does without the first ones.
    bytes: AtomicUsize,
    small: usize,
    /// What is to be compared when the reference has been read, and how many bytes of text that is.
    waiting: Mutex<(Vec<(String, Encoded)>, usize)>,
    /// Held while they are compared: who asks whether all were waits for it.
    comparing: Mutex<()>,
    /// A text that was not encoded as by the reference.
    difference: OnceLock<Difference>,
}

impl Known {
    /// Reads a tokenizer. With a fast path, if there is one for it and it passes its test; one that passed before is
    /// neither tested again, nor is its vocabulary read from its file.
    pub(super) fn read(json: &Arc<[u8]>, declared: &[(u32, AddedToken)]) -> Result<Self> {
        let key = tested::key(json, declared);
        let again = |kept: Vec<u8>| Self::again(Some(key.clone()), json, declared, &kept);
        if let Some(known) = tested::recall(&key, Kept::Tokenizer).and_then(again) {
            return Ok(known);
        }
        let read = || caught(|| read_whole(json, declared)).unwrap_or_else(|said| Err(fail(said)));
        let (whole, file, written, outline, early) = std::thread::scope(|scope| {
            let whole = scope.spawn(read);
            let mut file = File::read(json);
            let written = file.as_mut().and_then(|file| caught(|| file.outline()).ok().flatten());
            let outline = written.as_ref().and_then(|json| caught(|| read_outline(json, declared)).ok().flatten());
            let fast = outline.as_ref().map(|outline| fast_of(file.as_ref(), outline));
            let whole = whole.join().unwrap_or_else(|_| Err(fail("it cannot be read")));
            (whole, file, written, outline, fast)
        });
        let source = Source::new(Arc::clone(json), declared.to_vec(), outline, whole?);
        let made = match early.filter(|_| source.has_outline()) {
            Some(made) => made,
            None => fast_of(file.as_ref(), source.whole()?),
        };
        let (fast, tables) = match made {
            Ok((fast, tables)) => (Ok(fast), Some(tables)),
            Err(why) => (Err(why), None),
        };
        let mut known = Self { source: Arc::new(source), fast };
        match (known.prove(AT_LOAD, false)?, written, tables) {
            (Err(difference), ..) => known.fast = Err(format!("it failed its test: {difference}")),
            (Ok(texts), Some(outline), Some(tables)) if known.source.has_outline() => {
                tested::remember(&key, Kept::Tokenizer, texts, &kept(&outline, &tables));
            }
            _ => {}
        }
        Ok(known)
    }

    /// One that passed its test before, of what was kept.
    fn again(key: Option<String>, json: &Arc<[u8]>, declared: &[(u32, AddedToken)], kept: &[u8]) -> Option<Self> {
        let again = || {
            let mut kept = Sections(kept);
            let outline = read_outline(kept.bytes()?, declared)?;
            let fast = Ok(Fast::again(Tables::read(kept.rest())?, &outline).ok()?);
            let source = Source::unread(key, Arc::clone(json), declared.to_vec(), outline);
            Some(Self { source: Arc::new(source), fast })
        };
        caught(again).ok().flatten()
    }

    /// Without a fast path.
    pub(super) fn slow(json: &Arc<[u8]>, why: String) -> Result<Self> {
        let source = Source::new(Arc::clone(json), Vec::new(), None, read_whole(json, &[])?);
        Ok(Self { source: Arc::new(source), fast: Err(why) })
    }

    /// The largest id, where it is known without the whole reference.
    pub(super) fn largest(&self) -> Option<usize> {
        self.fast.as_ref().ok().map(Fast::largest)
    }

    /// The name of the fast path, or why there is none.
    pub(super) fn path(&self) -> std::result::Result<String, String> {
        self.fast.as_ref().map(Fast::name).map_err(Clone::clone)
    }

    #[cfg(test)]
    pub(super) fn spoil(&mut self) {
        self.fast.as_mut().expect("a fast path").spoil();
    }

    fn by_reference(&self, text: &str) -> Result<Encoded> {
        Ok(Encoded::of(&self.source.whole()?.encode(text, false).map_err(fail)?))
    }

    fn compare(&self, fast: &Fast, text: &str) -> Result<Option<Difference>> {
        let anew = |text: &str| match caught(|| fast.encode(text, &|text| self.by_reference(text))) {
            Ok(Ok(encoded)) => Ok(encoded),
            Ok(Err(error)) => Err(error.to_string()),
            Err(said) => Err(said),
        };
        compare(text, &anew, &|text| self.by_reference(text))
    }

    /// Whether the reference decodes ids to their text, where that is what is known of them.
    fn is_said(&self, encoded: &Encoded, text: &str) -> Result<bool> {
        Ok(!encoded.is_said || says(self.source.whole()?, encoded, text)?)
    }

    /// Whether ids are decoded as by the reference, also where they begin and end inside characters.
    fn compare_decoded(&self, fast: &Fast, text: &str) -> Result<Option<Difference>> {
        let encoded = fast.encode(text, &|text| self.by_reference(text))?;
        if !self.is_said(&encoded, text)? {
            let reference = self.source.whole()?.decode(&encoded.ids, false).map_err(fail)?;
            return Ok(Some(Difference { text: format!("{:?}", encoded.ids), fast: text.to_owned(), reference }));
        }
        let mut alone = Vec::new();
        fast.append_ids(text, &|text| self.by_reference(text), &mut alone)?;
        if alone != encoded.ids {
            let (fast, reference) = ("other ids alone than with offsets".to_owned(), format!("{:?}", encoded.ids));
            return Ok(Some(Difference { text: text.to_owned(), fast, reference }));
        }
        let ids = encoded.ids;
        for ids in [ids.as_slice(), ids.get(1..).unwrap_or_default()] {
            let Some(found) = fast.decode(ids) else { return Ok(None) };
            let expected = self.source.whole()?.decode(ids, false).map_err(fail)?;
            if found != expected {
                return Ok(Some(Difference { text: format!("{ids:?}"), fast: found, reference: expected }));
            }
        }
        Ok(None)
    }

    /// A text that the reference encodes otherwise with the part of its vocabulary that texts need.
    fn limited_differs(&self, said: &[String], added: &[String]) -> Result<Option<Difference>> {
        let texts: Vec<String> = Texts::new(2, said, added).take(LOTS * IN_A_LOT).collect();
        for lot in texts.chunks(IN_A_LOT) {
            let lot: Vec<&str> = lot.iter().map(String::as_str).collect();
            let Some(limited) = self.source.limited_to(&lot) else { return Ok(None) };
            for text in lot {
                let (limited, whole) =
                    (Encoded::of(&limited.encode(text, false).map_err(fail)?), self.by_reference(text)?);
                if limited != whole {
                    let [fast, reference] = [limited, whole].map(|encoded| format!("{:?}", encoded.ids));
                    return Ok(Some(Difference { text: text.to_owned(), fast, reference }));
                }
            }
        }
        Ok(None)
    }

    /// Compares texts of all kinds with the reference: how many were the same, or the first that is not.
    pub(super) fn prove(&self, strings: usize, is_whole: bool) -> Result<std::result::Result<usize, Difference>> {
        let Ok(fast) = &self.fast else { return Ok(Ok(0)) };
        let mut added: Vec<(u32, AddedToken)> = self.source.parts()?.get_added_tokens_decoder().into_iter().collect();
        added.sort_by_key(|(id, _)| *id);
        let added: Vec<String> = added.into_iter().map(|(_, token)| token.content).collect();
        let said = fast.said(if is_whole { 1 } else { 97 });
        let edges = is_whole.then(lengths).into_iter().flatten();
        let texts = Texts::new(1, &said, &added).take(strings).chain(edges);
        if is_whole && let Some(difference) = self.limited_differs(&said, &added)? {
            return Ok(Err(difference));
        }
        let mut same = 0;
        for text in texts.chain(is_whole.then(scalars).into_iter().flatten()) {
            if let Some(difference) = self.compare(fast, &text)?.or(self.compare_decoded(fast, &text)?) {
                return Ok(Err(difference));
            }
            same += 1;
        }
        Ok(Ok(same))
    }
}

/// So many texts are encoded by the reference with a part of its vocabulary, in so many lots, where all is proved.
const LOTS: usize = 24;
const IN_A_LOT: usize = 400;

/// What is kept of a tokenizer that passed its test: [`Known::again`] makes it again of that.
fn kept(outline: &[u8], tables: &Tables) -> Vec<u8> {
    let mut kept = Vec::new();
    put(&mut kept, outline.iter().copied());
    tables.write(&mut kept);
    kept
}

/// Whether a text was encoded as by the reference, which decodes what is said of it to be the text.
fn is_as_by(reference: &Reference, text: &str, encoded: &Encoded) -> Result<bool> {
    let same = *encoded == Encoded::of(&reference.encode(text, false).map_err(fail)?);
    Ok(same && (!encoded.is_said || says(reference, encoded, text)?))
}

/// Whether the reference decodes ids to a text.
fn says(reference: &Reference, encoded: &Encoded, text: &str) -> Result<bool> {
    Ok(reference.decode(&encoded.ids, false).map_err(fail)? == text)
}

fn fast_of(file: Option<&File<'_>>, reference: &Reference) -> std::result::Result<(Fast, Tables), String> {
    caught(|| Fast::of(file, reference)).unwrap_or_else(|said| Err(format!("it failed: {said}")))
}

impl Engine {
    /// `refused` says why the reference shall do all the work.
    pub(super) fn new(known: Arc<Known>, refused: Option<String>) -> Self {
        Self {
            known,
            refused,
            bytes: AtomicUsize::new(0),
            small: SMALL,
            waiting: Mutex::default(),
            comparing: Mutex::default(),
            difference: OnceLock::new(),
        }
    }

    /// Compares the first texts of runs of any size.
    #[cfg(test)]
    pub(super) fn compare_always(&mut self) {
        self.small = 1;
    }

    pub(super) fn known(&self) -> &Known {
        &self.known
    }

    /// What does the work in this run, or why the reference does.
    pub(super) fn fast(&self) -> std::result::Result<&Fast, &String> {
        match &self.refused {
            Some(why) => Err(why),
            None => self.known.fast.as_ref(),
        }
    }

    /// A text of this run that was not encoded as by the reference.
    pub(super) fn difference(&self) -> Option<&Difference> {
        self.difference.get()
    }

    /// Ids and offsets of a text.
    pub(super) fn encode(&self, text: &str) -> Result<Encoded> {
        self.encode_as(text, self.is_compared(text))
    }

    fn encode_as(&self, text: &str, is_compared: bool) -> Result<Encoded> {
        let known = &self.known;
        let Ok(fast) = self.fast() else { return known.by_reference(text) };
        let found = match caught(|| fast.encode(text, &|text| known.by_reference(text))) {
            Ok(encoded) => {
                let encoded = encoded?;
                if !is_compared {
                    return Ok(encoded);
                }
                if known.source.ready().is_none() {
                    if !self.waits(text, &encoded) {
                        self.settle()?;
                        self.waits(text, &encoded);
                    }
                    return Ok(encoded);
                }
                self.settle()?;
                if encoded == known.by_reference(text)? && known.is_said(&encoded, text)? {
                    return Ok(encoded);
                }
                known.compare(fast, text)?
            }
            Err(_) => known.compare(fast, text)?,
        };
        Err(self.differs(found))
    }

    /// Appends the ids of a text.
    pub(super) fn append_ids(&self, text: &str, out: &mut Vec<u32>) -> Result<()> {
        let known = &self.known;
        if let Ok(fast) = self.fast()
            && !self.is_compared(text)
        {
            let before = out.len();
            match caught(|| fast.append_ids(text, &|text| known.by_reference(text), out)) {
                Ok(done) => return done,
                Err(_) => out.truncate(before),
            }
        }
        out.extend(self.encode_as(text, true)?.ids);
        Ok(())
    }

    /// Compares what had to wait for the reference, unless nobody has asked for that yet.
    pub(super) fn settle(&self) -> Result<()> {
        if !self.known.source.is_begun() {
            return Ok(());
        }
        let _comparing = self.comparing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(difference) = self.difference() {
            return Err(self.differs(Some(difference.clone())));
        }
        let (texts, _) = self.waiting.lock().map(|mut waiting| std::mem::take(&mut *waiting)).unwrap_or_default();
        let compared = self.compare_all(&texts);
        if compared.is_err()
            && let Ok(mut waiting) = self.waiting.lock()
        {
            waiting.0.extend(texts); // they were not all compared
        }
        compared
    }

    fn compare_all(&self, texts: &[(String, Encoded)]) -> Result<()> {
        let Ok(fast) = self.fast() else { return Ok(()) };
        if texts.is_empty() {
            return Ok(());
        }
        let said: Vec<&str> = texts.iter().map(|(text, _)| text.as_str()).collect();
        let limited = self.known.source.limited(&said);
        let reference = limited.as_ref().map_or_else(|| self.known.source.whole(), Ok)?;
        let differing = |texts: &[(String, Encoded)]| {
            let mut compared = texts.iter().map(|(text, encoded)| Ok((text, is_as_by(reference, text, encoded)?)));
            compared.find_map(|compared| compared.map(|(text, is_same)| (!is_same).then(|| text.clone())).transpose())
        };
        match in_halves(texts, |(text, _)| text.len(), differing).into_iter().flatten().next() {
            None => Ok(()),
            Some(Err(failed)) => Err(failed),
            Some(Ok(text)) => Err(self.differs(self.known.compare(fast, &text)?)),
        }
    }

    /// Whether a text can be compared later.
    fn waits(&self, text: &str, encoded: &Encoded) -> bool {
        let Ok(mut waiting) = self.waiting.lock() else { return false };
        if waiting.1 + text.len() > MOST_WAITING {
            return false;
        }
        waiting.1 += text.len();
        waiting.0.push((text.to_owned(), encoded.clone()));
        true
    }

    /// Notes that a text was not encoded as by the reference.
    fn differs(&self, found: Option<Difference>) -> Error {
        let difference = found.unwrap_or_else(|| Difference {
            text: String::new(),
            fast: "something else than before".to_owned(),
            reference: "what it made before".to_owned(),
        });
        let message = format!("the fast tokeniser does not do as the reference does: {difference}");
        let _ = self.difference.set(difference); // another thread may have been first
        Error::new(ErrorKind::Tokenizer, message).hint("this is a bug in dlgc: please report it")
    }

    /// The text of ids, special tokens kept.
    pub(super) fn decode(&self, ids: &[u32]) -> Result<String> {
        match self.fast().ok().and_then(|fast| fast.decode(ids)) {
            Some(text) => Ok(text),
            None => self.known.source.whole()?.decode(ids, false).map_err(fail),
        }
    }

    /// Whether a text of a run is encoded by the reference too.
    fn is_compared(&self, text: &str) -> bool {
        let before = self.bytes.fetch_add(text.len(), Ordering::Relaxed);
        let beginning = &text.as_bytes()[..text.len().min(HASHED)];
        let is_chosen = xxh3_64_with_seed(beginning, text.len() as u64).is_multiple_of(ONE_IN);
        if is_chosen || before < self.small && before + text.len() >= self.small {
            self.known.source.begin();
        }
        text.len() <= LONGEST && (is_chosen || before < FIRST)
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::OFTEN;
    use super::*;
    use crate::tokenize::TokenizerFiles;

    /// The built-in tokenizer, with a pre-tokenizer that is known.
    fn json() -> Arc<[u8]> {
        let files = TokenizerFiles::builtin();
        let mut json: serde_json::Value =
            serde_json::from_slice(files.file("tokenizer.json").expect("there")).expect("JSON");
        json["pre_tokenizer"] = serde_json::json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true
        });
        json.to_string().into_bytes().into()
    }

    fn outline(json: &[u8]) -> Reference {
        let written = File::read(json).expect("a BPE").outline().expect("an outline");
        read_outline(&written, &[]).expect("read")
    }

    #[test]
    fn an_outline_has_all_but_the_vocabulary_and_one_that_has_not_is_none() {
        let json = json();
        let whole = read_whole(&json, &[]).expect("read");
        let right = outline(&json);
        assert!(right.get_vocab_size(true) < whole.get_vocab_size(true));
        let mut other = right.clone();
        other.add_tokens([AddedToken::from("<|other|>", true)]).expect("added");
        for (outline, is_right) in [(right, true), (other, false)] {
            assert_eq!(
                Source::new(Arc::clone(&json), Vec::new(), Some(outline), whole.clone()).has_outline(),
                is_right
            );
        }
    }

    #[test]
    fn the_whole_of_an_outline_is_what_is_read_otherwise() {
        for json in [json(), TokenizerFiles::builtin().file("tokenizer.json").expect("there").into()] {
            let source = Source::unread(None, Arc::clone(&json), Vec::new(), outline(&json));
            let said = |reference: &Reference| reference.to_string(false).expect("JSON");
            let mut expected = read_whole(&json, &[]).expect("read");
            expected.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
            assert_eq!(said(source.whole().expect("read")), said(&expected));
        }
    }

    #[test]
    fn what_is_made_again_encodes_as_the_reference() {
        let json: Arc<[u8]> = json();
        let mut file = File::read(&json).expect("a BPE");
        let written = file.outline().expect("an outline");
        let (_, tables) = fast_of(Some(&file), &read_outline(&written, &[]).expect("read")).expect("a fast path");
        let kept = kept(&written, &tables);
        let again = Known::again(None, &json, &[], &kept).expect("made again");
        assert_eq!(again.prove(AT_LOAD, false).expect("encoded"), Ok(AT_LOAD));
        assert!(Known::again(None, &json, &[], &kept[..kept.len() - 1]).is_none());
        assert!(Known::again(None, &json, &[], &[]).is_none());
    }

    #[test]
    fn words_of_many_segments_become_what_they_become_by_themselves() {
        let known = Known::read(&json(), &[]).expect("read");
        let fast = known.fast.as_ref().expect("a fast path");
        let added = known.source.parts().expect("parts").get_added_tokens_decoder();
        let added: Vec<&str> = added.values().map(|token| token.content.as_str()).collect();
        assert!(!added.is_empty());
        let segment = |number: usize| {
            let marks = [added[number % added.len()], added[number / 3 % added.len()]];
            match number % 5 {
                0 => format!("{}user {number}\n", marks[0]),
                1 => format!("{}{}", marks[0], marks[1]),
                2 => format!("我想订{number}张票，谢谢。{}", marks[1]),
                3 => format!("{} a-word-longer-than-fifteen-bytes{number}", marks[0]),
                _ => "plain words, ".repeat(number % 7),
            }
        };
        for segments in [1, 2, 40, 700, 3000] {
            let text: String = (0..segments).map(segment).collect();
            assert!(known.compare(fast, &text).expect("encoded").is_none(), "{segments} segments");
        }
    }

    #[test]
    fn texts_wait_for_a_reference_that_is_not_read_yet_and_are_compared_then() {
        let json = json();
        let outline = outline(&json);
        let fast = || fast_of(File::read(&json).as_ref(), &outline).expect("a fast path").0;
        let largest = fast().largest();
        for is_spoiled in [false, true] {
            let source = Arc::new(Source::unread(None, Arc::clone(&json), Vec::new(), outline.clone()));
            let mut known = Known { source, fast: Ok(fast()) };
            if is_spoiled {
                known.spoil();
            }
            let mut engine = Engine::new(Arc::new(known), None);
            engine.small = 64;
            engine.encode("plain").expect("encoded");
            engine.encode("jazz and quartz").expect("nobody has looked");
            assert!(engine.settle().is_ok(), "so little is not worth reading it");
            assert!(engine.known.source.ready().is_none() && engine.difference().is_none());
            // Where the reference is read by now, the texts before this one are compared at once.
            let errs = engine.encode(&"plain ".repeat(64)).is_err() || engine.settle().is_err();
            assert_eq!(errs, is_spoiled);
            assert_eq!(engine.difference().is_some(), is_spoiled);
            // A part of it is enough to find them equal.
            assert_eq!(engine.known.source.ready().is_some(), is_spoiled);
            assert_eq!(engine.settle().is_err(), is_spoiled, "what was different stays so");
            if !is_spoiled {
                assert!(engine.known.source.ready().is_none());
                for _ in 0..OFTEN {
                    engine.encode("plain").expect("encoded");
                    engine.settle().expect("the same");
                }
                assert!(engine.known.source.ready().is_some(), "after some times all of it is worth reading");
            }
        }
        assert_eq!(largest + 1, read_whole(&json, &[]).expect("read").get_vocab_size(true));
    }
}
