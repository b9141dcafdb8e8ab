use std::hash::{BuildHasher as _, Hash, Hasher as _, RandomState};

use ring::rand::{SecureRandom as _, SystemRandom};
use siphasher::sip128::{Hasher128 as _, SipHasher24};

/// Makes digests that stand for what they are made of: SipHash-2-4, 128 bits,
/// under a random key of its own, which never leaves the process. That is a
/// pseudorandom function (Aumasson and Bernstein, 2012): without the key nobody
/// can look for two values that share a digest, and by chance a hundred thousand
/// values hold such a pair with probability 2^-95. It gives no value back.
pub struct Digests([u8; 16]);

impl Digests {
    pub fn new() -> Self {
        let mut key = [0; 16];
        if SystemRandom::new().fill(&mut key).is_err() {
            // The standard library's keys come from the same source, by another way.
            for half in key.chunks_exact_mut(8) {
                let hasher = RandomState::new().build_hasher();
                half.copy_from_slice(&hasher.finish().to_ne_bytes());
            }
        }
        Self(key)
    }

    /// Strings hash with an end mark, so that neighbours can't trade bytes.
    pub fn of(&self, value: impl Hash) -> u128 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        value.hash(&mut hasher);
        hasher.finish128().as_u128()
    }
}

impl Default for Digests {
    fn default() -> Self {
        Self::new()
    }
}
