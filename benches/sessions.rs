//! Many devices connected and saying little: what a session costs, how soon a revocation ends one among them, and what
//! it takes when all come back at once.
//!
//! | Figure | Meaning |
//! |---|---|
//! | `sessions` | devices connected at once |
//! | `idle_bytes_per_session` | resident memory of the server, a connected and idle TLS session |
//! | `connect_per_second`, `connect_cpu_ms` | full handshakes with client certificates, and the server's CPU time for one |
//! | `revoke_p50_ms`, `revoke_max_ms` | from asking for a revocation to the end of that device's connection |
//! | `reconnect_all_s` | all connections are cut; until the last device is back |
//!
//! The server is the release binary in a process of its own; the clients share its cores.
//!
//! `cargo bench --bench sessions [-- --quick]`; 10,000 sessions need as many file descriptors (`ulimit -n`).

#![allow(
    clippy::cast_lossless,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a bench has nobody to answer to; it stops where something is wrong"
)]

mod common;
#[path = "common/load.rs"]
mod load;
#[path = "common/site.rs"]
mod site;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Figures, quick};
use futures::stream::{StreamExt as _, iter};
use load::{Client, quantile};
use site::{Enrolled, Site};
use vitalseal::admin::protocol::Request;

/// Handshakes that the clients have under way at once, as devices behind a few gateways would.
const AT_ONCE: usize = 64;

/// Revocations that are measured.
const REVOKED: usize = 50;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("client")
        .enable_all()
        .build()
        .unwrap();
    let mut figures = Figures::of("sessions");
    runtime.block_on(run(&mut figures));
    figures.print_json();
}

async fn run(figures: &mut Figures) {
    let sessions = if quick() { 1_000 } else { 10_000 };
    let site = Site::start(&[]).await;
    let mut fleet: Vec<Arc<Enrolled>> = Vec::new();
    for index in 0..sessions {
        fleet.push(Arc::new(site.enrol(&format!("bench-{index:05}")).await));
    }
    figures.add("sessions", sessions as f64, "sessions");

    let before = site.server().usage();
    let started = Instant::now();
    let clients = connect_all(&site, &fleet, AT_ONCE).await;
    let elapsed = started.elapsed();
    settle().await;
    let after = site.server().usage();
    let each = |amount: f64| amount / sessions as f64;
    figures.add(
        "connect_per_second",
        sessions as f64 / elapsed.as_secs_f64(),
        "1/s",
    );
    let cpu = (after.cpu - before.cpu).as_secs_f64() * 1e3;
    figures.add("connect_cpu_ms", each(cpu), "ms");
    let grown = after.resident_bytes as f64 - before.resident_bytes as f64;
    figures.add("idle_bytes_per_session", each(grown), "bytes");

    let mut clients = clients.into_iter();
    let mut took = Vec::new();
    for device in fleet.iter().take(REVOKED) {
        let mut client = clients.next().unwrap();
        let revoke = Request::DeviceRevoke {
            device: device.id.clone(),
            reason: "bench".to_owned(),
        };
        let asked = Instant::now();
        let ended = tokio::spawn(async move {
            client.closed().await;
            asked.elapsed()
        });
        site.ask(&revoke).await;
        took.push(ended.await.unwrap());
    }
    took.sort_unstable();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    figures.add("revoke_p50_ms", ms(quantile(&took, 500)), "ms");
    figures.add("revoke_max_ms", ms(quantile(&took, 1_000)), "ms");

    drop(clients);
    settle().await;
    let back = &fleet[REVOKED..];
    let before = site.server().usage();
    let started = Instant::now();
    let clients = connect_all(&site, back, back.len()).await;
    figures.add("reconnect_all_s", started.elapsed().as_secs_f64(), "s");
    let cpu = (site.server().usage().cpu - before.cpu).as_secs_f64() * 1e3;
    figures.add("reconnect_cpu_ms", cpu / back.len() as f64, "ms");
    drop(clients);
}

async fn connect_all(site: &Site, fleet: &[Arc<Enrolled>], at_once: usize) -> Vec<Client> {
    let port = site.port();
    iter(fleet.iter().cloned().enumerate())
        .map(|(index, device)| async move {
            // An address may only have so many connections.
            let from = [127, 0, 0, 2 + (index / 1_500) as u8].into();
            let mut pause = Duration::from_millis(200);
            loop {
                match Client::connect_from(from, port, device.id.as_str(), &device.tls).await {
                    Ok(client) => return client,
                    // As a device does: a longer pause each time, and not the same for all.
                    Err(_) => {
                        tokio::time::sleep(pause.mul_f64(0.5 + (index % 100) as f64 / 200.0)).await
                    }
                }
                pause = (pause * 2).min(Duration::from_secs(30));
            }
        })
        .buffered(at_once)
        .collect()
        .await
}

/// Lets what is under way end.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(3)).await;
}
