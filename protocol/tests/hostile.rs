//! What a hostile peer may send: each is refused with an error, in bounded memory, and never becomes a message or
//! a file that was not meant.

use devsync_protocol::chunk::{Chunk, Signature, SignatureError};
use devsync_protocol::delta::{Applier, DeltaError, MAX_PATCH, Step};
use devsync_protocol::digest::Digest;
use devsync_protocol::frame::{Decoder, Encoder, FrameError, MAX_FRAME};
use devsync_protocol::handshake;
use devsync_protocol::message::*;
use devsync_protocol::path::{PodPath, RelPath};
use devsync_protocol::tree::{DirDigest, Entry, Node};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn step(
    applier: &mut Applier,
    base: &[u8],
    step: &Step,
    made: &mut Vec<u8>,
) -> std::result::Result<(), DeltaError> {
    let read = |at: u64, into: &mut [u8]| {
        into.copy_from_slice(&base[at as usize..][..into.len()]);
        Ok(())
    };
    let write = |bytes: &[u8]| {
        made.extend_from_slice(bytes);
        Ok(())
    };
    applier.step(step, read, write)
}

fn refused(base_len: usize, new_size: u64, bad: Step) -> DeltaError {
    let mut made = Vec::new();
    let error = step(&mut Applier::new(base_len as u64, new_size), &vec![0; base_len], &bad, &mut made)
        .expect_err("must be refused");
    assert!(made.is_empty(), "{bad:?} wrote {} bytes", made.len());
    error
}

fn zstd_of(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 1).expect("memory")
}

#[test]
fn copies_outside_the_base_are_refused() {
    for (offset, len) in
        [(0, 101), (100, 1), (u64::MAX, 2), (2, u64::MAX), (u64::MAX, u64::MAX), (1 << 31, 1 << 31)]
    {
        let error = refused(100, u64::MAX, Step::Copy { offset, len });
        assert!(matches!(error, DeltaError::OutsideBase { .. }), "{error}");
    }
    let error = refused(100, 10, Step::Patch { offset: u64::MAX, len: 5, size: 10, data: zstd_of(&[0; 10]) });
    assert!(matches!(error, DeltaError::OutsideBase { .. }), "{error}");
}

#[test]
fn steps_that_make_nothing_are_refused() {
    let patch = Step::Patch { offset: 0, len: 0, size: 0, data: zstd_of(b"") };
    for bad in [Step::Copy { offset: 0, len: 0 }, Step::Data(Vec::new()), patch] {
        assert!(matches!(refused(100, 10, bad), DeltaError::EmptyStep));
    }
}

#[test]
fn more_than_the_announced_size_is_refused_before_it_is_written() {
    let patch = Step::Patch { offset: 0, len: 0, size: 11, data: zstd_of(&[0; 11]) };
    for bad in [Step::Copy { offset: 0, len: 11 }, Step::Data(vec![0; 11]), patch] {
        assert!(matches!(refused(100, 10, bad), DeltaError::TooMuch { new_size: 10 }));
    }
}

#[test]
fn less_than_the_announced_size_is_no_file() -> Result {
    let mut applier = Applier::new(0, 10);
    step(&mut applier, &[], &Step::Data(vec![1; 9]), &mut Vec::new())?;
    assert!(matches!(applier.finish(), Err(DeltaError::TooLittle { made: 9, new_size: 10 })));
    Ok(())
}

#[test]
fn a_patch_cannot_make_another_length_than_it_says() {
    let bomb = zstd_of(&vec![0; 64 * 1024 * 1024]);
    assert!(bomb.len() * 1000 < 64 * 1024 * 1024);
    for (size, data) in
        [(1000, bomb), (11, zstd_of(&[0; 10])), (9, zstd_of(&[0; 10])), (9, vec![]), (9, vec![7; 40])]
    {
        let error = refused(100, u64::MAX, Step::Patch { offset: 0, len: 100, size, data });
        assert!(matches!(error, DeltaError::Patch { .. }), "{error}");
    }
}

#[test]
fn a_patch_cannot_ask_for_much_memory() {
    for (len, size) in [(1, MAX_PATCH + 1), (MAX_PATCH + 1, 1), (u32::MAX, 1), (1, u32::MAX)] {
        let error = refused(100, u64::MAX, Step::Patch { offset: 0, len, size, data: vec![1] });
        assert!(matches!(error, DeltaError::PatchTooLarge { .. }), "{error}");
    }
}

#[test]
fn signatures_that_no_file_has_are_refused() {
    let chunk = |len| Chunk { len, digest: [0; 16] };
    let check = |lens: &[u32]| Signature { chunks: lens.iter().map(|l| chunk(*l)).collect() }.validate();
    assert_eq!(check(&[]), Ok(0));
    assert_eq!(check(&[5000, 1]), Ok(5001));
    for bad in [&[0][..], &[5000, 0], &[1, 5000], &[16385], &[u32::MAX], &[u32::MAX, u32::MAX]] {
        assert!(matches!(check(bad), Err(SignatureError::Length { .. })), "{bad:?}");
    }
    assert!(matches!(check(&vec![u32::MAX; 300]), Err(SignatureError::TooLong { .. })));
}

#[test]
fn frames_longer_than_the_limit_are_refused_before_they_arrive() {
    for len in [MAX_FRAME as u32 + 1, (1 << 31) - 1] {
        for flag in [0, 1 << 31] {
            let mut decoder = Decoder::new();
            decoder.feed(&(len | flag).to_le_bytes());
            assert!(matches!(decoder.next::<Request>(), Err(FrameError::TooLong { .. })));
        }
    }
    let mut decoder = Decoder::new();
    decoder.feed(&[0; 4]);
    assert!(matches!(decoder.next::<Request>(), Err(FrameError::Corrupt(_))));
}

fn compressed_frame(plain_len: u32, body: &[u8]) -> Vec<u8> {
    let header = (body.len() as u32 + 4) | 1 << 31;
    [&header.to_le_bytes()[..], &plain_len.to_le_bytes(), body].concat()
}

#[test]
fn a_frame_cannot_lie_about_its_plain_length() {
    let plain = vec![0; 1000];
    let bomb = zstd_of(&vec![0; 64 * 1024 * 1024]);
    let honest = zstd_of(&plain);
    for (len, body) in [
        (999, &honest),
        (1001, &honest),
        (u32::MAX, &honest),
        (0, &honest),
        (1000, &bomb),
        (MAX_FRAME as u32, &bomb),
    ] {
        let mut decoder = Decoder::new();
        decoder.feed(&compressed_frame(len, body));
        assert!(decoder.next::<Request>().is_err(), "{len}");
    }
}

/// One of every kind of request.
fn requests() -> Result<Vec<Request>> {
    let path = RelPath::new("dir/name")?;
    let digest = Digest::of(b"x");
    let node = Node::File { mode: 0o644, size: 300, digest };
    let entry = Entry { path: path.clone(), node };
    let dir = DirDigest { dir: Some(path.clone()), digest };
    let file = |content| Op::File { path: path.clone(), mode: 0o755, size: 3, digest, content };
    let ops = [
        Op::Dir { path: path.clone(), mode: 0o755 },
        Op::Symlink { path: path.clone(), target: b"../t".to_vec() },
        file(Content::Inline(b"abc".to_vec())),
        file(Content::Follows { base: Some(digest) }),
        Op::Mode { path: path.clone(), mode: 0o600 },
        Op::Delete { path: path.clone() },
    ];
    let patch = Step::Patch { offset: 300, len: 7, size: 400, data: vec![1, 2, 3] };
    let options = RootOptions { inplace: vec!["*.db".into()], ..RootOptions::default() };
    let places = [Place::Cwd, Place::BelowCwd(path.clone()), Place::At(PodPath::new("/srv/app")?)];
    let mut all: Vec<_> =
        places.into_iter().map(|place| Request::Open { root: 1, place, options: options.clone() }).collect();
    all.extend(ops.into_iter().map(|op| Request::Op { root: 300, op }));
    all.extend([
        Request::Compare { root: 0, tree: digest, dirs: vec![dir], last: true },
        Request::Manifest { root: 0, entries: vec![entry], last: false },
        Request::Begin { batch: 7 },
        Request::Steps(vec![Step::Copy { offset: 1, len: 300 }, Step::Data(vec![9; 20]), patch]),
        Request::Commit { batch: 7 },
        Request::Abandon { batch: 7 },
        Request::Verify { root: 2 },
        Request::Pull { root: 2, path: Some(path.clone()) },
        Request::Search { files: vec![Wanted { path, digest }] },
        Request::Exists { paths: vec![PodPath::new("/usr/bin/env")?] },
        Request::Ping { nonce: u64::MAX },
    ]);
    Ok(all)
}

/// One of every kind of reply that this crate alone can make.
fn replies() -> Result<Vec<Reply>> {
    let path = RelPath::new("dir/name")?;
    let digest = Digest::of(b"x");
    let signature = Signature::of(&[1; 20_000]);
    let entry = Entry { path: path.clone(), node: Node::Symlink { target: b"t".to_vec() } };
    let differs = NeedKind::Differs { digest, signature: Some(signature.clone()) };
    let needs = [NeedKind::Missing, NeedKind::Mode, differs].map(|kind| Need { path: path.clone(), kind });
    let kind = ProblemKind::BaseMismatch { signature: Some((digest, signature)) };
    let problem = Problem { root: 1, path: path.clone(), kind, cause: "c".into(), hint: Some("h".into()) };
    let committed =
        Committed { batch: 3, problems: vec![problem], in_place: vec![path.clone()], ..Committed::default() };
    let refusal = Refusal { what: "w".into(), cause: "c".into(), hint: None, fatal: true };
    let place = FoundPlace { dir: PodPath::new("/")?, names: 3, same: 2 };
    let paths = || vec![path.clone()];
    Ok(vec![
        Reply::Opened { root: 1, path: PodPath::new("/app")?, exists: true, notes: vec!["n".into()] },
        Reply::Compared { root: 1, differing: vec![1, 300], gone: false, last: true },
        Reply::Needs {
            root: 1,
            needs: needs.into(),
            deletes: paths(),
            extras: paths(),
            conflicts: paths(),
            last: true,
        },
        Reply::Committed(Box::new(committed)),
        Reply::Digests { root: 1, entries: vec![entry.clone()], exe: Some(digest), last: true },
        Reply::PullEntry(entry),
        Reply::PullData(vec![5; 30]),
        Reply::PullEnd { skipped: vec!["s".into()] },
        Reply::Found { places: vec![place] },
        Reply::Exists { found: vec![true, false] },
        Reply::Pong { nonce: 1 },
        Reply::Gone { reason: "exited".into() },
        Reply::Refused(refusal),
    ])
}

/// A stream that is cut anywhere gives no message; a frame whose body is cut gives an error, never another message.
fn truncated<M>(message: &M) -> Result
where
    M: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let (mut encoder, mut wire) = (Encoder::new(None), Vec::new());
    encoder.push(message, &mut wire)?;
    encoder.flush(&mut wire)?;
    for cut in 0..wire.len() {
        let mut decoder = Decoder::new();
        decoder.feed(&wire[..cut]);
        assert_eq!(decoder.next::<M>()?, None, "{message:?} cut at {cut}");
        let wants = decoder.wants();
        assert!(wants > 0 && cut + wants <= wire.len());
        decoder.feed(&wire[cut..]);
        assert_eq!(decoder.next::<M>()?.as_ref(), Some(message));
    }
    for cut in 1..wire.len() - 4 {
        let mut decoder = Decoder::new();
        decoder.feed(&(cut as u32).to_le_bytes());
        decoder.feed(&wire[4..4 + cut]);
        assert!(decoder.next::<M>().is_err(), "{message:?} with a body of {cut}");
    }
    Ok(())
}

#[test]
fn a_message_cut_at_any_byte_is_not_a_message() -> Result {
    requests()?.iter().try_for_each(truncated)?;
    replies()?.iter().try_for_each(truncated)
}

#[test]
fn a_compressed_frame_cut_at_any_byte_is_not_a_message() -> Result {
    let message = Request::Steps(vec![Step::Data(b"some text ".repeat(100))]);
    let (mut encoder, mut wire) = (Encoder::new(Some(1)), Vec::new());
    encoder.push(&message, &mut wire)?;
    encoder.flush(&mut wire)?;
    assert!(wire.len() < 300);
    for cut in 1..wire.len() - 8 {
        let mut decoder = Decoder::new();
        decoder.feed(&compressed_frame(1004, &wire[8..8 + cut]));
        assert!(decoder.next::<Request>().is_err(), "a body of {cut}");
    }
    Ok(())
}

#[test]
fn a_path_that_could_leave_the_root_is_no_message() -> Result {
    for bad in [&b"../x"[..], b"/x", b"a/../x", b"", b"a\0"] {
        // The same wire shape as Op::Delete's path.
        let forged = postcard::to_stdvec(&(5u32, bad))?;
        assert!(postcard::from_bytes::<Op>(&forged).is_err(), "{bad:?}");
    }
    let allowed = postcard::to_stdvec(&(4u32, &b"x"[..]))?;
    assert!(matches!(postcard::from_bytes::<Op>(&allowed)?, Op::Delete { .. }));
    Ok(())
}

#[test]
fn a_peer_that_is_not_devsync_is_quoted_safely() {
    let error = handshake::check(b"\x1b[2J\x1b[31mHTT", "agent").expect_err("not devsync").to_string();
    assert!(!error.contains('\x1b'), "{error:?}");
}
