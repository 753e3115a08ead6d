//! What a debugger needs to know beside its protocol: symbols of the same build, an editor's settings, the probes that
//! would end a stopped app. Looks at files here and at data; asks nobody.

pub mod debugpy;
pub mod delve;
pub mod launch;
pub mod probes;
pub mod symbols;

use devsync_protocol::debug::Debuggee;

/// Which debugger's protocol fits the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// gdb's: Rust, C, C++.
    Native,
    /// Delve's.
    Go,
    Python,
}

impl Language {
    pub fn of(app: &Debuggee) -> Self {
        let name = app.exe.rsplit('/').next().unwrap_or_default();
        match () {
            () if app.go.is_some() || app.build_id.go.is_some() => Self::Go,
            () if name.starts_with("python") || name.starts_with("pypy") => Self::Python,
            () => Self::Native,
        }
    }

    /// The agent's word for the debugger.
    pub fn tool(self) -> &'static str {
        match self {
            Self::Native => "gdb",
            Self::Go => "dlv",
            Self::Python => "debugpy",
        }
    }
}
