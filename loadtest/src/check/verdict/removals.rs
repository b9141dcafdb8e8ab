//! P7: whoever was removed sees nothing that was sent after the removal was
//! acknowledged, until it is to be a member again.

use std::collections::HashMap;

use super::Verdict;
use crate::check::record::{Op, Record, Removal, Send};

pub fn judge(record: &Record, sends: &HashMap<Op, &Send>, verdicts: &mut Vec<Verdict>) {
    let mut removals: HashMap<(&str, i64), Vec<&Removal>> = HashMap::new();
    for removal in &record.removals {
        let of = (&*removal.user, removal.chat);
        removals.entry(of).or_default().push(removal);
    }
    for (at, stream) in record.streams.iter().enumerate() {
        let Some(theirs) = removals.get(&(&*stream.user, stream.chat)) else {
            continue;
        };
        for message in &stream.messages {
            let Some(send) = message.op.and_then(|op| sends.get(&op)) else {
                continue;
            };
            let is_out =
                |removal: &&Removal| removal.from < send.invoked && message.at < removal.until;
            if theirs.iter().any(is_out) {
                let (stream, seq) = (at, message.seq);
                verdicts.push(Verdict::ReadOn { stream, seq });
            }
        }
    }
}
