//! TLS: who is let in, what a client checks, and new certificates without a
//! connection lost.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use chat_service::{app::App, proto::chat_v1_client::ChatV1Client};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::{io::AsyncReadExt as _, net::TcpStream};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::guarded::{Client, connect, create, start, stop};

struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate and its key.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        (cert.pem(), key.serialize_pem())
    }
}

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }
}

fn client(app: &App, tls: ClientTlsConfig) -> Client {
    let address = format!("https://localhost:{}", app.address().port());
    let endpoint = Endpoint::from_shared(address).unwrap();
    let channel: Channel = endpoint.tls_config(tls).unwrap().connect_lazy();
    ChatV1Client::new(channel)
}

fn trusting(ca: &Ca) -> ClientTlsConfig {
    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca.pem()))
}

#[tokio::test]
async fn a_new_certificate_is_served_without_a_connection_lost() {
    let (files, old, new) = (Files::new(), Ca::new(), Ca::new());
    let (cert, key) = old.sign("localhost");
    let (cert, key) = (files.write("cert", &cert), files.write("key", &key));
    let flags = [
        "--tls-cert",
        &cert,
        "--tls-key",
        &key,
        "--handshake-timeout",
        "500ms",
    ];
    let app = start(&flags).await;

    let before = client(&app, trusting(&old));
    let chat = create(&before, "bob", &[]).await.unwrap();
    let mut stream = connect(&before, "bob", chat).await.unwrap();
    assert!(
        create(&client(&app, trusting(&new)), "bob", &[])
            .await
            .is_err()
    );
    assert!(
        create(&crate::guarded::client(&app), "bob", &[])
            .await
            .is_err()
    );

    let (cert, key) = new.sign("localhost");
    files.write("cert", &cert);
    files.write("key", &key);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    create(&client(&app, trusting(&new)), "bob", &[])
        .await
        .unwrap();
    assert!(
        create(&client(&app, trusting(&old)), "bob", &[])
            .await
            .is_err()
    );
    stream.post("still here").await;
    assert_eq!(stream.messages.message().await.unwrap().unwrap().seq, 1);
    // Files that do not belong together change nothing.
    files.write("cert", &old.sign("localhost").0);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    create(&client(&app, trusting(&new)), "bob", &[])
        .await
        .unwrap();

    let mut silent = TcpStream::connect(app.address()).await.unwrap();
    let began = Instant::now();
    assert!(matches!(silent.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "no handshake, no connection"
    );
    stop(app).await;
}

#[tokio::test]
async fn p7_with_a_client_ca_a_client_has_to_show_who_it_is() {
    let (files, ca, other) = (Files::new(), Ca::new(), Ca::new());
    let (cert, key) = ca.sign("localhost");
    let flags = [
        "--tls-cert".to_owned(),
        files.write("cert", &cert),
        "--tls-key".to_owned(),
        files.write("key", &key),
        "--tls-client-ca".to_owned(),
        files.write("ca", &ca.pem()),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let app = start(&flags).await;
    let showing = |(cert, key)| trusting(&ca).identity(Identity::from_pem(cert, key));
    let known = client(&app, showing(ca.sign("a-client")));
    create(&known, "bob", &[]).await.unwrap();
    for stranger in [trusting(&ca), showing(other.sign("a-client"))] {
        assert!(create(&client(&app, stranger), "bob", &[]).await.is_err());
    }
    stop(app).await;
}

#[tokio::test]
async fn the_terminal_client_calls_with_tls() {
    let (files, ca) = (Files::new(), Ca::new());
    let (cert, key) = ca.sign("localhost");
    let (cert, key) = (files.write("cert", &cert), files.write("key", &key));
    let app = start(&["--tls-cert", &cert, "--tls-key", &key]).await;
    let address = format!("localhost:{}", app.address().port());
    let chatd = |ca: String| {
        let args = [
            "create",
            "--as",
            "bob",
            "--config-path",
            "",
            "--addr",
            &address,
            "--ca",
            &ca,
        ];
        tokio::process::Command::new(env!("CARGO_BIN_EXE_chatd"))
            .args(args)
            .env_clear()
            .output()
    };
    let done = chatd(files.write("ca", &ca.pem())).await.unwrap();
    assert!(done.status.success(), "{done:?}");
    let done = chatd(files.write("ca", &Ca::new().pem())).await.unwrap();
    assert_eq!(done.status.code(), Some(1));
    stop(app).await;
}
