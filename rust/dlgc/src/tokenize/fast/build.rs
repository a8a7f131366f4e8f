//! The tables of a tokenizer that is known, made when it is loaded.
//!
//! In: its [`Parts`]. Out: [`Fast`]. What is certain of every text is found out here, once: which tokens merging gives
//! from what they say, between which characters nothing is merged, which characters may stand in place of their bytes.

use std::collections::HashMap;

use thread_local::ThreadLocal;
use tokenizers::Tokenizer as Reference;

use super::super::reference::File;
use super::cache::{Beginning, GROUP};
use super::joins::{Joins, THREE_BYTES};
use super::merge::{Merges, SOME, Scratch};
use super::parts::{self, Kind, Parts};
use super::{Fast, NO_ID};

impl Fast {
    /// # Errors
    /// Why the tokenizer is left to the reference.
    pub(in crate::tokenize) fn of(file: Option<&File<'_>>, reference: &Reference) -> std::result::Result<Self, String> {
        let mut parts = Parts::of(file, reference)?;
        let largest = parts.vocabulary.last().map_or(0, |(id, _)| *id as usize);
        let mut lengths = vec![0; largest + 1];
        for (id, said) in &parts.vocabulary {
            lengths[*id as usize] = u32::try_from(said.len()).map_err(|_| "a token is too long")?;
        }
        let mut fast = Self {
            kind: parts.kind,
            nfc: parts.nfc,
            added: parts.added.take(),
            normalized: parts.normalized.take(),
            merges: Merges::new(parts.merges.iter().copied()).ok_or("its merges are too many")?,
            joins: Joins::new(),
            bytes: parts.bytes.iter().map(|symbol| symbol.unwrap_or(NO_ID)).collect(),
            lacks_bytes: parts.bytes.contains(&None),
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
        for &(left, right, _) in &parts.merges {
            let (left, right) = (parts.said(left), parts.said(right));
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
                fast.characters = fast.whole_characters(&parts);
                // Pieces are whole characters.
                let is_piece = |said: &[u8]| !said.is_empty() && std::str::from_utf8(said).is_ok();
                let pieces: Vec<_> = parts.vocabulary.iter().filter(|(_, said)| is_piece(said)).collect();
                let mut known = Vec::with_capacity(pieces.len());
                for group in pieces.chunks(GROUP) {
                    for ((id, said), is_merged) in group.iter().zip(fast.are_merged(group)) {
                        if !is_merged && parts.ignore_merges {
                            fast.whole.insert(said.clone(), *id);
                        }
                        if is_merged || parts.ignore_merges {
                            known.push((said.as_slice(), *id));
                        }
                    }
                }
                fast.beginning = Beginning::of(&known);
            }
            Kind::Characters { .. } => {
                fast.characters = vec![NO_ID; 1 << 16];
                for (id, said) in &parts.vocabulary {
                    let Ok(text) = std::str::from_utf8(said) else { continue };
                    let mut characters = text.chars();
                    let (Some(character), None) = (characters.next(), characters.next()) else { continue };
                    if fast.bytes.contains(id) {
                        continue;
                    }
                    match fast.characters.get_mut(character as usize) {
                        Some(place) => *place = *id,
                        None => drop(fast.others.insert(character as u32, *id)),
                    }
                }
            }
        }
        fast.remember_texts(&parts, reference)?;
        Ok(fast)
    }

    /// Of tokens, whether merging what they say gives them.
    fn are_merged(&self, tokens: &[&(u32, Vec<u8>)]) -> Vec<bool> {
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
        merged
    }

    /// Puts what ids are decoded to in order.
    fn remember_texts(&mut self, parts: &Parts, reference: &Reference) -> std::result::Result<(), String> {
        let vocabulary = &parts.vocabulary;
        let added = reference.get_added_tokens_decoder();
        let largest = vocabulary.last().map(|(id, _)| *id).into_iter().chain(added.keys().copied()).max().unwrap_or(0);
        if largest > parts::LARGEST_ID {
            return Err("its ids are too large".to_owned());
        }
        let decoder = parts::as_json(reference.get_decoder())?;
        self.decodes = matches!(self.kind, Kind::Bytes(_)) && decoder["type"] == "ByteLevel";
        let values = parts::values();
        let value = |letter: char| values.get(letter as usize).copied().flatten();
        self.says = self.decodes;
        let mut known = vocabulary.iter().peekable();
        for id in 0..=largest {
            self.starts.push(self.said.len() as u32);
            let said = known.next_if(|(known, _)| *known == id).map_or(&[][..], |(_, said)| said);
            let added = added.get(&id);
            if added.is_none() && !said.is_empty() {
                self.said.extend_from_slice(said);
                continue;
            }
            // Its own text, unless all of it stands for bytes.
            let other = || Some(parts.others[parts.others.binary_search_by_key(&id, |(id, _)| *id).ok()?].1.clone());
            let text = reference.id_to_token(id).or_else(other).unwrap_or_default();
            let bytes: Option<Vec<u8>> = text.chars().map(value).collect();
            let found = bytes.filter(|_| self.decodes).unwrap_or_else(|| text.into_bytes());
            let is_said = |content: &[u8]| content.is_empty() || content == found;
            self.says &= is_said(said) && added.is_none_or(|token| is_said(token.content.as_bytes()));
            self.said.extend(found);
        }
        self.starts.push(self.said.len() as u32);
        Ok(())
    }

    /// The symbols of characters of three bytes that may stand in place of their bytes.
    ///
    /// The merges of a character's own bytes have ranks up to some one. Where all merges of which the whole character is
    /// a part come later, these cannot happen before the character is whole; and where nothing is merged with a part of
    /// it (see [`Joins::may_join_parts`]), nothing else happens to it before. So beginning with the character gives what
    /// beginning with its bytes gives.
    fn whole_characters(&self, parts: &Parts) -> Vec<u32> {
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
        for (&(left, right, _), rank) in parts.merges.iter().zip(0..) {
            let (left, right) = (parts.said(left), parts.said(right));
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
