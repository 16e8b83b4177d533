//! Every target, over its seeds and over variations of them: always the same ones, so that a failure comes again.

use std::{env, fs, path::PathBuf};

use maesh_fuzz_targets::{TARGETS, run};

/// Variations of each seed.
const VARIATIONS: u32 = 64;

fn folder(name: &str) -> PathBuf {
    // Of the clone that is tested, not of the one that this was built in: clones may share the folder for builds.
    PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("run by cargo")).join("../fuzz").join(name)
}

/// The names of files in a folder, sorted.
fn files(folder: &PathBuf) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

#[test]
fn every_target_has_a_program_and_seeds() {
    let name = |path: &PathBuf| path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
    let programs: Vec<String> = files(&folder("targets")).iter().map(name).collect();
    let targets: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(programs, targets);
    let seeds: Vec<String> = files(&folder("seeds")).iter().map(name).collect();
    assert_eq!(seeds, targets);
}

/// Says which input it was when a target panics.
struct Input<'a>(&'a str, &'a [u8]);

impl Drop for Input<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("target {}, input b\"{}\"", self.0, self.1.escape_ascii());
        }
    }
}

fn check(target: &str) {
    let seeds: Vec<Vec<u8>> =
        files(&folder("seeds").join(target)).iter().map(|file| fs::read(file).expect("a seed")).collect();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for seed in &seeds {
        let variations = (0..VARIATIONS).map(|_| random.variation(seed, &seeds)).collect::<Vec<_>>();
        for bytes in std::iter::once(seed).chain(&variations) {
            let _input = Input(target, bytes);
            run(target, bytes);
        }
    }
}

/// An xorshift generator.
struct Random(u64);

impl Random {
    /// A number below `most`; 0 where there is none.
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or_default().checked_rem(most).unwrap_or_default()
    }

    /// `seed` with some of its bytes changed, removed or doubled, or with the end of another one.
    fn variation(&mut self, seed: &[u8], seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let length = self.below(bytes.len() - at).min(self.below(16));
            match self.below(6) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => bytes[at] = u8::try_from(self.below(256)).unwrap_or_default(),
                2 => drop(bytes.drain(at..at + length)),
                3 => bytes.splice(at..at, bytes[at..at + length].to_vec()).for_each(drop),
                4 => bytes.truncate(at),
                _ => {
                    let other = &seeds[self.below(seeds.len())];
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[self.below(other.len())..]);
                }
            }
        }
        bytes
    }
}

/// A test for each target.
macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { check(stringify!($name)); })*

        #[test]
        fn every_target_is_run() {
            assert_eq!(TARGETS.map(|(name, _)| name), [$(stringify!($name)),*]);
        }
    };
}

targets! {
    annotations breaker client_hello corefile discovery dns hpack http1_request http2 limiter response texts udp_flows websocket
}
