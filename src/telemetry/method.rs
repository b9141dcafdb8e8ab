use super::names::METHODS;

/// The method of a call, as a number into [`METHODS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method(pub(super) u8);

impl Method {
    pub const SEND: Self = Self(0);
    pub const CONNECT: Self = Self(1);
    pub const CREATE: Self = Self(2);
    pub const GET: Self = Self(3);
    pub const DELETE: Self = Self(4);
    pub const LIST_MESSAGES: Self = Self(5);
    pub const LIST_CHATS: Self = Self(6);
    pub const ADD_MEMBERS: Self = Self(7);
    pub const REMOVE_MEMBERS: Self = Self(8);
    pub const EDIT_MESSAGE: Self = Self(9);
    pub const DELETE_MESSAGE: Self = Self(10);
    pub const REACT: Self = Self(11);
    /// None of the service's.
    pub const OTHER: Self = Self(METHODS.len() as u8 - 1);

    /// `name` is the last part of the path.
    pub fn of(name: &str) -> Self {
        let known = METHODS.iter().position(|method| *method == name);
        known.map_or(Self::OTHER, |at| Self(at as u8))
    }

    pub fn name(self) -> &'static str {
        METHODS[usize::from(self.0)]
    }
}
