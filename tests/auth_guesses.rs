//! P7: `chatd auth` against guesses, floods, and tokens that outlive their password.

use std::{
    fs,
    io::{BufReader, Read as _},
    net::{IpAddr, SocketAddr, TcpStream},
    path::Path,
    process::{Child, ChildStdout, Stdio},
    time::{Duration, Instant},
};

use argon2::{Argon2, password_hash::PasswordHasher as _};
use chat_service::proto::{
    access::{CheckRequest, access_v1_client::AccessV1Client},
    tokens::{
        GetAccessTokenRequest, GetRefreshTokenRequest, LoginRequest, auth_v1_client::AuthV1Client,
    },
};
use tokio::task::JoinSet;
use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint},
};

use crate::{
    auth_login::listens,
    server::{command, soon},
};

const PASSWORD: &str = "wonderland";
const STRANGER: &str = "127.0.0.2";
const OWNER: &str = "127.0.0.1";

fn hash(password: &str) -> String {
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.unwrap().to_string()
}

fn users(folder: &Path, users: &[(&str, &str)]) {
    let user = |(name, hash): &(&str, &str)| format!("[users.{name}]\npassword = '{hash}'\n");
    let text: String = users.iter().map(user).collect();
    fs::write(folder.join("users.toml"), text).unwrap();
}

struct Auth {
    child: Child,
    address: SocketAddr,
    _stdout: BufReader<ChildStdout>,
}

impl Auth {
    fn start(folder: &Path, options: &[&str]) -> Self {
        let mut child = command(folder)
            .args(["auth", "--auth-port", "0"])
            .args(options)
            .stdout(Stdio::piped())
            .stderr(fs::File::create(folder.join("auth.log")).unwrap())
            .spawn()
            .unwrap();
        let (stdout, address) = listens(&mut child);
        Self {
            child,
            address: address.parse().unwrap(),
            _stdout: stdout,
        }
    }

    /// A connection from an address of this machine.
    async fn channel(&self, from: &str) -> Channel {
        let from: IpAddr = from.parse().unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        let endpoint = endpoint.local_address(Some(from));
        endpoint.connect().await.unwrap()
    }

    async fn client(&self, from: &str) -> Tokens {
        Tokens(AuthV1Client::new(self.channel(from).await))
    }
}

impl Drop for Auth {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[derive(Clone)]
struct Tokens(AuthV1Client<Channel>);

impl Tokens {
    async fn login(&mut self, name: &str, password: &str) -> Result<String, Status> {
        self.login_by_way_of(None, name, password).await
    }

    /// As a proxy that notes where the login comes from.
    async fn login_by_way_of(
        &mut self,
        noted: Option<&str>,
        name: &str,
        password: &str,
    ) -> Result<String, Status> {
        let mut request = Request::new(LoginRequest {
            name: name.into(),
            password: password.into(),
        });
        if let Some(noted) = noted {
            let metadata = request.metadata_mut();
            metadata.insert("x-forwarded-for", noted.parse().unwrap());
        }
        let answer = self.0.login(request).await?;
        Ok(answer.into_inner().refresh_token)
    }

    async fn renew(&mut self, refresh_token: &str) -> Result<String, Status> {
        let request = GetRefreshTokenRequest {
            refresh_token: refresh_token.into(),
        };
        let answer = self.0.get_refresh_token(request).await?;
        Ok(answer.into_inner().refresh_token)
    }

    async fn access(&mut self, refresh_token: &str) -> Result<String, Status> {
        let request = GetAccessTokenRequest {
            refresh_token: refresh_token.into(),
        };
        let answer = self.0.get_access_token(request).await?;
        Ok(answer.into_inner().access_token)
    }
}

async fn check(auth: &Auth, token: &str) -> Result<(), Status> {
    let mut client = AccessV1Client::new(auth.channel(OWNER).await);
    let mut request = Request::new(CheckRequest::default());
    let bearer = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    client.check(request).await.map(drop)
}

/// The file is read again within a second.
async fn after_the_file_is_read() {
    tokio::time::sleep(Duration::from_millis(1_500)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_tokens_end_with_the_password_and_with_the_holder_of_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let first = hash(PASSWORD);
    users(folder.path(), &[("bob", &first), ("eve", &first)]);
    let auth = Auth::start(folder.path(), &[]);
    let mut client = auth.client(OWNER).await;
    let bob = client.login("bob", PASSWORD).await.unwrap();
    let eve = client.login("eve", PASSWORD).await.unwrap();
    let access = client.access(&bob).await.unwrap();
    check(&auth, &access).await.unwrap();

    // Another holder of the name, who happens to have the same password.
    users(folder.path(), &[("bob", &hash(PASSWORD)), ("eve", &first)]);
    after_the_file_is_read().await;
    for refused in [
        client.renew(&bob).await.map(drop),
        client.access(&bob).await.map(drop),
        check(&auth, &access).await,
    ] {
        assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
    }
    // Who has kept the password is not concerned, nor is a login anew.
    client.renew(&eve).await.unwrap();
    client.access(&eve).await.unwrap();
    let bob = client.login("bob", PASSWORD).await.unwrap();
    client.access(&bob).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_login_ends_however_often_its_token_is_renewed() {
    let folder = tempfile::tempdir().unwrap();
    users(folder.path(), &[("bob", &hash(PASSWORD))]);
    let auth = Auth::start(folder.path(), &["--login-ttl", "3s"]);
    let mut client = auth.client(OWNER).await;
    let begun = Instant::now();
    let mut token = client.login("bob", PASSWORD).await.unwrap();
    let ended = loop {
        match client.renew(&token).await {
            Ok(renewed) => token = renewed,
            Err(status) => break status,
        }
        client.access(&token).await.ok();
        assert!(begun.elapsed() < Duration::from_secs(20), "it never ends");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(ended.code(), Code::Unauthenticated);
    assert!(begun.elapsed() > Duration::from_secs(1), "it did count");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_guesses_from_elsewhere_lock_nobody_out() {
    let folder = tempfile::tempdir().unwrap();
    users(folder.path(), &[("bob", &hash(PASSWORD))]);
    let auth = Auth::start(folder.path(), &["--max-logins", "3"]);
    let mut stranger = auth.client(STRANGER).await;
    let mut owner = auth.client(OWNER).await;
    let guess = |n: usize| format!("guess {n}");
    for n in 0..3 {
        let wrong = stranger.login("bob", &guess(n)).await.unwrap_err();
        assert_eq!(wrong.code(), Code::Unauthenticated);
    }
    let over = stranger.login("bob", PASSWORD).await.unwrap_err();
    assert_eq!(over.code(), Code::ResourceExhausted, "the bound holds");
    // What anybody but a proxy says about where it comes from does not count.
    let noted = Some("198.51.100.7");
    let over = stranger.login_by_way_of(noted, "bob", PASSWORD).await;
    assert_eq!(over.unwrap_err().code(), Code::ResourceExhausted);
    owner.login("bob", PASSWORD).await.unwrap();

    // Behind a proxy addresses are told apart as well, by the last that it has noted.
    for n in 0..3 {
        let noted = Some("203.0.113.9, 198.51.100.7");
        let wrong = owner.login_by_way_of(noted, "bob", &guess(n)).await;
        assert_eq!(wrong.unwrap_err().code(), Code::Unauthenticated);
    }
    let over = owner.login_by_way_of(noted, "bob", PASSWORD).await;
    assert_eq!(over.unwrap_err().code(), Code::ResourceExhausted);
    let other = Some("203.0.113.9");
    owner.login_by_way_of(other, "bob", PASSWORD).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_flood_of_logins_from_elsewhere_is_waited_behind_once() {
    let folder = tempfile::tempdir().unwrap();
    users(folder.path(), &[("bob", &hash(PASSWORD))]);
    let auth = Auth::start(folder.path(), &["--max-logins", "10000"]);
    let mut callers = JoinSet::new();
    for caller in 0..24 {
        let mut stranger = auth.client(STRANGER).await;
        callers.spawn(async move {
            loop {
                _ = stranger.login(&format!("nobody{caller}"), "guess").await;
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut owner = auth.client(OWNER).await;
    for _ in 0..20 {
        let login = owner.login("bob", PASSWORD);
        soon("a login", login)
            .await
            .expect("nobody else's calls refuse it");
    }
    callers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_silent_connections_end_and_give_way() {
    chat_service::runtime::raise_file_limit();
    let folder = tempfile::tempdir().unwrap();
    users(folder.path(), &[("bob", &hash(PASSWORD))]);
    let auth = Auth::start(folder.path(), &[]);
    let connect = || TcpStream::connect(auth.address).unwrap();
    let begun = Instant::now();
    let mut silent: Vec<TcpStream> = (0..1_100).map(|_| connect()).collect();
    // Those that may give way have had their time by then.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let login = async {
        let mut client = auth.client(OWNER).await;
        client.login("bob", PASSWORD).await
    };
    soon("a login", login).await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "too slow to tell"
    );

    let first = silent.swap_remove(500);
    let ended = tokio::task::spawn_blocking(move || {
        let mut first = first;
        first
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let mut told = Vec::new();
        first.read_to_end(&mut told).map(|_| ())
    });
    let ended = ended.await.unwrap();
    // Closed, be it with what was sent still unread.
    assert!(
        !matches!(&ended, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock),
        "{ended:?}"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
}
