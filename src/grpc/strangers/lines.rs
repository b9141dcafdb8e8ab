use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    Owner, Stranger,
    crowd::{Crowd, Turn},
};
use crate::domain::{Origin, Timestamp};

/// So long a connection may take to show a token before it gives way: a handshake over a
/// slow network, and a question to an Auth Service.
pub const GRACE: Duration = Duration::from_secs(2);

/// Known connections that are looked at for one that comes: what that may cost.
const LOOKS: usize = 512;

/// In what order connections give way.
#[derive(Debug, Default)]
pub struct Lines {
    next: u64,
    /// In the order in which they came.
    strange: Crowd<Origin, Arc<Stranger>>,
    /// In the order in which they were used last, as far as was known when somebody
    /// looked. Those that were busy then stand in no line until they are idle.
    known: Crowd<Owner, Arc<Stranger>>,
    /// Known connections by when their tokens expire, and by their numbers.
    expiring: BTreeMap<(Timestamp, u64), Arc<Stranger>>,
}

/// Where a connection stands.
#[derive(Debug, Clone)]
pub enum Standing {
    Strange,
    Known {
        owner: Owner,
        /// None: it stands in no line, since it was busy.
        turn: Option<Turn>,
        /// Where it stands among those whose tokens expire.
        expires: Option<Timestamp>,
    },
    /// It has given its place away, or has left.
    Gone,
}

impl Lines {
    pub fn next_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A connection has come, as a stranger.
    pub fn enter(&mut self, one: Arc<Stranger>) {
        let (origin, number) = (one.origin, one.number);
        self.strange.enter(&origin, (0, number), one);
    }

    /// It is known from now on, unless it has gone or its owner has `most` already.
    pub fn know(&mut self, one: &Arc<Stranger>, owner: Owner, most: usize) -> bool {
        let is_strange = matches!(*one.standing(), Standing::Strange);
        if !is_strange || self.known.count(&owner) >= most {
            return false;
        }
        self.remove(one);
        let turn = one.turn();
        self.known.enter(&owner, turn, one.clone());
        let expires = Timestamp(one.expires.load(Ordering::Relaxed));
        self.expire_at(one, owner, Some(turn), expires);
        true
    }

    /// The connection that is to give way to one that comes from `newcomer`.
    pub fn leaver(
        &mut self,
        newcomer: Origin,
        now: Instant,
        wall: Timestamp,
    ) -> Option<Arc<Stranger>> {
        self.expire(wall);
        // With the one that comes.
        let theirs = self.strange.count(&newcomer) + 1;
        let leaving = self.strange_leaver(theirs, now);
        leaving.or_else(|| self.known_leaver(theirs))
    }

    /// It stood in no line, since it was busy, and is idle.
    pub fn come_back(&mut self, one: &Arc<Stranger>) {
        let standing = one.standing().clone();
        if let Standing::Known {
            owner, turn: None, ..
        } = standing
        {
            self.take_turn(one, &owner, None, Some(one.turn()));
        }
    }

    fn take_turn(
        &mut self,
        one: &Arc<Stranger>,
        owner: &Owner,
        from: Option<Turn>,
        to: Option<Turn>,
    ) {
        self.known.change_turn(owner, from, to, one.clone());
        if let Standing::Known { turn, .. } = &mut *one.standing() {
            *turn = to;
        }
    }

    /// The stranger that is to give way, where the newcomer's address would have `theirs`.
    fn strange_leaver(&self, theirs: usize, now: Instant) -> Option<Arc<Stranger>> {
        let (count, _, _, first) = self.strange.largest()?;
        let has_had_its_time = now.saturating_duration_since(first.since) >= GRACE;
        (has_had_its_time || theirs < count).then_some(first)
    }

    /// The known connection that is to give way, if a user has more than `theirs`.
    fn known_leaver(&mut self, theirs: usize) -> Option<Arc<Stranger>> {
        let mut longest: Option<(Turn, Arc<Stranger>)> = None;
        for _ in 0..LOOKS {
            let (count, owner, turn, one) = self.known.largest()?;
            if count <= theirs {
                return None;
            }
            if one.steps_aside() {
                self.take_turn(&one, &owner, Some(turn), None);
                continue;
            }
            let used = one.turn();
            if used == turn {
                return Some(one);
            }
            self.take_turn(&one, &owner, Some(turn), Some(used));
            if longest.as_ref().is_none_or(|(before, _)| used < *before) {
                longest = Some((used, one));
            }
        }
        let (_, one) = longest?;
        // It may have begun something since.
        (!one.is_busy()).then_some(one)
    }

    /// Those that are idle and whose tokens have expired are strangers again.
    fn expire(&mut self, wall: Timestamp) {
        for _ in 0..LOOKS {
            let Some(first) = self.expiring.first_entry() else {
                return;
            };
            if first.key().0 > wall {
                return;
            }
            let one = first.remove();
            let Standing::Known { owner, turn, .. } = one.standing().clone() else {
                continue;
            };
            let expires = one.expires.load(Ordering::Relaxed);
            let expires = match expires > wall.0 {
                // It has shown another one since.
                true => Some(expires),
                // What it has under way ends soon.
                false if one.is_busy() => Some(wall.0.saturating_add(GRACE.as_micros() as i64)),
                false => None,
            };
            if let Some(expires) = expires {
                self.expire_at(&one, owner, turn, Timestamp(expires));
                continue;
            }
            self.known.leave(&owner, turn);
            self.strange
                .enter(&one.origin, (0, one.number), one.clone());
            *one.standing() = Standing::Strange;
            one.is_known.store(false, Ordering::SeqCst);
        }
    }

    fn expire_at(
        &mut self,
        one: &Arc<Stranger>,
        owner: Owner,
        turn: Option<Turn>,
        expires: Timestamp,
    ) {
        // Nobody waits for those that never do.
        let expires = (expires.0 < i64::MAX).then_some(expires);
        if let Some(expires) = expires {
            self.expiring.insert((expires, one.number), one.clone());
        }
        *one.standing() = Standing::Known {
            owner,
            turn,
            expires,
        };
    }

    /// False if it had given its place away.
    pub fn remove(&mut self, one: &Stranger) -> bool {
        match std::mem::replace(&mut *one.standing(), Standing::Gone) {
            Standing::Gone => return false,
            Standing::Strange => self.strange.leave(&one.origin, Some((0, one.number))),
            Standing::Known {
                owner,
                turn,
                expires,
            } => {
                self.known.leave(&owner, turn);
                if let Some(expires) = expires {
                    self.expiring.remove(&(expires, one.number));
                }
            }
        }
        true
    }
}

#[cfg(test)]
impl Lines {
    pub fn is_empty(&self) -> bool {
        self.strange.is_empty() && self.known.is_empty() && self.expiring.is_empty()
    }
}
