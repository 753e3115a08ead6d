//! What an executable needs of the root that it will run in, read from its ELF headers.
//!
//! Only looks; whether the root has it is asked of the agent.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use devsync_protocol::path::PodPath;
use object::elf;
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, FileKind, ReadCache, ReadRef};
use thiserror::Error;

use crate::error::CommandError;

#[derive(Debug, Error)]
pub enum ElfError {
    #[error("{path} cannot be read", path = path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is a damaged ELF file", path = path.display())]
    Damaged { path: PathBuf, source: object::read::Error },
    #[error("{path} is no program: neither an ELF file nor a script that begins with #!", path = path.display())]
    NoProgram { path: PathBuf },
    #[error("{path} may not be executed: its mode is {mode:04o}", path = path.display())]
    Mode { path: PathBuf, mode: u32 },
}

impl ElfError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Mode { path, .. } => Some(format!("chmod +x {}", path.display())),
            Self::NoProgram { .. } => {
                Some("--exe names what a build leaves; sources go with --sync".to_owned())
            }
            Self::Damaged { .. } => Some("build it again".to_owned()),
            Self::Read { .. } => None,
        }
    }
}

/// What an ELF file asks of its machine and of the files around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// As `uname -m` says it; a number where this table has no name for it.
    pub machine: String,
    /// The dynamic loader (PT_INTERP).
    pub interpreter: Option<Vec<u8>>,
    /// Shared libraries by name (DT_NEEDED).
    pub libraries: Vec<Vec<u8>>,
    /// Where it looks for them first (DT_RUNPATH, DT_RPATH).
    pub runpath: Vec<Vec<u8>>,
}

/// Looks at what is to replace an executable: a script has no needs that could be known.
pub fn look_at_program(path: &Path) -> Result<Option<Needs>, ElfError> {
    check_mode(path)?;
    let needs = look(path)?;
    if needs.is_none() && !is_script(path)? {
        return Err(ElfError::NoProgram { path: path.to_owned() });
    }
    Ok(needs)
}

fn is_script(path: &Path) -> Result<bool, ElfError> {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(2).read_to_end(&mut start));
    read.map_err(|source| ElfError::Read { path: path.to_owned(), source })?;
    Ok(start == b"#!")
}

#[cfg(unix)]
fn check_mode(path: &Path) -> Result<(), ElfError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(path);
    let metadata = metadata.map_err(|source| ElfError::Read { path: path.to_owned(), source })?;
    match metadata.permissions().mode() & 0o7777 {
        mode if mode & 0o111 == 0 => Err(ElfError::Mode { path: path.to_owned(), mode }),
        _ => Ok(()),
    }
}

#[cfg(not(unix))]
fn check_mode(_: &Path) -> Result<(), ElfError> {
    Ok(())
}

/// Reads the headers of `path`; `None` where it is no ELF file (a script).
pub fn look(path: &Path) -> Result<Option<Needs>, ElfError> {
    let file = File::open(path).map_err(|source| ElfError::Read { path: path.to_owned(), source })?;
    let data = ReadCache::new(file);
    let damaged = |source| ElfError::Damaged { path: path.to_owned(), source };
    match FileKind::parse(&data) {
        Ok(FileKind::Elf64) => read::<elf::FileHeader64<Endianness>, _>(&data).map(Some).map_err(damaged),
        Ok(FileKind::Elf32) => read::<elf::FileHeader32<Endianness>, _>(&data).map(Some).map_err(damaged),
        _ => Ok(None),
    }
}

fn read<'d, H: FileHeader, R: ReadRef<'d>>(data: R) -> object::read::Result<Needs> {
    let header = H::parse(data)?;
    let endian = header.endian()?;
    let machine = machine_name(header.e_machine(endian));
    let mut needs = Needs { machine, interpreter: None, libraries: Vec::new(), runpath: Vec::new() };
    for segment in header.program_headers(endian, data)? {
        if let Some(interpreter) = segment.interpreter(endian, data)? {
            needs.interpreter = Some(interpreter.to_vec());
        }
    }
    let dynamic = header.sections(endian, data)?.dynamic_table(endian, data)?;
    for entry in dynamic.iter() {
        match entry.tag {
            elf::DT_NEEDED => needs.libraries.push(dynamic.string(entry)?.to_vec()),
            elf::DT_RUNPATH | elf::DT_RPATH => {
                let dirs = dynamic.string(entry)?.split(|b| *b == b':');
                needs.runpath.extend(dirs.filter(|d| !d.is_empty()).map(<[u8]>::to_vec));
            }
            _ => {}
        }
    }
    Ok(needs)
}

fn machine_name(machine: elf::Machine) -> String {
    let name = match machine {
        elf::EM_X86_64 => "x86_64",
        elf::EM_AARCH64 => "aarch64",
        elf::EM_386 => "i686",
        elf::EM_ARM => "armv7l",
        elf::EM_RISCV => "riscv64",
        elf::EM_PPC64 => "ppc64le",
        elf::EM_S390 => "s390x",
        other => return format!("machine {}", other.0),
    };
    name.to_owned()
}

/// What a root may lack that an executable needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    Machine { wants: String, has: String },
    Interpreter(Vec<u8>),
    Libraries(Vec<Vec<u8>>),
}

/// Directories in which loaders of usual distributions look, beside the run path.
const LIBRARY_DIRS: [&str; 5] = ["/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib"];

impl Needs {
    /// The paths to ask the agent about, for an executable that will lie at `place`.
    pub fn questions(&self, place: &PodPath) -> Vec<PodPath> {
        let interpreter = self.interpreter.iter().filter_map(|path| PodPath::new(path.clone()).ok());
        let libraries = self.libraries.iter().flat_map(|name| self.candidates(name, place));
        interpreter.chain(libraries).collect()
    }

    /// Where a library may lie; one that is named with a slash only there.
    fn candidates(&self, name: &[u8], place: &PodPath) -> Vec<PodPath> {
        if name.contains(&b'/') {
            return PodPath::new(name).into_iter().collect();
        }
        let origin = place.split().map(|(dir, _)| dir.as_bytes().to_vec()).unwrap_or_default();
        let runpath = self.runpath.iter().map(|dir| expand_origin(dir, &origin));
        let triplets =
            ["/lib", "/usr/lib"].map(|dir| format!("{dir}/{}-linux-gnu", self.machine).into_bytes());
        let usual = LIBRARY_DIRS.iter().map(|dir| dir.as_bytes().to_vec()).chain(triplets);
        let at = |dir: Vec<u8>| PodPath::new([dir.as_slice(), b"/", name].concat()).ok();
        runpath.chain(usual).filter_map(at).collect()
    }

    /// What is lacking, given which of the asked paths exist.
    pub fn lacks(&self, place: &PodPath, machine: &str, exists: impl Fn(&PodPath) -> bool) -> Option<Lack> {
        if self.machine != machine {
            return Some(Lack::Machine { wants: self.machine.clone(), has: machine.to_owned() });
        }
        if let Some(interpreter) = &self.interpreter
            && PodPath::new(interpreter.clone()).is_ok_and(|path| !exists(&path))
        {
            return Some(Lack::Interpreter(interpreter.clone()));
        }
        let absent = |name: &&Vec<u8>| {
            let candidates = self.candidates(name, place);
            !candidates.is_empty() && !candidates.iter().any(&exists)
        };
        let libraries: Vec<Vec<u8>> = self.libraries.iter().filter(absent).cloned().collect();
        (!libraries.is_empty()).then_some(Lack::Libraries(libraries))
    }
}

fn expand_origin(dir: &[u8], origin: &[u8]) -> Vec<u8> {
    for word in [&b"$ORIGIN"[..], b"${ORIGIN}"] {
        if let Some(rest) = dir.strip_prefix(word) {
            return [origin, rest].concat();
        }
    }
    dir.to_vec()
}

impl Lack {
    /// The refusal of `file`, with the build flags that would help.
    pub fn refusal(&self, file: &Path, machine: &str) -> CommandError {
        let show = |bytes: &[u8]| devsync_protocol::path::display(bytes);
        let cause = match self {
            Lack::Machine { wants, has } => format!("it is built for {wants}, the app's machine is {has}"),
            Lack::Interpreter(path) => {
                format!("it needs the dynamic loader {}, which the app's root does not have", show(path))
            }
            Lack::Libraries(names) => {
                let names: Vec<_> = names.iter().map(|n| show(n)).collect();
                format!("it needs {}, which the app's root does not have", names.join(", "))
            }
        };
        CommandError::new(format!("{} could not run where the app runs", file.display()))
            .cause(cause)
            .hint(build_hint(machine))
    }
}

/// How a static executable for `machine` is built.
pub fn build_hint(machine: &str) -> String {
    let goarch = goarch(machine);
    format!(
        "build it static for {machine}: RUSTFLAGS=\"-C target-feature=+crt-static\" cargo build --target \
         {machine}-unknown-linux-gnu, or CGO_ENABLED=0 GOOS=linux GOARCH={goarch} go build"
    )
}

/// Go's name of an architecture.
pub fn goarch(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "i686" => "386",
        "armv7l" => "arm",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> PodPath {
        PodPath::new("/srv/bin/app").expect("valid")
    }

    fn needs(interpreter: &str, libraries: &[&str]) -> Needs {
        Needs {
            machine: "x86_64".to_owned(),
            interpreter: Some(interpreter.into()),
            libraries: libraries.iter().map(|l| l.as_bytes().to_vec()).collect(),
            runpath: vec![b"$ORIGIN/../lib".to_vec()],
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_real_dynamic_binary_names_its_loader_and_libraries() {
        let exe = std::env::current_exe().expect("this test's executable");
        let needs = look(&exe).expect("readable").expect("an ELF file");
        assert_eq!(needs.machine, std::env::consts::ARCH);
        assert!(needs.interpreter.as_deref().is_some_and(|i| i.starts_with(b"/lib")), "{needs:?}");
        assert!(needs.libraries.iter().any(|l| l.starts_with(b"libc.")), "{needs:?}");
        let exists = |path: &PodPath| Path::new(&*String::from_utf8_lossy(path.as_bytes())).exists();
        assert_eq!(needs.lacks(&place(), std::env::consts::ARCH, exists), None);
    }

    #[test]
    fn a_script_is_no_elf_file() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), "#!/bin/sh\n").expect("written");
        assert_eq!(look(file.path()).expect("readable"), None);
        assert!(matches!(look(Path::new("/nonexistent")), Err(ElfError::Read { .. })));
    }

    #[test]
    #[cfg(unix)]
    fn a_text_is_no_program() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let look_at = |text: &str, mode: u32| {
            std::fs::write(file.path(), text).expect("written");
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).expect("chmod");
            look_at_program(file.path())
        };
        assert!(matches!(look_at("#!/bin/sh\n", 0o755), Ok(None)));
        assert!(matches!(look_at("#!/bin/sh\n", 0o644), Err(ElfError::Mode { mode: 0o644, .. })));
        assert!(matches!(look_at("print(1)\n", 0o755), Err(ElfError::NoProgram { .. })));
        assert!(matches!(look_at("", 0o755), Err(ElfError::NoProgram { .. })));
    }

    #[test]
    fn what_the_root_lacks_is_named() {
        let needs = needs("/lib64/ld-linux-x86-64.so.2", &["libc.so.6", "libz.so.1"]);
        let lacks = |machine: &str, has: &[&str]| {
            needs.lacks(&place(), machine, |p| has.iter().any(|h| h.as_bytes() == p.as_bytes()))
        };
        assert!(matches!(lacks("aarch64", &[]), Some(Lack::Machine { .. })));
        assert!(matches!(lacks("x86_64", &["/lib/libc.so.6"]), Some(Lack::Interpreter(_))));
        let loader = "/lib64/ld-linux-x86-64.so.2";
        let missing = lacks("x86_64", &[loader, "/lib/x86_64-linux-gnu/libc.so.6"]);
        assert_eq!(missing, Some(Lack::Libraries(vec![b"libz.so.1".to_vec()])));
        assert_eq!(lacks("x86_64", &[loader, "/usr/lib/libc.so.6", "/lib64/libz.so.1"]), None);
    }

    #[test]
    fn the_refusal_says_how_to_build_it() {
        let lack = Lack::Interpreter(b"/lib64/ld-linux-x86-64.so.2".to_vec());
        let error = lack.refusal(Path::new("target/debug/app"), "x86_64");
        assert_eq!(error.what(), "target/debug/app could not run where the app runs");
        let hint = error.get_hint().unwrap_or_default();
        assert!(hint.contains("+crt-static") && hint.contains("GOARCH=amd64"), "{hint}");
    }
}
