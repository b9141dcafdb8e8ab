use std::io::{self, BufRead as _, IsTerminal as _};

use argon2::{Argon2, password_hash::PasswordHasher as _};

use super::{
    ClientError,
    credentials::{self, Tokens},
    peer::{CALL_TIMEOUT, cause},
    print, run,
};
use crate::{config::LoginConfig, proto::tokens::LoginRequest};

/// Gets tokens for a name and a password, and keeps them.
///
/// # Errors
/// If the Auth Service refuses or can't be reached, or the file can't be written.
pub fn login(config: LoginConfig) -> Result<(), ClientError> {
    let password = password()?;
    run(async {
        let mut tokens = Tokens {
            auth_addr: config.auth_addr,
            tls: config.tls,
            plaintext: config.plaintext,
            ca: config.ca,
            addr: Some(config.addr),
            refresh_token: String::new(),
            access_token: String::new(),
        };
        let mut request = tonic::Request::new(LoginRequest {
            name: config.name,
            password,
        });
        request.set_timeout(CALL_TIMEOUT);
        let answer =
            tokens
                .client()?
                .login(request)
                .await
                .map_err(|status| match cause(&status) {
                    Some(why) => ClientError::Unreachable(tokens.auth_addr.clone(), why),
                    None => status.into(),
                })?;
        tokens.refresh_token = answer.into_inner().refresh_token;
        tokens.refresh().await?;
        credentials::write(&config.token_file, &tokens)
    })
}

/// Reads a password and prints its hash, for the users' file of `chatd auth`.
///
/// # Errors
/// If there is no password to read.
pub fn hash_password() -> Result<(), ClientError> {
    let hash = Argon2::default()
        .hash_password(password()?.as_bytes())
        .map_err(|error| ClientError::Password(error.to_string()))?;
    print::line(&hash.to_string())
}

/// A line of standard input, or of the terminal, which then does not show it.
fn password() -> Result<String, ClientError> {
    let password = if io::stdin().is_terminal() {
        rpassword::prompt_password("Password: ")?
    } else {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        line.trim_end_matches(['\r', '\n']).to_owned()
    };
    if password.is_empty() {
        return Err(ClientError::Password("none was given".into()));
    }
    Ok(password)
}
