//! Any bytes as an input file: reading ends, loses nothing that can be told, and is the same in every wrapping.
//!
//! Held against: `serde_json` for arrays, splitting at line breaks for lines, and the same bytes in gzip, zstd and tar.

#![no_main]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use dlgc::dialogue::Position;
use dlgc::source::{Item, Reader};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

const LIMIT: usize = 4096;

/// A record: which it is, its key, its bytes, and the code of its fault.
type Found = (Position, Option<String>, Vec<u8>, &'static str);

/// Reads a file; its records, and the codes of its faults.
fn read(path: &Path) -> (Vec<Found>, Vec<&'static str>) {
    let (mut records, mut faults) = (Vec::new(), Vec::new());
    let digests = Reader::new(vec![path.to_owned()], LIMIT).read(&mut |item| {
        match item {
            Item::Chunk(chunk) => {
                assert!(!chunk.records.is_empty());
                for (record, fault) in chunk.iter() {
                    let key = record.location.key.as_deref().map(str::to_owned);
                    let code = fault.map_or("", |fault| fault.code.name());
                    assert!(record.bytes.len() <= LIMIT || code == "record-too-large");
                    records.push((record.location.position, key, record.bytes.to_vec(), code));
                }
            }
            Item::Fault(fault) => faults.push(fault.diagnostic.code.name()),
            Item::Skipped(_) => {}
        }
        ControlFlow::Continue(())
    });
    assert_eq!(digests.len(), 1);
    assert_eq!(digests[0].records, records.len() as u64);
    (records, faults)
}

fn in_order(records: &[Found]) {
    for pair in records.windows(2) {
        assert!(pair[0].0.number() < pair[1].0.number(), "{:?} before {:?}", pair[0].0, pair[1].0);
    }
}

fn write(name: &str, bytes: &[u8]) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("dlgc-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("written");
    path
}

/// What everybody agrees on of some files.
fn against_others(bytes: &[u8], records: &[Found], faults: &[&str]) {
    // What JSON calls space, which a form feed is not.
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let space = text.iter().take_while(|byte| b" \t\r\n".contains(byte)).count();
    let text = &text[space..];
    if text.starts_with(b"\xef\xbb\xbf") {
        return; // marks and spaces mixed: space, all of it
    }
    let small = |element: &&RawValue| element.get().len() <= LIMIT;
    if text.first() == Some(&b'[')
        && let Ok(elements) = serde_json::from_slice::<Vec<&RawValue>>(text)
        && !elements.is_empty()
        && elements.iter().all(small)
        && text.len() <= LIMIT
    {
        let found: Vec<&[u8]> = records.iter().map(|(_, _, bytes, _)| &bytes[..]).collect();
        let expected: Vec<&[u8]> = elements.iter().map(|element| element.get().as_bytes()).collect();
        assert_eq!(found, expected);
        assert!(faults.is_empty(), "{faults:?}");
    }
    if text.first().is_some_and(|first| !matches!(first, b'[' | b'{')) {
        let unmarked = |mut line: &'_ [u8]| {
            while let Some(rest) = line.strip_prefix(b"\xef\xbb\xbf") {
                line = rest;
            }
            line.to_vec()
        };
        let lines = bytes.split(|&byte| byte == b'\n').map(unmarked);
        let expected: Vec<Vec<u8>> = lines.filter(|line| !line.trim_ascii().is_empty()).collect();
        if faults == ["plain-text"] {
            // A file without JSON is one fault, as far as it was looked at.
            // A line in quotes is what somebody says in a story.
            let is_said = |line: &Vec<u8>| line.trim_ascii_start().starts_with(b"\"");
            let is_json = |line: &Vec<u8>| !is_said(line) && serde_json::from_slice::<&RawValue>(line).is_ok();
            assert!(records.is_empty() && (bytes.len() > LIMIT || !expected.iter().any(is_json)));
            return;
        }
        assert_eq!(records.len(), expected.len());
        for (record, line) in records.iter().zip(expected) {
            // The space before the first record is no part of it.
            let (line, found) = (line.trim_ascii_start(), record.2.trim_ascii_start());
            assert!(line.starts_with(found) && (found.len() == line.len() || line.len() >= LIMIT));
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    let names =
        ["plain.jsonl", "table.csv", "table.tsv", "set.parquet", "set.zip", "set.tar", "x.jsonl.gz", "x.jsonl.zst"];
    let name = names[usize::from(kind) % names.len()];
    let path = write(name, bytes);
    let (records, faults) = read(&path);
    if is_container(bytes) {
        return; // its members have places of their own, and an archive may be empty
    }
    assert!(!records.is_empty() || !faults.is_empty());
    in_order(&records);
    if !name.starts_with("plain") {
        return;
    }
    against_others(bytes, &records, &faults);
    let gzip = {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    };
    let zstd = zstd::encode_all(bytes, 1).expect("memory");
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    builder.append_data(&mut header, "a.jsonl", bytes).expect("memory");
    let tar = builder.into_inner().expect("memory");
    for (name, wrapped) in [("w.jsonl.gz", gzip), ("w.jsonl.zst", zstd), ("w.tar", tar)] {
        assert_eq!(read(&write(name, &wrapped)), (records.clone(), faults.clone()), "{name}");
    }
});

/// Whether the bytes are taken for something else than text.
fn is_container(bytes: &[u8]) -> bool {
    const MARKS: [&[u8]; 17] = [
        &[0x1f, 0x8b],
        &[0x28, 0xb5, 0x2f, 0xfd],
        b"PK\x03\x04",
        b"PK\x05\x06",
        b"PAR1",
        &[0xff, 0xfe],
        &[0xfe, 0xff],
        b"BZh",
        b"\xfd7zXZ\0",
        b"7z\xbc\xaf\x27\x1c",
        b"Rar!",
        b"\x04\x22\x4d\x18",
        b"ARROW1",
        &[0xff, 0xff, 0xff, 0xff],
        b"SQLite format 3",
        b"%PDF",
        b"Obj\x01",
    ];
    MARKS.iter().any(|mark| bytes.starts_with(mark)) || bytes.get(257..262) == Some(b"ustar")
}
