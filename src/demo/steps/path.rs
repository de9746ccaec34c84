//! The path of a reading: store, devices, messages, answers.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use comfy_table::{Table, presets};
use vitalseal_crypto::DeviceId;
use vitalseal_device::AgreementMode;
use vitalseal_device::recording::HeartRateRecording;
use vitalseal_storage::ports::{Clock as _, Role, SystemClock};

use crate::admin::protocol::{Private, Request};
use crate::commands::text;
use crate::demo::site::{Member, Site, any_port};
use crate::init::{self, NewStore};
use crate::server::{Overrides, Server};
use crate::simulate::{Player, Source, enrol_for};

/// Name of one patient, looked for later where it must not be.
pub(super) const NAME: &str = "Aurelia Kettlewright";

pub(super) async fn start(site: &mut Site) -> anyhow::Result<String> {
    let new = NewStore {
        data: site.data.clone(),
        root_keys: None,
        names: Vec::new(),
        administrator: "admin".parse()?,
        token: None,
        bucket: None,
        registry: None,
    };
    init::create(new, SystemClock.now()).await?;
    let any = Some(any_port());
    let server = Server::start(
        &site.data,
        Overrides {
            mqtt: any,
            websocket: any,
            sql: any,
            http: any,
        },
    )
    .await?;
    let sql = server.addresses.sql;
    site.server = Some(server);
    site.authorities = text(&site.ask(Request::CaShow).await?, "pem")?.to_owned();
    Ok(format!("MQTT {}, SQL {sql}, both TLS", site.mqtt()?))
}

pub(super) async fn enrol(site: &mut Site) -> anyhow::Result<String> {
    let es = AgreementMode::Es;
    let ss = AgreementMode::Ss {
        messages_per_session: 100,
    };
    let plan = [
        ("runner", "watch-01", Source::HeartRate, es),
        ("bed-4", "oximeter-01", Source::PulseWaveform, ss),
        ("bed-5", "monitor-01", Source::Simulated { seed: 5 }, ss),
        ("bed-6", "monitor-02", Source::Simulated { seed: 6 }, es),
    ];
    let user = site.clinician.clone();
    let credentials = site
        .ask(Request::UserAdd {
            user: user.clone(),
            role: Role::Clinician,
        })
        .await?;
    let recipient = site.ask(Request::RecipientShow).await?;
    let recipient = text(&recipient, "pem")?;
    for (index, (_, name, source, mode)) in plan.into_iter().enumerate() {
        let named = (index == 0).then(|| Private::new(NAME.to_owned()));
        let added = site
            .ask(Request::PatientAdd {
                name: named,
                mrn: None,
            })
            .await?;
        let patient = text(&added, "patient")?.to_owned();
        let subject = patient
            .parse()
            .context("reading the new patient's pseudonym")?;
        site.ask(Request::UserGrant {
            user: user.clone(),
            patient: subject,
        })
        .await?;
        let device: DeviceId = name.parse()?;
        let directory = site.directory.join("devices").join(name);
        enrol_for(&site.paths().admin_socket(), &device, &directory, &patient).await?;
        let subject = patient
            .parse()
            .context("reading the new patient's pseudonym")?;
        let player = Player::open(&directory, subject, recipient, mode, SystemClock.now())?;
        site.members.push(Member {
            name,
            patient,
            source,
            directory,
            player,
        });
    }
    site.login(&credentials).await?;
    Ok(format!(
        "{} devices, a patient each, one clinician with a token",
        site.members.len()
    ))
}

pub(super) async fn play(site: &mut Site) -> anyhow::Result<String> {
    let mqtt = site.mqtt()?;
    let now = SystemClock.now();
    let mut sealed = 0;
    for member in &mut site.members {
        member.player.record(member.source, now)?;
        sealed += u64::try_from(member.player.waiting())?;
    }
    let started = Instant::now();
    let draining = site
        .members
        .iter_mut()
        .map(|member| member.player.drain(mqtt));
    let played = futures::future::try_join_all(draining).await?;
    let elapsed_s = started.elapsed().as_secs_f64();
    site.acked = played.iter().map(|played| played.acked).sum();
    site.readings = played.iter().map(|played| played.readings).sum();
    ensure!(
        site.acked == sealed
            && site
                .members
                .iter()
                .all(|member| member.player.waiting() == 0),
        "{sealed} messages were sealed, {} acknowledged",
        site.acked
    );
    Ok(format!(
        "{} messages with {} readings acknowledged after fsync, {:.0} messages/s, {:.0} readings/s",
        site.acked,
        site.readings,
        per_second(site.acked, elapsed_s),
        per_second(site.readings, elapsed_s),
    ))
}

pub(super) async fn query(site: &mut Site) -> anyhow::Result<String> {
    let sql = "SELECT display, unit, count(*) AS readings, round(min(value), 1), round(avg(value), 1), \
               round(max(value), 1), count(DISTINCT device) FROM vitals GROUP BY display, unit ORDER BY display";
    let rows = site
        .sql()
        .await?
        .query(sql, &[])
        .await
        .context("asking SQL")?;
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    table.set_header([
        "signal", "unit", "readings", "min", "mean", "max", "devices",
    ]);
    site.rows = 0;
    for row in &rows {
        let readings: i64 = row.try_get(2)?;
        site.rows += u64::try_from(readings)?;
        let number = |column| row.try_get::<_, f64>(column).map(|value| value.to_string());
        let devices: i64 = row.try_get(6)?;
        table.add_row([
            row.try_get::<_, String>(0)?,
            row.try_get(1)?,
            readings.to_string(),
            number(3)?,
            number(4)?,
            number(5)?,
            devices.to_string(),
        ]);
    }
    let signals = rows.len() + waveforms(site, &mut table).await?;
    ensure!(
        site.rows == site.readings,
        "{} readings were acknowledged, SQL answers {}",
        site.readings,
        site.rows
    );
    // The recording itself says what the answer must be.
    let recording = HeartRateRecording::embedded()?;
    let sum: f64 = recording
        .readings()
        .iter()
        .map(|reading| reading.value)
        .sum();
    let answer = "SELECT sum(value) FROM vitals WHERE device = 'watch-01'";
    let answer: f64 = site
        .sql()
        .await?
        .query_one(answer, &[])
        .await
        .context("asking SQL")?
        .try_get(0)?;
    ensure!(
        (answer - sum).abs() < 1e-6,
        "the recorded heart rates sum to another number than SQL's"
    );
    Ok(format!(
        "{} rows over {} signals, every reading accounted for; heart rate and pulse waveform are \
         recordings, the others simulated\n{table}",
        site.rows, signals
    ))
}

/// Sampled signals, which stand in a table of their own; how many there are.
async fn waveforms(site: &mut Site, table: &mut Table) -> anyhow::Result<usize> {
    let sql = "SELECT display, unit, CAST(sum(cardinality(samples)) AS BIGINT), count(DISTINCT device) FROM waveforms \
               GROUP BY display, unit ORDER BY display";
    let client = site.sql().await?;
    let rows = client.query(sql, &[]).await.context("asking SQL")?;
    for row in &rows {
        let samples: i64 = row.try_get(2)?;
        site.rows += u64::try_from(samples)?;
        let (display, unit): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let devices: i64 = row.try_get(3)?;
        let (samples, devices) = (samples.to_string(), devices.to_string());
        let none = String::new;
        table.add_row([display, unit, samples, none(), none(), none(), devices]);
    }
    Ok(rows.len())
}

fn per_second(count: u64, elapsed_s: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people to read")]
    let count = count as f64;
    count / elapsed_s.max(f64::EPSILON)
}
