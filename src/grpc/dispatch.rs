//! Which protocol a request speaks, and whose call it is.

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;

use super::{
    answer::{Answer, at_once},
    body::ResponseBody,
    request::RequestBody,
    service::{CHAT, Service},
    status::Problem,
    unary::refused,
    web::{self, Form},
};
use crate::runtime::Spawner;

const AUTH: &str = "/auth_v1.AuthV1/";
const HEALTH: &str = "/grpc.health.v1.Health/";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/";
const REFLECTION_ALPHA: &str = "/grpc.reflection.v1alpha.ServerReflection/";

impl Service {
    /// Answers one request; `core` and `spawner` are those of its connection.
    pub fn answer(&self, request: Request<Incoming>, core: usize, spawner: &Spawner) -> Answer {
        if is_grpc(&request) && request.version() == Version::HTTP_2 {
            return self.call(request.map(RequestBody::plain), core, spawner);
        }
        Box::pin(self.clone().answer_web(request, core, spawner.clone()))
    }

    /// Answers what is not gRPC, but may be gRPC-Web.
    async fn answer_web(
        self,
        request: Request<Incoming>,
        core: usize,
        spawner: Spawner,
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
        let request = request.map(match form {
            Form::Binary => RequestBody::plain,
            Form::Text => RequestBody::base64,
        });
        let response = self.call(request, core, &spawner).await;
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

    fn call(&self, request: Request<RequestBody>, core: usize, spawner: &Spawner) -> Answer {
        let shared = &self.0;
        let path = request.uri().path();
        if path.starts_with(CHAT) {
            return self.answer_call(request, core, spawner);
        }
        if path.starts_with(HEALTH) {
            return (shared.health_service)(request);
        }
        if path.starts_with(REFLECTION) {
            return (shared.reflection)(request);
        }
        if path.starts_with(REFLECTION_ALPHA) {
            return (shared.reflection_alpha)(request);
        }
        match path.strip_prefix(AUTH) {
            Some(method) => {
                let (service, method) = (self.clone(), method.to_owned());
                Box::pin(async move { service.0.login_call(&method, request).await })
            }
            None => at_once(refused(&Problem::no_such_method())),
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
