//! Calls that change messages.

use std::{future::Future, time::Instant};

use super::{Calls, to_timestamp};
use crate::{
    auth::{Identity, Role},
    grpc::{status::Problem, validate},
    proto,
    telemetry::SpanRef,
};

/// Of each call: it is on its way to its chat when this returns, and its future is the
/// answer.
impl Calls {
    pub fn edit_message(
        &self,
        identity: &Identity,
        deadline: Instant,
        span: Option<SpanRef>,
        request: proto::EditMessageRequest,
    ) -> impl Future<Output = Result<proto::EditMessageResponse, Problem>> + use<> {
        let valid = validate::edit(request, self.limits());
        let changed = self.post(identity, deadline, span, valid);
        async move {
            let receipt = changed.await?;
            Ok(proto::EditMessageResponse {
                seq: receipt.seq,
                created_at: Some(to_timestamp(receipt.created_at)),
                duplicate: receipt.duplicate,
            })
        }
    }

    pub fn delete_message(
        &self,
        identity: &Identity,
        deadline: Instant,
        span: Option<SpanRef>,
        request: proto::DeleteMessageRequest,
    ) -> impl Future<Output = Result<proto::DeleteMessageResponse, Problem>> + use<> {
        let valid = validate::delete(request, identity.role == Role::Admin);
        let changed = self.post(identity, deadline, span, valid);
        async move {
            let receipt = changed.await?;
            Ok(proto::DeleteMessageResponse {
                seq: receipt.seq,
                created_at: Some(to_timestamp(receipt.created_at)),
                duplicate: receipt.duplicate,
            })
        }
    }

    pub fn react(
        &self,
        identity: &Identity,
        deadline: Instant,
        span: Option<SpanRef>,
        request: proto::ReactRequest,
    ) -> impl Future<Output = Result<proto::ReactResponse, Problem>> + use<> {
        let changed = self.post(identity, deadline, span, validate::react(request));
        async move {
            let receipt = changed.await?;
            Ok(proto::ReactResponse {
                seq: receipt.seq,
                created_at: Some(to_timestamp(receipt.created_at)),
                duplicate: receipt.duplicate,
            })
        }
    }
}
