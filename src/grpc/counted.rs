//! What a request counts for among those that its user may make a second.

use super::{gate::Gate, status::Problem};
use crate::{
    domain::UserName,
    proto::{
        AddMembersRequest, CreateRequest, DeleteRequest, GetRequest, ListChatsRequest,
        ListMessagesRequest, RemoveMembersRequest,
    },
};

/// As much as it costs: a change by the names in it, a read by the size of its page.
pub trait Counted {
    /// # Errors
    /// If that is too much for now.
    fn count(&self, gate: &Gate, user: &UserName) -> Result<(), Problem>;
}

impl Counted for CreateRequest {
    fn count(&self, gate: &Gate, user: &UserName) -> Result<(), Problem> {
        let info = self.info.as_ref();
        gate.change(user, info.map_or(0, |info| info.usernames.len()))
    }
}

impl Counted for DeleteRequest {
    fn count(&self, gate: &Gate, user: &UserName) -> Result<(), Problem> {
        gate.change(user, 0)
    }
}

impl Counted for AddMembersRequest {
    fn count(&self, gate: &Gate, user: &UserName) -> Result<(), Problem> {
        gate.change(user, self.usernames.len())
    }
}

impl Counted for RemoveMembersRequest {
    fn count(&self, gate: &Gate, user: &UserName) -> Result<(), Problem> {
        gate.change(user, self.usernames.len())
    }
}

impl Counted for GetRequest {
    fn count(&self, gate: &Gate, user: &UserName) -> Result<(), Problem> {
        gate.read(user, 0)
    }
}

impl Counted for ListMessagesRequest {
    fn count(&self, gate: &Gate, user: &UserName) -> Result<(), Problem> {
        gate.read(user, self.page_size)
    }
}

impl Counted for ListChatsRequest {
    fn count(&self, gate: &Gate, user: &UserName) -> Result<(), Problem> {
        gate.read(user, self.page_size)
    }
}
