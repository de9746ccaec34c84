//! Refused messages, without their content.

use jiff::Timestamp;
use serde::Serialize;
use vitalseal_crypto::{DeviceId, SubjectPseudonym};
use vitalseal_storage::QuarantineRow;

#[derive(Serialize)]
pub(in crate::admin) struct QuarantineView<'a> {
    id: i64,
    device: &'a DeviceId,
    state: &'a str,
    reason: &'a str,
    received_at: Timestamp,
    times: u64,
    detail: &'a str,
    bytes: u64,
}

impl<'a> QuarantineView<'a> {
    pub(in crate::admin) fn of(row: &'a QuarantineRow) -> Self {
        Self {
            id: row.id,
            device: &row.device,
            state: row.state.as_str(),
            reason: row.reason.as_str(),
            received_at: row.received_at,
            times: row.times,
            detail: &row.detail,
            bytes: row.size,
        }
    }
}

#[derive(Serialize)]
pub(in crate::admin) struct QuarantineDetailView<'a> {
    #[serde(flatten)]
    row: QuarantineView<'a>,
    boot: Option<u64>,
    sequence: Option<u64>,
    patient: Option<&'a str>,
    body_kept: bool,
    can_be_released: bool,
    /// Why not.
    obstacle: Option<&'static str>,
    settled_at: Option<Timestamp>,
    settled_by: Option<&'a str>,
    settled_reason: Option<&'a str>,
}

impl<'a> QuarantineDetailView<'a> {
    pub(in crate::admin) fn of(row: &'a QuarantineRow, obstacle: Option<&'static str>) -> Self {
        let (boot, sequence) = row.message.unzip();
        let settled = row.settled.as_ref();
        Self {
            row: QuarantineView::of(row),
            boot,
            sequence,
            patient: row.subject.as_ref().map(SubjectPseudonym::as_str),
            body_kept: row.has_body,
            can_be_released: obstacle.is_none(),
            obstacle,
            settled_at: settled.map(|settled| settled.at),
            settled_by: settled.map(|settled| settled.by.as_str()),
            settled_reason: settled.map(|settled| settled.reason.as_str()),
        }
    }
}

#[derive(Serialize)]
pub(in crate::admin) struct SettledView<'a> {
    id: i64,
    device: &'a DeviceId,
    state: &'a str,
    /// Readings that were stored now.
    #[serde(skip_serializing_if = "Option::is_none")]
    readings: Option<u32>,
}

impl<'a> SettledView<'a> {
    pub(in crate::admin) fn of(row: &'a QuarantineRow, readings: Option<u32>) -> Self {
        Self {
            id: row.id,
            device: &row.device,
            state: row.state.as_str(),
            readings,
        }
    }
}
