//! Requests with something wrong with them, drawn by chance.

use bytes::Bytes;
use fastrand::Rng;
use http::{HeaderValue, Method};
use prost::Message as _;

use super::{
    cases::{CALLS, bad_fields, bad_posts, good},
    wire::{Ending, Raw, framed, prefixed},
};

/// A request with at least one thing wrong, so that nothing may change.
pub struct Case {
    pub raw: Raw,
    pub what: &'static str,
    /// The stream stays open after its refusal, which is a message.
    pub stream: bool,
    /// It only reads, and a reader may know more fields than we do.
    pub may_succeed: bool,
}

/// A tag of the wire type 7, which there is not.
const NO_SUCH_TYPE: u8 = 0x0f;

/// What cannot be read as protobuf. The last tag alone does not see to that: it
/// may be what a field before it holds.
fn no_protobuf(rng: &mut Rng) -> Vec<u8> {
    loop {
        let mut bytes: Vec<u8> = (0..rng.usize(..200)).map(|_| rng.u8(..)).collect();
        bytes.push(NO_SUCH_TYPE);
        if <()>::decode(&bytes[..]).is_err() {
            return bytes;
        }
    }
}

pub fn random_case(rng: &mut Rng) -> Case {
    let call = CALLS[rng.usize(..CALLS.len())];
    let chat = rng.i64(1..=2);
    let mut raw = Raw::call(call, "alice", &good(call, chat));
    let mut stream = false;
    let mut may_succeed = false;
    let what = match rng.u8(..18) {
        0 => {
            raw.body = vec![framed(&no_protobuf(rng))];
            "random bytes"
        }
        1 => {
            let mut bytes = good(call, chat);
            // A length-delimited field that is longer than what follows.
            bytes.extend([[0x0a, 0x12, 0x7a][rng.usize(..3)], rng.u8(2..120), b'x']);
            raw.body = vec![framed(&bytes)];
            "truncated protobuf"
        }
        2 => {
            let mut bytes = good(call, chat);
            let at = rng.usize(..=bytes.len());
            bytes.truncate(at);
            // Varints without an end, or of more than ten bytes.
            bytes.extend(std::iter::repeat_n(0xff, rng.usize(11..20)));
            raw.body = vec![framed(&bytes)];
            "endless varint"
        }
        3 => {
            // Field 1 is a number or has a length: these types are neither.
            let bytes = [
                &[8 | [1, 5, 3, 4][rng.usize(..4)]],
                &[0; 8][..],
                &[NO_SUCH_TYPE],
            ];
            raw.body = vec![framed(&bytes.concat())];
            "wrong wire type"
        }
        4 => {
            let bytes = good(call, chat);
            let length = bytes.len() as u32 + rng.u32(1..10_000);
            raw.body = vec![prefixed(0, length, &bytes)];
            "prefix longer than the message"
        }
        5 => {
            let bytes = good(call, chat);
            let frame = framed(&bytes);
            let cut = rng.usize(1..frame.len());
            raw.body = vec![frame.slice(..cut)];
            "cut anywhere"
        }
        6 => {
            raw.body = vec![prefixed(1, 0, &good(call, chat))];
            let unknown = http::HeaderValue::from_static("br");
            raw.headers.insert("grpc-encoding", unknown);
            "compressed"
        }
        7 => {
            raw.body = vec![prefixed(rng.u8(2..), rng.u32(..), &good(call, chat))];
            "unknown flags"
        }
        8 => {
            let length = [u32::MAX, 1 << 31, 64 << 20, 100_000][rng.usize(..4)];
            raw.body = vec![prefixed(0, length, &good(call, chat))];
            "huge length"
        }
        9 => {
            raw.body = (0..rng.usize(..3)).map(|_| Bytes::new()).collect();
            "no message"
        }
        10 if call != "ConnectChat" => {
            raw.body = vec![framed(&good(call, chat)); rng.usize(2..5)];
            "more than one message"
        }
        10 | 11 => {
            let posts = bad_posts();
            let (_, post) = &posts[rng.usize(..posts.len())];
            let first = framed(&good("ConnectChat", 1));
            raw = Raw::call("ConnectChat", "alice", &[]);
            // Some of these join, and are then followed by a second join.
            stream = true;
            if rng.bool() {
                raw.body = vec![framed(post), first];
                "post before join"
            } else {
                raw.body = vec![first, framed(post)];
                "bad post"
            }
        }
        12 => {
            let fields = bad_fields();
            let (call, _, message) = &fields[rng.usize(..fields.len())];
            raw = Raw::call(call, "alice", message);
            "bad field"
        }
        13 => bad_token(&mut raw, rng),
        14 => bad_http(&mut raw, rng),
        15 => {
            let bytes = framed(&good(call, chat));
            let cut = rng.usize(..=bytes.len());
            raw.body = vec![bytes.slice(..cut)];
            raw.ending = Ending::Reset;
            "reset in the middle"
        }
        16 => {
            // Chats of others, and none.
            let chat = [1, 2, 4, 99, i64::MAX][rng.usize(..5)];
            let call = [
                "Get",
                "Delete",
                "SendMessage",
                "ConnectChat",
                "ListMessages",
                "AddMembers",
                "RemoveMembers",
            ][rng.usize(..7)];
            raw = Raw::call(call, "mallory", &good(call, chat));
            "not a member"
        }
        _ => {
            may_succeed = ["Get", "ListMessages", "ListChats"].contains(&call);
            let timeouts = ["", "x", "-1S", "0n", "1n", "99999999H", "100000000S", "1"];
            let timeout = timeouts[rng.usize(..timeouts.len())];
            raw.headers
                .insert("grpc-timeout", HeaderValue::from_static(timeout));
            if !may_succeed {
                raw.body.push(Bytes::from_static(&[0, 0, 0]));
            }
            if call == "ConnectChat" {
                raw.body.remove(0);
            }
            "odd deadline"
        }
    };
    // These are known to be wrong before the request ends, so it need not.
    let early = [
        "random bytes",
        "truncated protobuf",
        "endless varint",
        "wrong wire type",
        "compressed",
        "unknown flags",
        "huge length",
        "bad post",
    ];
    if early.contains(&what) && rng.u8(..4) == 0 {
        raw.ending = Ending::Open;
    }
    if raw.ending != Ending::Reset && rng.u8(..4) == 0 {
        raw.body = raw
            .body
            .iter()
            .flat_map(|chunk| shatter(chunk, rng))
            .collect();
    }
    Case {
        raw,
        what,
        stream,
        may_succeed,
    }
}

/// The same bytes in many DATA frames.
fn shatter(chunk: &Bytes, rng: &mut Rng) -> Vec<Bytes> {
    let size = rng.usize(1..8);
    let at = (0..chunk.len()).step_by(size);
    at.map(|at| chunk.slice(at..chunk.len().min(at + size)))
        .collect()
}

fn bad_token(raw: &mut Raw, rng: &mut Rng) -> &'static str {
    let long = format!("Bearer {}", "x".repeat(1_000));
    let bad: [&[u8]; 9] = [
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer  alice",
        b"Basic YWxpY2U6eA==",
        b"alice",
        b"Bearer \xff\xfe",
        b"Bearer a\tb",
        long.as_bytes(),
    ];
    raw.headers.remove("authorization");
    if rng.u8(..5) > 0 {
        let value = HeaderValue::from_bytes(bad[rng.usize(..bad.len())]).unwrap();
        raw.headers.insert("authorization", value);
    }
    "bad token"
}

fn bad_http(raw: &mut Raw, rng: &mut Rng) -> &'static str {
    match rng.u8(..3) {
        0 => {
            raw.headers.remove("content-type");
            let kinds = [
                "",
                "text/html",
                "application/json",
                "application/grpc-web+json",
                "a/b;c=\"d",
            ];
            if rng.bool() {
                let kind = HeaderValue::from_static(kinds[rng.usize(..kinds.len())]);
                raw.headers.insert("content-type", kind);
            }
            "wrong content type"
        }
        1 => {
            let methods = [Method::GET, Method::PUT, Method::DELETE, Method::OPTIONS];
            raw.method = methods[rng.usize(..methods.len())].clone();
            "wrong method"
        }
        _ => {
            let paths = [
                "/",
                "/chat_v1.ChatV1/",
                "/chat_v1.ChatV1/create",
                "/chat_v1.ChatV1/Create/",
                "/chat_v1.ChatV1/%43reate",
                "/chat_v1.ChatV2/Create",
                "//chat_v1.ChatV1/Create",
                "/chat_v1.ChatV1/Create%00",
                "/grpc.health.v1.Health/Nothing",
                "/x?y=/z",
            ];
            raw.path = paths[rng.usize(..paths.len())].to_owned();
            "wrong path"
        }
    }
}
