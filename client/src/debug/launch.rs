//! VS Code's launch.json: one configuration of ours among others. A file that cannot be read is left alone.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use thiserror::Error;

use super::Language;
use crate::replace::replace;

#[derive(Debug, Error)]
pub enum LaunchError {
    #[error("{} is not plain JSON, so it is left as it is: it may have comments", path.display())]
    Comments { path: PathBuf },
    #[error("{} cannot be written", path.display())]
    Write { path: PathBuf, source: std::io::Error },
}

/// One for debugpy. `remote`: the directory of the app that has the files of `local`; left out where an editor would
/// take it for more than a name: the app chose it, and `${env:…}` is the laptop's.
pub fn debugpy(name: &str, port: u16, local: &str, remote: Option<&str>) -> Value {
    let mut configuration = json!({
        "name": format!("devsync: {name}"), "type": "debugpy", "request": "attach",
        "connect": {"host": "127.0.0.1", "port": port}, "justMyCode": false, "subProcess": false,
    });
    if let Some(remote) = remote.filter(|remote| !remote.contains("${")) {
        configuration["pathMappings"] = json!([{"localRoot": local, "remoteRoot": remote}]);
    }
    configuration
}

/// Configurations that connect to `port` here, one for each debugger that an editor may have.
pub fn configurations(name: &str, language: Language, port: u16, symbols: Option<&Path>) -> Vec<Value> {
    let name = format!("devsync: {name}");
    if language == Language::Go {
        return vec![json!({
            "name": name, "type": "go", "request": "attach", "mode": "remote",
            "host": "127.0.0.1", "port": port, "stopOnEntry": false,
        })];
    }
    let symbols = symbols.map(|path| path.to_string_lossy().into_owned());
    let program = symbols.unwrap_or_else(|| "${workspaceFolder}/FILE".to_owned());
    vec![
        json!({
            "name": name, "type": "cppdbg", "request": "launch", "MIMode": "gdb",
            "miDebuggerServerAddress": format!("127.0.0.1:{port}"), "cwd": "${workspaceFolder}", "program": program,
        }),
        // CodeLLDB, as its manual has it for a stub of gdb's protocol.
        json!({
            "name": format!("{name} (lldb)"), "type": "lldb", "request": "attach",
            "targetCreateCommands": [format!("target create {}", quoted(&program))],
            "processCreateCommands": [format!("gdb-remote 127.0.0.1:{port}")],
        }),
    ]
}

/// A word of lldb's command line.
fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('\\', r"\\").replace('"', "\\\""))
}

/// Puts the configuration into the project's launch.json, in the place of an older one of the same name.
pub fn write(project: &Path, configuration: &Value) -> Result<PathBuf, LaunchError> {
    let path = project.join(".vscode/launch.json");
    let error = |source| LaunchError::Write { path: path.clone(), source };
    let mut file = match std::fs::read_to_string(&path) {
        Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => {
            json!({"version": "0.2.0", "configurations": []})
        }
        text => serde_json::from_str(&text.map_err(error)?)
            .map_err(|_| LaunchError::Comments { path: path.clone() })?,
    };
    let all = file.as_object_mut().map(|file| file.entry("configurations").or_insert_with(|| json!([])));
    let Some(all) = all.and_then(Value::as_array_mut) else { return Err(LaunchError::Comments { path }) };
    match all.iter_mut().find(|known| known["name"] == configuration["name"]) {
        Some(known) => *known = configuration.clone(),
        None => all.push(configuration.clone()),
    }
    let text = serde_json::to_string_pretty(&file).unwrap_or_default() + "\n";
    let dir = path.parent().unwrap_or(project);
    std::fs::create_dir_all(dir).and_then(|()| replace(&path, text.as_bytes(), None)).map_err(error)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_an_editor_would_expand_is_left_out() {
        let mapped = |remote| debugpy("pid/7", 1, "${workspaceFolder}", Some(remote))["pathMappings"].clone();
        assert_eq!(mapped("/app"), json!([{"localRoot": "${workspaceFolder}", "remoteRoot": "/app"}]));
        assert_eq!(mapped("/tmp/${env:TOKEN}"), Value::Null);
    }

    #[test]
    fn lldb_has_a_configuration_beside_gdb() {
        let both = configurations("pid/7", Language::Native, 2345, Some(Path::new("/src/a \"b\"")));
        let names: Vec<&str> = both.iter().filter_map(|one| one["name"].as_str()).collect();
        assert_eq!(names, ["devsync: pid/7", "devsync: pid/7 (lldb)"]);
        assert_eq!(both[1]["targetCreateCommands"], json!(["target create \"/src/a \\\"b\\\"\""]));
        assert_eq!(both[1]["processCreateCommands"], json!(["gdb-remote 127.0.0.1:2345"]));
    }

    #[test]
    fn what_others_wrote_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let ours = |port| configurations("deploy/demo", Language::Go, port, None).remove(0);
        let path = write(dir.path(), &ours(1)).expect("written");
        let mut file: Value = serde_json::from_slice(&std::fs::read(&path).expect("read")).expect("JSON");
        file["configurations"].as_array_mut().expect("a list").push(json!({"name": "mine"}));
        std::fs::write(&path, file.to_string()).expect("written");
        write(dir.path(), &ours(2)).expect("written");
        let file: Value = serde_json::from_slice(&std::fs::read(&path).expect("read")).expect("JSON");
        assert_eq!(file["configurations"], json!([ours(2), {"name": "mine"}]));
        std::fs::write(&path, "// mine\n{}").expect("written");
        assert!(matches!(write(dir.path(), &ours(3)), Err(LaunchError::Comments { .. })));
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "// mine\n{}");
    }
}
