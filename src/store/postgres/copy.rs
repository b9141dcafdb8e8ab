use bytes::{BufMut as _, Bytes, BytesMut};

use crate::{domain::Row, store::entries::Columns};

/// Which columns a COPY has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layout {
    /// Those of plain messages alone, which nearly all batches are of: PostgreSQL reads
    /// each column of each row, also where it is NULL.
    Plain,
    /// In which plain messages have their place too.
    Whole,
}

impl Layout {
    /// The smallest that the rows fit into.
    pub fn of(rows: &[Row]) -> Self {
        let is_plain = |row: &Row| Columns::of(row) == Columns::default();
        match rows.iter().all(is_plain) {
            true => Self::Plain,
            false => Self::Whole,
        }
    }

    /// The statement that [`Encoder`] encodes for.
    pub fn statement(self) -> &'static str {
        match self {
            Self::Plain => {
                "COPY messages (chat_id, seq, id, sender, text, client_message_id, created_at) \
                 FROM STDIN BINARY"
            }
            Self::Whole => {
                "COPY messages (chat_id, seq, id, sender, text, client_message_id, created_at, \
                 number, kind, target, attached) FROM STDIN BINARY"
            }
        }
    }

    fn columns(self) -> i16 {
        match self {
            Self::Plain => 7,
            Self::Whole => 11,
        }
    }
}

const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: i16 = -1;
const NULL: i32 = -1;

/// A chunk is one CopyData message: large enough to make their number cheap,
/// small enough to be on the way while the next is encoded.
const CHUNK: usize = 64 * 1024;

/// So many rows of a chat follow one another at most: see [`in_runs`].
const RUN: usize = 32;

/// Rows in COPY's binary format, by hand: through `ToSql` each value would cost
/// two virtual calls and a checked type.
pub(super) struct Encoder<'a> {
    rows: std::vec::IntoIter<&'a Row>,
    layout: Layout,
    out: BytesMut,
    ended: bool,
}

impl<'a> Encoder<'a> {
    /// The rows fit into the layout.
    pub fn new(rows: &'a [Row], layout: Layout) -> Self {
        debug_assert!(layout == Layout::Whole || Layout::of(rows) == Layout::Plain);
        let mut out = BytesMut::new();
        out.put_slice(HEADER);
        Self {
            rows: in_runs(rows).into_iter(),
            layout,
            out,
            ended: false,
        }
    }
}

/// The rows by chat, so that neighbours in the index come one after the other,
/// which makes raw COPY 9 to 19 % faster with 10,000 chats; but only [`RUN`] rows
/// of a chat before the next one has its turn. PostgreSQL 15 collects 1,000 rows
/// before it inserts them, keeps a slot for each that a partition had among them,
/// and puts the slots' TupleDesc, the same for all of a partition, into a hash table
/// with linear probing (`CopyMultiInsertInfoStore`, `ResourceArrayAdd`). Batches of
/// 5,000 rows of 16 chats go into it at 364,000 rows/s chat by chat, and at 508,000
/// in runs (`CHATS=16 cargo bench --bench postgres_lanes`).
///
/// A chat's rows keep their order.
fn in_runs(rows: &[Row]) -> Vec<&Row> {
    let mut by_chat: Vec<&Row> = rows.iter().collect();
    by_chat.sort_by_key(|row| row.chat);
    let chats = by_chat.chunk_by(|one, next| one.chat == next.chat);
    let mut runs: Vec<_> = chats
        .flat_map(|chat| chat.chunks(RUN).enumerate())
        .collect();
    runs.sort_by_key(|(turn, _)| *turn);
    runs.into_iter().flat_map(|(_, run)| run).copied().collect()
}

impl Iterator for Encoder<'_> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        while self.out.len() < CHUNK {
            let Some(row) = self.rows.next() else {
                self.out.put_i16(TRAILER);
                self.ended = true;
                break;
            };
            put_row(&mut self.out, row, self.layout);
        }
        Some(self.out.split().freeze())
    }
}

fn put_row(out: &mut BytesMut, row: &Row, layout: Layout) {
    let client_message_id = row.client_message_id.as_deref();
    let columns = match layout {
        Layout::Plain => Columns::default(),
        Layout::Whole => Columns::of(row),
    };
    let texts = row.from.len() + row.text.len() + client_message_id.map_or(0, str::len);
    let attached = columns.attached.map_or(0, <[u8]>::len);
    out.reserve(2 + 11 * 4 + 6 * 8 + 2 + texts + attached);
    out.put_i16(layout.columns());
    put_i64(out, row.chat.get());
    put_i64(out, row.seq);
    put_i64(out, row.id.0);
    put_bytes(out, row.from.as_bytes());
    put_bytes(out, row.text.as_bytes());
    put_bytes_or_null(out, client_message_id.map(str::as_bytes));
    put_i64(out, row.created_at.0);
    if layout == Layout::Plain {
        return;
    }
    put_i64_or_null(out, columns.number);
    match columns.kind {
        Some(kind) => {
            out.put_i32(2);
            out.put_i16(kind);
        }
        None => out.put_i32(NULL),
    }
    put_i64_or_null(out, columns.target);
    put_bytes_or_null(out, columns.attached);
}

fn put_i64_or_null(out: &mut BytesMut, value: Option<i64>) {
    match value {
        Some(value) => put_i64(out, value),
        None => out.put_i32(NULL),
    }
}

fn put_i64(out: &mut BytesMut, value: i64) {
    out.put_i32(8);
    out.put_i64(value);
}

fn put_bytes_or_null(out: &mut BytesMut, value: Option<&[u8]>) {
    match value {
        Some(value) => put_bytes(out, value),
        None => out.put_i32(NULL),
    }
}

fn put_bytes(out: &mut BytesMut, value: &[u8]) {
    out.put_i32(value.len() as i32);
    out.put_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Change, ChatId, MessageId, Seq, Timestamp, UserName};

    fn row(chat: i64, seq: Seq) -> Row {
        Row {
            chat: ChatId::new(chat).unwrap(),
            seq,
            id: MessageId(-3),
            from: UserName::new("bo").unwrap(),
            text: "é".into(),
            client_message_id: None,
            created_at: Timestamp(4),
            number: seq,
            change: None,
        }
    }

    #[test]
    fn a_row_is_what_copy_expects() {
        let row = row(1, 2);
        let encoded = |row: &Row, layout| {
            let chunks: Vec<Bytes> = Encoder::new(std::slice::from_ref(row), layout).collect();
            chunks.concat()
        };
        let mut expected = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\x00\x07".to_vec();
        for int in [1i64, 2, -3] {
            expected.extend([0, 0, 0, 8]);
            expected.extend(int.to_be_bytes());
        }
        expected.extend(b"\0\0\0\x02bo\0\0\0\x02\xc3\xa9\xff\xff\xff\xff\0\0\0\x08");
        expected.extend(4i64.to_be_bytes());
        let mut whole = expected.clone();
        expected.extend([0xff, 0xff]);
        assert_eq!(Layout::of(std::slice::from_ref(&row)), Layout::Plain);
        assert_eq!(encoded(&row, Layout::Plain), expected);
        whole[HEADER.len() + 1] = 11;
        whole.extend([0xff; 4 * 4]);
        whole.extend([0xff, 0xff]);
        assert_eq!(encoded(&row, Layout::Whole), whole);

        let reaction = Row {
            number: 1,
            change: Some(Box::new(Change::Reaction {
                target: 7,
                removed: false,
            })),
            ..row.clone()
        };
        let both = [row.clone(), reaction.clone()];
        assert_eq!(Layout::of(&both), Layout::Whole);
        let mut columns = b"\0\0\0\x08".to_vec();
        columns.extend(1i64.to_be_bytes());
        columns.extend(b"\0\0\0\x02\0\x03\0\0\0\x08");
        columns.extend(7i64.to_be_bytes());
        columns.extend([0xff; 4 + 2]);
        assert!(encoded(&reaction, Layout::Whole).ends_with(&columns));

        let many = vec![row; 5_000];
        let chunks: Vec<Bytes> = Encoder::new(&many, Layout::Plain).collect();
        assert!(chunks.len() > 3);
        assert!(chunks.iter().all(|c| c.len() < CHUNK + 200));
    }

    #[test]
    fn chats_take_turns_and_keep_their_order() {
        // 300 rows of each of 16 chats, 2 of each of 100.
        let busy = (1..=16).flat_map(|chat| (1..=300).map(move |seq| row(chat, seq)));
        let calm = (101..=200).flat_map(|chat| (1..=2).map(move |seq| row(chat, seq)));
        let rows: Vec<Row> = busy.chain(calm).collect();
        let taken = in_runs(&rows);
        assert_eq!(taken.len(), rows.len());
        for chat in (1..=16).chain(101..=200) {
            let of_chat = taken.iter().filter(|row| row.chat.get() == chat);
            let seqs: Vec<Seq> = of_chat.map(|row| row.seq).collect();
            assert!(seqs.iter().copied().eq(1..=seqs.len() as Seq), "{chat}");
        }
        // Neighbours, as far as that goes.
        assert!(taken[..100].is_sorted_by_key(|row| row.chat));
        // No thousand rows have more than their share of any chat.
        for window in taken.windows(1_000) {
            let of_one = window.iter().filter(|row| row.chat.get() == 7).count();
            assert!(of_one <= 3 * RUN, "{of_one}");
        }
    }
}
