//! One file's content on its way: the version that the pod has, and the steps that make the new one of it.

use devsync_protocol::chunk::Signature;
use devsync_protocol::delta::{Step, diff_content, diff_signature, whole};
use devsync_protocol::digest::Digest;
use devsync_protocol::message::{DELTA_FROM, MAX_DATA, Request};
use devsync_protocol::path::RelPath;
use devsync_protocol::tree::Node;
use tokio::sync::mpsc;
use tokio::task::block_in_place;

use super::base::Bases;
use super::root::Root;
use crate::session::{Outgoing, SessionError};

/// Steps that an encoder may be ahead of the wire.
const AHEAD: usize = 8;

/// What is known of the version in the pod.
pub(super) enum Base {
    None,
    Bytes(Digest, Vec<u8>),
    Chunks(Digest, Signature),
}

impl Base {
    /// The best that is known of the pod's version.
    pub(super) fn of(bases: &Bases, root: &Root, path: &RelPath) -> Base {
        let named = root.signatures.get(path);
        let held = match root.held.get(path) {
            Some(Node::File { digest, size, .. }) if *size >= DELTA_FROM => Some(*digest),
            _ => named.map(|(digest, _)| *digest),
        };
        let Some(digest) = held else { return Base::None };
        if let Some(bytes) = block_in_place(|| bases.get(&digest)) {
            return Base::Bytes(digest, bytes);
        }
        match named {
            Some((of, Some(signature))) if *of == digest => Base::Chunks(digest, signature.clone()),
            _ => Base::None,
        }
    }

    pub(super) fn digest(&self) -> Option<Digest> {
        match self {
            Base::None => None,
            Base::Bytes(digest, _) | Base::Chunks(digest, _) => Some(*digest),
        }
    }
}

/// Encodes on a thread of its own while what is ready is sent; gives the bytes back.
pub(super) async fn push_delta(
    outgoing: &mut Outgoing<'_>,
    base: Base,
    new: Vec<u8>,
) -> Result<Vec<u8>, SessionError> {
    if new.is_empty() {
        return Ok(new);
    }
    let (tx, mut steps) = mpsc::channel(AHEAD);
    let encoder = tokio::task::spawn_blocking(move || {
        let emit = |step: Step| tx.blocking_send(step);
        let done = match &base {
            Base::None => whole(&new, emit),
            Base::Bytes(_, old) => diff_content(old, &new, emit),
            Base::Chunks(_, signature) => diff_signature(signature, &new, emit),
        };
        // Nobody listens any more where the session ended.
        done.ok();
        new
    });
    let (mut group, mut weight) = (Vec::new(), 0);
    while let Some(step) = steps.recv().await {
        let len = step.wire_len();
        if weight + len > MAX_DATA && !group.is_empty() {
            outgoing.push(&Request::Steps(std::mem::take(&mut group))).await?;
            weight = 0;
        }
        weight += len;
        group.push(step);
    }
    if !group.is_empty() {
        outgoing.push(&Request::Steps(group)).await?;
    }
    encoder.await.map_err(|_| SessionError::Ended { said: Some("an encoder failed".to_owned()) })
}
