//! Bytes looked for in many at once.
//!
//! In: a block of bytes. Out: which of them are among some, as bits. So texts are looked through 32 bytes at a time.

/// How many bytes are looked at together.
pub(crate) const BLOCK: usize = 32;

/// Which bytes of a block are one of some or less than `below`, the first one in the lowest bit.
#[cfg(target_arch = "x86_64")]
#[inline]
#[allow(unsafe_code, reason = "the language does not know that every such processor has SSE2")]
pub(crate) fn among(block: &[u8; BLOCK], some: &[u8], below: u8) -> u32 {
    use std::arch::x86_64::{
        _mm_cmpeq_epi8, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8, _mm_setzero_si128,
    };
    #[target_feature(enable = "sse2")]
    #[inline]
    fn half(bytes: &[u8; 16], some: &[u8], below: u8) -> u32 {
        let [low, high] = [0, 8].map(|at| i64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes")));
        let bytes = _mm_set_epi64x(high, low);
        let mut found = match below.checked_sub(1) {
            Some(most) => _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(most.cast_signed())), bytes),
            None => _mm_setzero_si128(),
        };
        for byte in some {
            found = _mm_or_si128(found, _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte.cast_signed())));
        }
        _mm_movemask_epi8(found).cast_unsigned()
    }
    let ([low, high], []) = block.as_chunks() else { unreachable!("a block is two halves") };
    // SAFETY: SSE2 is part of x86-64. The function itself does nothing that is unsafe.
    unsafe { half(low, some, below) | half(high, some, below) << 16 }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(crate) fn among(block: &[u8; BLOCK], some: &[u8], below: u8) -> u32 {
    let is_it = |byte: &u8| *byte < below || some.contains(byte);
    block.iter().zip(0..).fold(0, |found, (byte, place)| found | u32::from(is_it(byte)) << place)
}

/// Where the first byte stands that is one of some or less than `below`.
#[inline]
pub(crate) fn first_among(bytes: &[u8], some: &[u8], below: u8) -> Option<usize> {
    let (blocks, rest) = bytes.as_chunks();
    for (block, start) in blocks.iter().zip((0..).step_by(BLOCK)) {
        let found = among(block, some, below);
        if found != 0 {
            return Some(start + found.trailing_zeros() as usize);
        }
    }
    let found = rest.iter().position(|byte| *byte < below || some.contains(byte));
    found.map(|at| blocks.len() * BLOCK + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_is_found_wherever_it_stands() {
        let others = [b'a', 0x1f, 0x20, 0x21, 0x22, 0x23, 0x5b, 0x5c, 0x5d, 0x7f, 0x80, 0xa2, 0xdc, 0xff];
        for (some, below) in [(b"\"\\".as_slice(), 0x20), (b"\n\t<[\xe2", 0), (b"", 0)] {
            let plainly = |bytes: &[u8]| bytes.iter().position(|byte| *byte < below || some.contains(byte));
            for length in (0..20).chain(BLOCK - 1..BLOCK + 3).chain([2 * BLOCK + 5]) {
                for at in 0..length {
                    for byte in 0..=u8::MAX {
                        for other in others {
                            let mut bytes = vec![b'x'; length];
                            bytes[at] = byte;
                            if at + 1 < length {
                                bytes[at + 1] = other;
                            }
                            assert_eq!(first_among(&bytes, some, below), plainly(&bytes), "{bytes:?}");
                        }
                    }
                }
            }
        }
    }
}
