//! The doors that devices, displays and people knock at, and the pipeline behind them.
//!
//! ```text
//!  device ──MQTT/TLS──▶ edge ───────────▶ pipeline ─────────────────────────────▶ inbox
//!                       session, acl       received → expected → verified →        fsynced
//!                       holds the ack      opened → rewrapped → admitted,
//!                                          or quarantined
//!                          ▲                                                         │
//!                          └───────────────── Outcome: now the ack may leave ────────┘
//! ```
//!
//! * [`edge`] speaks MQTT 3.1.1 and 5 at two doors: in TLS, and for pages in a WebSocket. It knows sessions, topics and
//!   acknowledgements, and nothing of COSE.
//! * [`cluster`] is the other way in: it consumes from an MQTT cluster that a site runs already.
//! * [`alerts`] carries what an operator must hear of; [`clones`] is the one place that answers a cloned key.
//! * [`pipeline`] knows envelopes, keys and the inbox, and nothing of MQTT.
//!
//! What never stands here: an acknowledgement that leaves before the message is durable; a payload or a reading in a
//! log line, a metric or an error text; telemetry in the fan-out router (its log is in memory and forgets).

pub mod alerts;
pub mod clones;
pub mod cluster;
pub mod edge;
pub mod pipeline;

pub use alerts::{Alert, Alerts, Raised};
pub use clones::{CloneError, CloneSignal, Clones, OnClone};
pub use cluster::{ClusterConsumers, ClusterDeps, ClusterLogin, ClusterMetrics, ClusterSettings};
pub use edge::{Carrier, Door, Edge, EdgeDeps, EdgeError, EdgeLimits, EdgeMetrics};
pub use pipeline::{Order, Outcome, Pipeline, PipelineDeps, PipelineError, Released, TimeLimits};
