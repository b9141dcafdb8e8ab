//! `--auth jwt`: which signatures count, and which do not however much they look
//! like it.

use std::{fs, time::Duration};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use chat_service::auth::{
    Ask, Asker, AuthError, AuthResult, Authenticator, JwtAuth, JwtSettings, KeyFile, Role, Token,
};
use serde_json::json;
use tempfile::TempDir;
use tonic::Code;

use crate::guarded::{
    client, connect, create,
    keys::{Key, claims},
    reason, start, stop,
};

const SECRET: &str = "k7Vq2mZx9TfL4cVn8RwYp3HsW6jD1bGa";

fn check(auth: &JwtAuth, token: &str) -> AuthResult {
    let ask = Ask {
        token: Token(token),
        method: "/chat_v1.ChatV1/Get",
        trace: None,
        asker: Asker::default(),
    };
    auth.known(ask).expect("nobody needs to be asked")
}

fn settings(keys: KeyFile) -> JwtSettings {
    JwtSettings {
        keys,
        issuer: None,
        audience: None,
        leeway: Duration::ZERO,
    }
}

fn auth(dir: &TempDir, keys: &str) -> JwtAuth {
    let path = dir.path().join("keys");
    fs::write(&path, keys).unwrap();
    let public = keys.starts_with(['{', '-']);
    let kind = if public {
        KeyFile::Keys
    } else {
        KeyFile::Secret
    };
    JwtAuth::new(settings(kind(path))).unwrap()
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
        // Keys of other uses are passed over, but a set is of one kind.
        let other = match key {
            Key::Hs(_) => json!({"kty": "oct", "use": "enc", "k": "AQAB"}),
            _ => json!({"kty": "RSA", "use": "enc", "n": "AQAB", "e": "AQAB"}),
        };
        let jwks = json!({"keys": [key.jwk(Some("k1")), other]});
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

/// Sixteen verifications for each token that anybody makes up would be felt by others.
#[test]
fn p7_a_token_that_names_no_key_is_tried_with_few() {
    let keys: Vec<Key> = (0..8).map(|n| Key::hs(&format!("{SECRET}{n}"))).collect();
    let ids = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let named = keys.iter().zip(ids);
    let jwks: Vec<_> = named.map(|(key, id)| key.jwk(Some(id))).collect();
    let dir = TempDir::new().unwrap();
    let auth = auth(&dir, &json!({ "keys": jwks }).to_string());
    for (n, (key, id)) in keys.iter().zip(ids).enumerate() {
        let unnamed = key.token("bob", "0", 3600);
        let header = json!({"alg": "HS256", "kid": id});
        let named = key.signed(&header, &claims("bob", "0", 3600));
        assert!(check(&auth, &named).is_ok(), "{n}");
        for _ in 0..2 {
            assert_eq!(check(&auth, &unnamed).is_ok(), n < 4, "{n}");
        }
        // Keys with ids are not tried with a token that names another.
        let header = json!({"alg": "HS256", "kid": "x"});
        let other = key.signed(&header, &claims("bob", "0", 3600));
        assert!(check(&auth, &other).is_err(), "{n}");
    }
    let without: Vec<_> = keys.iter().map(|key| key.jwk(None)).collect();
    let auth_without = self::auth(
        &TempDir::new().unwrap(),
        &json!({ "keys": without }).to_string(),
    );
    for (n, key) in keys.iter().enumerate() {
        let header = json!({"alg": "HS256", "kid": "x"});
        let named = key.signed(&header, &claims("bob", "0", 3600));
        assert_eq!(check(&auth_without, &named).is_ok(), n < 4, "{n}");
    }
    // What was refused under other keys is tried with the new ones.
    let unnamed = keys[7].token("bob", "0", 3600);
    assert!(check(&auth, &unnamed).is_err());
    let few = json!({ "keys": jwks[6..] }).to_string();
    fs::write(dir.path().join("new"), few).unwrap();
    fs::rename(dir.path().join("new"), dir.path().join("keys")).unwrap();
    let begun = std::time::Instant::now();
    while check(&auth, &unnamed).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(9), "still refused");
        std::thread::sleep(Duration::from_millis(100));
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
        ..settings(KeyFile::Secret(path))
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
        for kind in [KeyFile::Keys, KeyFile::Secret] {
            let why = JwtAuth::new(settings(kind(path.clone())));
            let why = why.unwrap_err().to_string();
            assert!(why.starts_with(path.to_str().unwrap()), "{why}");
            assert!(bad.is_empty() || !why.contains("short"), "{why}");
        }
    }
    let none = KeyFile::Keys("no/such/file".into());
    assert!(JwtAuth::new(settings(none)).is_err());
    // The secret itself in place of a path is not shown, but which option it was.
    for (kind, option) in [
        (KeyFile::Keys as fn(_) -> _, "--jwt-keys"),
        (KeyFile::Secret, "--jwt-secret-file"),
    ] {
        let why = JwtAuth::new(settings(kind(SECRET.into()))).unwrap_err();
        let why = why.to_string();
        assert!(why.starts_with(option) && !why.contains(SECRET), "{why}");
    }
    // Who named a secret as keys learns what to do instead.
    fs::write(&path, SECRET).unwrap();
    let why = JwtAuth::new(settings(KeyFile::Keys(path))).unwrap_err();
    assert!(why.to_string().contains("--jwt-secret-file"), "{why}");
}

/// What is public or can be guessed, in the forms in which it comes.
fn public_files() -> Vec<(&'static str, Vec<u8>)> {
    let key = Key::rs();
    let pem = key.file();
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(&base64).unwrap();
    let ed: String = Key::ed()
        .file()
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    let ed = STANDARD.decode(ed).unwrap();
    let jwk = key.jwk(Some("k1"));
    let page = "<html>\r\n<head><title>404 Not Found</title></head>\r\n</html>\r\n";
    let mixed = json!({"keys": [jwk, Key::hs(SECRET).jwk(None)]});
    let other_use = json!({"kty": "EC", "crv": "P-384", "alg": "ES384", "use": "enc",
        "x": URL_SAFE_NO_PAD.encode([1; 48]), "y": URL_SAFE_NO_PAD.encode([2; 48])});
    let beside = json!({"keys": [other_use, Key::hs(SECRET).jwk(None)]});
    let pem_as_secret = Key::hs(&pem).jwk(None);
    let hex: String = der.iter().map(|byte| format!("{byte:02x}")).collect();
    let colons: Vec<String> = der.iter().map(|byte| format!("{byte:02X}")).collect();
    let followed = [&der[..], b"\0\0"].concat();
    let point = [&[4][..], &[7, 31, 99, 45, 200, 13, 76, 81].repeat(8)].concat();
    let raw_point = point.clone();
    let oct = |bytes: &[u8]| json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(bytes)});
    let point_as_secret = oct(&point);
    let pretty = serde_json::to_string_pretty(&jwk).unwrap();
    let jwk_as_secret = oct(pretty.as_bytes());
    let both = json!({"kty": "oct", "k": jwk["n"], "n": jwk["n"], "e": "AQAB"});
    let in_c: Vec<String> = der.iter().map(|byte| format!("0x{byte:02x}")).collect();
    let lines: Vec<&str> = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let twice = STANDARD.encode(STANDARD.encode(Key::ed().file()));
    let file = |text: String| text.into_bytes();
    vec![
        ("a public key", file(pem.clone())),
        ("behind a byte order mark", file(format!("\u{feff}{pem}"))),
        ("behind a comment", file(format!("# of the issuer\n{pem}"))),
        (
            "with bag attributes",
            file(format!("Bag Attributes\n    x: y\n{pem}")),
        ),
        (
            "quoted",
            file(format!("\"{}\"", pem.trim().replace('\n', "\\n"))),
        ),
        ("in one line", file(pem.replace('\n', " "))),
        ("a JWKS", file(json!({"keys": [jwk]}).to_string())),
        ("a bare array", file(json!([jwk]).to_string())),
        ("secrets beside public keys", file(mixed.to_string())),
        ("secrets beside keys of no use", file(beside.to_string())),
        (
            "a public key as a JWK's secret",
            file(pem_as_secret.to_string()),
        ),
        ("DER in hex", file(hex)),
        ("DER in hex with colons", file(colons.join(":"))),
        ("DER and something behind it", followed),
        ("a point in base64", file(URL_SAFE_NO_PAD.encode(point))),
        ("base64 of base64 of PEM", file(twice)),
        ("base64 of a JWKS", file(STANDARD.encode(mixed.to_string()))),
        ("a path", file("/etc/chatd/public.pem".into())),
        (
            "a path without an end",
            file("/run/secrets/jwt_secret".into()),
        ),
        (
            "a line of settings",
            file("JWT_SECRET=b7Kq2mZx9TfL4cVn8RwYp3Hs".into()),
        ),
        ("a relative path", file("keys/jwt/public_key".into())),
        (
            "an address without anything",
            file("login.idp.example/realms/main/certs".into()),
        ),
        (
            "a setting in small letters",
            file("jwt_secret=b7Kq2mZx9TfL4cVn8RwYp3Hs".into()),
        ),
        ("a reference", file("${JWT_SECRET_FROM_VAULT}".into())),
        ("a token", file(key.token("bob", "0", 60))),
        ("hex in C", file(in_c.join(","))),
        ("a PEM's lines in a setting", file(lines.join("\\n"))),
        (
            "a JWK in base64, printed well",
            file(STANDARD.encode(&pretty)),
        ),
        ("a page in base64", file(STANDARD.encode(page))),
        ("a point", raw_point),
        (
            "a point as a JWK's secret",
            point_as_secret.to_string().into_bytes(),
        ),
        ("a JWK as a JWK's secret", file(jwk_as_secret.to_string())),
        (
            "a secret with a public key's members",
            file(both.to_string()),
        ),
        ("a placeholder", file("changemechangeme".into())),
        (
            "a placeholder as a JWK's secret",
            file(oct(b"changeme-changeme").to_string()),
        ),
        ("one character", file("x".repeat(32))),
        (
            "other JSON",
            file("{\"error\": \"not found, try again later\"}".into()),
        ),
        ("DER", der),
        ("base64 of DER", file(base64)),
        (
            "a key of SSH",
            file(format!(
                "ssh-rsa {} us@example",
                "AAAAB3NzaC1yc2E".repeat(9)
            )),
        ),
        (
            "an address",
            file("https://id.example.org/.well-known/jwks.json\n".into()),
        ),
        ("a page", file(page.into())),
        ("a page of one line", file("404 page not found\n".into())),
        (
            "what a proxy says",
            file("upstream connect error or disconnect/reset before headers".into()),
        ),
        (
            "an address without its scheme",
            file("id.example.org/.well-known/jwks.json".into()),
        ),
        (
            "base64 of DER in the other alphabet",
            file(URL_SAFE_NO_PAD.encode(&ed)),
        ),
        (
            "base64 of DER without padding",
            file(STANDARD_NO_PAD.encode(&ed)),
        ),
        (
            "base64 of DER in quotes",
            file(format!("'{}'", STANDARD.encode(&ed))),
        ),
        ("base64 of PEM", file(STANDARD.encode(Key::ed().file()))),
        (
            "UTF-16",
            pem.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        ),
        (
            "a page in Latin-1",
            b"<h1>D\xe9sol\xe9, rien ici</h1>".to_vec(),
        ),
        (
            "a page in lines of text",
            file("404 Not Found\nThe key is not here.\n".into()),
        ),
    ]
}

/// A token that is signed with the file's own bytes, in the ways in which they
/// could be taken for a secret, is an admin's nowhere.
#[test]
fn p7_what_is_public_is_never_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    for (what, bytes) in public_files() {
        fs::write(&path, &bytes).unwrap();
        for kind in [KeyFile::Keys, KeyFile::Secret] {
            let file = kind(path.clone());
            let is_secret = matches!(file, KeyFile::Secret(_));
            match JwtAuth::new(settings(file)) {
                Err(why) => assert!(why.to_string().contains("keys: "), "{what}: {why}"),
                Ok(_) if is_secret => panic!("{what} is taken for a secret"),
                Ok(auth) => {
                    for secret in [&bytes[..], bytes.trim_ascii()] {
                        let forged = Key::Hs(secret.to_vec()).token("mallory", "1", 60);
                        assert!(check(&auth, &forged).is_err(), "{what}");
                    }
                    // It counts as what it is.
                    assert!(
                        check(&auth, &Key::rs().token("bob", "0", 60)).is_ok(),
                        "{what}"
                    );
                }
            }
        }
    }
}

/// A download that failed leaves its page in the file.
#[test]
fn p7_a_file_that_turns_into_something_public_changes_nothing() {
    for (kind, good, key) in [
        (KeyFile::Keys as fn(_) -> _, Key::rs().file(), Key::rs()),
        (KeyFile::Secret, SECRET.to_owned(), Key::hs(SECRET)),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        fs::write(&path, good).unwrap();
        let auth = JwtAuth::new(settings(kind(path.clone()))).unwrap();
        let page = "<html><head><title>404 Not Found</title></head></html>";
        fs::write(&path, page).unwrap();
        std::thread::sleep(Duration::from_millis(1100));
        assert!(check(&auth, &Key::hs(page).token("mallory", "1", 60)).is_err());
        assert!(check(&auth, &key.token("bob", "0", 60)).is_ok());
    }
}

/// The value of a key that was public before would be everybody's secret.
#[test]
fn p7_public_keys_do_not_turn_into_secrets() {
    for (first, then) in [(Key::ed(), Key::hs(SECRET)), (Key::hs(SECRET), Key::ed())] {
        let dir = tempfile::tempdir().unwrap();
        let set = |key: &Key| json!({"keys": [key.jwk(None)]}).to_string();
        let auth = auth(&dir, &set(&first));
        fs::write(dir.path().join("keys"), set(&then)).unwrap();
        std::thread::sleep(Duration::from_millis(1100));
        assert!(check(&auth, &then.token("mallory", "1", 60)).is_err());
        assert!(check(&auth, &first.token("bob", "0", 60)).is_ok());
    }
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
        "--jwt-secret-file",
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
