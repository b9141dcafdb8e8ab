//! Who may come in, and where tokens come from.

use super::*;

#[test]
fn dev_mode_stays_on_loopback() {
    for host in [
        "127.0.0.1",
        "127.3.2.1",
        "::1",
        "::ffff:127.0.0.1",
        "localhost",
    ] {
        let config = serve(&["--grpc-host", host]).unwrap();
        assert_eq!(config.auth, AuthChoice::Dev, "{host}");
        assert!(serve(&["--grpc-host", host, "--auth", "dev"]).is_ok());
    }
    for host in ["0.0.0.0", "::", "10.0.0.1", "::ffff:10.0.0.1"] {
        let why = serve(&["--grpc-host", host]).unwrap_err();
        assert!(why.contains("no check of tokens is configured"), "{why}");
        let why = serve(&["--grpc-host", host, "--auth", "dev"]).unwrap_err();
        assert!(why.contains("dev trusts any name"), "{why}");
    }
    assert!(serve(&["--auth", "none"]).is_err());
    assert!(serve(&["--grpc-host", "example.org"]).is_err());
}

#[test]
fn a_check_of_tokens_is_chosen() {
    let both = ["--auth", "jwt", "--jwt-keys", "k", "--jwt-secret-file", "s"];
    let why = serve(&both).unwrap_err().to_string();
    assert!(why.starts_with("--jwt-secret-file: "), "{why}");
    let jwt = serve(&["--auth", "jwt", "--jwt-keys", "k.pem", "--jwt-iss", "us"]).unwrap();
    let AuthChoice::Jwt(jwt) = jwt.auth else {
        panic!("another mode");
    };
    assert_eq!((jwt.iss.as_deref(), jwt.aud), (Some("us"), None));
    let why = serve(&["--auth", "jwt"]).unwrap_err();
    assert!(why.starts_with("--jwt-keys: "), "{why}");
    let why = serve(&["--auth", "service"]).unwrap_err();
    assert!(why.starts_with("--access-client-host: "), "{why}");

    // What existing deployments have in their environment is enough, beyond
    // loopback too.
    let vars = [
        ("GRPC_HOST", "0.0.0.0"),
        ("ACCESS_CLIENT_HOST", "auth"),
        ("ACCESS_CLIENT_PORT", "50051"),
    ];
    let config = serve_in(&NO_FILE, &env(&vars)).unwrap();
    let AuthChoice::Service(access) = config.auth else {
        panic!("another mode");
    };
    assert_eq!((access.host.as_str(), access.port), ("auth", 50_051));
    assert!(!access.tls);
    assert_eq!(config.auth_cache.ttl, Duration::from_secs(30));
    assert_eq!(config.auth_cache.stale, Duration::ZERO);

    let host = ["--auth", "service", "--access-client-host"];
    for bad in ["", "a b", "http://auth", "bob@auth"] {
        assert!(serve(&[&host[..], &[bad]].concat()).is_err(), "{bad:?}");
    }
    let with = |more: &[&str]| serve(&[&host[..], &["auth"], more].concat());
    let tls = |config: Result<ServeConfig, String>| match config.unwrap().auth {
        AuthChoice::Service(access) => access.tls,
        other => panic!("{other:?}"),
    };
    assert!(tls(with(&["--access-client-tls", "on"])));
    assert!(tls(with(&["--access-client-ca", "ca.pem"])));
    let both = ["--access-client-ca", "ca.pem", "--access-client-tls", "off"];
    assert!(with(&both).is_err());
}

#[test]
fn tls_has_both_its_files() {
    assert!(serve(&["--tls-cert", "c.pem", "--tls-key", "k.pem"]).is_ok());
    for bad in [
        &["--tls-cert", "c.pem"][..],
        &["--tls-key", "k.pem"],
        &["--tls-client-ca", "ca.pem"],
    ] {
        let why = serve(bad).unwrap_err();
        assert!(why.starts_with("--tls-"), "{why}");
    }
}

#[test]
fn a_client_may_have_logged_in() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens.json");
    let vars = [("CHAT_TOKEN_FILE", file.to_str().unwrap())];
    assert!(client(&["history", "7"], &vars).is_err(), "nobody has");
    std::fs::write(&file, "{}").unwrap();
    let Ok(Command::History(config)) = client(&["history", "7"], &vars) else {
        panic!("refused");
    };
    assert_eq!(config.peer.credentials, Credentials::File(file.clone()));
    let Ok(Command::History(config)) = client(&["history", "7", "--as", "bob"], &vars) else {
        panic!("refused");
    };
    let given = Credentials::Name("bob".into());
    assert_eq!(config.peer.credentials, given, "what is given counts");

    let Ok(Command::Login(config)) = client(&["login", "bob", "--ca", "ca.pem"], &vars) else {
        panic!("refused");
    };
    assert_eq!((config.name.as_str(), config.tls), ("bob", true));
    assert!(matches!(
        client(&["auth", "hash"], &[]),
        Ok(Command::HashPassword)
    ));
    let Ok(Command::Auth(config)) = client(&["auth", "--access-ttl", "2s"], &[]) else {
        panic!("refused");
    };
    assert_eq!(
        (config.port, config.access_ttl),
        (8080, Duration::from_secs(2))
    );
}

#[test]
fn only_addresses_that_are_loopback_everywhere_are_on_this_machine() {
    for here in [
        "127.0.0.1:1",
        "127.9.9.9:1",
        "[::1]:1",
        "LocalHost:1",
        "[::ffff:127.0.0.1]:1",
    ] {
        assert!(is_loopback(here), "{here}");
    }
    for there in [
        "0.0.0.0:1",
        "[::]:1",
        "localhost.example.org:1",
        "127.0.0.1.example.org:1",
        "10.0.0.1:1",
    ] {
        assert!(!is_loopback(there), "{there}");
    }
}

#[test]
fn the_proxies_of_the_auth_service_are_addresses() {
    let proxies = |list: &str| match client(&["auth", "--login-proxies", list], &[]) {
        Ok(Command::Auth(config)) => Ok(config.login_proxies),
        Ok(other) => panic!("{other:?}"),
        Err(why) => Err(why),
    };
    let two: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    assert_eq!(proxies("10.0.0.1, ::1").unwrap(), two);
    assert_eq!(
        proxies("").unwrap(),
        [] as [IpAddr; 0],
        "nobody's word counts"
    );
    let why = proxies("10.0.0.1,chat.example.org").unwrap_err();
    assert!(
        why.starts_with("--login-proxies: chat.example.org is not"),
        "{why}"
    );
}
