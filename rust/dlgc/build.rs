//! Names the build by what decides how a text is encoded, for notes on tests that were passed before.

use std::path::{Path, PathBuf};

const SOURCES: [&str; 3] = ["src/tokenize", "Cargo.toml", "../../Cargo.lock"];

fn main() {
    let mut files = Vec::new();
    for source in SOURCES {
        println!("cargo:rerun-if-changed={source}");
        collect(Path::new(source), &mut files);
    }
    files.sort();
    // FNV-1a, 64 bits (http://www.isthe.com/chongo/tech/comp/fnv/).
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    for file in files {
        for byte in std::fs::read(file).unwrap_or_default() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }
    println!("cargo:rustc-env=DLGC_TOKENIZE_BUILD={hash:016x}");
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    match std::fs::read_dir(path) {
        Ok(entries) => entries.flatten().for_each(|entry| collect(&entry.path(), files)),
        Err(_) => files.push(path.to_owned()),
    }
}
