//! `chatd auth`, to be taken away and brought back, and everybody's tokens.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

use chat_service::proto::tokens::{
    GetAccessTokenRequest, LoginRequest, auth_v1_client::AuthV1Client,
};

use crate::{Result, child};

const PASSWORD: &str = "wonderland";

/// Longer than any run.
const TOKEN_TTL: &str = "24h";

pub struct Auth {
    binary: PathBuf,
    home: PathBuf,
    address: SocketAddr,
    running: Option<(Child, BufReader<ChildStdout>)>,
}

impl Auth {
    /// In the folder `home`, which must exist. As with the server, the thread
    /// that calls must stay.
    pub fn start(binary: &Path, home: &Path, users: &[&str]) -> Result<Self> {
        let hash = hash(binary)?;
        let table = |user: &&str| format!("[users.{user}]\npassword = \"{hash}\"\n");
        fs::write(
            home.join("users.toml"),
            users.iter().map(table).collect::<String>(),
        )?;
        let mut auth = Self {
            binary: binary.into(),
            home: home.into(),
            address: ([127, 0, 0, 1], 0).into(),
            running: None,
        };
        auth.start_again()?;
        Ok(auth)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// On the port it had.
    pub fn start_again(&mut self) -> Result<()> {
        let mut command = Command::new(&self.binary);
        command
            .args(["auth", "--auth-port", &self.address.port().to_string()])
            .args(["--access-ttl", TOKEN_TTL]);
        let mut process = child::ending_with_us(&command)
            .current_dir(&self.home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut stdout = BufReader::new(process.stdout.take().ok_or("no output")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        self.running = Some((process, stdout));
        let address = line.trim().strip_prefix("listening on ");
        self.address = address.ok_or("the Auth Service does not start")?.parse()?;
        Ok(())
    }

    pub fn kill(&mut self) {
        if let Some((mut process, _)) = self.running.take() {
            // An error: it has ended.
            _ = process.kill();
            _ = process.wait();
        }
    }

    /// Logs everybody in.
    pub async fn tokens(&self, users: &[&str]) -> Result<HashMap<String, String>> {
        let address = format!("http://{}", self.address);
        let mut client = AuthV1Client::connect(address).await?;
        let mut tokens = HashMap::new();
        for &user in users {
            let login = LoginRequest {
                name: user.into(),
                password: PASSWORD.into(),
            };
            let refresh_token = client.login(login).await?.into_inner().refresh_token;
            let request = GetAccessTokenRequest { refresh_token };
            let access = client.get_access_token(request).await?.into_inner();
            tokens.insert(user.into(), access.access_token);
        }
        Ok(tokens)
    }
}

impl Drop for Auth {
    fn drop(&mut self) {
        self.kill();
    }
}

fn hash(binary: &Path) -> Result<String> {
    let mut process = Command::new(binary)
        .args(["auth", "hash"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = process.stdin.take() {
        writeln!(stdin, "{PASSWORD}")?;
    }
    let output = process.wait_with_output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
