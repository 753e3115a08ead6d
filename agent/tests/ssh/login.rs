//! Who gets in: keys, host keys, the authorized_keys file.

use crate::server::{Server, stderr};

#[test]
fn a_known_key_gets_in_and_bytes_come_back() {
    let server = Server::start();
    let output = server.subsystem(&["id"], &[], b"hello\0\xff\n");
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(output.stdout, b"hello\0\xff\n");
}

#[test]
fn ecdsa_keys_get_in_and_rsa_does_not() {
    let server = Server::start();
    for (name, kind) in [("p256", "ecdsa -b 256"), ("p384", "ecdsa -b 384"), ("p521", "ecdsa -b 521")] {
        server.keygen(name, kind);
        server.authorize(&server.public(name));
        assert!(server.logs_in(name), "{name}");
    }
    server.keygen("rsa", "rsa -b 2048");
    server.authorize(&server.public("rsa"));
    assert!(!server.logs_in("rsa"));
}

#[test]
fn strict_key_exchange_and_an_aead_cipher_are_agreed_on() {
    let server = Server::start();
    let output = server.subsystem(&["id"], &["-vvv"], b"x");
    let log = stderr(&output);
    assert!(log.contains("will use strict KEX ordering"), "{log}");
    assert!(log.contains("cipher: chacha20-poly1305@openssh.com MAC: <implicit>"), "{log}");
    let output = server.subsystem(&["id"], &["-vvv", "-c", "aes256-gcm@openssh.com"], b"x");
    assert!(stderr(&output).contains("cipher: aes256-gcm@openssh.com MAC: <implicit>"));
}

#[test]
fn weak_algorithms_are_refused() {
    let server = Server::start();
    for option in ["Ciphers=aes256-ctr", "KexAlgorithms=diffie-hellman-group14-sha256", "Compression=yes"] {
        let output = server.subsystem(&["id"], &["-v", "-o", option], b"x");
        let agreed = output.status.success() && !stderr(&output).contains("compression: none");
        assert!(!agreed, "{option}: {}", stderr(&output));
    }
}

#[test]
fn another_host_key_is_not_trusted() {
    let (server, other) = (Server::start(), Server::start());
    let line = std::fs::read_to_string(other.path("known_hosts")).expect("known_hosts");
    let wrong = line.replace(&other.address.port().to_string(), &server.address.port().to_string());
    std::fs::write(server.path("known_hosts"), wrong).expect("written");
    let output = server.subsystem(&["id"], &[], b"secret");
    assert_eq!(output.status.code(), Some(255));
    assert!(stderr(&output).contains("HOST IDENTIFICATION HAS CHANGED"), "{}", stderr(&output));
    assert!(output.stdout.is_empty());
}

#[test]
fn only_public_keys_are_offered() {
    let server = Server::start();
    server.keygen("stranger", "ed25519");
    for method in ["password", "keyboard-interactive", "hostbased", "gssapi-with-mic", "publickey"] {
        let option = format!("PreferredAuthentications={method}");
        let output = server.subsystem(&["stranger"], &["-o", "BatchMode=no", "-o", &option], b"x");
        assert_eq!(output.status.code(), Some(255));
        assert!(stderr(&output).contains("Permission denied (publickey)."), "{method}: {}", stderr(&output));
    }
}

#[test]
fn a_removed_key_does_not_get_in_again() {
    let server = Server::start();
    assert!(server.logs_in("id"));
    server.authorize("# nobody\n");
    assert!(!server.logs_in("id"));
    server.authorize(&format!("restrict {}", server.public("id")));
    assert!(server.logs_in("id"));
    std::fs::remove_file(server.path("keys")).expect("removed");
    assert!(!server.logs_in("id"));
}

#[test]
fn options_of_a_key_are_honoured_or_the_key_is_refused() {
    let server = Server::start();
    let key = server.public("id");
    for (options, gets_in) in [
        ("restrict,no-pty", true),
        ("expiry-time=\"20200101Z\"", false),
        ("expiry-time=\"29991231Z\"", true),
        ("expiry-time=\"29991231\"", false),
        ("from=\"127.0.0.0/8\"", true),
        ("from=\"10.0.0.0/8\"", false),
        ("from=\"*,!127.0.0.1\"", false),
        ("from=\"localhost\"", false),
        ("command=\"/bin/true\"", false),
        ("cert-authority", false),
    ] {
        server.authorize(&format!("{options} {key}"));
        assert_eq!(server.logs_in("id"), gets_in, "{options}");
    }
}

#[test]
fn a_file_that_others_can_write_lets_nobody_in() {
    let server = Server::start();
    server.authorize_with_mode(&server.public("id"), 0o664);
    assert!(!server.logs_in("id"));
    server.authorize_with_mode(&server.public("id"), 0o646);
    assert!(!server.logs_in("id"));
    server.authorize_with_mode(&server.public("id"), 0o644);
    assert!(server.logs_in("id"));
}

#[test]
#[ignore = "needs: root"]
fn a_file_of_somebody_else_lets_nobody_in() {
    let server = Server::start();
    std::os::unix::fs::chown(server.path("keys"), Some(12_345), None).expect("chown");
    assert!(!server.logs_in("id"));
}
