//! The executable here that has the symbols: it must be of the very build that runs in the pod.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use devsync_protocol::build_id::BuildId;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum SymbolsError {
    #[error("{} cannot be read", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is no ELF file, so no executable of the app's", path.display())]
    NoElf { path: PathBuf },
    #[error("{} is of another build than what runs: build id {here}, the app's is {app}", path.display())]
    OtherBuild { path: PathBuf, here: String, app: String },
}

const ELF: &[u8; 4] = b"\x7fELF";

/// How sure it is that the file fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    Same,
    /// One of them has no build id.
    Unknown,
}

/// Compares the file with the running executable.
pub fn check(path: &Path, app: &BuildId) -> Result<Fit, SymbolsError> {
    let error = |source| SymbolsError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(error)?;
    let mut magic = [0; ELF.len()];
    match file.read_exact(&mut magic) {
        Err(source) if source.kind() != std::io::ErrorKind::UnexpectedEof => return Err(error(source)),
        Ok(()) if &magic == ELF => {}
        _ => return Err(SymbolsError::NoElf { path: path.to_owned() }),
    }
    let here = BuildId::read(&mut |at, len| {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(at)).ok()?;
        (&mut file).take(u64::try_from(len).ok()?).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    });
    match here.is(app) {
        Some(true) => Ok(Fit::Same),
        None => Ok(Fit::Unknown),
        Some(false) => Err(SymbolsError::OtherBuild {
            path: path.to_owned(),
            here: here.shown().unwrap_or_default().to_owned(),
            app: app.shown().unwrap_or_default().to_owned(),
        }),
    }
}
