//! A call of the chat service, from its headers to its answer.
//!
//! What needs no waiting is done at once, while the headers are at hand. The
//! future that is left has room for the rest only, a quarter of what it would have
//! with all of it: hundreds of calls are under way at a time, and their size is
//! what they cost the caches.

mod posts;

use std::{future::ready, sync::Arc, time::Instant};

use futures_util::future::BoxFuture;
use http::{Request, Response, request::Parts};
use prost::Message;

use super::{
    body::ResponseBody,
    calls::Call,
    connect::{ChatStream, Entry},
    counted::Counted,
    encoding,
    measure::Measured,
    opening::Caller,
    pass::Pass,
    peer::{Peer, StreamPlace},
    request::RequestBody,
    service::{Guards, Service, Shared},
    shown::Shown,
    status::Problem,
    strangers::Work,
    timeout::grpc_timeout,
    unary::{Kept, Reply, encode, refused, unary},
    untaken::Untaken,
    validate::{size_of_headers, timeout},
};
use crate::{
    auth::{AuthResult, Identity},
    domain::{UserName, packed},
    proto::{ListChatsRequest, ListMessagesRequest},
    runtime::Spawner,
    telemetry::{Method, SpanRef},
};

/// The answer to a request, once it is there.
pub type Answer = BoxFuture<'static, Response<ResponseBody>>;

/// A call that is let in as far as can be told without its caller.
struct Admitted {
    measured: Measured,
    deadline: Instant,
    body: RequestBody,
    /// Keeps the connection until the call is answered.
    work: Option<Work>,
}

/// Where an answer has its room until it is taken.
struct Keep {
    untaken: Arc<Untaken>,
    user: UserName,
    /// The client reads gzip, and this compresses elsewhere.
    gzip: Option<Spawner>,
}

impl Service {
    /// Answers a call of the chat service.
    pub(super) fn answer_call(&self, request: Request<RequestBody>, peer: &Arc<Peer>) -> Answer {
        let shared = &self.0;
        let (head, body) = request.into_parts();
        let measured = shared.measure(&head);
        if let Err(problem) = shared.admit(&head, measured.method()) {
            return at_once(measured.ended(refused(&problem)));
        }
        let asked = grpc_timeout(&head.headers);
        let deadline = measured.id().begun + timeout(asked, shared.calls.limits().timeout);
        let call = Admitted {
            measured,
            deadline,
            body,
            work: peer.begin_work(),
        };
        let shown = match Shown::of(&head, &call.measured, peer) {
            Ok(shown) => shown,
            Err(problem) => return call.refuse(&problem),
        };
        match shared.guards.auth.known(shown.ask()) {
            Some(known) => shared.answer_caller(known, &shown, call, peer),
            None => Box::pin(self.clone().ask_and_answer(head, call, peer.clone())),
        }
    }

    /// Answers a call whose caller somebody has to be asked about.
    async fn ask_and_answer(
        self,
        head: Parts,
        call: Admitted,
        peer: Arc<Peer>,
    ) -> Response<ResponseBody> {
        let shared = &self.0;
        let shown = match Shown::of(&head, &call.measured, &peer) {
            Ok(shown) => shown,
            Err(problem) => return call.refuse(&problem).await,
        };
        let waiting = match Caller::new(&peer, None).wait() {
            Ok(waiting) => waiting,
            Err(problem) => return call.refuse(&problem).await,
        };
        let found = shared.guards.auth.check(shown.ask()).await;
        drop(waiting);
        let answer = shared.answer_caller(found, &shown, call, &peer);
        answer.await
    }
}

impl Shared {
    /// What every call has to keep to, whoever makes it.
    fn admit(&self, head: &Parts, method: Method) -> Result<(), Problem> {
        if self.is_draining() {
            return Err(Problem::draining());
        }
        // Nobody is asked about a token for anything else.
        if method == Method::OTHER {
            return Err(Problem::no_such_method());
        }
        let max_header = self.guards.max_header;
        if size_of_headers(&head.headers) > max_header {
            return Err(Problem::headers_too_large(max_header));
        }
        self.guards.gate.has_room()
    }

    fn answer_caller(
        &self,
        checked: AuthResult,
        shown: &Shown<'_>,
        mut admitted: Admitted,
        peer: &Arc<Peer>,
    ) -> Answer {
        let identity = match checked {
            Ok(identity) => identity,
            Err(error) => return admitted.refuse(&error.into()),
        };
        peer.is_known(&identity);
        admitted.measured.is_proven();
        let (calls, limits) = (self.calls.clone(), self.calls.limits());
        let (max, max_list) = (limits.max_bytes(), limits.max_list_bytes());
        let id = admitted.measured.id();
        let caller = Caller::new(peer, Some(&identity));
        let method = admitted.measured.method();
        if let Method::SEND | Method::EDIT_MESSAGE | Method::DELETE_MESSAGE | Method::REACT = method
        {
            return self.answer_post(admitted, identity, caller);
        }
        if method == Method::CONNECT {
            return match self.entry(shown, caller, identity, id.span) {
                Ok(entry) => {
                    let packs = entry.packs;
                    let Admitted { measured, body, .. } = admitted;
                    let stream = ChatStream::open(calls, entry, body);
                    at_once(measured.ended(stream.respond(packs)))
                }
                Err(problem) => admitted.refuse(&problem),
            };
        }
        let call = Call {
            identity,
            deadline: admitted.deadline,
            id: id.clone(),
            spawner: peer.spawner.clone(),
        };
        let keep = Keep {
            untaken: self.guards.gate.untaken.clone(),
            user: call.identity.user.clone(),
            gzip: encoding::reads_gzip(shown.headers).then(|| peer.spawner.clone()),
        };
        let largest = calls.limits().largest();
        match method {
            Method::CREATE => {
                admitted.answer_counted(max_list, caller, keep.user, |q| calls.create(call, q))
            }
            Method::GET => admitted.answer_kept(
                max,
                caller,
                keep,
                move |_| largest.chat,
                |q| calls.get(call, q),
            ),
            Method::DELETE => {
                admitted.answer_counted(max, caller, keep.user, |q| calls.delete(call, q))
            }
            Method::LIST_MESSAGES => {
                let weigh = move |q: &ListMessagesRequest| largest.messages(q.page_size);
                admitted.answer_kept(max, caller, keep, weigh, |q| calls.list_messages(call, q))
            }
            Method::LIST_CHATS => {
                let weigh = move |q: &ListChatsRequest| largest.chats(q.page_size);
                admitted.answer_kept(max, caller, keep, weigh, |q| calls.list_chats(call, q))
            }
            Method::ADD_MEMBERS => {
                let add = |q| calls.add_members(call, q);
                admitted.answer_kept(max_list, caller, keep, move |_| largest.chat, add)
            }
            Method::REMOVE_MEMBERS => {
                let remove = |q| calls.remove_members(call, q);
                admitted.answer_kept(max_list, caller, keep, move |_| largest.chat, remove)
            }
            _ => admitted.refuse(&Problem::no_such_method()),
        }
    }

    /// What a stream needs of its caller, for as long as it lasts.
    fn entry(
        &self,
        shown: &Shown<'_>,
        caller: Caller,
        identity: Arc<Identity>,
        span: Option<SpanRef>,
    ) -> Result<Entry, Problem> {
        const CONNECT_CHAT: &str = "/chat_v1.ChatV1/ConnectChat";
        let Guards {
            auth,
            gate,
            patience,
            ..
        } = &self.guards;
        gate.read(&identity.user, 0)?;
        let (place, share) = StreamPlace::take(&caller.peer, &identity.user)?;
        let clock = self.calls.clock().clone();
        let (auth, patience) = (auth.clone(), *patience);
        let (token, from) = (shown.token, shown.asker.from);
        let pass = Pass::new(auth, clock, token, from, CONNECT_CHAT, &identity, patience);
        Ok(Entry {
            caller,
            identity,
            pass,
            place,
            share,
            span,
            packs: encoding::reads_gzip(shown.headers),
        })
    }
}

impl Admitted {
    fn refuse(self, problem: &Problem) -> Answer {
        at_once(self.measured.ended(refused(problem)))
    }

    /// Reads the request, of at most `max` bytes, and answers it.
    fn answer<Q, A, F>(
        self,
        max: usize,
        caller: Caller,
        answer: impl FnOnce(Q) -> F + Send + 'static,
    ) -> Answer
    where
        Q: Message + Default + 'static,
        A: Reply + 'static,
        F: Future<Output = Result<A, Problem>> + Send + 'static,
    {
        Box::pin(async move {
            let gate = caller.peer.gate.clone();
            let placed = |request| async move {
                let _place = gate.call()?;
                answer(request).await
            };
            let response = unary(self.body, max, self.deadline, caller, placed).await;
            drop(self.work);
            self.measured.ended(response)
        })
    }

    /// The same for a request that counts among its user's.
    fn answer_counted<Q, A, F>(
        self,
        max: usize,
        caller: Caller,
        user: UserName,
        answer: impl FnOnce(Q) -> F + Send + 'static,
    ) -> Answer
    where
        Q: Message + Counted + Default + 'static,
        A: Reply + 'static,
        F: Future<Output = Result<A, Problem>> + Send + 'static,
    {
        let gate = caller.peer.gate.clone();
        self.answer(max, caller, move |request: Q| async move {
            request.count(&gate, &user)?;
            answer(request).await
        })
    }

    /// The same for an answer that may be large: it has room before it is asked for.
    fn answer_kept<Q, A, F>(
        self,
        max: usize,
        caller: Caller,
        keep: Keep,
        weigh: impl FnOnce(&Q) -> usize + Send + 'static,
        answer: impl FnOnce(Q) -> F + Send + 'static,
    ) -> Answer
    where
        Q: Message + Counted + Default + 'static,
        A: Message + 'static,
        F: Future<Output = Result<A, Problem>> + Send + 'static,
    {
        let deadline = self.deadline.into();
        let user = keep.user.clone();
        self.answer_counted(max, caller, user, move |request: Q| async move {
            let room = keep.untaken.room(&keep.user, weigh(&request));
            let room = tokio::time::timeout_at(deadline, room).await;
            let room = room.map_err(|_| Problem::untaken())?;
            let message = encode(&answer(request).await?);
            let spawner = keep.gzip.filter(|_| encoding::is_worth_it(&message));
            // A large page takes tens of milliseconds. Where others are at it already, it
            // goes out as it is.
            let turn = keep.untaken.compressing.clone().try_acquire_owned();
            let (Some(spawner), Ok(turn)) = (spawner, turn) else {
                return Ok(Kept::new(message, room));
            };
            // It goes on when the caller is gone, and has its room and its turn till then.
            let compress = move || {
                let message = packed(&message).unwrap_or(message);
                drop(turn);
                Kept::new(message, room)
            };
            spawner.block(compress).await.ok_or_else(Problem::draining)
        })
    }
}

/// An answer that is there already.
pub fn at_once(response: Response<ResponseBody>) -> Answer {
    Box::pin(ready(response))
}
