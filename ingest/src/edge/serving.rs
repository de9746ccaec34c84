//! A connected session at work: packets to the pipeline, outcomes to acknowledgements, in order of arrival.
//!
//! Flow control: while as many messages are under way as the limit allows, or the pipeline has no credit, nothing is
//! read. TCP then holds the client back, and its silence is not counted against it.

use bytes::BytesMut;
use futures::future::{BoxFuture, FutureExt, ready};
use futures::stream::{FuturesOrdered, StreamExt};
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

use super::clones;
use super::closing::Closing;
use super::codec;
use super::connection::Context;
use super::directory::Ticket;
use super::fanout::Message;
use super::frame::{self, Frame, FrameError};
use super::identity::Principal;
use super::limits::EdgeLimits;
use super::packet::{AckReason, Hello, Outbound, Version};
use super::rate::Throttle;
use super::session::{Delivery, Session, Step};
use super::wire::Wire;
use crate::pipeline::{Order, Outcome, PipelineError};

/// One session's connection.
#[derive(Debug)]
pub(crate) struct Serving<'a> {
    context: &'a Context,
    ticket: Ticket,
    principal: Principal,
    version: Version,
    /// Seconds that the session outlives the connection.
    session_expiry: u32,
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
        context: &'a Context,
        ticket: Ticket,
        principal: Principal,
        hello: &Hello,
        keep_alive: Duration,
    ) -> Self {
        let throttle = context.throttles.of(&principal.client_id());
        let max_packet = hello.max_packet.and_then(|max| usize::try_from(max).ok());
        Self {
            context,
            ticket,
            principal,
            version: hello.version,
            session_expiry: hello.session_expiry,
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
        if self.version == Version::V5
            && let Some(code) = closing.disconnect_code()
        {
            self.send(&Outbound::Disconnect(code)).unwrap_or_default();
        }
        if closing != Closing::Revoked {
            self.ticket
                .park(session.into_state(), self.session_expiry, Instant::now());
        }
        let Self {
            context,
            ticket,
            principal,
            out,
            throttle,
            ..
        } = self;
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
        self.send(greeting)?;
        let mut heard_at = Instant::now();
        let mut begun_at = None;
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
            while let Some(message) = session.feed().next().map_err(|_| Closing::Lagged)? {
                self.tell(message)?;
            }
            wire.flush(&mut self.out, limits.write_deadline).await?;

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
            tokio::select! {
                biased;
                reason = self.ticket.closed() => return Err(reason),
                () = self.context.shutdown.cancelled() => return Err(Closing::Shutdown),
                Some(settled) = self.under_way.next() => self.settle(session, settled)?,
                () = session.feed().news() => {}
                read = wire.read(), if reading => read?,
                () = sleep_until(ready_at), if throttled => {}
                () = sleep_until(silent_at), if reading => return Err(Closing::KeepAlive),
                () = sleep_until(stalled_at), if reading => return Err(Closing::Stalled),
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
        let packet = codec::inbound(self.version, frame).map_err(|_| Closing::Malformed)?;
        match session.on_packet(packet)? {
            Step::Nothing => {}
            Step::Send(packet) => self.send(&packet)?,
            Step::Acknowledge(delivery, reason) => {
                let settled = (delivery, Settled::Without(reason));
                self.under_way.push_back(ready(settled).boxed());
            }
            Step::Submit(delivery, payload) => {
                let pipeline = &self.context.pipeline;
                let credit = tokio::select! {
                    biased;
                    reason = self.ticket.closed() => return Err(reason),
                    () = self.context.shutdown.cancelled() => return Err(Closing::Shutdown),
                    credit = pipeline.reserve(payload.len()) => credit,
                };
                let credit = credit.map_err(|_| Closing::Storage)?;
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
            Step::Goodbye { session_expiry } => {
                // A session that ends with its connection cannot be prolonged (v5 3.14.2.2.2).
                match session_expiry {
                    Some(asked) if self.session_expiry == 0 && asked != 0 => {
                        return Err(Closing::Protocol);
                    }
                    Some(asked) => self.session_expiry = asked,
                    None => {}
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
            Settled::Failed(error) => {
                let cause = std::error::Error::source(&error).map(tracing::field::display);
                tracing::error!(
                    client = %self.principal, %error, cause,
                    "a message could not be made durable; it is not acknowledged"
                );
                return Err(Closing::Storage);
            }
        };
        answer.map_or(Ok(()), |answer| self.send(&answer))
    }

    /// Lets what is under way end, and acknowledges it, for a bounded time.
    async fn drain(&mut self, wire: &mut Wire, session: &mut Session) -> Closing {
        let limits = &*self.context.limits.get();
        let drained = timeout(limits.drain_deadline, async {
            while let Some(settled) = self.under_way.next().await {
                self.settle(session, settled)?;
                wire.flush(&mut self.out, limits.write_deadline).await?;
            }
            Ok(())
        });
        match drained.await {
            Ok(Err(closing)) => closing,
            Ok(Ok(())) | Err(_) => Closing::Shutdown,
        }
    }

    fn tell(&mut self, message: Message) -> Result<(), Closing> {
        self.send(&Outbound::Publish {
            topic: message.topic.name(),
            retain: message.retained,
            payload: message.payload,
        })
    }

    /// Queues a packet for the next flush; one larger than the client takes is not sent (v5 3.1.2.11.4).
    fn send(&mut self, packet: &Outbound) -> Result<(), Closing> {
        let start = self.out.len();
        codec::encode(self.version, packet, &mut self.out).map_err(|_| Closing::Internal)?;
        if self.out.len() - start > self.max_packet {
            self.out.truncate(start);
        }
        Ok(())
    }
}

fn next_frame(wire: &mut Wire, max_bytes: usize) -> Result<Option<Frame>, Closing> {
    frame::next(&mut wire.buffer, max_bytes).map_err(|error| match error {
        FrameError::TooLarge => Closing::TooLarge,
        FrameError::Malformed => Closing::Malformed,
        FrameError::Unexpected => Closing::Protocol,
    })
}
