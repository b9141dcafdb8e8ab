use std::{future::Future, net::IpAddr, time::Duration};

use tonic::{Code, Request, Response, Status, transport::Channel};

use super::{AccessError, AccessSettings, AuthError, answers, service};
use crate::{
    proto::tokens::{
        GetAccessTokenRequest, GetAccessTokenResponse, GetRefreshTokenRequest,
        GetRefreshTokenResponse, LoginRequest, LoginResponse, auth_v1_client::AuthV1Client,
    },
    runtime::Spawner,
};

/// Calls under way at a time; more wait, within their deadline.
const MOST_CALLS: usize = 64;

/// The Auth Service's side that gives tokens out, for browsers: they can't call
/// it, since it does not speak gRPC-Web. On a connection of its own, so that
/// logins never hold up checks.
#[derive(Debug)]
pub struct Logins {
    client: AuthV1Client<Channel>,
    timeout: Duration,
}

impl Logins {
    /// Connects at the first call; `spawner` runs the connection.
    ///
    /// # Errors
    /// If the address or the CA's certificate makes no sense.
    pub fn new(settings: AccessSettings, spawner: Spawner) -> Result<Self, AccessError> {
        let timeout = settings.timeout;
        let endpoint = service::endpoint(settings, spawner)?;
        let channel = endpoint.concurrency_limit(MOST_CALLS).connect_lazy();
        Ok(Self {
            client: AuthV1Client::new(channel),
            timeout,
        })
    }

    /// A refresh token for a name and its password.
    ///
    /// # Errors
    /// If the Auth Service refuses, or can't be asked.
    pub async fn login(
        &self,
        request: LoginRequest,
        from: IpAddr,
    ) -> Result<LoginResponse, AuthError> {
        let mut client = self.client.clone();
        self.answer(client.login(coming(request, from))).await
    }

    /// A new refresh token for one that has not expired.
    ///
    /// # Errors
    /// If the Auth Service refuses, or can't be asked.
    pub async fn refresh_token(
        &self,
        request: GetRefreshTokenRequest,
        from: IpAddr,
    ) -> Result<GetRefreshTokenResponse, AuthError> {
        let mut client = self.client.clone();
        let request = coming(request, from);
        self.answer(client.get_refresh_token(request)).await
    }

    /// An access token for a refresh token.
    ///
    /// # Errors
    /// If the Auth Service refuses, or can't be asked.
    pub async fn access_token(
        &self,
        request: GetAccessTokenRequest,
        from: IpAddr,
    ) -> Result<GetAccessTokenResponse, AuthError> {
        let mut client = self.client.clone();
        let request = coming(request, from);
        self.answer(client.get_access_token(request)).await
    }

    async fn answer<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, AuthError> {
        let answer = tokio::time::timeout(self.timeout, call).await;
        let answer = answer.map_err(|_| AuthError::Unavailable)?;
        answer
            .map(Response::into_inner)
            .map_err(|status| match status.code() {
                Code::NotFound | Code::InvalidArgument => {
                    AuthError::Invalid("the Auth Service refuses it")
                }
                _ => answers::meaning(&status),
            })
    }
}

/// Notes where a request comes from, so that the Auth Service can bound guesses by
/// the address of whoever guesses.
fn coming<T>(request: T, from: IpAddr) -> Request<T> {
    let mut request = Request::new(request);
    if let Ok(from) = from.to_string().parse() {
        request.metadata_mut().insert("x-forwarded-for", from);
    }
    request
}
