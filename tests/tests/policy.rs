//! The workspace keeps its own rules: licences, sources, versions, duplicates, imports, texts.
//! The rules are data in `devsync_tests::policy`; a failure names every place that breaks one.

use std::collections::BTreeMap;
use std::fs;

use devsync_tests::policy::imports::{AGENT_LAYERS, ONLY_IN, PROTOCOL};
use devsync_tests::policy::metadata::{Package, numbers, packages, workspace};
use devsync_tests::policy::text::{FORBIDDEN, MAX_LINES, production, rust_files, violations};
use devsync_tests::policy::{DUPLICATES, LICENCES, MINIMUMS, REFUSED, SOURCE, spdx};

fn all() -> Vec<Package> {
    packages(&workspace()).expect("cargo metadata")
}

fn none(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_licence_is_on_the_list() {
    let broken =
        all().into_iter().filter(|package| !spdx::permits(&package.licence, LICENCES)).map(|package| {
            format!("{} {}: licence {:?} is not allowed", package.name, package.version, package.licence)
        });
    none(&broken.collect::<Vec<_>>());
}

#[test]
fn every_dependency_comes_from_crates_io() {
    let all = all();
    let foreign = all.iter().filter(|package| package.source.as_deref().is_some_and(|s| s != SOURCE));
    none(&foreign.map(|package| format!("{} from {:?}", package.name, package.source)).collect::<Vec<_>>());
    let ours = all.iter().filter(|package| package.source.is_none());
    none(&ours.filter(|p| !p.name.starts_with("devsync-")).map(|p| p.name.clone()).collect::<Vec<_>>());
}

#[test]
fn no_version_has_a_known_hole() {
    let mut broken = Vec::new();
    for package in all() {
        for minimum in MINIMUMS.iter().filter(|minimum| minimum.name == package.name) {
            if numbers(&package.version) < numbers(minimum.version) {
                broken.push(format!("{} {}: {}", package.name, package.version, minimum.why));
            }
        }
        for (_, why) in REFUSED.iter().filter(|(name, _)| *name == package.name) {
            broken.push(format!("{}: {why}", package.name));
        }
    }
    none(&broken);
}

#[test]
fn duplicates_are_on_the_list_with_a_reason() {
    let mut versions = BTreeMap::<String, Vec<String>>::new();
    for package in all() {
        versions.entry(package.name).or_default().push(package.version);
    }
    let doubled: Vec<_> = versions.iter().filter(|(_, versions)| versions.len() > 1).collect();
    let covers = |rule: &str, name: &str| match rule.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => rule == name,
    };
    let unlisted =
        doubled.iter().filter(|(name, _)| !DUPLICATES.iter().any(|known| covers(known.name, name)));
    none(&unlisted.map(|(name, versions)| format!("{name} twice: {versions:?}")).collect::<Vec<_>>());
    let stale = DUPLICATES.iter().filter(|known| !doubled.iter().any(|(name, _)| covers(known.name, name)));
    none(&stale.map(|known| format!("{} is no longer there twice", known.name)).collect::<Vec<_>>());
}

#[test]
fn imports_follow_the_layers() {
    let mut broken = Vec::new();
    for package in all().iter().filter(|package| package.source.is_none()) {
        for rule in ONLY_IN {
            let named = package.dependencies.iter().any(|name| name == rule.dependency);
            if named && !rule.packages.contains(&package.name.as_str()) {
                broken.push(format!("{} uses {}: {}", package.name, rule.dependency, rule.why));
            }
        }
        if package.name == "devsync-protocol" {
            let beyond = package.dependencies.iter().filter(|name| !PROTOCOL.contains(&name.as_str()));
            broken.extend(beyond.map(|name| format!("devsync-protocol uses {name}: the protocol is pure")));
        }
    }
    none(&broken);
}

#[test]
fn layers_of_the_agent_look_down_only() {
    let root = workspace();
    let mut broken = Vec::new();
    for layer in AGENT_LAYERS {
        let paths = [format!("agent/src/{}", layer.module), format!("agent/src/{}.rs", layer.module)];
        for file in paths.iter().flat_map(|path| rust_files(&root, path)) {
            let text = fs::read_to_string(&file).expect("readable source");
            for (number, line) in production(&text).enumerate() {
                for name in used_modules(line).filter(|name| !layer.may_use.contains(name)) {
                    let place = file.strip_prefix(&root).unwrap_or(&file).display();
                    broken.push(format!("{place}:{}: {} uses {name}", number + 1, layer.module));
                }
            }
        }
    }
    none(&broken);
}

/// The names that follow `crate::` in a line of code, as far as they are modules.
fn used_modules(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split("//").next().unwrap_or_default();
    code.split("crate::").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        Some(&rest[..end])
            .filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !name.is_empty())
    })
}

#[test]
fn sources_say_nothing_forbidden() {
    let root = workspace();
    none(&FORBIDDEN.iter().flat_map(|rule| violations(&root, rule)).collect::<Vec<_>>());
}

#[test]
fn every_source_file_opens_with_its_purpose() {
    let root = workspace();
    let mut broken = Vec::new();
    let packages = ["protocol", "agent", "injector", "client", "tests"].iter();
    let dirs = packages.flat_map(|package| [format!("{package}/src"), format!("{package}/tests")]);
    for file in dirs.flat_map(|dir| rust_files(&root, &dir)) {
        let text = fs::read_to_string(&file).expect("readable source");
        let place = file.strip_prefix(&root).unwrap_or(&file).display();
        if !text.starts_with("//!") {
            broken.push(format!("{place}: opens without //!"));
        }
        if production(&text).count() > MAX_LINES {
            broken.push(format!("{place}: {} lines", production(&text).count()));
        }
    }
    none(&broken);
}

#[test]
fn deny_toml_repeats_the_lists() {
    let text = fs::read_to_string(workspace().join("deny.toml")).expect("deny.toml");
    let named = |name: &str| text.contains(&format!("\"{name}\""));
    let missing = LICENCES.iter().map(|licence| licence.split(" WITH ").next().unwrap_or_default());
    let missing = missing.chain(REFUSED.iter().map(|(name, _)| *name)).filter(|name| !named(name));
    none(&missing.map(|name| format!("deny.toml lacks {name}")).collect::<Vec<_>>());
}
