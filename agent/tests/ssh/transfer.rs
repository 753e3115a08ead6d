//! Many bytes, both ways at once, across key exchanges.

use std::io::{Read, Write};
use std::sync::Arc;

use devsync_agent::ssh::Limits;

use crate::server::{Server, noise, stderr};

const MIB: usize = 1024 * 1024;

#[test]
fn two_hundred_megabytes_come_back_whole() {
    let server = Server::start();
    let input = noise(200 * MIB);
    let output = server.subsystem(&["id"], &["-v", "-c", "aes256-gcm@openssh.com"], &input);
    let log = stderr(&output);
    let (status, count) = (output.status, output.stdout.len());
    assert!(status.success(), "{status}, {count} bytes: {}", &log[log.len().saturating_sub(2000)..]);
    assert!(output.stdout == input);
}

#[test]
fn keys_are_exchanged_again_each_megabyte() {
    let server = Server::start();
    let input = noise(100 * MIB);
    let output = server.subsystem(&["id"], &["-v", "-o", "RekeyLimit=1M"], &input);
    let log = stderr(&output);
    assert!(output.status.success(), "{}", &log[log.len().saturating_sub(2000)..]);
    assert!(output.stdout == input);
    let exchanges =
        log.matches("rekey in progress").count().max(log.matches("SSH2_MSG_NEWKEYS received").count());
    assert!(exchanges > 20, "{exchanges} key exchanges");
}

#[test]
fn a_session_that_answers_before_it_reads_is_not_deadlocked() {
    // Two parties that both send more than every window and buffer, where the session reads nothing meanwhile.
    let server = Server::with(
        Limits::default(),
        Arc::new(|mut reader, mut writer, _| {
            let answer = noise(32 * MIB);
            let _ = writer.write_all(&answer);
            let mut input = Vec::new();
            let _ = reader.read_to_end(&mut input);
            let _ = writer.write_all(&(input.len() as u64).to_le_bytes());
        }),
    );
    let output = server.subsystem(&["id"], &[], &noise(32 * MIB));
    assert!(output.status.success(), "{}", stderr(&output));
    let (answer, length) = output.stdout.split_at(32 * MIB);
    assert!(answer == noise(32 * MIB));
    assert_eq!(length, (32 * MIB as u64).to_le_bytes());
}

#[test]
fn a_session_that_reads_nothing_holds_the_client_back() {
    let server = Server::with(
        Limits::default(),
        Arc::new(|mut reader, mut writer, _| {
            let _ = reader.read_exact(&mut [0]);
            let _ = writer.write_all(b"enough");
        }),
    );
    let output = server.subsystem(&["id"], &[], &noise(64 * MIB));
    assert_eq!(output.stdout, b"enough", "{}", stderr(&output));
}
