use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD},
};

use super::*;

fn random(len: usize) -> Vec<u8> {
    (0..len).map(|_| fastrand::u8(..)).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn p7_what_is_public_or_known_is_no_secret() {
    // An Ed25519 key, as a file and without the last byte, which is a space.
    let mut key = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00".to_vec();
    key.extend(random(31));
    key.push(b' ');
    let cut = key.trim_ascii_end().to_vec();
    // The first half of a certificate, and a chain of them (PKCS #7).
    let half = [&b"\x30\x82\x03\x10\x30\x82\x01\xf8"[..], &random(200)].concat();
    let chain = [&b"\x30\x82\x01\x34\x06\x09\x2a\x86"[..], &random(300)].concat();
    let gzip = [&b"\x1f\x8b\x08\0\0\0\0\0"[..], &random(100)].concat();
    let point = [&[4][..], &random(64)].concat();
    assert!(check(&point[..64]).is_err());
    for public in [&key, &cut, &half, &chain, &gzip, &point] {
        assert!(check(public).is_err(), "{public:?}");
        assert!(check(BASE64.encode(public).as_bytes()).is_err());
        assert!(check(hex(public).as_bytes()).is_err());
    }
    // Texts in another encoding, or cut within a character.
    for text in [
        &b"{\"keys\":[{\"kid\":\"schl\xfcssel\",\"kty\":\"RSA\"}]}"[..],
        b"D\xe9sol\xe9, la page demand\xe9e n'est pas disponible",
        b"{\"keys\":[{\"kid\":\"caf\xc3",
    ] {
        assert!(check(text).is_err(), "{}", String::from_utf8_lossy(text));
    }
    let cut = BASE64.encode(&half);
    let joined = format!("{cut},{cut}");
    let cut_hex = hex(&half);
    for spelling in [
        &cut[..cut.len() - 3],
        &joined,
        &cut_hex[..cut_hex.len() - 1],
    ] {
        assert!(check(spelling.as_bytes()).is_err(), "{spelling}");
    }
    for known in [
        "eyAiYWxnIjoiSFMyNTYifQ.eyJzdWIiOiJib2IifQ",
        "v4.public.eyJzdWIiOiJib2IifQ",
        "1234567890123456",
        "12345678901234567890123456789012",
        "qwertyuiopasdfghjklzxcvbnm",
        "password1234567890",
        "mysecretkeymysecretkey",
        "correcthorsebatterystaple",
        "TheQuickBrownFoxJumpsOverTheLazyDog",
        "ToBeOrNotToBeThatIsTheQuestion",
        "ItWasTheBestOfTimesItWasTheWorst",
        "ThisIsMySuperHemmeligNoegle2024!",
        "kubernetesIsAwesome!2024",
        "123NotAParticularyGreatSecret!!!",
        "FIXMEFIXMEFIXME1234",
        "DEADBEEFCAFED00DFEEDFACE8BADF00D",
        "2b7e151628aed2a6abf7158809cf4f3c",
        "$2b$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",
        "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub",
        "undefinedundefined",
        "upstream_request_timeout",
        "Modulus=C2A3F09B7D4E11886A5F00D3C2A3F09B7D4E11886A5F00D3",
        "secret=c2VjcmV0c2VjcmV0c2VjcmV0",
        "jwt-secret=c2VjcmV0c2VjcmV0c2VjcmV0",
        "key:MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE",
        "v=DKIM1;k=rsa;p=MIGfMA0GCSqGSIb3",
        "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK",
        "SHA256:nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8",
        "%7B%22keys%22%3A%5B%7B%22kty%22",
        "kty=RSA&n=sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri&e=AQAB",
    ] {
        assert!(check(known.as_bytes()).is_err(), "{known}");
    }
}

/// Of those that are bytes one in 10,000 begins like something compressed.
#[test]
fn p7_what_was_drawn_at_random_is_a_secret() {
    const DRAWS: usize = 20_000;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    fastrand::seed(seed);
    let mut refused = [0; 4];
    for n in 0..DRAWS {
        let bytes = random(if n % 2 == 0 { 32 } else { 64 });
        let spellings = [
            hex(&bytes).into_bytes(),
            BASE64.encode(&bytes).into_bytes(),
            URL_SAFE_NO_PAD.encode(&bytes).into_bytes(),
            bytes,
        ];
        for (refused, spelling) in refused.iter_mut().zip(spellings) {
            *refused += usize::from(check(&spelling).is_err());
        }
    }
    // Of 64 bytes as they are one in 256 could be a point whose last byte is cut off.
    let [encoded @ .., bytes] = refused;
    let few = encoded.iter().all(|refused| *refused < DRAWS / 1_000) && bytes < DRAWS / 200;
    assert!(few, "{refused:?} of {DRAWS}");
}

/// Each as it is, and in base64, base64url and hex.
#[test]
fn p7_what_is_published_or_made_up_is_no_secret() {
    let mut taken = Vec::new();
    for known in [
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
        "hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg",
        "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
        "404E635266556A586E3272357538782F413F4428472B4B6250645367566B5970",
        "super-secret-jwt-token-with-at-least-32-characters-long",
        "3EK6FD+o0+c7tzBNVfjpMkNDi2yARAAKzQlk8O2IKoxQu4nF7EdAh8s3TwpHwrdWT6R",
        "ThisismySecretKey",
        "bezKoderSecretKey",
        "django-insecure-9$k2!x@h7v#q4m&z1w*r8t^y5u(i3o)p6a-s0d_f",
        "my-32-character-ultra-secure-and-ultra-long-secret",
        "a-string-secret-at-least-256-bits-long",
        "generate-with-openssl-rand-base64-32",
        "use-openssl-rand-hex-32-here",
        "REPLACE-WITH-32-BYTES-RANDOM",
        "P@ssw0rd12345678",
        "Passwort12345678",
        "Admin123Admin123",
        "abc123abc123abc123",
        "1qaz2wsx3edc4rfv",
        "!QAZ@WSX3edc4rfv",
        "zaq12wsxcde34rfv",
        "changeme-changeme-changeme",
        "your-256-bit-secret",
        "supersecretsupersecret",
        "S3cr3tT0k3nS3rv3r!",
        "correct-horse-battery-staple-orbit-walnut-puzzle",
        "d41d8cd98f00b204e9800998ecf8427e",
        "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "01ba4719c80b6fe911b091a7c05124b64eeece964e09c058ef8f9805daca546b",
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "550e8400-e29b-41d4-a716-446655440000",
        "550E8400E29B41D4A716446655440000",
        "c232ab00-9414-11ec-b3c8-9f6bdeced846",
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "2024-01-01T00:00:00.000000Z",
        "20240101T000000Z-20241231T235959Z",
        "192.168.100.101:8083",
        "[2001:db8:85a3::8a2e:370:7334]:8083",
        "2001:db8:85a3::8a2e:370:7334",
        "alice.liddell@wonderland.co.uk",
        "chatd-1.2.3-rc.1+build.5",
        "v1.24.0-linux-amd64",
    ] {
        let layers = [
            known.to_owned(),
            BASE64.encode(known),
            URL_SAFE_NO_PAD.encode(known),
            hex(known.as_bytes()),
            BASE64.encode(BASE64.encode(known)),
        ];
        taken.extend(
            layers
                .into_iter()
                .filter(|layer| check(layer.as_bytes()).is_ok()),
        );
    }
    assert!(taken.is_empty(), "{taken:#?}");
    let sequence: Vec<u8> = (0..32).collect();
    assert!(check(&sequence).is_err());
    let published = URL_SAFE_NO_PAD
        .decode("hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg")
        .unwrap();
    assert!(check(&published).is_err());
    assert!(check(&BASE64.encode(&published).into_bytes()).is_err());
}

#[test]
fn p7_a_public_key_in_the_wrapping_of_any_tool_is_no_secret() {
    let random_in = |head: &[u8], len: usize| [head, &random(len)].concat();
    // OpenPGP: Ed25519 in the old and the new form, RSA; COSE: Ed25519, P-256.
    let mut p256 = random_in(b"\xa5\x01\x02\x03\x26\x20\x01\x21\x58\x20", 32);
    p256.extend(random_in(b"\x22\x58\x20", 32));
    for key in [
        random_in(b"\x98\x33\x04\x65\x01\x02\x03\x16\x09\x2b\x06\x01", 41),
        random_in(b"\xc6\x33\x04\x65\x01\x02\x03\x16\x09\x2b\x06\x01", 41),
        random_in(b"\x99\x01\x8d\x04\x65\x01\x02\x03\x01\x0c\x00", 390),
        random_in(b"\xc6\xc0\xcd\x04\x65\x01\x02\x03\x01\x0c\x00", 390),
        random_in(b"\xa4\x01\x01\x03\x27\x20\x06\x21\x58\x20", 32),
        random_in(b"\xa3\x01\x01\x20\x06\x21\x58\x20", 32),
        p256,
        random_in(b"Ed", 40),
    ] {
        let text = BASE64.encode(&key);
        assert!(check(&key).is_err(), "{key:?}");
        for spelling in [text.clone(), URL_SAFE_NO_PAD.encode(&key), hex(&key)] {
            assert!(check(spelling.as_bytes()).is_err(), "{spelling}");
        }
        assert!(check(format!("{text}=njUN").as_bytes()).is_err(), "{text}");
    }
    let key = BASE64.encode(random(32));
    let pairs: Vec<String> = random(20).iter().map(|b| format!("{b:02X}")).collect();
    for told in [
        format!("cache.nixos.org-1:{key}"),
        format!("ed25519:{}", key.trim_end_matches('=')),
        format!("ed25519:auto:{key}"),
        format!("sum.golang.org+033de0ae+{}", BASE64.encode(random(33))),
        "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4".into(),
        "npub180cvv07tjdrrgpa0j7j7tmnyl2yr6yr7l8j4s3evf6u64th6gkwsyjh6w6".into(),
        format!("xpub6{}", "Kb3Ve8Rt".repeat(13) + "Ab"),
        pairs.join(":"),
        format!("MD5:{}", pairs[..16].join(":")),
    ] {
        assert!(check(told.as_bytes()).is_err(), "{told}");
    }
}

/// What people draw with the tools that they have; none of it is refused.
#[test]
fn p7_what_tools_draw_is_a_secret() {
    const DRAWS: usize = 10_000;
    let seed = std::env::var("SEED").map_or(20_261_128, |seed| seed.parse().unwrap());
    println!("seed {seed}");
    fastrand::seed(seed);
    let letters = |len: usize| {
        (0..len)
            .map(|_| fastrand::alphanumeric())
            .collect::<String>()
    };
    let signs = |len: usize| {
        let sign = |_| char::from(fastrand::u8(b'!'..=b'~'));
        (0..len).map(sign).collect::<String>()
    };
    let uuid = || {
        let mut bytes = random(16);
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let text = hex(&bytes);
        let parts = [
            &text[..8],
            &text[8..12],
            &text[12..16],
            &text[16..20],
            &text[20..],
        ];
        parts.join("-")
    };
    let tools: [(&str, &dyn Fn() -> Vec<u8>); 12] = [
        ("openssl rand -base64 32", &|| {
            BASE64.encode(random(32)).into_bytes()
        }),
        ("openssl rand -base64 48", &|| {
            BASE64.encode(random(48)).into_bytes()
        }),
        ("openssl rand -hex 32", &|| hex(&random(32)).into_bytes()),
        ("openssl rand -hex 16", &|| hex(&random(16)).into_bytes()),
        ("pwgen -s 48 1", &|| letters(48).into_bytes()),
        ("pwgen -s 32 1", &|| letters(32).into_bytes()),
        ("head -c 32 /dev/urandom", &|| {
            random(32).trim_ascii().to_vec()
        }),
        ("uuidgen, once", &|| uuid().into_bytes()),
        ("uuidgen, twice", &|| {
            format!("{}{}", uuid(), uuid()).into_bytes()
        }),
        ("base64url of 32", &|| {
            URL_SAFE_NO_PAD.encode(random(32)).into_bytes()
        }),
        ("base64url of 64", &|| {
            URL_SAFE_NO_PAD.encode(random(64)).into_bytes()
        }),
        ("64 with signs", &|| signs(64).into_bytes()),
    ];
    for (tool, draw) in tools {
        for _ in 0..DRAWS {
            let secret = draw();
            let shown = String::from_utf8_lossy(&secret);
            assert_eq!(check(&secret), Ok(()), "{tool}, seed {seed}: {shown}");
        }
    }
}
