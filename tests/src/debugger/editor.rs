//! An editor's half of the debug adapter protocol, as far as tests drive debugpy by it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

/// Longer than debugpy takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client that is connected.
#[derive(Debug)]
pub struct Editor {
    stream: BufReader<TcpStream>,
    seq: u64,
}

impl Editor {
    pub fn connect(port: u64) -> Result<Editor> {
        let stream = TcpStream::connect(("127.0.0.1", u16::try_from(port)?))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Editor { stream: BufReader::new(stream), seq: 0 })
    }

    fn send(&mut self, command: &str, arguments: &Value) -> Result<u64> {
        self.seq += 1;
        let body = json!({"seq": self.seq, "type": "request", "command": command, "arguments": arguments})
            .to_string();
        write!(self.stream.get_mut(), "Content-Length: {}\r\n\r\n{body}", body.len())?;
        Ok(self.seq)
    }

    fn message(&mut self) -> Result<Value> {
        let mut length = 0;
        loop {
            let mut line = String::new();
            ensure!(self.stream.read_line(&mut line)? > 0, "the adapter has gone");
            match line.trim().split_once(": ") {
                Some(("Content-Length", value)) => length = value.parse()?,
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(serde_json::from_slice(&body)?)
    }

    fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        loop {
            let message = self.message()?;
            if message["success"] == false {
                bail!("{message}");
            }
            if wanted(&message) {
                return Ok(message["body"].clone());
            }
        }
    }

    fn event(&mut self, name: &str) -> Result<Value> {
        self.until(|message| message["event"] == name)
    }

    /// Asks, and gives the answer.
    pub fn ask(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let seq = self.send(command, arguments)?;
        self.until(|message| message["request_seq"] == seq && message["type"] == "response")
    }

    /// Attaches with a breakpoint, waits until it hits, and gives what `expression` is there.
    pub fn stop_at(&mut self, file: &Path, line: usize, expression: &str) -> Result<Value> {
        self.ask("initialize", &json!({"adapterID": "devsync", "pathFormat": "path"}))?;
        self.send("attach", &json!({"justMyCode": false}))?;
        self.event("initialized")?;
        let source = json!({"source": {"path": file}, "breakpoints": [{"line": line}]});
        let set = self.ask("setBreakpoints", &source)?;
        ensure!(set["breakpoints"][0]["verified"] == true, "{set}");
        self.ask("configurationDone", &json!({}))?;
        let stopped = self.event("stopped")?;
        ensure!(stopped["reason"] == "breakpoint", "{stopped}");
        let stack = self.ask("stackTrace", &json!({"threadId": stopped["threadId"]}))?;
        let frame = &stack["stackFrames"][0];
        ensure!(frame["name"] == "step", "{stack}");
        let value = self.ask("evaluate", &json!({"expression": expression, "frameId": frame["id"]}))?;
        Ok(value["result"].clone())
    }
}
