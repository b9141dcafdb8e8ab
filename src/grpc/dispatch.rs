//! Which protocol a request speaks, and whose call it is.

use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;

use super::{
    answer::{Answer, at_once},
    body::ResponseBody,
    encoding::Encoding,
    limit::Limit,
    open::{HEALTH, OpenService, REFLECTION, REFLECTION_ALPHA},
    peer::Peer,
    request::RequestBody,
    service::{CHAT, Service},
    status::Problem,
    unary::refused,
    web::{self, Form},
};

const AUTH: &str = "/auth_v1.AuthV1/";

impl Service {
    /// Answers one request of `peer`.
    pub fn answer(&self, request: Request<Incoming>, peer: &Arc<Peer>) -> Answer {
        if is_grpc(&request) && request.version() == Version::HTTP_2 {
            // Only a browser names an origin, and it may send any content type.
            if let Err(problem) = self.0.guards.origins.check(request.headers()) {
                return at_once(refused(&problem));
            }
            let encoding = Encoding::of(request.headers());
            let request = request.map(|body| RequestBody::plain(body, encoding));
            return self.call(request, peer);
        }
        Box::pin(self.clone().answer_web(request, peer.clone()))
    }

    /// Answers what is not gRPC, but may be gRPC-Web.
    async fn answer_web(
        self,
        request: Request<Incoming>,
        peer: Arc<Peer>,
    ) -> Response<ResponseBody> {
        let origins = &self.0.guards.origins;
        if web::is_preflight(&request) {
            return web::preflight(origins, request.headers());
        }
        let form = match form(&request) {
            Ok(form) => form,
            Err(status) => {
                let mut response = Response::new(ResponseBody::Empty);
                *response.status_mut() = status;
                return response;
            }
        };
        let origin = match origins.check(request.headers()) {
            Ok(origin) => origin,
            Err(problem) => return web::respond(refused(&problem), form, None),
        };
        let encoding = Encoding::of(request.headers());
        let request = request.map(|body| match form {
            Form::Binary => RequestBody::plain(body, encoding),
            Form::Text => RequestBody::base64(body),
        });
        let response = self.call(request, &peer).await;
        web::respond(response, form, origin)
    }

    /// Answers a request with a refusal, in the form that it asks for.
    pub fn turn_away(
        &self,
        request: &Request<Incoming>,
        problem: &Problem,
    ) -> Response<ResponseBody> {
        let answer = refused(problem);
        match form(request) {
            Ok(form) => {
                let origin = self.0.guards.origins.check(request.headers());
                web::respond(answer, form, origin.ok().flatten())
            }
            Err(_) => answer,
        }
    }

    fn call(&self, request: Request<RequestBody>, peer: &Arc<Peer>) -> Answer {
        let shared = &self.0;
        let path = request.uri().path();
        if path.starts_with(CHAT) {
            return self.answer_call(request, peer);
        }
        if path.starts_with(HEALTH) {
            return self.open_call(&shared.health_service, request, peer);
        }
        if path.starts_with(REFLECTION) {
            return self.open_call(&shared.reflection, request, peer);
        }
        if path.starts_with(REFLECTION_ALPHA) {
            return self.open_call(&shared.reflection_alpha, request, peer);
        }
        match path.strip_prefix(AUTH) {
            Some(method) => {
                let (service, method) = (self.clone(), method.to_owned());
                let peer = peer.clone();
                Box::pin(async move { service.0.login_call(&method, request, peer).await })
            }
            None => at_once(refused(&Problem::no_such_method())),
        }
    }

    /// A call that needs no token.
    fn open_call(
        &self,
        service: &OpenService,
        request: Request<RequestBody>,
        peer: &Arc<Peer>,
    ) -> Answer {
        let shared = &self.0;
        match shared.open_calls.take(request.uri().path(), peer) {
            Ok(place) => service(request, place),
            Err(problem) => {
                shared.telemetry.metrics.refused(Limit::OpenCalls.reason());
                at_once(refused(&problem))
            }
        }
    }
}

fn content_type<B>(request: &Request<B>) -> &[u8] {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.map_or(&[], HeaderValue::as_bytes)
}

/// With or without a subtype (`+proto`) and parameters; `application/grpc-web`
/// is another protocol.
fn is_grpc<B>(request: &Request<B>) -> bool {
    let rest = content_type(request).strip_prefix(b"application/grpc");
    let kind = rest.is_some_and(|rest| matches!(rest, [] | [b'+' | b';' | b' ', ..]));
    kind && request.method() == Method::POST
}

/// The form of a gRPC-Web call; else what HTTP is to say.
fn form<B>(request: &Request<B>) -> Result<Form, StatusCode> {
    if request.method() != Method::POST {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    if is_grpc(request) {
        return Err(StatusCode::HTTP_VERSION_NOT_SUPPORTED);
    }
    Form::of(content_type(request)).ok_or(StatusCode::UNSUPPORTED_MEDIA_TYPE)
}
