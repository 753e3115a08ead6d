//! Sessions against an agent that is played by the test.

use std::future::Future;
use std::pin::Pin;

use devsync_protocol::frame::Encoder;
use devsync_protocol::message::{AutoRestart, FoundPlace};
use devsync_protocol::path::PodPath;
use devsync_protocol::restart::RestartMode;
use devsync_protocol::target::{AccessClass, AgentIds, CapSet, Verdict};
use tokio::io::{DuplexStream, ReadHalf, WriteHalf, duplex, split};

use super::*;

struct NoLink;

impl Link for NoLink {
    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = Option<String>> + Send>> {
        Box::pin(async { Some("last words".to_owned()) })
    }
}

/// The other end of a session, played by a test.
struct Agent {
    reader: ReadHalf<DuplexStream>,
    writer: WriteHalf<DuplexStream>,
    decoder: Decoder,
}

impl Agent {
    async fn say(&mut self, replies: &[Reply]) {
        let (mut encoder, mut out) = (Encoder::new(None), Vec::new());
        for reply in replies {
            encoder.push(reply, &mut out).expect("encodes");
        }
        encoder.flush(&mut out).expect("encodes");
        self.writer.write_all(&out).await.expect("the client reads");
    }

    async fn hear(&mut self) -> Request {
        let mut buffer = [0; 4096];
        loop {
            if let Some(request) = self.decoder.next().expect("frames") {
                return request;
            }
            let len = self.reader.read(&mut buffer).await.expect("the client writes");
            self.decoder.feed(&buffer[..len]);
        }
    }
}

fn pair() -> (Transport, Agent) {
    let (ours, theirs) = duplex(1 << 16);
    let (reader, writer) = split(ours);
    let link = Box::new(NoLink);
    let transport = Transport { reader: Box::new(reader), writer: Box::new(writer), level: None, link };
    let (reader, writer) = split(theirs);
    (transport, Agent { reader, writer, decoder: Decoder::new() })
}

fn welcome() -> Reply {
    let target = TargetReport {
        pid: 7,
        supervisor: None,
        exe: b"/server".to_vec(),
        argv: Vec::new(),
        cwd: b"/".to_vec(),
        uid: 0,
        gid: 0,
        capabilities: CapSet(0),
        no_new_privs: false,
        seccomp: false,
        container: None,
        machine: "x86_64".to_owned(),
        agent: AgentIds { uid: 0, gid: 0, capabilities: CapSet(0) },
        access: AccessClass::SameIds,
        confinement: None,
        root: Verdict::Permitted,
        write: Vec::new(),
        ptrace: Verdict::Permitted,
    };
    let auto = AutoRestart { mode: RestartMode::Reexec, why: String::new(), hint: None };
    Reply::Welcome { agent: "0".to_owned(), target: Box::new(target), auto }
}

async fn opened() -> (Session, Agent, mpsc::Receiver<Event>) {
    let (transport, mut agent) = pair();
    let greeting = async {
        agent.writer.write_all(&handshake::hello()).await.expect("the client reads");
        agent.say(&[welcome()]).await;
        let mut hello = [0; HELLO_LEN];
        agent.reader.read_exact(&mut hello).await.expect("the client's hello");
    };
    let (opened, ()) = tokio::join!(Session::open(transport), greeting);
    let Ok((session, _, events)) = opened else { panic!("no session") };
    (session, agent, events)
}

fn exists() -> Request {
    Request::Exists { paths: vec![PodPath::new("/x").expect("valid")] }
}

#[tokio::test]
async fn another_version_is_exit_code_4() {
    let (transport, mut agent) = pair();
    let mut hello = handshake::hello();
    hello[8] = 200;
    agent.writer.write_all(&hello).await.expect("the client reads");
    let error = CommandError::from(Session::open(transport).await.err().expect("refused"));
    assert_eq!(error.kind.code(), 4);
    assert!(error.get_hint().is_some_and(|h| h.contains("the client is the older one")));
}

#[tokio::test]
async fn an_agent_that_ends_at_once_is_quoted() {
    let (transport, agent) = pair();
    drop(agent);
    let error = CommandError::from(Session::open(transport).await.err().expect("ended"));
    assert_eq!(error.causes(), ["it said: last words"]);
}

#[tokio::test]
async fn answers_go_to_who_asked_and_news_to_the_events() {
    let (session, mut agent, mut events) = opened().await;
    let handle = session.handle();
    let search = handle.ask(Call::Search, &Request::Search { files: Vec::new() }).await.expect("sent");
    let there = handle.ask(Call::Exists, &exists()).await.expect("sent");
    assert!(matches!(agent.hear().await, Request::Search { .. }));
    assert_eq!(agent.hear().await, exists());
    let place = FoundPlace { dir: PodPath::new("/srv").expect("valid"), names: 1, same: 1 };
    agent
        .say(&[
            Reply::Crashed { cause: "it crashed".to_owned(), output: Vec::new() },
            Reply::Found { places: vec![place.clone()] },
            Reply::Exists { found: vec![true] },
        ])
        .await;
    assert_eq!(there.one().await.expect("an answer"), Reply::Exists { found: vec![true] });
    assert_eq!(search.one().await.expect("an answer"), Reply::Found { places: vec![place] });
    assert!(matches!(events.recv().await, Some(Event::Crashed { .. })));
    session.close().await;
}

#[tokio::test]
async fn a_refusal_ends_the_request_and_not_the_session() {
    let (session, mut agent, _events) = opened().await;
    let handle = session.handle();
    let refusal = |fatal| {
        let text = |s: &str| s.to_owned();
        Reply::Refused(Refusal { what: text("no"), cause: text("why"), hint: None, fatal })
    };
    let first = handle.ask(Call::Exists, &exists()).await.expect("sent");
    agent.say(&[refusal(false)]).await;
    assert!(matches!(first.one().await, Err(SessionError::Refused(_))));
    let second = handle.ask(Call::Exists, &exists()).await.expect("sent");
    agent.say(&[Reply::Exists { found: Vec::new() }]).await;
    assert!(second.one().await.is_ok());
    let third = handle.ask(Call::Exists, &exists()).await.expect("sent");
    let fourth = handle.ask(Call::Exists, &exists()).await.expect("sent");
    agent.say(&[refusal(true)]).await;
    assert!(third.one().await.is_err() && fourth.one().await.is_err());
    session.close().await;
}

#[tokio::test]
async fn an_agent_that_vanishes_ends_what_waits() {
    let (session, agent, mut events) = opened().await;
    let waiting = session.handle().ask(Call::Exists, &exists()).await.expect("sent");
    drop(agent);
    assert!(matches!(waiting.one().await, Err(SessionError::Ended { .. })));
    assert!(matches!(events.recv().await, Some(Event::Ended(_))));
    assert_eq!(session.close().await.as_deref(), Some("last words"));
}

#[tokio::test]
async fn an_answer_to_nothing_ends_the_session() {
    let (session, mut agent, mut events) = opened().await;
    agent.say(&[Reply::Exists { found: Vec::new() }]).await;
    assert!(matches!(events.recv().await, Some(Event::Ended(SessionError::Unexpected { .. }))));
    session.close().await;
}

#[tokio::test]
async fn a_flood_of_events_ends_the_session() {
    let (session, mut agent, _events) = opened().await;
    let crash = Reply::Crashed { cause: "again".to_owned(), output: Vec::new() };
    agent.say(&vec![crash; EVENTS + 1]).await;
    let answer = session.handle().call(Call::Exists, &exists()).await;
    assert!(matches!(answer, Err(SessionError::Flood)), "{answer:?}");
}
