//! Fuzzing: inputs that are kept, in `tests/corpus/TARGET`, and random changes of
//! them. It runs wherever the tests do: cargo-fuzz needs a nightly compiler, and
//! what a stranger has, and CI, is the stable one of `rust-version`.

use std::{env, fs, panic, path::PathBuf};

use proptest::{
    collection::vec,
    prelude::any,
    sample::Index,
    strategy::Strategy,
    test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner},
};

/// Random inputs a target; `FUZZ_RUNS` says otherwise.
const RUNS: u32 = 2_000;

/// Most changes of an input.
const CHANGES: usize = 8;

#[derive(Debug, Clone)]
enum Change {
    Set(Index, u8),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, Index),
    Repeat(Index, Index),
    /// The rest becomes that of another input.
    Splice(Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    proptest::prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (at(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (at(), vec(any::<u8>(), 1..16)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (at(), at()).prop_map(|(from, to)| Change::Remove(from, to)),
        (at(), at()).prop_map(|(from, to)| Change::Repeat(from, to)),
        (at(), at()).prop_map(|(at, other)| Change::Splice(at, other)),
    ]
}

impl Change {
    fn apply(&self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let place = |at: &Index, input: &Vec<u8>| at.index(input.len() + 1);
        let range = |from: &Index, to: &Index, input: &Vec<u8>| {
            let (from, to) = (place(from, input), place(to, input));
            from.min(to)..from.max(to)
        };
        match self {
            Self::Set(at, byte) => {
                let at = place(at, input);
                input.splice(at..(at + 1).min(input.len()), [*byte]);
            }
            Self::Flip(at, bit) => {
                let at = place(at, input);
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            Self::Insert(at, bytes) => {
                let at = place(at, input);
                input.splice(at..at, bytes.iter().copied());
            }
            Self::Remove(from, to) => drop(input.drain(range(from, to, input))),
            Self::Repeat(from, to) => {
                let range = range(from, to, input);
                let part = input[range.clone()].to_vec();
                input.splice(range.end..range.end, part);
            }
            Self::Splice(at, other) => {
                let other = &corpus[other.index(corpus.len())];
                let at = place(at, input);
                input.truncate(at);
                input.extend_from_slice(&other[at.min(other.len())..]);
            }
        }
    }
}

/// Replays what is kept for `target`, and then changes it at random; the seed is
/// printed and may be given again as `CHAT_TEST_SEED`. An input that fails is
/// made small and kept.
pub fn fuzz(target: &str, test: impl Fn(&[u8])) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let folder = folder.join(target);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let mut corpus = Vec::new();
    for file in files {
        println!("{}", file.display());
        let input = fs::read(&file).unwrap();
        test(&input);
        corpus.push(input);
    }
    assert!(!corpus.is_empty(), "nothing is kept for {target}");

    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = number("CHAT_TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    let cases = number("FUZZ_RUNS").map_or(RUNS, |runs| runs.try_into().unwrap());
    println!("{target}: {cases} inputs, CHAT_TEST_SEED={seed}");
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let inputs = (any::<Index>(), vec(change(), 0..CHANGES)).prop_map(|(at, changes)| {
        let mut input = corpus[at.index(corpus.len())].clone();
        changes.iter().for_each(|c| c.apply(&mut input, &corpus));
        input
    });
    let outcome = runner.run(&inputs, |input| {
        test(&input);
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Abort(why)) => panic!("{target}: {why}"),
        Err(TestError::Fail(why, input)) => {
            let kept = folder.join(format!("found-{seed}"));
            fs::write(&kept, &input).unwrap();
            panic!(
                "{target}, CHAT_TEST_SEED={seed}, kept as {}: {why}",
                kept.display()
            );
        }
    }
}
