//! A tokenizer that is known, made ready when it is loaded.
//!
//! In: its [`Parts`] and [`Tables`]. Out: [`Fast`]. What is certain of every text is found out here, once: which tokens
//! merging gives from what they say, between which characters nothing is merged, which characters may stand in place of
//! their bytes.

use std::collections::HashMap;

use thread_local::ThreadLocal;
use tokenizers::{AddedToken, Tokenizer as Reference};

use super::super::reference::File;
use super::cache::{Beginning, GROUP};
use super::joins::{Joins, THREE_BYTES};
use super::merge::{Merges, SOME, Scratch};
use super::parts::{self, Kind, Parts};
use super::tables::{LARGEST_ID, Tables, values};
use super::{Fast, NO_ID};

impl Fast {
    /// With the tables, which are enough to make it again.
    ///
    /// # Errors
    /// Why the tokenizer is left to the reference.
    pub(in crate::tokenize) fn of(
        file: Option<&File<'_>>,
        reference: &Reference,
    ) -> std::result::Result<(Self, Tables), String> {
        let parts = Parts::of(reference)?;
        let mut tables = Tables::of(&file.ok_or("its file has an unknown form")?.model, parts.kind)?;
        Ok((Self::with(parts, &mut tables, reference)?, tables))
    }

    /// With the tables that it had before.
    ///
    /// # Errors
    /// Why the tokenizer is left to the reference.
    pub(in crate::tokenize) fn again(mut tables: Tables, reference: &Reference) -> std::result::Result<Self, String> {
        Self::with(Parts::of(reference)?, &mut tables, reference)
    }

    fn with(parts: Parts, tables: &mut Tables, reference: &Reference) -> std::result::Result<Self, String> {
        let mut lengths = vec![0; tables.largest() as usize + 1];
        for (id, said) in tables.tokens() {
            lengths[id as usize] = said.len() as u32;
        }
        let mut fast = Self {
            kind: parts.kind,
            nfc: parts.nfc,
            added: parts.added,
            normalized: parts.normalized,
            merges: Merges::new(tables.merges.iter().copied()).ok_or("its merges are too many")?,
            joins: Joins::new(),
            bytes: tables.bytes.clone(),
            lacks_bytes: tables.bytes.contains(&NO_ID),
            characters: Vec::new(),
            others: HashMap::new(),
            lengths,
            decodes: false,
            says: false,
            starts: Vec::new(),
            said: Vec::new(),
            whole: HashMap::default(),
            beginning: Beginning::default(),
            workers: ThreadLocal::new(),
        };
        for &[left, right, _] in &tables.merges {
            let (left, right) = (tables.said(left), tables.said(right));
            if left.is_empty() || right.is_empty() {
                continue;
            }
            match fast.kind {
                Kind::Bytes(_) => fast.joins.add_bytes(left, right),
                Kind::Characters { .. } => {
                    let text = |said| std::str::from_utf8(said).map_err(|_| "it merges single bytes");
                    let (left, right) = (text(left)?, text(right)?);
                    let (left, right) = (left.chars().next_back(), right.chars().next());
                    let (left, right) = left.zip(right).expect("neither side is empty");
                    fast.joins.add(left as u32, right as u32);
                }
            }
        }
        match fast.kind {
            Kind::Bytes(_) => {
                fast.characters = fast.whole_characters(tables);
                // Pieces are whole characters.
                let is_piece = |(_, said): &(u32, &[u8])| !said.is_empty() && std::str::from_utf8(said).is_ok();
                if tables.unmerged.is_none() {
                    let pieces: Vec<_> = tables.tokens().filter(is_piece).collect();
                    tables.unmerged = Some(pieces.chunks(GROUP).flat_map(|group| fast.unmerged(group)).collect());
                }
                let mut unmerged = tables.unmerged.iter().flatten().copied().peekable();
                let mut known = Vec::new();
                for (id, said) in tables.tokens().filter(is_piece) {
                    let is_merged = unmerged.next_if_eq(&id).is_none();
                    if !is_merged && parts.ignore_merges {
                        fast.whole.insert(said.to_vec(), id);
                    }
                    if is_merged || parts.ignore_merges {
                        known.push((said, id));
                    }
                }
                fast.beginning = Beginning::of(&known);
            }
            Kind::Characters { .. } => {
                fast.characters = vec![NO_ID; 1 << 16];
                for (id, said) in tables.tokens() {
                    let Ok(text) = std::str::from_utf8(said) else { continue };
                    let mut characters = text.chars();
                    let (Some(character), None) = (characters.next(), characters.next()) else { continue };
                    if fast.bytes.contains(&id) {
                        continue;
                    }
                    match fast.characters.get_mut(character as usize) {
                        Some(place) => *place = id,
                        None => drop(fast.others.insert(character as u32, id)),
                    }
                }
            }
        }
        fast.remember_texts(tables, reference)?;
        Ok(fast)
    }

    /// Those of some tokens, in their order, that merging what they say does not give.
    fn unmerged(&self, tokens: &[(u32, &[u8])]) -> Vec<u32> {
        let mut merged = vec![false; tokens.len()];
        let mut few = Vec::with_capacity(tokens.len());
        let (mut symbols, mut scratch) = (Vec::new(), Scratch::default());
        for (index, (id, said)) in tokens.iter().enumerate() {
            self.symbols(said, false, &mut symbols);
            if symbols.len() <= SOME {
                few.push((index, self.merges.begin::<SOME>(&symbols)));
            } else {
                self.merges.apply(&mut symbols, &mut scratch);
                merged[index] = symbols == [*id];
            }
        }
        self.merges.apply_to_all(&mut few);
        for (index, piece) in few {
            symbols.clear();
            piece.append_to(&mut symbols);
            merged[index] = symbols == [tokens[index].0];
        }
        tokens.iter().zip(merged).filter(|(_, is_merged)| !is_merged).map(|((id, _), _)| *id).collect()
    }

    /// Puts what ids are decoded to in order.
    fn remember_texts(&mut self, tables: &Tables, reference: &Reference) -> std::result::Result<(), String> {
        let added = reference.get_added_tokens_decoder();
        let largest = added.keys().copied().max().unwrap_or_default().max(tables.largest());
        if largest > LARGEST_ID {
            return Err("its ids are too large".to_owned());
        }
        let decoder = parts::as_json(reference.get_decoder())?;
        self.decodes = matches!(self.kind, Kind::Bytes(_)) && decoder["type"] == "ByteLevel";
        let values = values();
        let value = |letter: char| values.get(letter as usize).copied().flatten();
        self.says = self.decodes;
        let mut known = tables.tokens().peekable();
        for id in 0..=largest {
            self.starts.push(self.said.len() as u32);
            let said = known.next_if(|(known, _)| *known == id).map_or(&[][..], |(_, said)| said);
            let added = added.get(&id);
            if added.is_none() && !said.is_empty() {
                self.said.extend_from_slice(said);
                continue;
            }
            // Its own text, unless all of it stands for bytes.
            let other = || tables.other(id).map(ToOwned::to_owned);
            let text = reference.id_to_token(id).or_else(other).unwrap_or_default();
            let bytes: Option<Vec<u8>> = text.chars().map(value).collect();
            let found = bytes.filter(|_| self.decodes).unwrap_or_else(|| text.into_bytes());
            let is_said = |content: &[u8]| content.is_empty() || content == found;
            self.says &= is_said(said) && added.is_none_or(|token| is_said(token.content.as_bytes()));
            self.said.extend(found);
        }
        self.starts.push(self.said.len() as u32);
        if self.kind == (Kind::Characters { prepend: false }) {
            // Each `▁` becomes a space, and what looks like a byte becomes one: neither may be anything else.
            let is_byte = |token: &AddedToken| token.content.starts_with("<0x");
            self.says = decoder == parts::decoder_of_characters() && !self.lacks_bytes && !added.values().any(is_byte);
        }
        Ok(())
    }

    /// The symbols of characters of three bytes that may stand in place of their bytes.
    ///
    /// The merges of a character's own bytes have ranks up to some one. Where all merges of which the whole character is
    /// a part come later, these cannot happen before the character is whole; and where nothing is merged with a part of
    /// it (see [`Joins::may_join_parts`]), nothing else happens to it before. So beginning with the character gives what
    /// beginning with its bytes gives.
    fn whole_characters(&self, tables: &Tables) -> Vec<u32> {
        let mut found = vec![NO_ID; 1 << 16];
        let mut ranks = vec![0; 1 << 16];
        let mut symbols = Vec::new();
        for character in THREE_BYTES.filter_map(char::from_u32) {
            symbols.clear();
            let mut written = [0; 4];
            symbols.extend(character.encode_utf8(&mut written).bytes().map(|byte| self.bytes[usize::from(byte)]));
            if let Some(rank) = self.merges.rank_of_one(&mut symbols) {
                found[character as usize] = symbols[0];
                ranks[character as usize] = rank;
            }
        }
        for (&[left, right, _], rank) in tables.merges.iter().zip(0..) {
            let (left, right) = (tables.said(left), tables.said(right));
            if left.is_ascii() && right.is_ascii() {
                continue; // none of three bytes
            }
            let (left, right) = (std::str::from_utf8(left), std::str::from_utf8(right));
            let (Ok(left), Ok(right)) = (left, right) else { continue };
            for character in left.chars().chain(right.chars()) {
                if let Some(place) = found.get_mut(character as usize)
                    && ranks[character as usize] >= rank
                {
                    *place = NO_ID;
                }
            }
        }
        found
    }
}
