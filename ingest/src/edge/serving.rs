//! A connected session at work: packets to the pipeline, outcomes to acknowledgements, in order of arrival.
//!
//! Flow control: while as many messages are under way as the limit allows, or the pipeline has no credit, nothing is
//! read. TCP then holds the client back, and its silence is not counted against it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures::future::{BoxFuture, FutureExt, ready};
use futures::stream::{FuturesOrdered, StreamExt};
use tokio::time::{Instant, sleep_until, timeout};

use super::clones;
use super::closing::Closing;
use super::codec;
use super::connection::Context;
use super::directory::Ticket;
use super::downlink::Downlink;
use super::frame::{self, Frame, FrameError};
use super::identity::Principal;
use super::limits::EdgeLimits;
use super::packet::{AckReason, Hello, Outbound, Version, Will};
use super::rate::Throttle;
use super::session::{Delivery, Session, Step};
use super::teller::Teller;
use super::will::Wills;
use super::wire::Wire;
use crate::pipeline::{Order, Outcome, PipelineError};

/// Bytes that are queued before they are written, unless there is nothing more to say anyway.
const FLUSH_BYTES: usize = 64 * 1024;

/// One session's connection.
pub(crate) struct Serving<'a> {
    context: &'a Arc<Context>,
    ticket: Ticket,
    principal: Principal,
    version: Version,
    /// Seconds that the session outlives the connection.
    session_expiry: u32,
    /// Published unless the client says goodbye.
    will: Option<Will>,
    teller: Teller,
    /// The largest packet that the client takes.
    max_packet: usize,
    keep_alive: Duration,
    out: BytesMut,
    under_way: FuturesOrdered<BoxFuture<'static, (Delivery, Settled)>>,
    order: Order,
    throttle: Throttle,
}

/// What became of a delivery.
#[derive(Debug)]
enum Settled {
    Durable(Outcome),
    /// Decided by the session.
    Without(AckReason),
    Failed(PipelineError),
}

impl<'a> Serving<'a> {
    pub(crate) fn new(
        context: &'a Arc<Context>,
        ticket: Ticket,
        principal: Principal,
        hello: &mut Hello,
        session_expiry: u32,
        keep_alive: Duration,
    ) -> Self {
        let downlink = Downlink::new(&context.store, Arc::clone(&context.clock), &principal);
        let throttle = context.throttles.of(&principal.client_id());
        let max_packet = hello.max_packet.and_then(|max| usize::try_from(max).ok());
        Self {
            context,
            ticket,
            principal,
            version: hello.version,
            session_expiry,
            will: hello.will.take(),
            teller: Teller::new(downlink),
            max_packet: max_packet.unwrap_or(usize::MAX),
            keep_alive,
            out: BytesMut::new(),
            under_way: FuturesOrdered::new(),
            order: Order::default(),
            throttle,
        }
    }

    /// Serves until the end and says why it came. The session is parked before the device may connect again.
    pub(crate) async fn run(
        mut self,
        mut wire: Wire,
        mut session: Session,
        greeting: Outbound,
    ) -> Closing {
        let connected = self.context.metrics.session();
        let Err(mut closing) = self.serve(&mut wire, &mut session, &greeting).await;
        if closing == Closing::Shutdown {
            closing = self.drain(&mut wire, &mut session).await;
        }
        // Whoever may be told nothing more is not told what waits either. What was begun cannot be ended then.
        let is_told_no_more = matches!(closing, Closing::Revoked | Closing::Expired);
        if is_told_no_more {
            self.out.clear();
        }
        if self.version == Version::V5
            && (!is_told_no_more || wire.is_between_packets())
            && let Some(code) = closing.disconnect_code()
        {
            let _ = self.send(&Outbound::Disconnect(code));
        }
        // Whoever has missed messages must learn of it: the next session is a new one.
        let session_expiry = match closing {
            Closing::Revoked | Closing::Lagged => 0,
            _ => self.session_expiry,
        };
        let Self {
            context,
            ticket,
            principal,
            will,
            order,
            out,
            throttle,
            ..
        } = self;
        if ticket.park(session.into_state(), session_expiry, Instant::now()) {
            context.kept.leave(&principal.client_id(), session_expiry);
        }
        if let Some(will) = will.filter(|_| closing != Closing::Revoked) {
            // It is due at the latest when the session ends (v5 3.1.3.2.2).
            let delay = Duration::from_secs(will.delay.min(session_expiry).into());
            Wills::leave(context, principal.clone(), will, delay, order);
        }
        let throttles = &context.throttles;
        throttles.leave(principal.client_id(), throttle, Instant::now());
        drop(ticket);
        drop(connected);
        let answered = wire.close(out).await;
        if closing == Closing::TakenOver && answered {
            clones::taken_over(context, &principal).await;
        }
        closing
    }

    async fn serve(
        &mut self,
        wire: &mut Wire,
        session: &mut Session,
        greeting: &Outbound,
    ) -> Result<std::convert::Infallible, Closing> {
        if !self.send(greeting)? {
            // A client that takes no CONNACK has no session, and so no will.
            self.will = None;
            return Err(Closing::UnsupportedConnect);
        }
        let mut heard_at = Instant::now();
        let mut begun_at = None;
        let context = Arc::clone(self.context);
        let mut shutdown = pin!(context.shutdown.cancelled());
        let mut alarm = pin!(sleep_until(heard_at + self.keep_alive));
        loop {
            let limits = &*self.context.limits.get();
            while self.has_room(limits)
                && let Some(frame) = next_frame(wire, limits.packet_bytes)?
            {
                heard_at = Instant::now();
                begun_at = None;
                self.count(limits, heard_at);
                self.on_frame(session, frame).await?;
            }
            while let Some(Some(settled)) = self.under_way.next().now_or_never() {
                self.settle(session, settled)?;
            }
            // Before the SUBACK leaves, so that it is still true after a restart.
            if let Some(subscriptions) = session.subscriptions.changed() {
                let kept = &self.context.kept;
                let expiry = self.session_expiry;
                kept.keep(&self.principal, subscriptions, expiry).await?;
            }
            self.tell(wire, session, limits).await?;

            let now = Instant::now();
            let ready_at = self.throttle.ready_at(limits.packets, now);
            let throttled = ready_at > now;
            let reading = !throttled && self.under_way.len() < limits.in_flight;
            if !reading {
                heard_at = now;
                begun_at = None;
            }
            // [MQTT-3.1.2-24]
            let silent_at = heard_at + self.keep_alive + self.keep_alive / 2;
            // A packet that has begun has to end, whatever keep-alive was asked for.
            begun_at = (!wire.buffer.is_empty()).then(|| begun_at.unwrap_or(now));
            let stalled_at = begun_at.map_or(silent_at, |at| at + limits.packet_deadline);
            let deadline = silent_at.min(stalled_at);
            // To ring later, it is set when it rings: setting it for each packet costs as much as the packet.
            if deadline < alarm.deadline() {
                alarm.as_mut().reset(deadline);
            }
            tokio::select! {
                biased;
                reason = self.ticket.closed() => return Err(reason),
                () = &mut shutdown => return Err(Closing::Shutdown),
                // Rare, so before what never ends on a busy connection.
                () = self.teller.news(&mut session.subscriptions) => {}
                Some(settled) = self.under_way.next() => self.settle(session, settled)?,
                read = wire.read(), if reading => read?,
                () = sleep_until(ready_at), if throttled => {}
                () = &mut alarm, if reading => match Instant::now() {
                    now if silent_at <= now => return Err(Closing::KeepAlive),
                    now if stalled_at <= now => return Err(Closing::Stalled),
                    _ => alarm.as_mut().reset(deadline),
                },
            }
        }
    }

    /// May the next packet be taken in? Not while as many are under way as may be, and not faster than the limits say.
    fn has_room(&self, limits: &EdgeLimits) -> bool {
        let now = Instant::now();
        self.under_way.len() < limits.in_flight
            && self.throttle.ready_at(limits.packets, now) <= now
    }

    fn count(&mut self, limits: &EdgeLimits, now: Instant) {
        if self.throttle.count(limits.packets, now) {
            self.context.metrics.count_throttled();
            tracing::warn!(
                client = %self.principal,
                "sends more packets a second than it may, for long; it is read no faster, and nothing is dropped"
            );
        }
    }

    async fn on_frame(&mut self, session: &mut Session, frame: Frame) -> Result<(), Closing> {
        let packet = codec::inbound(self.version, frame)?;
        match session.on_packet(packet)? {
            Step::Nothing => {}
            Step::Send(packet) => {
                self.send(&packet)?;
            }
            Step::Delivered(number) => self.teller.delivered(number).await?,
            Step::Acknowledge(delivery, reason) => {
                let settled = (delivery, Settled::Without(reason));
                self.under_way.push_back(ready(settled).boxed());
            }
            Step::Submit(delivery, payload) => {
                let pipeline = &self.context.pipeline;
                let credit = match pipeline.reserve(payload.len()).now_or_never() {
                    Some(credit) => credit,
                    None => tokio::select! {
                        biased;
                        reason = self.ticket.closed() => return Err(reason),
                        () = self.context.shutdown.cancelled() => return Err(Closing::Shutdown),
                        credit = pipeline.reserve(payload.len()) => credit,
                    },
                };
                let credit = credit.map_err(|error| match error.is_full() {
                    true => Closing::Full,
                    false => Closing::Storage,
                })?;
                // Nobody else may publish, so the session submits nothing of theirs.
                let device = self.principal.device().ok_or(Closing::NotAuthorized)?;
                let device = device.clone();
                let outcome = pipeline.submit_reserved(credit, &mut self.order, device, payload);
                let settled = outcome.map(move |outcome| {
                    (
                        delivery,
                        outcome.map_or_else(Settled::Failed, Settled::Durable),
                    )
                });
                self.under_way.push_back(settled.boxed());
            }
            Step::Goodbye {
                is_normal,
                session_expiry,
            } => {
                // A session that ends with its connection cannot be prolonged (v5 3.14.2.2.2).
                match session_expiry {
                    Some(asked) if self.session_expiry == 0 && asked != 0 => {
                        return Err(Closing::Protocol);
                    }
                    Some(asked) => {
                        self.session_expiry = self.context.limits.get().session_expiry(asked);
                    }
                    None => {}
                }
                if is_normal {
                    self.will = None; // [MQTT-3.14.4-3]
                }
                return Err(Closing::Goodbye);
            }
        }
        Ok(())
    }

    /// Only from here does an acknowledgement come.
    fn settle(
        &mut self,
        session: &mut Session,
        (delivery, settled): (Delivery, Settled),
    ) -> Result<(), Closing> {
        let metrics = &self.context.metrics;
        let answer = match settled {
            Settled::Durable(outcome) => {
                metrics.count_acked();
                match outcome {
                    Outcome::Stored { gap, .. } if gap => metrics.count_chain_gap(),
                    Outcome::Stored { .. } => {}
                    Outcome::Duplicate => metrics.count_duplicate(),
                    Outcome::Quarantined(_) => metrics.count_quarantined(),
                }
                session.on_outcome(delivery, outcome)
            }
            Settled::Without(reason) => session.acknowledge(delivery, reason),
            Settled::Failed(error @ PipelineError::UnknownSender) => {
                tracing::warn!(client = %self.principal, "a message is not acknowledged: {error}");
                return Err(Closing::UnknownSender);
            }
            Settled::Failed(error) if error.is_full() => return Err(Closing::Full),
            Settled::Failed(error) => {
                let cause = std::error::Error::source(&error).map(tracing::field::display);
                tracing::error!(
                    client = %self.principal, %error, cause,
                    "a message could not be made durable; it is not acknowledged"
                );
                return Err(Closing::Storage);
            }
        };
        if let Some(answer) = answer {
            self.send(&answer)?;
        }
        Ok(())
    }

    /// Lets what is under way end, and acknowledges it, for a bounded time.
    async fn drain(&mut self, wire: &mut Wire, session: &mut Session) -> Closing {
        let limits = &*self.context.limits.get();
        let drained = timeout(limits.drain_deadline, async {
            while let Some(settled) = self.under_way.next().await {
                self.settle(session, settled)?;
                self.flush(wire, limits).await?;
            }
            Ok(())
        });
        match drained.await {
            Ok(Err(closing)) => closing,
            Ok(Ok(())) | Err(_) => Closing::Shutdown,
        }
    }

    /// Sends what there is to be told, as far as the client takes it.
    async fn tell(
        &mut self,
        wire: &mut Wire,
        session: &mut Session,
        limits: &EdgeLimits,
    ) -> Result<(), Closing> {
        let subscriptions = &mut session.subscriptions;
        while let Some(telling) = self.teller.next(subscriptions).await? {
            let id = telling.id;
            // Not sent, it counts as sent and acknowledged ([MQTT-3.1.2-25]).
            if !self.send(&Outbound::Publish(telling))?
                && let Some(number) = id.and_then(|id| subscriptions.on_acknowledged(id))
            {
                self.teller.delivered(number).await?;
            }
            if self.out.len() >= FLUSH_BYTES {
                self.flush(wire, limits).await?;
            }
        }
        self.flush(wire, limits).await?;
        self.teller.flushed().await
    }

    /// Writes what is queued, unless the connection has to close: whoever does not read is not waited for then.
    async fn flush(&mut self, wire: &mut Wire, limits: &EdgeLimits) -> Result<(), Closing> {
        tokio::select! {
            biased;
            reason = self.ticket.closed() => Err(reason),
            flushed = wire.flush(&mut self.out, limits.write_deadline) => flushed,
        }
    }

    /// Queues a packet for the next flush; `false` for one that is larger than the client takes ([MQTT-3.1.2-24]).
    fn send(&mut self, packet: &Outbound) -> Result<bool, Closing> {
        let start = self.out.len();
        codec::encode(self.version, packet, &mut self.out).map_err(|_| Closing::Internal)?;
        let fits = self.out.len() - start <= self.max_packet;
        if !fits {
            self.out.truncate(start);
        }
        Ok(fits)
    }
}

/// Whose connection it is, and nothing of what goes over it.
impl std::fmt::Debug for Serving<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serving")
            .field("client", &self.principal)
            .field("out_bytes", &self.out.len())
            .finish_non_exhaustive()
    }
}

fn next_frame(wire: &mut Wire, max_bytes: usize) -> Result<Option<Frame>, Closing> {
    frame::next(&mut wire.buffer, max_bytes).map_err(|error| match error {
        FrameError::TooLarge => Closing::TooLarge,
        FrameError::Malformed => Closing::Malformed,
        FrameError::Unexpected => Closing::Protocol,
    })
}
