use ahash::AHashSet;

use crate::domain::UserName;

/// A chat's members, in the order they joined.
#[derive(Debug, Clone, Default)]
pub struct Members {
    order: Vec<UserName>,
    names: AHashSet<UserName>,
}

impl Members {
    pub fn new(users: Vec<UserName>) -> Self {
        let mut members = Self::default();
        members.add(&users);
        members
    }

    pub fn contains(&self, user: &UserName) -> bool {
        self.names.contains(user)
    }

    pub fn in_order(&self) -> &[UserName] {
        &self.order
    }

    /// Those of `users` who are not members yet, each once.
    pub fn missing(&self, users: &[UserName]) -> Vec<UserName> {
        let mut seen = AHashSet::new();
        let new = |user: &&UserName| !self.contains(user) && seen.insert((*user).clone());
        users.iter().filter(new).cloned().collect()
    }

    pub fn add(&mut self, users: &[UserName]) {
        for user in users {
            if self.names.insert(user.clone()) {
                self.order.push(user.clone());
            }
        }
    }

    pub fn remove(&mut self, users: &[UserName]) {
        for user in users {
            self.names.remove(user);
        }
        let names = &self.names;
        self.order.retain(|user| names.contains(user));
    }
}
