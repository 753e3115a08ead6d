//! One static executable alone in its image, changed while its pod runs.

use std::path::PathBuf;

use anyhow::Result;
use devsync_tests::cluster::manifests::{self, Agent};
use devsync_tests::cluster::project::Project;
use devsync_tests::demo::project::Language;

use super::two_saves;

fn copy(dir: PathBuf) -> Result<Project> {
    Project::copy(Language::Rust, dir)
}

#[test]
#[ignore = "needs: cluster"]
fn a_save_reaches_an_image_from_scratch_beside_a_root_agent() -> Result<()> {
    two_saves(manifests::RUST, Agent::Baseline, copy)
}

#[test]
#[ignore = "needs: cluster"]
fn a_save_reaches_an_app_whose_agent_has_no_right_that_the_app_lacks() -> Result<()> {
    two_saves(manifests::RUST_OWNED, Agent::Restricted, copy)
}
