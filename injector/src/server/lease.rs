//! The Lease: who of the replicas does the next step. It is taken for one step, and given back.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;

/// Longer than a step takes: whoever holds it longer has ended.
const HELD: Duration = Duration::from_secs(30);

/// A Lease that this replica holds; what was read of it is what is written back.
pub(super) struct Held {
    api: Api<Lease>,
    name: String,
    lease: Lease,
}

/// Takes the Lease; `None` where another replica has it.
pub(super) async fn take(api: &Api<Lease>, name: &str, replica: &str) -> Result<Option<Held>, kube::Error> {
    let mut lease = api.get(name).await?;
    let now = Timestamp::now();
    let spec = lease.spec.get_or_insert_default();
    if spec.holder_identity.as_deref().is_some_and(|holder| holder != replica) && !is_over(spec, now) {
        return Ok(None);
    }
    spec.holder_identity = Some(replica.to_owned());
    spec.lease_duration_seconds = i32::try_from(HELD.as_secs()).ok();
    spec.acquire_time = Some(MicroTime(now));
    spec.renew_time = Some(MicroTime(now));
    // With the version that was read: of two who try, one is refused.
    match api.replace(name, &PostParams::default(), &lease).await {
        Ok(lease) => Ok(Some(Held { api: api.clone(), name: name.to_owned(), lease })),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_over(spec: &LeaseSpec, now: Timestamp) -> bool {
    let Some(renewed) = &spec.renew_time else { return true };
    let held = spec.lease_duration_seconds.map_or(HELD, |s| Duration::from_secs(s.unsigned_abs().into()));
    let since = now.duration_since(renewed.0);
    // A time in the future is some other clock's: nobody waits longer than twice.
    since.unsigned_abs() > held * if since.is_negative() { 2 } else { 1 }
}

impl Held {
    /// Gives it back. Where that fails it is over by itself soon.
    pub(super) async fn give_back(mut self) {
        if let Some(spec) = &mut self.lease.spec {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
        }
        if let Err(error) = self.api.replace(&self.name, &PostParams::default(), &self.lease).await {
            tracing::debug!(%error, "the lease was not given back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_over_when_nobody_renewed_it() {
        let now = Timestamp::now();
        let at = |seconds: i64| LeaseSpec {
            renew_time: Timestamp::from_second(now.as_second() + seconds).ok().map(MicroTime),
            lease_duration_seconds: Some(30),
            ..LeaseSpec::default()
        };
        assert!(!is_over(&at(-10), now) && is_over(&at(-40), now));
        assert!(!is_over(&at(40), now) && is_over(&at(100), now));
        assert!(is_over(&LeaseSpec::default(), now));
    }
}
