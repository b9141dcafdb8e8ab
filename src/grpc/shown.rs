use std::borrow::Cow;

use http::{HeaderMap, request::Parts};

use super::{measure::Measured, peer::Peer, status::Problem, validate::bearer};
use crate::{
    auth::{Ask, Asker, Token},
    telemetry::TRACEPARENT,
};

/// In bytes. Version 00 has 55 (W3C Trace Context, 3.2); later ones may append.
const MAX_TRACEPARENT: usize = 128;

/// What a call shows of who makes it.
pub struct Shown<'a> {
    pub token: Token<'a>,
    method: &'a str,
    trace: Option<Cow<'a, str>>,
    pub asker: Asker,
    pub headers: &'a HeaderMap,
}

impl<'a> Shown<'a> {
    pub fn of(head: &'a Parts, measured: &Measured, peer: &Peer) -> Result<Self, Problem> {
        // Who is asked about the token is asked by the call, if that has a span.
        let span = measured.id().span.map(|span| span.traceparent().into());
        // It is passed on to the Auth Service: at a length that a peer takes.
        let given = || {
            let text = head.headers.get(&TRACEPARENT)?.to_str().ok()?;
            (text.len() <= MAX_TRACEPARENT).then_some(text)
        };
        Ok(Self {
            token: Token(bearer(&head.headers).ok_or_else(Problem::no_token)?),
            method: head.uri.path(),
            trace: span.or_else(|| given().map(Cow::Borrowed)),
            asker: peer.newcomer.asker(),
            headers: &head.headers,
        })
    }

    pub fn ask(&self) -> Ask<'_> {
        Ask {
            token: self.token,
            method: self.method,
            trace: self.trace.as_deref(),
            asker: self.asker,
        }
    }
}
