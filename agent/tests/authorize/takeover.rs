//! One owner for each target, and how it changes.

use std::process::Command;

use devsync_protocol::message::{Reply, RootOptions};

use crate::peer::AGENT;
use crate::sidecar::{Sidecar, answer};

#[test]
fn a_second_key_is_told_who_is_attached_and_may_take_over() {
    let sidecar = Sidecar::start();
    let place = sidecar.path("work");
    std::fs::create_dir(&place).expect("made");
    let place = place.to_str().expect("text");
    sidecar.authorize("ann", &[]);
    sidecar.authorize("bob", &[]);
    let mut ann = sidecar.attach("ann");
    ann.open(place);
    let mut bob = sidecar.attach("bob");
    let refusal = bob.refused(place, RootOptions::default());
    assert!(refusal.cause.starts_with("ann, since "), "{refusal:?}");
    assert!(refusal.fatal, "{refusal:?}");
    bob.close();
    answer(&sidecar.ask(Command::new(AGENT), "bob", &["--take-over"]));
    let mut bob = sidecar.attach("bob");
    bob.open(place);
    let Some(Reply::Refused(refusal)) = ann.next() else { panic!("ann is not told") };
    assert!(refusal.fatal && refusal.cause == "bob has taken over", "{refusal:?}");
    assert_eq!(ann.next(), None);
    // Ann's client connects again, and its key still opens sessions; what bob holds it does not get.
    let mut ann = sidecar.attach("ann");
    assert!(ann.refused(place, RootOptions::default()).cause.starts_with("bob, since "));
    // The right to take over was for once.
    bob.close();
    ann.close();
    let mut ann = sidecar.attach("ann");
    ann.open(place);
    let mut bob = sidecar.attach("bob");
    assert!(bob.refused(place, RootOptions::default()).cause.starts_with("ann, since "));
}
