use std::{net::IpAddr, sync::Arc};

use http::HeaderMap;
use tonic::{Code, Request, Response, Status, async_trait};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{
    ReferenceError,
    bounds::{Bounds, Over},
    tokens::{self, Claims, Issuer, Lives},
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

const LONGEST_PASSWORD: usize = 1024;

/// Where a call comes from; every request has it among its extensions.
#[derive(Debug, Clone, Copy)]
pub struct From(pub IpAddr);

/// Both of the Auth Service's interfaces.
pub struct Service {
    users: Watched<Users>,
    issuer: Issuer,
    bounds: Bounds,
    /// Whose word counts for where a call comes from.
    proxies: Vec<IpAddr>,
    spawner: Spawner,
}

impl Service {
    pub fn new(config: &TokenServerConfig, spawner: Spawner) -> Result<Self, ReferenceError> {
        let failed = |path: &std::path::Path, why: String| {
            ReferenceError::File(crate::config::shown(path), why)
        };
        let secret = tokens::secret(&config.secret)
            .map_err(|error| failed(&config.secret, error.to_string()))?;
        let file = config.users.clone();
        let users = Watched::new(vec![file.clone()], move || Users::read(&file))
            .map_err(|why| failed(&config.users, why))?;
        let lives = Lives {
            access: config.access_ttl,
            refresh: config.refresh_ttl,
            login: config.login_ttl,
        };
        Ok(Self {
            users,
            issuer: Issuer::new(&secret, lives),
            bounds: Bounds::new(config.max_logins),
            proxies: config.login_proxies.clone(),
            spawner,
        })
    }

    /// Where a call comes from: the other side of the connection or, if that is a
    /// proxy, the last address that the proxy has noted.
    pub fn origin(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let peer = peer.to_canonical();
        if !self.proxies.contains(&peer) {
            return peer;
        }
        let noted = headers.get_all("x-forwarded-for").iter().next_back();
        let last = noted.and_then(|noted| noted.to_str().ok()?.rsplit(',').next());
        last.and_then(|last| last.trim().parse().ok())
            .unwrap_or(peer)
    }

    /// The user that a refresh token is of, as the users' file has them now.
    fn refreshing(&self, token: &str) -> Result<(Claims, User), Status> {
        let claims = self.issuer.read_refresh(token);
        let claims = claims.ok_or_else(|| refused("the refresh token is not valid"))?;
        let user = self.holder(&claims)?;
        Ok((claims, user))
    }

    /// The user whom a token was given to, if the name and the password are theirs
    /// still.
    fn holder(&self, claims: &Claims) -> Result<User, Status> {
        let users = self.users.get();
        let user = users.get(&claims.username);
        let user = user.ok_or_else(|| refused("the user does not exist any more"))?;
        if claims.binding != self.issuer.binding(&claims.username, user) {
            return Err(refused(
                "the token is of another password or of an earlier release: log in again",
            ));
        }
        Ok(user.clone())
    }
}

fn refused(why: &str) -> Status {
    Status::unauthenticated(why)
}

fn busy(Over(wait): Over) -> Status {
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
        let from = request.extensions().get::<From>().copied();
        let From(from) = from.ok_or_else(|| Status::internal("the caller's address is missing"))?;
        let LoginRequest { name, password } = request.into_inner();
        let wrong = || refused("the name or the password is wrong");
        if crate::domain::UserName::new(&name).is_err() || password.len() > LONGEST_PASSWORD {
            return Err(wrong());
        }
        let turn = self.bounds.turn(from, &name).await.map_err(busy)?;
        let users: Arc<Users> = self.users.get();
        let tried = name.clone();
        let user = self.spawner.compute(move || {
            let user = users.login(&tried, &password);
            // A caller that goes away meanwhile does not make room for another.
            drop(turn);
            user
        });
        let user = user.await.flatten().ok_or_else(wrong)?;
        log_limited!(INFO, user = %name, "logged in");
        let end = self.issuer.end();
        let refresh_token = signed(self.issuer.refresh(&name, &user, end))?;
        Ok(Response::new(LoginResponse { refresh_token }))
    }

    async fn get_refresh_token(
        &self,
        request: Request<GetRefreshTokenRequest>,
    ) -> Result<Response<GetRefreshTokenResponse>, Status> {
        let (claims, user) = self.refreshing(&request.into_inner().refresh_token)?;
        let token = self.issuer.refresh(&claims.username, &user, claims.end);
        let refresh_token = signed(token)?;
        Ok(Response::new(GetRefreshTokenResponse { refresh_token }))
    }

    async fn get_access_token(
        &self,
        request: Request<GetAccessTokenRequest>,
    ) -> Result<Response<GetAccessTokenResponse>, Status> {
        let (claims, user) = self.refreshing(&request.into_inner().refresh_token)?;
        let token = self.issuer.access(&claims.username, &user, claims.end);
        let access_token = signed(token)?;
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
        let user = self.holder(&claims)?;
        match user.admin || claims.role == "0" {
            true => Ok(Response::new(())),
            false => Err(refused("the user's role has changed")),
        }
    }
}
