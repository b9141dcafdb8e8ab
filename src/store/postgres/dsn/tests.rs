use super::*;

#[test]
fn both_forms_and_all_modes_are_read() {
    let url = "postgres://u:p%40@db:6000/chat?sslmode=verify-full&sslrootcert=%2Fa%20b.pem&connect_timeout=3";
    let pairs = r"host=db port = 6000 user=u password='p@' dbname=chat sslmode=verify-full sslrootcert='/a b.pem' connect_timeout=3";
    for text in [url, pairs, &format!(" {url}\n"), &format!("{pairs}\n")] {
        let dsn = Dsn::parse(text).unwrap();
        assert_eq!(dsn.verify, Verify::IssuerAndName);
        assert_eq!(dsn.roots, Roots::File("/a b.pem".into()));
        assert_eq!(dsn.config.get_ssl_mode(), SslMode::Require);
        assert_eq!(dsn.config.get_password(), Some(&b"p@"[..]));
        assert_eq!(dsn.to_string(), "postgres chat at db:6000 as u");
        assert_eq!(dsn.connect_timeout, Some(Duration::from_secs(3)));
    }
}

#[test]
fn hosts_are_read_as_libpq_reads_them() {
    let places = |text: &str| Dsn::parse(text).unwrap().to_string();
    for (text, expected) in [
        ("postgres://u@a,b:6/d", "postgres d at a:5432,b:6 as u"),
        (
            "postgres://u@[::1]:7,c/d",
            "postgres d at ::1:7,c:5432 as u",
        ),
        ("postgres://u@%2Frun/d", "postgres d at /run:5432 as u"),
        (
            "postgres:///d?host=/run&port=9&user=u",
            "postgres d at /run:9 as u",
        ),
        ("host=a,b port=1 user=u", "postgres u at a:1,b:1 as u"),
        (
            "hostaddr=10.0.0.1 user=u",
            "postgres u at 10.0.0.1:5432 as u",
        ),
    ] {
        assert_eq!(places(text), expected, "{text}");
    }
    let dsn = Dsn::parse("postgres://u:a?b@c/d").unwrap();
    assert_eq!(dsn.config.get_password(), Some(&b"a?b"[..]));
    for bad in [
        "host=a,b port=1,2,3 user=u",
        "user=u",
        "host=a hostaddr=1.2.3.4,5.6.7.8",
    ] {
        Dsn::parse(bad).unwrap_err();
    }
}

#[test]
fn times_have_libpqs_units() {
    let dsn = Dsn::parse("host=a tcp_user_timeout=4000 keepalives_count=2").unwrap();
    let timeout = dsn.config.get_tcp_user_timeout();
    assert_eq!(timeout, Some(&Duration::from_secs(4)));
    assert_eq!(dsn.config.get_keepalives_retries(), Some(2));
    let dsn = Dsn::parse("host=a connect_timeout=0").unwrap();
    assert_eq!(dsn.connect_timeout, None);
}

#[test]
fn sessions_that_do_not_write_are_refused() {
    for attrs in ["any", "read-write", "primary"] {
        Dsn::parse(&format!("host=a target_session_attrs={attrs}")).unwrap();
    }
    for attrs in ["read-only", "standby", "prefer-standby"] {
        let error = Dsn::parse(&format!("host=a target_session_attrs={attrs}")).unwrap_err();
        assert!(error.to_string().contains("read-write"), "{error}");
    }
}

#[test]
fn a_root_certificate_is_used_where_tls_is_required() {
    let dsn = Dsn::parse("host=db sslmode=require sslrootcert=ca.pem").unwrap();
    assert_eq!(dsn.verify, Verify::Issuer);
    let dsn = Dsn::parse("host=db sslmode=require").unwrap();
    assert_eq!(dsn.verify, Verify::Nothing);
    assert_eq!(dsn.config.get_ssl_mode(), SslMode::Require);
}

#[test]
fn a_unix_socket_has_no_tls() {
    let dsn = Dsn::parse("host=/run/postgresql sslmode=require user=u").unwrap();
    assert_eq!(dsn.config.get_ssl_mode(), SslMode::Disable);
}

#[test]
fn a_service_and_a_password_are_found_in_their_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(
        path("services"),
        "# all of ours\n[other]\nhost=x\n[chat]\nhost=db\nport=6000\ndbname=chat\nuser=u\n",
    )
    .unwrap();
    std::fs::write(path("pass"), "db:6000:chat:u:hush\n").unwrap();
    let text = format!(
        "service=chat servicefile={} passfile={} port=6000",
        path("services"),
        path("pass")
    );
    // Everybody may read it.
    let mode = |mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path("pass"), mode).unwrap();
    };
    mode(0o644);
    Dsn::parse(&text).unwrap_err();
    mode(0o600);
    let dsn = Dsn::parse(&text).unwrap();
    assert_eq!(dsn.to_string(), "postgres chat at db:6000 as u");
    assert_eq!(dsn.places[0].password.as_deref(), Some("hush"));
    Dsn::parse(&text.replace("service=chat", "service=none")).unwrap_err();
}

#[test]
fn nonsense_is_refused_without_repeating_the_password() {
    for bad in [
        "postgres://u:hush@db/x?sslmode=maybe",
        "postgres://u:hush@db/x?nonsense=1",
        "postgres://u:5/hush@db/x",
        "postgres://u:hush/x@db/x",
        "password=hush user=u",
        "password=hush host='db",
        "hush",
    ] {
        let error = Dsn::parse(bad).unwrap_err().to_string();
        assert!(!error.contains("hush"), "{error}");
    }
}
