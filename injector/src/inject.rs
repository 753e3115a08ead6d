//! From an object to the same object with devsync in its pods. The order of the parts decides about what they see:
//! images before the volumes that are filled from them, volumes before the command that starts from them.

mod app;
mod finish;
mod image;
mod keys;
pub(crate) mod obstacle;
mod pod;
mod probes;
mod sidecar;
mod state;
mod supervise;
pub(crate) mod template;
mod workspace;

use serde_json::Value;

use crate::config::Config;
use crate::eject;
use crate::outcome::{Outcome, Place};
use pod::Pod;
use state::State;
use template::{Found, name};

/// Puts devsync into the pods that an object describes. Objects of other kinds pass unchanged.
pub fn inject(object: &Value, config: &Config, place: &Place) -> Outcome {
    match template::find(object) {
        Found::Nothing => Outcome::default(),
        Found::List => template::each(object, |item| inject(item, config, place)),
        Found::Template(path) => one(object, path, config, place),
    }
}

fn one(object: &Value, path: &[&str], config: &Config, place: &Place) -> Outcome {
    let name = name(object);
    let warn = |why: String| Outcome { warnings: vec![format!("{name}: {why}")], ..Outcome::default() };
    let Some(template) = template::at(object, path) else { return Outcome::default() };
    let mut outcome = match state::of(template, place, config) {
        State::Fresh => into(template, config, place),
        State::Ours => Outcome::default(),
        State::Outdated(why) => renew(template, config, place, &why),
        State::Foreign(why) => return warn(why),
    };
    outcome.object = outcome.object.map(|changed| template::with(object, path, changed));
    outcome.warnings.extend(template::hints(object, path));
    outcome.warnings.iter_mut().for_each(|warning| *warning = format!("{name}: {warning}"));
    outcome.did.iter_mut().for_each(|did| *did = format!("{name}: {did}"));
    outcome
}

/// Into a template that has nothing of devsync.
fn into(template: &Value, config: &Config, place: &Place) -> Outcome {
    let mut pod = match Pod::new(template, config, place) {
        Ok(pod) => pod,
        Err(warnings) => return Outcome { warnings, ..Outcome::default() },
    };
    if !pod.asked.inject {
        return Outcome { warnings: pod.warnings, ..Outcome::default() };
    }
    pod.find_app();
    if let Err(why) = obstacle::check(&pod) {
        pod.warnings.push(why);
        return Outcome { warnings: pod.warnings, ..Outcome::default() };
    }
    pod.set_image();
    pod.add_agent();
    pod.add_workspace();
    pod.supervise();
    pod.change_probes();
    pod.add_native_agent();
    pod.finish()
}

/// Out with what another release, or other annotations, led to, and in again.
fn renew(template: &Value, config: &Config, place: &Place, why: &str) -> Outcome {
    let Some(bare) = eject::out_of(template).object else { return Outcome::default() };
    let mut outcome = into(&bare, config, place);
    match &outcome.object {
        Some(_) => outcome.did.insert(0, format!("brought up to date: {why}")),
        // Where nothing may be put in now, the old one goes too.
        None => outcome.object = Some(bare),
    }
    outcome
}
