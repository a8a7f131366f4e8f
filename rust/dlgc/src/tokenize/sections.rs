//! Lists of numbers and bytes, one after the other, as notes keep them: each behind its length in bytes.

/// Appends a section.
pub(super) fn put(out: &mut Vec<u8>, section: impl Iterator<Item = u8>) {
    let at = out.len();
    out.extend([0; 8]);
    out.extend(section);
    let length = (out.len() - at - 8) as u64;
    out[at..at + 8].copy_from_slice(&length.to_le_bytes());
}

/// Appends a section of numbers.
pub(super) fn put_numbers(out: &mut Vec<u8>, numbers: impl Iterator<Item = u32>) {
    put(out, numbers.flat_map(u32::to_le_bytes));
}

/// What was written, read in the same order.
pub(super) struct Sections<'w>(pub(super) &'w [u8]);

impl<'w> Sections<'w> {
    /// The next section; `None` where there is none.
    pub(super) fn bytes(&mut self) -> Option<&'w [u8]> {
        let (length, rest) = self.0.split_first_chunk()?;
        let (section, rest) = rest.split_at_checked(u64::from_le_bytes(*length).try_into().ok()?)?;
        self.0 = rest;
        Some(section)
    }

    /// The next section, of groups of so many numbers.
    pub(super) fn groups<const N: usize>(&mut self) -> Option<impl ExactSizeIterator<Item = [u32; N]>> {
        let (numbers, []) = self.bytes()?.as_chunks::<4>() else { return None };
        let (groups, []) = numbers.as_chunks::<N>() else { return None };
        Some(groups.iter().map(|group| group.map(u32::from_le_bytes)))
    }

    /// The next section, of numbers.
    pub(super) fn numbers(&mut self) -> Option<Vec<u32>> {
        Some(self.groups()?.map(|[number]| number).collect())
    }

    /// What has not been read.
    pub(super) fn rest(&self) -> &'w [u8] {
        self.0
    }
}
