const PREFIX: usize = 5;

/// Finds the messages in one stream's bytes by their length prefixes, without
/// keeping them.
#[derive(Default, Clone)]
pub struct Deframer {
    prefix: [u8; PREFIX],
    have: usize,
    skip: usize,
}

impl Deframer {
    /// Calls `each` for every message that begins in `data`, with what of it is
    /// there, and returns how many ended.
    pub fn add(&mut self, mut data: &[u8], mut each: impl FnMut(&[u8])) -> u64 {
        let mut ended = 0;
        if self.skip > 0 {
            let count = self.skip.min(data.len());
            self.skip -= count;
            data = &data[count..];
            if self.skip > 0 {
                return 0;
            }
            ended += 1;
        }
        while !data.is_empty() {
            let count = (PREFIX - self.have).min(data.len());
            self.prefix[self.have..self.have + count].copy_from_slice(&data[..count]);
            self.have += count;
            data = &data[count..];
            if self.have < PREFIX {
                break;
            }
            self.have = 0;
            let [_, len @ ..] = self.prefix;
            let len = u32::from_be_bytes(len) as usize;
            let count = len.min(data.len());
            each(&data[..count]);
            data = &data[count..];
            self.skip = len - count;
            if self.skip == 0 {
                ended += 1;
            }
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let mut bytes = Vec::new();
        for len in [0u8, 1, 7, 44, 12] {
            bytes.extend([0, 0, 0, 0, len]);
            bytes.extend(vec![1; len.into()]);
        }
        for size in 1..bytes.len() {
            let (mut deframer, mut begun, mut ended) = (Deframer::default(), 0, 0);
            for piece in bytes.chunks(size) {
                ended += deframer.add(piece, |_| begun += 1);
            }
            assert_eq!((begun, ended), (5, 5), "pieces of {size}");
        }
    }
}
