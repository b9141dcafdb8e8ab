//! What a chat gives to the writer.

use super::{Chat, InFlight, Queued, Rare, targets::Verdict};
use crate::{
    domain::{MessageId, Refusal, Row, Timestamp, Unfit},
    fault::{self, Fault},
    shard::post::{Effect, Room, Rules},
    telemetry::SpanRef,
};

impl<R> Chat<R> {
    /// Moves queued posts into `batch` as far as there is room, and gives them
    /// their seq and time. Does nothing while earlier ones are with the writer. What may
    /// not change its message is answered.
    pub fn take(
        &mut self,
        batch: &mut Vec<Row>,
        room: &mut Room,
        wall: Timestamp,
        rules: &Rules,
        effects: &mut Vec<Effect<R>>,
    ) {
        if self.has_in_flight() {
            return;
        }
        // The wall clock may have been set back; a chat's time never runs so.
        self.last_time = match fault::is_on(Fault::TimeRunsBack) {
            true => wall,
            false => self.last_time.max(wall),
        };
        let mut seq = self.last_seq;
        let mut number = self.number;
        let mut missing = false;
        while room.is_left()
            && let Some(post) = self.queued.pop_front()
        {
            if post.draft.change.is_some() {
                match self.judge(&post, wall, rules) {
                    Verdict::Fit => {}
                    Verdict::Unknown => {
                        self.put_aside(post);
                        continue;
                    }
                    Verdict::Unfit(why) => {
                        missing |= matches!(why, Unfit::Missing | Unfit::NothingToAnswer);
                        self.drop_queued(post, Refusal::Unfit(why), effects);
                        continue;
                    }
                    Verdict::Stands(at, created_at) => {
                        self.answer_standing(post, at, created_at, effects);
                        continue;
                    }
                }
            }
            let Queued {
                ticket,
                from,
                draft,
                id,
                key,
                span,
                waiters,
            } = post;
            let weight = draft.weight();
            let rare = draft.change.as_ref().map(|change| {
                Box::new(Rare {
                    refers_to: change.refers_to(),
                    admin: draft.admin,
                })
            });
            seq += 1;
            match draft.target() {
                None => number += 1,
                Some(_) => self.targets.apply(&draft, &from, seq, self.last_time),
            }
            self.sampled.extend(span.map(|span| *span));
            let id = id.map_or_else(MessageId::random, MessageId::from);
            self.in_flight.push_back(InFlight {
                ticket,
                id,
                weight,
                key,
                rare,
                waiters,
            });
            let row = Row {
                chat: self.id,
                seq,
                id,
                from,
                text: draft.text,
                client_message_id: draft.client_message_id,
                created_at: self.last_time,
                number,
                change: draft.change,
            };
            room.use_up(&row);
            batch.push(row);
        }
        if missing {
            self.targets.forget_missing();
        }
    }

    /// The spans of the sampled posts that [`Chat::take`] has given out.
    pub fn sampled(&mut self) -> impl Iterator<Item = SpanRef> {
        self.sampled.drain(..)
    }
}
