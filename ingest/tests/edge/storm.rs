//! The power is back on a ward, and every device connects at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rumqttc::QoS;
use rumqttc::mqttbytes::v4::{Connect, ConnectReturnCode, Packet};
use vitalseal_ingest::EdgeLimits;
use vitalseal_ingest::edge::Closing;

use crate::raw::{Raw, publish4};
use crate::rig::{Device, Rig, eventually};

/// As many as a debug build connects in some seconds. `VITALSEAL_STORM=9900` is as many as 20,000 file descriptors allow
/// for both sides, and says what it cost.
const DEVICES: usize = 400;

/// Tries until it is in, a little later each time.
async fn connect(rig: &Rig, device: &Device, number: usize) -> (Raw, usize) {
    let mut tries = 0;
    loop {
        tries += 1;
        if let Ok(mut raw) = Raw::tls(rig, device).await {
            raw.send4(&Packet::Connect(Connect::new(device.id.as_str())))
                .await;
            if let Some(Packet::ConnAck(ack)) = raw.read4().await {
                assert_eq!(ack.code, ConnectReturnCode::Success);
                return (raw, tries);
            }
        }
        let pause = 50 * tries.min(40) + (number * 37 + tries * 101) % 200;
        tokio::time::sleep(Duration::from_millis(pause.try_into().unwrap())).await;
    }
}

#[test]
fn a_reconnect_storm_lets_everybody_in_at_the_rate_and_disturbs_nobody() {
    let asked = std::env::var("VITALSEAL_STORM").ok();
    let count = asked
        .as_ref()
        .map_or(DEVICES, |count| count.parse().unwrap());
    let mut limits = EdgeLimits {
        connections: 2 * count,
        connections_per_address: 2 * count,
        ..EdgeLimits::default()
    };
    if asked.is_some() {
        // All of it comes from one address here.
        limits.strangers_per_address = limits.strangers;
        limits.handshakes_per_address = limits.handshakes;
    } else {
        // Small enough that most have to come again.
        limits.strangers = 60;
        limits.strangers_per_address = 60;
        limits.set_handshakes_per_s(200);
        limits.handshakes_per_address = limits.handshakes;
        limits.handshake_patience = Duration::from_millis(200);
    }
    let (rate, strangers) = (limits.handshakes, limits.strangers as u64);
    let threads = |name| {
        let mut threads = tokio::runtime::Builder::new_multi_thread();
        threads.worker_threads(2).thread_name(name).enable_all();
        threads.build().unwrap()
    };
    // Apart, so that their time can be told apart.
    let (server, clients) = (threads("edge"), threads("devices"));
    let rig = Arc::new(server.block_on(Rig::with_limits(limits)));
    let (devices, good) = server.block_on(async {
        let mut devices = Vec::new();
        for number in 0..count {
            devices.push(rig.device(&format!("mon-{number}")).await);
        }
        (devices, rig.device("good").await)
    });
    let storming = Arc::new(AtomicBool::new(true));
    let most = Arc::new(AtomicUsize::new(0));

    let watching = server.spawn({
        let (rig, storming, most) = (Arc::clone(&rig), Arc::clone(&storming), Arc::clone(&most));
        async move {
            while storming.load(Ordering::Relaxed) {
                most.fetch_max(
                    rig.metrics.strangers().try_into().unwrap(),
                    Ordering::Relaxed,
                );
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    let serving = clients.spawn({
        let (rig, storming) = (Arc::clone(&rig), Arc::clone(&storming));
        async move {
            let (mut raw, _) = Raw::v4(&rig, &good, true).await;
            let mut acked: u16 = 0;
            let mut slowest = Duration::ZERO;
            while storming.load(Ordering::Relaxed) {
                acked += 1;
                let message = rig.seal(&good, acked.into());
                let sent = Instant::now();
                raw.send4(&publish4(&good, QoS::AtLeastOnce, acked, message))
                    .await;
                assert!(matches!(raw.read4().await, Some(Packet::PubAck(_))));
                slowest = slowest.max(sent.elapsed());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            (raw, acked, slowest)
        }
    });
    server.block_on(eventually("the good one is there", || {
        rig.metrics.sessions() == 1
    }));

    let (begin, used) = (Instant::now(), cpu());
    let connecting: Vec<_> = devices
        .into_iter()
        .enumerate()
        .map(|(number, device)| {
            let rig = Arc::clone(&rig);
            clients.spawn(async move { connect(&rig, &device, number).await })
        })
        .collect();
    let mut held = Vec::new();
    let mut tries = 0;
    for one in connecting {
        let (raw, times) = clients.block_on(one).unwrap();
        tries += times;
        held.push(raw);
    }
    let took = begin.elapsed();
    storming.store(false, Ordering::Relaxed);
    let (good, acked, slowest) = clients.block_on(serving).unwrap();
    server.block_on(watching).unwrap();

    let metrics = &rig.metrics;
    assert_eq!(metrics.sessions(), count as u64 + 1, "everybody is in");
    assert!(acked >= 5, "the good one was served meanwhile: {acked}");
    let most = most.load(Ordering::Relaxed) as u64;
    assert!(most <= strangers, "{most} strangers at once");
    // The good one's was before.
    let handshakes = metrics.handshakes() - 1;
    let allowed = f64::from(rate.at_once) + took.as_secs_f64() * f64::from(rate.per_s) + 1.0;
    assert!(
        f64::from(u32::try_from(handshakes).unwrap()) <= allowed,
        "{handshakes} in {took:?}"
    );
    if asked.is_none() {
        let sent_away = metrics.closed(Closing::Limit) + metrics.closed(Closing::Busy);
        assert!(sent_away > 0, "the storm was no storm");
    } else {
        let after = cpu();
        let of = |name| after[name].saturating_sub(used[name]);
        println!(
            "{count} devices, {tries} tries, {handshakes} handshakes in {took:.1?}; at most {most} strangers; CPU: edge \
             {:.1?}, devices {:.1?}; {acked} messages acknowledged meanwhile, the slowest in {slowest:.0?}",
            of("edge"),
            of("devices"),
        );
    }
    drop((held, good));
}

/// CPU time of this process's threads, by their name.
fn cpu() -> BTreeMap<String, Duration> {
    let mut used =
        BTreeMap::from(["edge", "devices"].map(|name| (name.to_owned(), Duration::ZERO)));
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        // A thread may end while we look.
        let Ok(stat) = std::fs::read_to_string(task.unwrap().path().join("stat")) else {
            continue;
        };
        let (begin, rest) = stat.rsplit_once(')').unwrap();
        let (_, name) = begin.split_once('(').unwrap();
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks: u64 = [fields[11], fields[12]]
            .iter()
            .map(|n| n.parse::<u64>().unwrap())
            .sum();
        *used.entry(name.to_owned()).or_default() += Duration::from_millis(ticks * 10);
    }
    used
}
