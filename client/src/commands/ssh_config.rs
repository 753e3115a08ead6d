//! `devsync ssh-config`: hosts for ssh, scp, sftp, rsync, sshfs and editors.

use std::process::ExitCode;

use super::say;
use crate::cli::{SshConfigArgs, TargetWord};
use crate::cluster;
use crate::connect::Route;
use crate::error::CommandError;
use crate::settings;
use crate::ssh_config::{Dir, Host, Installed, identity, include_line, install, uninstall, user_config};

pub async fn run(args: &SshConfigArgs) -> Result<ExitCode, CommandError> {
    let (config, project) = settings::project_of(args.target.target.as_ref())?;
    let dir = Dir::open(&crate::dirs::state())?;
    let route = settings::route(&args.target, &config, &project);
    let mut hosts = dir.hosts()?;
    if args.remove {
        remove(&dir, hosts, route.as_ref().filter(|_| args.target.is_named()))?;
        return Ok(ExitCode::SUCCESS);
    }
    identity(&dir)?;
    if let Some(route) = &route {
        let host = host_of(route)?;
        hosts.retain(|known| known.name != host.name);
        hosts.push(host);
    }
    if hosts.is_empty() {
        return Err(CommandError::usage("no target is named").hint("devsync ssh-config deploy/demo"));
    }
    write(&dir, &hosts)?;
    for host in hosts.iter().filter(|host| route.is_none() || Some(*host) == hosts.last()) {
        let short = host
            .short()
            .filter(|short| hosts.iter().filter(|h| h.short().as_ref() == Some(short)).count() == 1);
        say(&format!("ssh {}", short.unwrap_or_else(|| host.name.clone())))?;
    }
    let user = user_config()?;
    if !args.install {
        say(&format!(
            "once, as the first line of {} (or --install): {}",
            user.display(),
            include_line(&dir)
        ))?;
    } else if install(&dir, &user)? == Installed::Changed {
        say(&format!("{} includes it now", user.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write(dir: &Dir, hosts: &[Host]) -> Result<(), CommandError> {
    let program = std::env::current_exe()
        .map_err(|error| CommandError::new("where devsync itself lies cannot be found").cause(error))?;
    Ok(dir.write(hosts, &program)?)
}

/// One host, or all that there is.
fn remove(dir: &Dir, mut hosts: Vec<Host>, route: Option<&Route>) -> Result<(), CommandError> {
    let Some(route) = route else {
        let user = user_config()?;
        if uninstall(dir, &user)? == Installed::Changed {
            say(&format!("{} does not include it any more", user.display()))?;
        }
        return write(dir, &[]);
    };
    let host = host_of(route)?;
    let before = hosts.len();
    hosts.retain(|known| known.name != host.name);
    if hosts.len() == before {
        return Err(CommandError::new(format!("there is no host {}", host.name)).hint("devsync ssh-config"));
    }
    write(dir, &hosts)
}

/// The host's name, and the words that lead a proxy to the same target from anywhere.
fn host_of(route: &Route) -> Result<Host, CommandError> {
    let mut words = vec![route.target.to_string()];
    let file = |path: &std::path::Path| {
        std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned()
    };
    if let Some(identity) = &route.identity {
        words.extend(["--identity".to_owned(), file(identity)]);
    }
    if let Some(host_key) = &route.host_key {
        let path = std::path::Path::new(host_key);
        words.extend(["--host-key".to_owned(), if path.is_file() { file(path) } else { host_key.clone() }]);
    }
    match &route.target {
        TargetWord::Pid(pid) => Ok(Host::new(&[&format!("pid-{pid}")], words)),
        TargetWord::Ssh { host, .. } => Ok(Host::new(&[host], words)),
        TargetWord::Container { engine, name } => Ok(Host::new(&[name, engine.name()], words)),
        TargetWord::Workload { name, .. } | TargetWord::Named(name) => in_cluster(route, name, words),
        TargetWord::Selector(labels) => {
            words = vec!["-l".to_owned(), labels.clone()];
            in_cluster(route, labels, words)
        }
    }
}

fn in_cluster(route: &Route, name: &str, mut words: Vec<String>) -> Result<Host, CommandError> {
    let place = cluster::place(&route.cluster)?;
    words.extend(["-n".to_owned(), place.namespace.clone()]);
    if !place.context.is_empty() {
        words.extend(["--context".to_owned(), place.context.clone()]);
    }
    let cluster = &route.cluster;
    if let Some(file) = &cluster.kubeconfig {
        let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
        words.extend(["--kubeconfig".to_owned(), file.to_string_lossy().into_owned()]);
    }
    for (flag, value) in [("--as", &cluster.as_user), ("-c", &cluster.container)] {
        words.extend(value.iter().flat_map(|value| [flag.to_owned(), value.clone()]));
    }
    let name = match &cluster.container {
        Some(container) => format!("{name}-{container}"),
        None => name.to_owned(),
    };
    Ok(Host::new(&[&name, &place.namespace, &place.context], words))
}
