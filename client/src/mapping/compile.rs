//! Which build of a Cargo or Go project makes the app's executable, for the app's machine and libc.

use std::path::PathBuf;

use super::MappingError;
use crate::app::App;
use crate::build::Build;
use crate::elf::goarch;
use crate::project::{Cargo, Go, Project};

/// What a project builds.
pub(super) struct Product {
    pub(super) name: String,
    pub(super) language: &'static str,
    pub(super) build: Build,
    pub(super) output: PathBuf,
}

pub(super) fn product(app: &App, project: &Project, has_loader: bool) -> Result<Product, MappingError> {
    match (&project.cargo, &project.go) {
        (Some(cargo), _) => cargo_product(app, project, cargo, has_loader),
        (None, Some(go)) => go_product(app, project, go),
        (None, None) => Err(MappingError::NoExe),
    }
}

/// The one that is called like the app's executable, else the only one.
fn choose<'a>(names: &[&'a str], app: &App) -> Result<&'a str, MappingError> {
    let exe = app.exe_name();
    match names {
        _ if names.contains(&exe.as_str()) => Ok(names.iter().find(|n| **n == exe).copied().unwrap_or("")),
        [only] => Ok(only),
        names => {
            let what = if names.is_empty() { "no executable".to_owned() } else { names.join(", ") };
            Err(MappingError::Which { what, exe })
        }
    }
}

fn cargo_product(
    app: &App,
    project: &Project,
    cargo: &Cargo,
    has_loader: bool,
) -> Result<Product, MappingError> {
    let names: Vec<&str> = cargo.bins.iter().map(String::as_str).collect();
    let name = choose(&names, app)?;
    let mut argv: Vec<String> = ["cargo", "build", "--bin", name].map(str::to_owned).to_vec();
    let mut env = Vec::new();
    let mut output = cargo.target_dir.clone();
    let runs_here = std::env::consts::OS == "linux" && std::env::consts::ARCH == app.machine;
    if !(runs_here && has_loader) {
        // A program for this machine links statically with the C library that is here; for another one, musl
        // needs no C compiler of that machine.
        let libc = if runs_here { "gnu" } else { "musl" };
        let triple = format!("{}-unknown-linux-{libc}", app.machine);
        let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
        env.push((
            "RUSTFLAGS".to_owned(),
            format!("{flags} -C target-feature=+crt-static").trim().to_owned(),
        ));
        argv.extend(["--target".to_owned(), triple.clone()]);
        output.push(triple);
    }
    output.extend(["debug", name]);
    let build = Build { argv, env, dir: project.dir.clone() };
    Ok(Product { name: name.to_owned(), language: "Cargo", build, output })
}

fn go_product(app: &App, project: &Project, go: &Go) -> Result<Product, MappingError> {
    let names: Vec<&str> = go.mains.iter().map(|(_, name)| name.as_str()).collect();
    let name = choose(&names, app)?;
    let package = go.mains.iter().find(|(_, n)| n == name).map_or(".", |(package, _)| package);
    let output = build_dir(project).join(name);
    let out = output.to_string_lossy().into_owned();
    let argv = ["go", "build", "-o", &out, package].map(str::to_owned).to_vec();
    let env = [("CGO_ENABLED", "0"), ("GOOS", "linux"), ("GOARCH", goarch(&app.machine))];
    let env = env.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
    let build = Build { argv, env, dir: project.dir.clone() };
    Ok(Product { name: name.to_owned(), language: "Go", build, output })
}

/// Where builds go that have no directory of their own in the project.
fn build_dir(project: &Project) -> PathBuf {
    let digest = devsync_protocol::digest::Digest::of(project.dir.as_os_str().as_encoded_bytes());
    crate::dirs::cache().join("build").join(&digest.to_string()[..16])
}
