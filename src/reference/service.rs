use std::{num::NonZeroU32, sync::Arc, time::Duration};

use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};
use tokio::sync::Semaphore;
use tonic::{Code, Request, Response, Status, async_trait};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{
    ReferenceError,
    tokens::{self, Issuer},
    users::{User, Users},
};
use crate::{
    config::TokenServerConfig,
    proto::{
        access::{CheckRequest, access_v1_server::AccessV1},
        tokens::{
            GetAccessTokenRequest, GetAccessTokenResponse, GetRefreshTokenRequest,
            GetRefreshTokenResponse, LoginRequest, LoginResponse, auth_v1_server::AuthV1,
        },
    },
    runtime::{Spawner, Watched},
    telemetry::log_limited,
};

/// Passwords that are checked at a time; each takes 19 MiB and some 20 ms.
const LOGINS_AT_A_TIME: usize = 4;
/// Names whose guesses are counted before those of long ago are let go.
const NAMES: usize = 10_000;
const LONGEST_PASSWORD: usize = 1024;

/// Both of the Auth Service's interfaces.
pub struct Service {
    users: Watched<Users>,
    issuer: Issuer,
    logins: DefaultKeyedRateLimiter<String>,
    checking: Semaphore,
    spawner: Spawner,
}

impl Service {
    pub fn new(config: &TokenServerConfig, spawner: Spawner) -> Result<Self, ReferenceError> {
        let failed = |path: &std::path::Path, why: String| {
            ReferenceError::File(path.display().to_string(), why)
        };
        let secret = tokens::secret(&config.secret)
            .map_err(|error| failed(&config.secret, error.to_string()))?;
        let file = config.users.clone();
        let users = Watched::new(vec![file.clone()], move || Users::read(&file))
            .map_err(|why| failed(&config.users, why))?;
        let logins = NonZeroU32::new(config.max_logins).unwrap_or(NonZeroU32::MIN);
        Ok(Self {
            users,
            issuer: Issuer::new(&secret, config.access_ttl, config.refresh_ttl),
            logins: RateLimiter::keyed(Quota::per_minute(logins)),
            checking: Semaphore::new(LOGINS_AT_A_TIME),
            spawner,
        })
    }

    fn may_try(&self, name: &str) -> Result<(), Status> {
        if self.logins.len() > NAMES {
            self.logins.retain_recent();
        }
        self.logins
            .check_key(&name.to_owned())
            .map_err(|over| busy(over.wait_time_from(DefaultClock::default().now())))
    }

    /// The user that a refresh token is of, as the users' file has them now.
    fn refreshing(&self, token: &str) -> Result<(String, User), Status> {
        let claims = self.issuer.read_refresh(token);
        let claims = claims.ok_or_else(|| refused("the refresh token is not valid"))?;
        match self.users.get().get(&claims.username) {
            Some(user) => Ok((claims.username, user.clone())),
            None => Err(refused("the user does not exist any more")),
        }
    }
}

fn refused(why: &str) -> Status {
    Status::unauthenticated(why)
}

fn busy(wait: Duration) -> Status {
    let details = ErrorDetails::with_retry_info(Some(wait));
    Status::with_error_details(Code::ResourceExhausted, "too many logins", details)
}

fn signed(token: Option<String>) -> Result<String, Status> {
    token.ok_or_else(|| Status::internal("the token can't be signed"))
}

#[async_trait]
impl AuthV1 for Service {
    async fn login(
        &self,
        request: Request<LoginRequest>,
    ) -> Result<Response<LoginResponse>, Status> {
        let LoginRequest { name, password } = request.into_inner();
        let wrong = || refused("the name or the password is wrong");
        if crate::domain::UserName::new(&name).is_err() || password.len() > LONGEST_PASSWORD {
            return Err(wrong());
        }
        self.may_try(&name)?;
        let place = self.checking.try_acquire();
        let _place = place.map_err(|_| busy(Duration::from_secs(1)))?;
        let users: Arc<Users> = self.users.get();
        let tried = name.clone();
        let user = self.spawner.compute(move || users.login(&tried, &password));
        let user = user.await.flatten().ok_or_else(wrong)?;
        log_limited!(INFO, user = %name, "logged in");
        let refresh_token = signed(self.issuer.refresh(&name, user.admin))?;
        Ok(Response::new(LoginResponse { refresh_token }))
    }

    async fn get_refresh_token(
        &self,
        request: Request<GetRefreshTokenRequest>,
    ) -> Result<Response<GetRefreshTokenResponse>, Status> {
        let (name, user) = self.refreshing(&request.into_inner().refresh_token)?;
        let refresh_token = signed(self.issuer.refresh(&name, user.admin))?;
        Ok(Response::new(GetRefreshTokenResponse { refresh_token }))
    }

    async fn get_access_token(
        &self,
        request: Request<GetAccessTokenRequest>,
    ) -> Result<Response<GetAccessTokenResponse>, Status> {
        let (name, user) = self.refreshing(&request.into_inner().refresh_token)?;
        let access_token = signed(self.issuer.access(&name, user.admin))?;
        Ok(Response::new(GetAccessTokenResponse { access_token }))
    }
}

#[async_trait]
impl AccessV1 for Service {
    /// Any user may call anything: what of a chat is whose, the chat server
    /// knows. A user who left the file may call nothing any more.
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<()>, Status> {
        let bearer = request.metadata().get("authorization");
        let token = bearer
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or_else(|| refused("metadata authorization: must be \"Bearer <token>\""))?;
        let claims = self.issuer.read_access(token);
        let claims = claims.ok_or_else(|| refused("the access token is not valid"))?;
        match self.users.get().get(&claims.username) {
            Some(user) if user.admin || claims.role == "0" => Ok(Response::new(())),
            Some(_) => Err(refused("the user's role has changed")),
            None => Err(refused("the user does not exist any more")),
        }
    }
}
