use std::{collections::HashMap, fs, path::Path};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use serde::Deserialize;

/// The users' file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Users {
    #[serde(default)]
    users: HashMap<String, User>,
    /// Of a password that nobody has.
    #[serde(skip)]
    nobody: String,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// A hash, as `chatd auth hash` prints it.
    password: String,
    #[serde(default)]
    pub admin: bool,
}

impl User {
    /// The hash of the password, as the file has it.
    pub fn hash(&self) -> &str {
        &self.password
    }
}

impl Users {
    /// Reads the file. What is wrong with it is said without quoting it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
        let mut users: Self = toml::from_str(&text).map_err(|error| error.message().to_owned())?;
        for (name, user) in &users.users {
            if crate::domain::UserName::new(name).is_err() {
                return Err(format!("users.{name:?}: not a user name"));
            }
            if PasswordHash::new(&user.password).is_err() {
                return Err(format!("users.{name:?}: password is not a hash"));
            }
        }
        let nobody = Argon2::default().hash_password(b"nobody's");
        users.nobody = nobody.map_err(|error| error.to_string())?.to_string();
        Ok(users)
    }

    pub fn get(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// The user, if the password is theirs. Takes a processor's time, and as
    /// much for a name that does not exist.
    pub fn login(&self, name: &str, password: &str) -> Option<User> {
        let user = self.users.get(name);
        let hash = user.map_or(&self.nobody, |user| &user.password);
        let hash = PasswordHash::new(hash).ok()?;
        let right = Argon2::default().verify_password(password.as_bytes(), &hash);
        user.filter(|_| right.is_ok()).cloned()
    }
}
