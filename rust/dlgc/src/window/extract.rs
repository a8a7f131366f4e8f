//! SumBasic: a summary made of sentences that were said.
//!
//! Nenkova and Vanderwende, *The Impact of Frequency on Summarization*, Microsoft Research technical report
//! MSR-TR-2005-101. The probability of a word is how often it stands in the text; a sentence weighs the mean of its
//! words' probabilities; the sentence with the most probable word that weighs most is taken, its words' probabilities
//! are squared, and so on until the summary is full. Sentences stand in the order in which they were said. Words of
//! scripts without spaces are pairs of neighbouring letters, which need no dictionary.
//!
//! The summary of a long text is made from that of its beginning and what came after, block by block, so it costs the
//! same for every message, and only what came before a message decides its summary.

use std::collections::HashMap;

/// A sentence of somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sentence {
    /// Which message it is of.
    pub(super) message: usize,
    pub(super) text: String,
    words: Vec<u32>,
}

/// Numbers for words.
#[derive(Debug, Default)]
pub(super) struct Words(HashMap<String, u32>);

impl Words {
    fn number(&mut self, word: String) -> u32 {
        let next = self.0.len() as u32;
        *self.0.entry(word).or_insert(next)
    }

    /// The sentences of a message.
    pub(super) fn sentences(&mut self, message: usize, text: &str) -> Vec<Sentence> {
        let sentence = |text: &str| Sentence { message, text: text.to_owned(), words: self.words(text) };
        sentences(text).map(sentence).filter(|sentence| !sentence.words.is_empty()).collect()
    }

    fn words(&mut self, text: &str) -> Vec<u32> {
        let mut found = Vec::new();
        let mut word = String::new();
        let mut before: Option<char> = None;
        for letter in text.chars() {
            if !letter.is_alphanumeric() {
                before = None;
            } else if !has_spaces(letter) {
                if let Some(before) = before {
                    found.push(self.number([before, letter].iter().collect()));
                }
                before = Some(letter);
            }
            if letter.is_alphanumeric() && has_spaces(letter) {
                before = None;
                word.extend(letter.to_lowercase());
            } else if !word.is_empty() {
                found.push(self.number(std::mem::take(&mut word)));
            }
        }
        if !word.is_empty() {
            found.push(self.number(word));
        }
        found
    }
}

/// Whether a letter is of a script that puts spaces between words.
fn has_spaces(letter: char) -> bool {
    !matches!(letter,
        '\u{e00}'..='\u{eff}' // Thai, Lao
        | '\u{1000}'..='\u{109f}' // Burmese
        | '\u{1780}'..='\u{17ff}' // Khmer
        | '\u{2e80}'..='\u{9fff}' // kana, Chinese characters
        | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}')
}

/// A text cut after its full stops and line breaks.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (sentence, after) = rest.split_at(sentence_end(rest));
            rest = after;
            if !sentence.trim().is_empty() {
                return Some(sentence.trim());
            }
        }
        None
    })
}

fn sentence_end(text: &str) -> usize {
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        let after = at + letter.len_utf8();
        match letter {
            '\n' | '。' | '！' | '？' | '；' => return after,
            // Not inside 3.14 or e.g.
            '.' | '!' | '?' if letters.peek().is_none_or(|(_, next)| next.is_whitespace()) => return after,
            _ => {}
        }
    }
    text.len()
}

/// The sentences of a summary of at most `budget` tokens, in order; `cost` counts those of one.
pub(super) fn select(sentences: &[Sentence], budget: u64, mut cost: impl FnMut(&Sentence) -> u64) -> Vec<Sentence> {
    let total: usize = sentences.iter().map(|sentence| sentence.words.len()).sum();
    let mut probability: HashMap<u32, f64> = HashMap::new();
    for word in sentences.iter().flat_map(|sentence| &sentence.words) {
        *probability.entry(*word).or_default() += 1.0 / total as f64;
    }
    let mut left: Vec<usize> = (0..sentences.len()).collect();
    let (mut taken, mut spent) = (Vec::new(), 0);
    while !left.is_empty() {
        let weight = |index: usize| {
            let words = &sentences[index].words;
            words.iter().map(|word| probability[word]).sum::<f64>() / words.len() as f64
        };
        let words = left.iter().flat_map(|&index| &sentences[index].words);
        // The word with the smaller number on equal terms: it was said first.
        let most = words.max_by(|one, other| probability[one].total_cmp(&probability[other]).then(other.cmp(one)));
        let Some(&most) = most else { break };
        let holding = left.iter().copied().filter(|&index| sentences[index].words.contains(&most));
        let best = holding.max_by(|&one, &other| weight(one).total_cmp(&weight(other)).then(one.cmp(&other)));
        let Some(best) = best else { break };
        left.retain(|&index| index != best);
        let tokens = cost(&sentences[best]);
        if spent + tokens > budget {
            continue; // a shorter one may still fit
        }
        spent += tokens;
        for word in &sentences[best].words {
            let probability = probability.get_mut(word).expect("every word was counted");
            *probability *= *probability;
        }
        taken.push(best);
    }
    taken.sort_unstable();
    taken.into_iter().map(|index| sentences[index].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(text: &str, budget: u64) -> Vec<String> {
        let sentences = Words::default().sentences(0, text);
        let cost = |sentence: &Sentence| sentence.text.chars().count() as u64;
        select(&sentences, budget, cost).into_iter().map(|sentence| sentence.text).collect()
    }

    #[test]
    fn what_is_said_most_is_kept_and_not_twice() {
        let text = "I like tea. The train to Bern leaves at 3.45. Is there a later train to Bern? Yes. Bern is far.";
        // `bern` stands three times, and weighs most in the shortest sentence.
        assert_eq!(summary(text, 12), ["Bern is far."]);
        // Said words weigh little, so what is new comes next, as far as it fits; in the order of the text.
        assert_eq!(summary(text, 34), ["I like tea.", "Yes.", "Bern is far."]);
        assert_eq!(summary(text, 48), ["The train to Bern leaves at 3.45.", "Bern is far."]);
    }

    #[test]
    fn scripts_without_spaces_need_no_dictionary() {
        let text = "我要订重庆到成都的高铁票。天气不错。重庆到成都的高铁票多少钱？谢谢！";
        assert_eq!(summary(text, 26), ["我要订重庆到成都的高铁票。", "重庆到成都的高铁票多少钱？"]);
    }

    #[test]
    fn nothing_is_made_of_nothing() {
        assert!(summary("", 10).is_empty());
        assert!(summary("……!\n", 10).is_empty());
        assert!(summary("A sentence that is too long.", 3).is_empty());
    }
}
