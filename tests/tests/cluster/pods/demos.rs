//! Services in the ways that people build them, attached to from their source directory without a flag or a file.

use anyhow::Result;
use devsync_tests::cluster::manifests::{self, Agent};
use devsync_tests::cluster::project::Project;

use super::two_saves;

#[test]
#[ignore = "needs: cluster"]
fn a_save_of_what_node_runs_arrives_though_git_ignores_it() -> Result<()> {
    two_saves(manifests::NODE, Agent::Baseline, Project::node)
}

#[test]
#[ignore = "needs: cluster"]
fn a_save_reaches_a_package_in_site_packages() -> Result<()> {
    two_saves(manifests::PYTHON_PACKAGE, Agent::Baseline, Project::package)
}
