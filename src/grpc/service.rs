use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, Request, Response};
use tokio_util::sync::CancellationToken;
use tonic_health::{ServingStatus, server::HealthReporter};

use super::{
    body::ResponseBody,
    calls::{Call, Calls},
    connect::{ChatStream, Entry},
    gate::{ConnectionPlace, Gate},
    measure::CallId,
    pass::Pass,
    request::RequestBody,
    status::{Limit, Problem},
    timeout::grpc_timeout,
    unary::{ok, refused, unary},
    validate::{bearer, size_of_headers, timeout},
    web::Origins,
};
use crate::{
    auth::{Ask, Authenticator, Identity, Logins, Token},
    proto,
    runtime::Spawner,
    telemetry::{SpanRef, TRACEPARENT, Telemetry},
};

pub(super) const CHAT: &str = "/chat_v1.ChatV1/";
const CONNECT_CHAT: &str = "/chat_v1.ChatV1/ConnectChat";
/// What follows [`CHAT`]: nobody is asked about a token for anything else.
const METHODS: [&str; 9] = [
    "SendMessage",
    "ConnectChat",
    "Create",
    "Get",
    "Delete",
    "ListMessages",
    "ListChats",
    "AddMembers",
    "RemoveMembers",
];

/// The longest request for a token, in bytes: a name and a password, or a token.
const MAX_LOGIN: usize = 8 * 1024;

/// The name that health checks ask for, besides the empty one.
const SERVICE_NAME: &str = "chat_v1.ChatV1";

/// The services behind every connection. Cheap to clone.
#[derive(Clone)]
pub struct Service(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) calls: Arc<Calls>,
    pub(super) guards: Guards,
    pub(super) telemetry: Telemetry,
    draining: AtomicBool,
    health: HealthReporter,
    pub(super) health_service: Ready,
    pub(super) reflection: Ready,
    pub(super) reflection_alpha: Ready,
}

/// Who decides which calls are answered.
#[derive(Debug, Clone)]
pub struct Guards {
    pub auth: Arc<dyn Authenticator>,
    pub gate: Arc<Gate>,
    /// How long a stream may go on while its token can't be checked again.
    pub patience: Duration,
    /// Bytes of a call's headers, as HTTP/2 counts them.
    pub max_header: usize,
    /// Passes logins on, where there is an Auth Service.
    pub logins: Option<Arc<Logins>>,
    /// Whose pages may call.
    pub origins: Origins,
}

/// A service that comes with tonic and needs no token.
pub(super) type Ready = Box<dyn Fn(Request<RequestBody>) -> ReadyFuture + Send + Sync>;
type ReadyFuture = Pin<Box<dyn Future<Output = Response<ResponseBody>> + Send>>;

fn ready<S>(service: S, ending: CancellationToken) -> Ready
where
    S: tower_service::Service<
            Request<RequestBody>,
            Response = Response<tonic::body::Body>,
            Error = Infallible,
            Future: Send + 'static,
        > + Clone
        + Send
        + Sync
        + 'static,
{
    Box::new(move |request| {
        let response = service.clone().call(request);
        let ending = ending.clone();
        Box::pin(async move {
            match response.await {
                Ok(response) => response.map(|body| ResponseBody::until(ending, body)),
                Err(never) => match never {},
            }
        })
    })
}

impl Service {
    /// `ending` ends the streams of the services that come with tonic: a watch
    /// of the server's health would outlive the server.
    ///
    /// # Errors
    /// If the compiled-in descriptors can't be read.
    pub fn new(
        calls: Arc<Calls>,
        guards: Guards,
        telemetry: Telemetry,
        ending: CancellationToken,
    ) -> Result<Self, tonic_reflection::server::Error> {
        let (health, health_service) = tonic_health::server::health_reporter();
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        Ok(Self(Arc::new(Shared {
            calls,
            guards,
            telemetry,
            draining: AtomicBool::new(false),
            health,
            health_service: ready(health_service, ending.clone()),
            reflection: ready(reflection().build_v1()?, ending.clone()),
            reflection_alpha: ready(reflection().build_v1alpha()?, ending),
        })))
    }

    /// Room for a connection, be it to turn it away.
    pub fn connection(&self) -> Option<ConnectionPlace> {
        self.0.guards.gate.connection()
    }

    /// Health says that the server serves.
    pub async fn set_serving(&self) {
        self.set_health(ServingStatus::Serving).await;
    }

    /// Health says that the server does not serve, and new calls are refused.
    pub async fn set_draining(&self) {
        self.0.draining.store(true, Ordering::Release);
        self.set_health(ServingStatus::NotServing).await;
    }

    async fn set_health(&self, status: ServingStatus) {
        for name in ["", SERVICE_NAME] {
            self.0.health.set_service_status(name, status).await;
        }
    }
}

impl Shared {
    pub(super) async fn chat_call(
        &self,
        request: Request<RequestBody>,
        core: usize,
        spawner: Spawner,
        id: CallId,
    ) -> Response<ResponseBody> {
        if self.draining.load(Ordering::Acquire) {
            return refused(&Problem::draining());
        }
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        if !METHODS.contains(&&path[CHAT.len()..]) {
            return refused(&Problem::no_such_method());
        }
        if size_of_headers(&head.headers) > self.guards.max_header {
            return refused(&Problem::headers_too_large(self.guards.max_header));
        }
        // Until there is an answer, or a stream.
        let _place = match self.guards.gate.call() {
            Ok(place) => place,
            Err(problem) => return refused(&problem),
        };
        // Who is asked about the token is asked by the call, if that has a span.
        let span = id.span.map(SpanRef::traceparent);
        let asked = self.identify(&head.headers, path, span.as_deref()).await;
        let (token, identity) = match asked {
            Ok(known) => known,
            Err(problem) => return refused(&problem),
        };
        let calls = &self.calls;
        let asked = grpc_timeout(&head.headers);
        let deadline = id.begun + timeout(asked, calls.limits().timeout);
        let (max, max_list) = (calls.limits().max_bytes(), calls.limits().max_list_bytes());
        let call = Call {
            identity,
            deadline,
            id,
        };
        match &path[CHAT.len()..] {
            "SendMessage" => match self.guards.gate.send(&call.identity.user) {
                Ok(()) => unary(body, max, deadline, |q| calls.send_message(call, q)).await,
                Err(retry) => refused(&Problem::over(Limit::UserSends, retry)),
            },
            "ConnectChat" => match self.entry(token, call) {
                Ok(entry) => {
                    let stream = ChatStream::open(calls.clone(), entry, body, core, spawner);
                    ok(ResponseBody::Chat(Box::new(stream)))
                }
                Err(problem) => refused(&problem),
            },
            "Create" => rare(unary(body, max_list, deadline, |q| calls.create(call, q))).await,
            "Get" => rare(unary(body, max, deadline, |q| calls.get(call, q))).await,
            "Delete" => rare(unary(body, max, deadline, |q| calls.delete(call, q))).await,
            "ListMessages" => {
                rare(unary(body, max, deadline, |q| calls.list_messages(call, q))).await
            }
            "ListChats" => rare(unary(body, max, deadline, |q| calls.list_chats(call, q))).await,
            "AddMembers" => {
                rare(unary(body, max_list, deadline, |q| {
                    calls.add_members(call, q)
                }))
                .await
            }
            "RemoveMembers" => {
                rare(unary(body, max_list, deadline, |q| {
                    calls.remove_members(call, q)
                }))
                .await
            }
            _ => refused(&Problem::no_such_method()),
        }
    }

    /// A call of the Auth Service, passed on; its own bounds hold as well.
    pub(super) async fn login_call(
        &self,
        method: &str,
        request: Request<RequestBody>,
    ) -> Response<ResponseBody> {
        if self.draining.load(Ordering::Acquire) {
            return refused(&Problem::draining());
        }
        let Some(logins) = &self.guards.logins else {
            return refused(&Problem::no_such_method());
        };
        let _place = match self.guards.gate.call() {
            Ok(place) => place,
            Err(problem) => return refused(&problem),
        };
        let deadline = self.calls.now() + self.calls.limits().timeout;
        let (max, body) = (MAX_LOGIN, request.into_body());
        match method {
            "Login" => {
                let call = async |q| Ok(logins.login(q).await?);
                unary(body, max, deadline, call).await
            }
            "GetRefreshToken" => {
                let call = async |q| Ok(logins.refresh_token(q).await?);
                unary(body, max, deadline, call).await
            }
            "GetAccessToken" => {
                let call = async |q| Ok(logins.access_token(q).await?);
                unary(body, max, deadline, call).await
            }
            _ => refused(&Problem::no_such_method()),
        }
    }

    async fn identify<'a>(
        &self,
        headers: &'a HeaderMap,
        method: &str,
        span: Option<&str>,
    ) -> Result<(Token<'a>, Arc<Identity>), Problem> {
        let token = Token(bearer(headers).ok_or_else(Problem::no_token)?);
        let given = || headers.get(&TRACEPARENT)?.to_str().ok();
        let ask = Ask {
            token,
            method,
            trace: span.or_else(given),
        };
        let identity = self.guards.auth.check(ask).answer().await?;
        Ok((token, identity))
    }

    /// What a stream needs of its caller, for as long as it lasts.
    fn entry(&self, token: Token<'_>, call: Call) -> Result<Entry, Problem> {
        let identity = call.identity;
        let Guards {
            auth,
            gate,
            patience,
            ..
        } = &self.guards;
        let place = gate.stream(&identity.user)?;
        let clock = self.calls.clock().clone();
        let pass = Pass::new(
            auth.clone(),
            clock,
            token,
            CONNECT_CHAT,
            &identity,
            *patience,
        );
        Ok(Entry {
            identity,
            pass,
            place,
            gate: gate.clone(),
            span: call.id.span,
        })
    }
}

/// Keeps a call that is made now and then from making every call's future as
/// large as its own.
pub(super) fn rare<F: Future>(call: F) -> Pin<Box<F>> {
    Box::pin(call)
}
