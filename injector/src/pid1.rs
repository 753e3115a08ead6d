//! Which containers start a program that must be process 1, and so cannot share a process namespace. Pure.

use serde_json::Value;

/// What an app's image starts that must be process 1, and so cannot share its process namespace with a pause process.
const INITS: [&str; 9] = [
    "/init",
    "/sbin/init",
    "/usr/sbin/init",
    "/lib/systemd/systemd",
    "/usr/lib/systemd/systemd",
    "s6-svscan",
    "/package/admin/s6-overlay",
    "runit-init",
    "/sbin/my_init",
];
/// Images whose entrypoint is known to be such a program.
const INIT_IMAGES: [&str; 4] = ["/linuxserver/", "linuxserver/", "s6-overlay", "phusion/baseimage"];

/// The program or image by which a container is known to need PID 1. tini and dumb-init do not.
pub fn insists_on_pid_1(container: &Value) -> Option<String> {
    let first = container["command"].as_array().and_then(|command| command.first()).and_then(Value::as_str);
    if let Some(program) = first {
        let base = program.rsplit('/').next().unwrap_or(program);
        let known = INITS.contains(&program) || INITS.contains(&base) || base == "systemd";
        return known.then(|| program.to_owned());
    }
    let image = container["image"].as_str()?;
    INIT_IMAGES.iter().any(|known| image.contains(known)).then(|| image.to_owned())
}
