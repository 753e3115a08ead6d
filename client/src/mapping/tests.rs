//! Mapping tables: what is found here and in the pod, and what is synced because of it.

use super::*;
use crate::app::tests::app;
use crate::project::{Cargo, Go};

fn project(dir: &Path) -> Project {
    Project { dir: dir.to_owned(), ..Project::default() }
}

fn decided(app: &App, project: &Project) -> Result<Plan, MappingError> {
    decide(app, project, &Wishes::default(), true)
}

fn at(path: &str) -> Place {
    Place::At(PodPath::new(path).expect("valid"))
}

#[test]
fn an_interpreted_app_gets_this_directory() {
    let python = app("/usr/bin/python3.13", &["python3", "app.py"], "/srv/app");
    let plan = decided(&python, &project(Path::new("/home/me/app"))).expect("a plan");
    let tree = Source::Tree("/home/me/app".into());
    assert_eq!(plan.mappings, [Mapping::new(tree, Place::Cwd)]);
    assert!(plan.guessed && plan.build.is_none());
    assert_eq!((plan.restart, plan.because.as_str()), (RestartMode::Auto, "a Python app"));
}

#[test]
fn a_build_s_output_that_the_app_runs_counts_though_it_is_ignored() {
    let here = tempfile::tempdir().expect("a directory");
    for dir in ["dist/web", "node_modules/tool"] {
        std::fs::create_dir_all(here.path().join(dir)).expect("made");
    }
    let keeps = |script: &str| {
        let node = app("/usr/bin/node", &["node", "--enable-source-maps", script], "/app");
        decided(&node, &project(here.path())).expect("a plan").mappings[0].keeps.clone()
    };
    let path = |text: &str| RelPath::new(text).expect("valid");
    assert_eq!(keeps("dist/server.js"), [path("dist")]);
    assert_eq!(keeps("/app/dist/web/server.js"), [path("dist/web")]);
    assert_eq!(keeps("./dist/server.js"), [path("dist")]);
    for script in ["server.js", "/opt/dist/server.js", "lib/server.js", "node_modules/tool/cli.js"] {
        assert_eq!(keeps(script), [], "{script}");
    }
}

#[test]
fn what_the_pod_says_stands_below_what_the_user_says() {
    let python = app("/usr/bin/python3", &["python3", "app.py"], "/srv");
    let here = project(Path::new("/home/me/app"));
    let said = Wishes {
        sync_root: PodPath::new("/volume").ok(),
        restart: Some(RestartMode::None),
        ..Wishes::default()
    };
    let plan = decide(&python, &here, &said, true).expect("a plan");
    assert_eq!(
        (&plan.mappings[0].place, plan.guessed, plan.restart),
        (&at("/volume"), false, RestartMode::None)
    );
    assert!(plan.because.contains("devsync.dev/sync-root"), "{}", plan.because);
    let spec = SyncSpec { from: "/".into(), to: Some("/mine".to_owned()) };
    let plan = decide(&python, &here, &Wishes { sync: vec![spec], ..said }, true).expect("a plan");
    assert_eq!(plan.mappings[0].place, at("/mine"));
}

#[test]
fn a_cargo_project_is_built_for_the_app() {
    let native = app("/bin/demo", &["demo"], "/");
    let bins = vec!["demo".to_owned(), "tool".to_owned()];
    let cargo = Cargo { target_dir: "/p/target".into(), bins };
    let project = Project { cargo: Some(cargo), ..project(Path::new("/p")) };
    let plan = decide(&native, &project, &Wishes::default(), false).expect("a plan");
    let build = plan.build.expect("a build");
    assert_eq!(build.argv[..4], ["cargo", "build", "--bin", "demo"]);
    assert!(build.env.iter().any(|(k, v)| k == "RUSTFLAGS" && v.contains("+crt-static")));
    assert_eq!(plan.mappings[0].place, at("/bin"));
    assert_eq!(plan.confirm, None);
    let output = plan.exe.expect("an output");
    assert!(output.starts_with("/p/target/") && output.ends_with("debug/demo"), "{output:?}");

    let other = app("/server", &["/server"], "/");
    let error = decide(&other, &project, &Wishes::default(), false).expect_err("which one?");
    assert_eq!(error.to_string(), "the project builds demo, tool, and none of them is called server");
}

#[test]
fn an_executable_of_another_name_is_asked_about() {
    let native = app("/server", &["/server"], "/");
    let go = Go { mains: vec![(".".to_owned(), "demo".to_owned())] };
    let plan = decided(&native, &Project { go: Some(go), ..project(Path::new("/p")) }).expect("a plan");
    assert!(plan.confirm.is_some_and(|q| q.contains("demo") && q.contains("/server")));
    let build = plan.build.expect("a build");
    assert!(build.env.contains(&("GOARCH".to_owned(), "amd64".to_owned())));
}

#[test]
fn the_wished_mapping_wins() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("app.bin");
    std::fs::write(&file, "x").expect("written");
    let native = app("/srv/server", &["server"], "/");
    let plan = |specs: &[(&Path, Option<&str>)], exe: Option<&Path>| {
        let sync = specs.iter().map(|(f, t)| SyncSpec { from: (*f).into(), to: t.map(str::to_owned) });
        let wishes = Wishes { sync: sync.collect(), exe: exe.map(Path::to_owned), ..Wishes::default() };
        decide(&native, &project(dir.path()), &wishes, true)
    };
    let place = |specs: &[(&Path, Option<&str>)]| {
        plan(specs, None).map(|p| match p.mappings[0].source.clone() {
            Source::Tree(_) => (p.mappings[0].place.clone(), None),
            Source::File { name, .. } => (p.mappings[0].place.clone(), Some(name.to_string())),
        })
    };
    let named = |name: &str| Some(name.to_owned());
    let rel = |path: &str| Place::BelowCwd(RelPath::new(path).expect("valid"));
    assert_eq!(place(&[(dir.path(), None)]).expect("ok"), (Place::Cwd, None));
    assert_eq!(place(&[(dir.path(), Some("/"))]).expect("ok"), (at("/"), None));
    assert_eq!(place(&[(dir.path(), Some("a/b/"))]).expect("ok"), (rel("a/b"), None));
    assert_eq!(place(&[(&file, None)]).expect("ok"), (Place::Cwd, named("app.bin")));
    assert_eq!(place(&[(&file, Some("/opt/"))]).expect("ok"), (at("/opt"), named("app.bin")));
    assert_eq!(place(&[(&file, Some("/opt/x"))]).expect("ok"), (at("/opt"), named("x")));
    assert_eq!(place(&[(&file, Some("/x"))]).expect("ok"), (at("/"), named("x")));
    assert_eq!(place(&[(&file, Some("lib/x"))]).expect("ok"), (rel("lib"), named("x")));
    assert!(matches!(place(&[(&file, Some("../x"))]), Err(MappingError::Place { .. })));
    assert!(matches!(place(&[(Path::new("/nonexistent"), None)]), Err(MappingError::NoSource { .. })));

    let both = plan(&[(dir.path(), Some("/srv/www"))], Some(&file)).expect("a plan");
    assert_eq!(both.mappings.len(), 2);
    assert_eq!(both.mappings[1].place, at("/srv"));
    assert!(!both.guessed);
}

#[test]
fn an_interpreter_is_not_replaced() {
    let python = app("/usr/bin/python3", &["python3", "app.py"], "/srv");
    let plan = |exe: &str| {
        let wishes = Wishes { exe: Some(exe.into()), ..Wishes::default() };
        decide(&python, &project(Path::new("/p")), &wishes, true)
    };
    let error = plan("app.py").expect_err("a refusal");
    assert_eq!(error.to_string(), "--exe app.py would replace /usr/bin/python3, which only runs app.py");
    assert!(plan("build/python3").is_ok());
}

#[test]
fn a_jar_goes_over_the_jar() {
    let dir = tempfile::tempdir().expect("a directory");
    let jar = dir.path().join("shop.jar");
    std::fs::write(&jar, "x").expect("written");
    let java = app("/opt/java/bin/java", &["java", "-jar", "/app/shop.jar"], "/");
    let none = decided(&java, &project(dir.path()));
    assert!(matches!(none, Err(MappingError::NoJar { .. })));
    let plan = decided(&java, &Project { jars: vec![jar], ..project(dir.path()) }).expect("a plan");
    assert_eq!((&plan.mappings[0].place, plan.confirm), (&at("/app"), None));
}

#[test]
fn an_app_that_reloads_itself_is_not_restarted() {
    let gunicorn = app("/usr/bin/python3", &["python3", "/usr/bin/gunicorn", "--reload", "app"], "/srv");
    let plan = decided(&gunicorn, &project(Path::new("/p"))).expect("a plan");
    assert_eq!(plan.restart, RestartMode::None);
    assert_eq!(plan.because, "a Python app; it reloads itself (--reload)");
}
