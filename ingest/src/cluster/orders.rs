//! The cluster spreads one device's messages over all consumers; here they fall into one line again, in the order in which
//! they reached this process.
//!
//! A device is in the map while something of it is under way, so the map is no larger than all windows together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use vitalseal_crypto::DeviceId;

use crate::pipeline::{Credit, Order, Outcome, Pipeline, PipelineError};

/// The line of each device that has something under way.
#[derive(Debug, Default)]
pub(super) struct Orders {
    lines: Mutex<HashMap<DeviceId, Line>>,
}

#[derive(Debug, Default)]
struct Line {
    order: Order,
    under_way: usize,
}

/// One message's share in its device's line.
#[derive(Debug)]
struct Place {
    orders: Arc<Orders>,
    device: DeviceId,
}

impl Orders {
    /// [`Pipeline::submit_reserved`], after what came from the same device before.
    pub(super) fn submit(
        self: &Arc<Self>,
        pipeline: &Pipeline,
        credit: Credit,
        device: DeviceId,
        payload: Bytes,
    ) -> impl Future<Output = Result<Outcome, PipelineError>> + Send + use<> {
        let mut lines = self.lines();
        let line = lines.entry(device.clone()).or_default();
        line.under_way += 1;
        let place = Place {
            orders: Arc::clone(self),
            device: device.clone(),
        };
        let outcome = pipeline.submit_reserved(credit, &mut line.order, device, payload);
        async move {
            let outcome = outcome.await;
            drop(place);
            outcome
        }
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<DeviceId, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    /// Also when the connection ends before the outcome: the cluster then sends the message again, after those before it.
    fn drop(&mut self) {
        let mut lines = self.orders.lines();
        if let Some(line) = lines.get_mut(&self.device) {
            line.under_way -= 1;
            if line.under_way == 0 {
                lines.remove(&self.device);
            }
        }
    }
}
