//! Logins: who it is, never the secret, and nothing else of the conversation disturbed.

use super::*;

const SECRET: &str = "hunter2";

/// SaslHandshake of a version, for a mechanism, and its answer.
fn handshake(wire: &mut Wire, version: i16, mechanism: &str) {
    let body = [&(mechanism.len() as i16).to_be_bytes()[..], mechanism.as_bytes()].concat();
    wire.client(&request(ApiKey::SaslHandshake, version, 1, &body));
    wire.broker(&answer(ApiKey::SaslHandshake, version, 1, b"\0\0\0\0\0\x01\0\x05PLAIN"));
}

fn authenticate(version: i16, correlation: i32, token: &[u8]) -> Vec<u8> {
    let message = kafka_protocol::messages::SaslAuthenticateRequest::default()
        .with_auth_bytes(Bytes::copy_from_slice(token));
    request(ApiKey::SaslAuthenticate, version, correlation, &encoded(&message, version))
}

/// What was told of users; and that no secret was told at all.
fn users(wire: &mut Wire) -> Vec<String> {
    let told = wire.told();
    assert!(!told.iter().any(|line| line.contains(SECRET) || line.contains(" 36 ")), "{told:?}");
    told.into_iter().filter(|line| line.starts_with("Principal")).collect()
}

fn plain() -> Vec<u8> {
    format!("\0shop\0{SECRET}").into_bytes()
}

#[test]
fn a_login_gives_the_users_name_and_again_when_it_is_repeated() {
    for version in 0..=2 {
        let mut wire = Wire::new();
        handshake(&mut wire, 1, "PLAIN");
        for correlation in [2, i32::MAX - 3] {
            let token = authenticate(version, correlation, &plain());
            wire.at_broker();
            for byte in &token {
                wire.client(&[*byte]);
            }
            assert_eq!(wire.at_broker(), token, "it passes as it is");
            wire.broker(&answer(
                ApiKey::SaslAuthenticate,
                version,
                correlation,
                b"\0\0\0\0\0\0\0\0",
            ));
        }
        wire.client(&request(ApiKey::Heartbeat, 0, 9, b"x"));
        wire.broker(&answer(ApiKey::Heartbeat, 0, 9, b"\0\0"));
        assert_eq!(users(&mut wire), [r#"Principal("shop")"#; 2]);
    }
}

#[test]
fn scram_names_its_user_in_the_first_token_and_tokens_of_others_are_left_alone() {
    let mut wire = Wire::new();
    handshake(&mut wire, 1, "SCRAM-SHA-512");
    wire.client(&authenticate(2, 2, b"n,,n=sh=2Cop,r=nonce"));
    wire.client(&authenticate(2, 3, b"c=biws,r=nonce,p=hunter2"));
    assert_eq!(users(&mut wire), [r#"Principal("sh,op")"#]);
    let mut wire = Wire::new();
    handshake(&mut wire, 1, "OAUTHBEARER");
    wire.client(&authenticate(2, 2, b"n,,\x01auth=Bearer hunter2\x01\x01"));
    assert_eq!(users(&mut wire), [""; 0]);
}

#[test]
fn bare_tokens_are_counted_and_requests_follow_them() {
    let rounds: [(&str, &[&[u8]]); 3] = [
        ("PLAIN", &[b"\0shop\0hunter2"]),
        ("SCRAM-SHA-256", &[b"n,,n=shop,r=x", b"c=biws,p=hunter2"]),
        ("OAUTHBEARER", &[b"n,,\x01auth=Bearer hunter2\x01\x01"]),
    ];
    for (mechanism, tokens) in rounds {
        let mut wire = Wire::new();
        handshake(&mut wire, 0, mechanism);
        for (number, token) in tokens.iter().enumerate() {
            wire.client(&frame(&[token]));
            // The last word of the broker is empty with PLAIN.
            let reply: &[u8] = if number + 1 == tokens.len() { b"" } else { b"r=x,s=y,i=4096" };
            wire.broker(&frame(&[reply]));
        }
        wire.at_broker();
        wire.at_client();
        let ask = request(ApiKey::Heartbeat, 0, 9, b"x");
        wire.client(&ask);
        wire.broker(&answer(ApiKey::Heartbeat, 0, 9, b"\0\0"));
        assert_eq!(wire.at_broker(), ask);
        assert_eq!(wire.at_client(), answer(ApiKey::Heartbeat, 0, 9, b"\0\0"));
        let told = wire.told();
        assert!(told.iter().any(|line| line == "Broker begins 12 v0 #9 2"), "{told:?}");
        assert!(!told.iter().any(|line| line.contains("Opaque")), "{told:?}");
        let named = told.iter().any(|line| line == r#"Principal("shop")"#);
        assert_eq!(named, mechanism != "OAUTHBEARER");
    }
}

#[test]
fn bare_tokens_of_unknown_number_pass_unread() {
    let mut wire = Wire::new();
    handshake(&mut wire, 0, "GSSAPI");
    wire.at_broker();
    wire.client(b"\0\0\0\x05token\x7f\xff\xff\xff");
    assert_eq!(wire.at_broker(), b"\0\0\0\x05token\x7f\xff\xff\xff");
    assert!(wire.told().iter().any(|line| line.starts_with("Opaque")));
}

#[test]
fn a_refused_mechanism_is_followed_by_requests() {
    let mut wire = Wire::new();
    wire.client(&request(ApiKey::SaslHandshake, 0, 1, b"\0\x05PLAIN"));
    wire.broker(&answer(ApiKey::SaslHandshake, 0, 1, b"\0\x21\0\0\0\0"));
    wire.client(&request(ApiKey::Heartbeat, 0, 9, b"x"));
    assert!(!wire.told().iter().any(|line| line.starts_with("Opaque")));
}
