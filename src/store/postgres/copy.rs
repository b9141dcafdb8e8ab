use bytes::{BufMut as _, Bytes, BytesMut};

use crate::domain::Row;

/// The statement that [`Encoder`] encodes for.
pub(super) const COPY: &str = "COPY messages (chat_id, seq, id, sender, text, client_message_id, created_at) FROM STDIN BINARY";

const COLUMNS: i16 = 7;
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: i16 = -1;
const NULL: i32 = -1;

/// A chunk is one CopyData message: large enough to make their number cheap,
/// small enough to be on the way while the next is encoded.
const CHUNK: usize = 64 * 1024;

/// Rows in COPY's binary format, by hand: through `ToSql` each value would cost
/// two virtual calls and a checked type.
pub(super) struct Encoder<'a> {
    rows: std::vec::IntoIter<&'a Row>,
    out: BytesMut,
    ended: bool,
}

impl<'a> Encoder<'a> {
    /// Takes the rows by chat: neighbours in the index come one after the other,
    /// which makes raw COPY 9 to 19 % faster (`bench/postgres_lanes.rs`, 10,000
    /// chats). The sort is stable: a chat's rows keep their order.
    pub fn new(rows: &'a [Row]) -> Self {
        let mut rows: Vec<&Row> = rows.iter().collect();
        rows.sort_by_key(|row| row.chat);
        let mut out = BytesMut::new();
        out.put_slice(HEADER);
        Self {
            rows: rows.into_iter(),
            out,
            ended: false,
        }
    }
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
            put_row(&mut self.out, row);
        }
        Some(self.out.split().freeze())
    }
}

fn put_row(out: &mut BytesMut, row: &Row) {
    let client_message_id = row.client_message_id.as_deref();
    let texts = row.from.len() + row.text.len() + client_message_id.map_or(0, str::len);
    out.reserve(2 + 7 * 4 + 4 * 8 + texts);
    out.put_i16(COLUMNS);
    put_i64(out, row.chat.get());
    put_i64(out, row.seq);
    put_i64(out, row.id.0);
    put_text(out, &row.from);
    put_text(out, &row.text);
    match client_message_id {
        Some(id) => put_text(out, id),
        None => out.put_i32(NULL),
    }
    put_i64(out, row.created_at.0);
}

fn put_i64(out: &mut BytesMut, value: i64) {
    out.put_i32(8);
    out.put_i64(value);
}

fn put_text(out: &mut BytesMut, value: &str) {
    out.put_i32(value.len() as i32);
    out.put_slice(value.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ChatId, MessageId, Timestamp, UserName};

    #[test]
    fn a_row_is_what_copy_expects() {
        let row = Row {
            chat: ChatId::new(1).unwrap(),
            seq: 2,
            id: MessageId(-3),
            from: UserName::new("bo").unwrap(),
            text: "é".into(),
            client_message_id: None,
            created_at: Timestamp(4),
        };
        let chunks: Vec<Bytes> = Encoder::new(std::slice::from_ref(&row)).collect();
        let bytes = chunks.concat();
        let mut expected = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\x00\x07".to_vec();
        for int in [1i64, 2, -3] {
            expected.extend([0, 0, 0, 8]);
            expected.extend(int.to_be_bytes());
        }
        expected.extend(b"\0\0\0\x02bo\0\0\0\x02\xc3\xa9\xff\xff\xff\xff\0\0\0\x08");
        expected.extend(4i64.to_be_bytes());
        expected.extend([0xff, 0xff]);
        assert_eq!(bytes, expected);

        let many = vec![row; 5_000];
        let chunks: Vec<Bytes> = Encoder::new(&many).collect();
        assert!(chunks.len() > 3);
        assert!(chunks.iter().all(|c| c.len() < CHUNK + 200));
    }
}
