use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic_health::{ServingStatus, server::HealthReporter};

use super::{
    body::ResponseBody,
    calls::Calls,
    gate::{ConnectionPlace, Gate, take},
    limit::Limit,
    open::{self, OpenCalls, OpenService},
    opening::Caller,
    peer::Peer,
    request::RequestBody,
    status::Problem,
    strangers::Work,
    unary::{refused, unary},
    web::Origins,
};
use crate::{
    auth::{AuthError, Authenticator, Logins},
    domain::Origin,
    proto,
    telemetry::Telemetry,
};

pub(super) const CHAT: &str = "/chat_v1.ChatV1/";

/// The longest request for a token, in bytes: a name and a password, or a token.
const MAX_LOGIN: usize = 8 * 1024;

/// Logins that are answered at a time. Who asks for one has shown no token, and could
/// otherwise hold all the places there are for calls.
const MOST_LOGINS: usize = 1_024;

/// Of one connection, also such whose requests have not come: a gateway may bring many
/// users on one.
const MOST_LOGINS_A_CONNECTION: usize = 128;

/// Their time is short.
const RETRY_LOGIN: Duration = Duration::from_secs(1);

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
    logins: Semaphore,
    pub(super) open_calls: Arc<OpenCalls>,
    pub(super) health_service: OpenService,
    pub(super) reflection: OpenService,
    pub(super) reflection_alpha: OpenService,
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
        let health_service = health_service.max_decoding_message_size(open::MAX_MESSAGE);
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                // What errors carry, for tools that show it.
                .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        };
        let reflection_alpha = reflection()
            .build_v1alpha()?
            .max_decoding_message_size(open::MAX_MESSAGE);
        let reflection = reflection()
            .build_v1()?
            .max_decoding_message_size(open::MAX_MESSAGE);
        let patience = calls.limits().timeout;
        Ok(Self(Arc::new(Shared {
            calls,
            guards,
            telemetry,
            draining: AtomicBool::new(false),
            health,
            logins: Semaphore::new(MOST_LOGINS),
            open_calls: Arc::default(),
            health_service: open::service(health_service, ending.clone(), patience),
            reflection: open::service(reflection, ending.clone(), patience),
            reflection_alpha: open::service(reflection_alpha, ending, patience),
        })))
    }

    pub fn gate(&self) -> &Arc<Gate> {
        &self.0.guards.gate
    }

    /// Room for a connection, be it to turn it away.
    pub fn connection(&self, origin: Origin) -> Option<ConnectionPlace> {
        self.0.guards.gate.connection(origin)
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
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// A call of the Auth Service, passed on; its own bounds hold as well.
    pub(super) async fn login_call(
        &self,
        method: &str,
        request: Request<RequestBody>,
        peer: Arc<Peer>,
    ) -> Response<ResponseBody> {
        if self.is_draining() {
            return refused(&Problem::draining());
        }
        let Some(logins) = &self.guards.logins else {
            return refused(&Problem::no_such_method());
        };
        let Some(_login) = Login::of(&peer) else {
            return refused(&self.over_logins());
        };
        let caller = Caller::new(&peer, None);
        let deadline = self.calls.now() + self.calls.limits().timeout;
        let (max, body) = (MAX_LOGIN, request.into_body());
        let from = peer.newcomer.origin().address();
        match method {
            "Login" => {
                let call = async |q| self.placed(logins.login(q, from)).await;
                unary(body, max, deadline, caller, call).await
            }
            "GetRefreshToken" => {
                let call = async |q| self.placed(logins.refresh_token(q, from)).await;
                unary(body, max, deadline, caller, call).await
            }
            "GetAccessToken" => {
                let call = async |q| self.placed(logins.access_token(q, from)).await;
                unary(body, max, deadline, caller, call).await
            }
            _ => refused(&Problem::no_such_method()),
        }
    }

    /// What a login is answered whose request is there.
    async fn placed<A>(
        &self,
        login: impl Future<Output = Result<A, AuthError>>,
    ) -> Result<A, Problem> {
        let login_place = self.logins.try_acquire();
        let _login = login_place.map_err(|_| self.over_logins())?;
        let _place = self.guards.gate.call()?;
        Ok(login.await?)
    }

    fn over_logins(&self) -> Problem {
        self.telemetry.metrics.refused(Limit::OpenCalls.reason());
        self.guards.gate.refuse(Limit::OpenCalls, RETRY_LOGIN)
    }
}

/// One login of a connection, until it is dropped.
struct Login {
    peer: Arc<Peer>,
    _work: Option<Work>,
}

impl Login {
    fn of(peer: &Arc<Peer>) -> Option<Self> {
        take(&peer.logins, MOST_LOGINS_A_CONNECTION).then(|| Self {
            peer: peer.clone(),
            _work: peer.begin_work(),
        })
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        self.peer.logins.fetch_sub(1, Ordering::AcqRel);
    }
}
