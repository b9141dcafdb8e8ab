use rand::{SeedableRng as _, rngs::StdRng};
use rand_distr::{Distribution as _, Zipf};

use crate::Result;

/// Which chat is next: each in turn, or few of them most of the time.
pub enum Turns {
    Even { next: usize, chats: usize },
    Zipf(Zipf<f64>, Box<StdRng>),
}

/// All servers of all runs get the same.
const SEED: u64 = 1;

impl Turns {
    /// By Zipf's law if there is an `exponent`.
    pub fn new(chats: usize, exponent: Option<f64>) -> Result<Self> {
        Ok(match exponent {
            None => Self::Even { next: 0, chats },
            Some(exponent) => {
                let zipf = Zipf::new(chats as f64, exponent)?;
                Self::Zipf(zipf, Box::new(StdRng::seed_from_u64(SEED)))
            }
        })
    }

    pub fn turn(&mut self) -> usize {
        match self {
            Self::Even { next, chats } => {
                let turn = *next;
                *next = (turn + 1) % *chats;
                turn
            }
            Self::Zipf(zipf, random) => zipf.sample(random) as usize - 1,
        }
    }
}
