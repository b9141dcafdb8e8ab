//! Calls that post messages, or change them.

use std::sync::Arc;

use super::{Admitted, Answer};
use crate::{
    auth::Identity,
    grpc::{limit::Limit, opening::Caller, service::Shared, status::Problem},
    telemetry::Method,
};

impl Shared {
    /// Answers a call that posts a message or changes one, which counts alike.
    pub(super) fn answer_post(
        &self,
        admitted: Admitted,
        identity: Arc<Identity>,
        caller: Caller,
    ) -> Answer {
        if let Err(retry) = self.guards.gate.send(&identity.user) {
            return admitted.refuse(&Problem::over(Limit::UserSends, retry));
        }
        let (calls, max) = (self.calls.clone(), self.calls.limits().max_bytes());
        let (deadline, span) = (admitted.deadline, admitted.measured.id().span);
        match admitted.measured.method() {
            Method::SEND => admitted.answer(max, caller, move |request| {
                calls.send_message(&identity, deadline, span, request)
            }),
            Method::EDIT_MESSAGE => admitted.answer(max, caller, move |request| {
                calls.edit_message(&identity, deadline, span, request)
            }),
            Method::DELETE_MESSAGE => admitted.answer(max, caller, move |request| {
                calls.delete_message(&identity, deadline, span, request)
            }),
            _ => admitted.answer(max, caller, move |request| {
                calls.react(&identity, deadline, span, request)
            }),
        }
    }
}
