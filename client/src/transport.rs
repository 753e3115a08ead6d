//! A byte stream to an agent, and what keeps it alive.

pub mod container;
pub mod ssh;
pub mod stdio;

use std::future::Future;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

/// A connected byte stream; the handshake has not happened yet.
pub struct Transport {
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// The zstd level that pays on this link; `None` where the link is faster than zstd.
    pub level: Option<i32>,
    pub link: Box<dyn Link>,
}

/// What carries the stream: a child process or an SSH connection.
pub trait Link: Send + Sync {
    /// Ends the link in order, within about a second; gives what the agent said last on its standard error.
    /// The stream's writer must have been dropped before.
    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = Option<String>> + Send>>;
}

impl Transport {
    /// Ends the link without a session.
    pub async fn close(self) -> Option<String> {
        drop((self.reader, self.writer));
        self.link.close().await
    }
}
