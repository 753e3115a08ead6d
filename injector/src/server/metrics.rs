//! What is counted, in the text format of OpenMetrics.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Outcome {
    /// The pod gets an agent.
    Injected,
    /// The pod stays as it is.
    Unchanged,
    /// Not a review that can be answered.
    Refused,
    /// A fault in the injector; the pod stays as it is.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: Outcome,
}

/// Whether something read from the cluster could be used.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByUse {
    used: &'static str,
}

/// Counters of one server; clones count together.
#[derive(Clone)]
pub(super) struct Metrics {
    registry: Arc<Registry>,
    requests: Family<ByOutcome, Counter>,
    took: Histogram,
    pub(super) warnings: Counter,
    configurations: Family<ByUse, Counter>,
    pub(super) configuration_good: Gauge,
    pub(super) connections: Gauge,
    pub(super) handshakes_failed: Counter,
    pub(super) rotations: Counter,
    pub(super) certificate_expires: Gauge,
    pub(super) namespaces: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        // Up to the deadline of a request.
        let took = Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 4.0]);
        let mut this = Self {
            registry: Arc::default(),
            requests: Family::default(),
            took,
            warnings: Counter::default(),
            configurations: Family::default(),
            configuration_good: Gauge::default(),
            connections: Gauge::default(),
            handshakes_failed: Counter::default(),
            rotations: Counter::default(),
            certificate_expires: Gauge::default(),
            namespaces: Gauge::default(),
        };
        this.configuration_good.set(1);
        this.registry = Arc::new(this.register());
        this
    }
}

impl Metrics {
    fn register(&self) -> Registry {
        let mut all = Registry::with_prefix("devsync_injector");
        all.register("requests", "Reviews by what became of them", self.requests.clone());
        let help = "Time from a request's head to its answer";
        all.register_with_unit("request_duration", help, Unit::Seconds, self.took.clone());
        all.register("warnings", "Warnings given to users", self.warnings.clone());
        let help = "Configurations that were read, by whether they are used";
        all.register("configurations", help, self.configurations.clone());
        let help = "1 if the configuration of the moment is the one in the cluster, 0 if that is broken";
        all.register("configuration_good", help, self.configuration_good.clone());
        all.register("connections", "Open connections", self.connections.clone());
        all.register("handshakes_failed", "TLS handshakes that failed", self.handshakes_failed.clone());
        all.register("rotations", "Certificates that this replica made", self.rotations.clone());
        let help = "When the certificate that is served expires, seconds since 1970; 0: not known";
        all.register("certificate_expires", help, self.certificate_expires.clone());
        all.register("namespaces", "Namespaces whose level is known", self.namespaces.clone());
        all
    }

    pub(super) fn request(&self, outcome: Outcome, took: Duration) {
        self.requests.get_or_create(&ByOutcome { outcome }).inc();
        self.took.observe(took.as_secs_f64());
    }

    pub(super) fn configuration(&self, good: bool) {
        let used = if good { "true" } else { "false" };
        self.configurations.get_or_create(&ByUse { used }).inc();
        self.configuration_good.set(i64::from(good));
    }

    /// All figures as text.
    pub(super) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
