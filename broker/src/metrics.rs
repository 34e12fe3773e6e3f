//! Prometheus metrics. Every label value comes from configuration or from a closed list of codes.

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::record::DecisionRecord;

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    decisions: IntCounterVec,
    refusals: IntCounterVec,
    transitions: IntCounterVec,
    detections: IntCounterVec,
    /// Seconds from the first byte of a request to the decision.
    pub decide_seconds: Histogram,
    /// Seconds from lease to the upstream's answer head.
    pub upstream_seconds: Histogram,
    /// Answers by route and status class.
    pub upstream_answers: IntCounterVec,
    /// Requests in flight.
    pub in_flight: IntGauge,
    /// Echoes of a credential that were masked.
    pub masked_echoes: IntCounter,
    /// Configuration reloads by result.
    pub reloads: IntCounterVec,
    /// Downstream connections open.
    pub connections: IntGauge,
    /// Downstream connections ended or refused by the gateway, by reason.
    pub connections_ended: IntCounterVec,
    /// Deliveries by webhook and result.
    pub webhook_deliveries: IntCounterVec,
    /// Age of the oldest event that a webhook was not told, seconds; 0 where there is none.
    pub webhook_behind: IntGaugeVec,
}

impl Metrics {
    /// Registers everything; fails only if two names collide.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let metrics = Self {
            decisions: IntCounterVec::new(
                Opts::new("aegis_decisions_total", "decisions by route, system, decision and class"),
                &["route", "tool", "decision", "class"],
            )?,
            refusals: IntCounterVec::new(
                Opts::new("aegis_refusals_total", "requests refused before a decision, by reason"),
                &["reason"],
            )?,
            transitions: IntCounterVec::new(
                Opts::new("aegis_agent_transitions_total", "agent transitions by kind"),
                &["kind"],
            )?,
            detections: IntCounterVec::new(
                Opts::new("aegis_detections_total", "attempts that point to an attack, by rule"),
                &["rule"],
            )?,
            decide_seconds: Histogram::with_opts(
                HistogramOpts::new("aegis_decide_seconds", "time to a decision").buckets(BUCKETS.to_vec()),
            )?,
            upstream_seconds: Histogram::with_opts(
                HistogramOpts::new("aegis_upstream_seconds", "time to the upstream's answer head")
                    .buckets(BUCKETS.to_vec()),
            )?,
            upstream_answers: IntCounterVec::new(
                Opts::new("aegis_upstream_answers_total", "upstream answers by route and status class"),
                &["route", "status"],
            )?,
            in_flight: IntGauge::new("aegis_requests_in_flight", "requests being handled")?,
            masked_echoes: IntCounter::new("aegis_masked_echoes_total", "echoes of a credential masked in answers")?,
            reloads: IntCounterVec::new(
                Opts::new("aegis_reloads_total", "configuration reloads by result"),
                &["result"],
            )?,
            connections: IntGauge::new("aegis_connections", "downstream connections open")?,
            connections_ended: IntCounterVec::new(
                Opts::new("aegis_connections_ended_total", "connections ended or refused by the gateway, by reason"),
                &["reason"],
            )?,
            webhook_deliveries: IntCounterVec::new(
                Opts::new("aegis_webhook_deliveries_total", "deliveries to webhooks by result"),
                &["webhook", "result"],
            )?,
            webhook_behind: IntGaugeVec::new(
                Opts::new("aegis_webhook_behind_seconds", "age of the oldest event a webhook was not told, 0 for none"),
                &["webhook"],
            )?,
            registry,
        };
        let all: [Box<dyn prometheus::core::Collector>; 14] = [
            Box::new(metrics.decisions.clone()),
            Box::new(metrics.refusals.clone()),
            Box::new(metrics.transitions.clone()),
            Box::new(metrics.detections.clone()),
            Box::new(metrics.decide_seconds.clone()),
            Box::new(metrics.upstream_seconds.clone()),
            Box::new(metrics.upstream_answers.clone()),
            Box::new(metrics.in_flight.clone()),
            Box::new(metrics.masked_echoes.clone()),
            Box::new(metrics.reloads.clone()),
            Box::new(metrics.connections.clone()),
            Box::new(metrics.connections_ended.clone()),
            Box::new(metrics.webhook_deliveries.clone()),
            Box::new(metrics.webhook_behind.clone()),
        ];
        for collector in all {
            metrics.registry.register(collector)?;
        }
        Ok(metrics)
    }

    pub(crate) fn decision(&self, route: &str, tool: Option<&str>, record: &DecisionRecord) {
        let labels = [route, tool.unwrap_or("none"), record.decision.as_str(), record.risk.class.as_str()];
        self.decisions.with_label_values(&labels).inc();
    }

    /// Counts a refusal; `reason` is one of our own codes.
    pub fn refusal(&self, reason: &'static str) {
        self.refusals.with_label_values(&[reason]).inc();
    }

    pub(crate) fn transition(&self, kind: &str) {
        self.transitions.with_label_values(&[kind]).inc();
    }

    /// Counts a detection; `rule` is one of our own names.
    pub(crate) fn detection(&self, rule: &'static str) {
        self.detections.with_label_values(&[rule]).inc();
    }

    /// The text exposition format.
    pub fn render(&self, gauges: &[(&str, &str, f64)]) -> String {
        let mut out = Vec::new();
        if TextEncoder::new().encode(&self.registry.gather(), &mut out).is_err() {
            out.clear();
        }
        let mut text = String::from_utf8_lossy(&out).into_owned();
        for (name, help, value) in gauges {
            text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n"));
        }
        text
    }
}

const BUCKETS: [f64; 12] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0];
