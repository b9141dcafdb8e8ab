//! `--auth jwt`: which signatures count, and which do not however much they look
//! like it.

use std::{fs, path::Path, time::Duration};

use chat_service::auth::{
    Ask, AuthError, AuthResult, Authenticator, JwtAuth, JwtSettings, Role, Token,
};
use serde_json::json;
use tempfile::TempDir;
use tonic::Code;

use crate::guarded::{
    client, connect, create,
    keys::{Key, claims},
    reason, start, stop,
};

const SECRET: &str = "thirty-two bytes of secret, at least";

fn check(auth: &JwtAuth, token: &str) -> AuthResult {
    let ask = Ask {
        token: Token(token),
        method: "/chat_v1.ChatV1/Get",
        trace: None,
    };
    auth.known(ask).expect("nobody needs to be asked")
}

fn settings(keys: &Path) -> JwtSettings {
    JwtSettings {
        keys: keys.to_owned(),
        issuer: None,
        audience: None,
        leeway: Duration::ZERO,
    }
}

fn auth(dir: &TempDir, keys: &str) -> JwtAuth {
    let path = dir.path().join("keys");
    fs::write(&path, keys).unwrap();
    JwtAuth::new(settings(&path)).unwrap()
}

fn all_keys() -> [Key; 4] {
    [Key::hs(SECRET), Key::rs(), Key::es(), Key::ed()]
}

#[test]
fn p7_each_algorithm_counts_with_its_own_key_only() {
    let dir = tempfile::tempdir().unwrap();
    let keys = all_keys();
    let others = [
        Key::hs("another secret of thirty-two bytes"),
        Key::es(),
        Key::ed(),
    ];
    for (n, key) in keys.iter().enumerate() {
        let jwks = json!({"keys": [key.jwk(Some("k1")), {"kty": "RSA", "use": "enc", "n": "AQAB", "e": "AQAB"}]});
        for file in [key.file(), jwks.to_string(), key.jwk(None).to_string()] {
            let auth = auth(&dir, &file);
            let identity = check(&auth, &key.token("bob", "1", 60)).unwrap();
            assert_eq!((&*identity.user, identity.role), ("bob", Role::Admin));
            let rest = keys.iter().enumerate().filter(|(m, _)| *m != n);
            for other in rest.map(|(_, key)| key).chain(&others) {
                let result = check(&auth, &other.token("bob", "1", 60));
                assert!(
                    matches!(result, Err(AuthError::Invalid(_))),
                    "{}",
                    other.algorithm()
                );
            }
        }
    }
}

#[test]
fn p7_the_token_does_not_choose_its_algorithm() {
    let dir = tempfile::tempdir().unwrap();
    for key in all_keys() {
        let auth = auth(&dir, &key.file());
        let good = claims("bob", "1", 60);
        // The public key taken for a secret: what everybody has would sign.
        let public = Key::hs(&key.file());
        let as_text = public.signed(&json!({"alg": "HS256"}), &good);
        let trimmed = Key::hs(key.file().trim());
        let as_trimmed = trimmed.signed(&json!({"alg": "HS256"}), &good);
        if key.algorithm() != "HS256" {
            assert!(check(&auth, &as_text).is_err());
            assert!(check(&auth, &as_trimmed).is_err());
        }
        for algorithm in ["none", "None", "HS384", "RS384", "PS256", "ES384", "x"] {
            let token = key.signed(&json!({"alg": algorithm}), &good);
            assert!(check(&auth, &token).is_err(), "{algorithm}");
        }
        let critical = json!({"alg": key.algorithm(), "crit": ["x"], "x": 1});
        assert!(check(&auth, &key.signed(&critical, &good)).is_err());
        // A key that comes with the token is nobody's.
        let own = Key::es();
        let brought = json!({"alg": "ES256", "jwk": own.jwk(None)});
        assert!(check(&auth, &own.signed(&brought, &good)).is_err());
        let token = key.token("bob", "0", 60);
        let unsigned = token.rsplit_once('.').unwrap().0;
        for bad in [
            "",
            ".",
            "..",
            "a.b.c",
            unsigned,
            &format!("{unsigned}."),
            &token[1..],
        ] {
            assert!(check(&auth, bad).is_err(), "{bad}");
        }
    }
}

#[test]
fn p7_the_claims_have_to_fit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    fs::write(&path, SECRET).unwrap();
    let auth = JwtAuth::new(JwtSettings {
        issuer: Some("us".into()),
        audience: Some("chat".into()),
        leeway: Duration::from_secs(5),
        ..settings(&path)
    })
    .unwrap();
    let key = Key::hs(SECRET);
    let with = |seconds: i64, more: serde_json::Value| {
        let mut all = claims("bob", "0", seconds);
        for (name, value) in more.as_object().unwrap() {
            all[name] = value.clone();
        }
        check(&auth, &key.signed(&json!({"alg": "HS256"}), &all))
    };
    let both = json!({"iss": "us", "aud": ["other", "chat"]});
    assert!(with(60, both.clone()).is_ok());
    assert!(with(-3, both.clone()).is_ok(), "within the leeway");
    assert_eq!(with(-8, both).unwrap_err(), AuthError::Expired);
    for bad in [
        json!({}),
        json!({"iss": "us"}),
        json!({"aud": "chat"}),
        json!({"iss": "them", "aud": "chat"}),
        json!({"iss": "us", "aud": "them"}),
        json!({"iss": "us", "aud": "chat", "exp": null}),
        json!({"iss": "us", "aud": "chat", "username": ""}),
        json!({"iss": "us", "aud": "chat", "nbf": 4_000_000_000_u64}),
    ] {
        let result = with(60, bad.clone());
        assert!(matches!(result, Err(AuthError::Invalid(_))), "{bad}");
    }
}

#[test]
fn a_key_file_that_is_of_no_use_is_refused_without_being_quoted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    let private = include_str!("guarded/test-only-rsa-key.pem");
    for bad in [
        "",
        "short",
        "{}",
        "{\"keys\":[]}",
        private,
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
    ] {
        fs::write(&path, bad).unwrap();
        let why = JwtAuth::new(settings(&path)).unwrap_err().to_string();
        assert!(why.starts_with(path.to_str().unwrap()), "{why}");
        assert!(bad.is_empty() || !why.contains("short"), "{why}");
    }
    assert!(JwtAuth::new(settings(Path::new("no/such/file"))).is_err());
}

#[test]
fn keys_are_read_again_when_they_change() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (Key::ed(), Key::es());
    let auth = auth(&dir, &json!({"keys": [old.jwk(Some("1"))]}).to_string());
    let path = dir.path().join("keys");
    let token = |key: &Key, id: &str| {
        let header = json!({"alg": key.algorithm(), "kid": id});
        key.signed(&header, &claims("bob", "0", 60))
    };
    assert!(check(&auth, &token(&old, "1")).is_ok());
    assert!(
        check(&auth, &token(&old, "2")).is_err(),
        "another key's name"
    );
    let wait = || std::thread::sleep(Duration::from_millis(1100));

    let both = json!({"keys": [old.jwk(Some("1")), new.jwk(Some("2"))]});
    fs::write(&path, both.to_string()).unwrap();
    wait();
    assert!(check(&auth, &token(&old, "1")).is_ok());
    assert!(check(&auth, &token(&new, "2")).is_ok());
    fs::write(&path, json!({"keys": [new.jwk(Some("2"))]}).to_string()).unwrap();
    wait();
    assert!(check(&auth, &token(&old, "1")).is_err());
    assert!(check(&auth, &token(&new, "2")).is_ok());
    fs::write(&path, "{").unwrap();
    wait();
    assert!(
        check(&auth, &token(&new, "2")).is_ok(),
        "the last good ones"
    );
}

#[tokio::test]
async fn p7_a_stream_ends_when_its_token_expires() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    fs::write(&path, SECRET).unwrap();
    let flags = [
        "--auth",
        "jwt",
        "--jwt-keys",
        path.to_str().unwrap(),
        "--jwt-leeway",
        "0s",
    ];
    let app = start(&flags).await;
    let key = Key::hs(SECRET);
    let (lasting, short) = (key.token("bob", "0", 60), key.token("bob", "0", 2));
    let client = client(&app);
    let chat = create(&client, &lasting, &[]).await.unwrap();
    let mut on = connect(&client, &lasting, chat).await.unwrap();
    let mut ends = connect(&client, &short, chat).await.unwrap();
    let began = std::time::Instant::now();
    let end = ends.end().await;
    assert_eq!(
        (end.code(), reason(&end).as_str()),
        (Code::Unauthenticated, "TOKEN_EXPIRED")
    );
    assert!(began.elapsed() < Duration::from_millis(2500));
    on.post("on").await;
    assert_eq!(on.messages.message().await.unwrap().unwrap().seq, 1);
    stop(app).await;
}
