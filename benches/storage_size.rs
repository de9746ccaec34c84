//! Bytes a reading, evidence included, and where they go: sealed rows and sealed chunks beside plaintext Parquet and
//! PostgreSQL with pgcrypto, at 1, 60 and 300 readings a message.
//!
//! | Figure | Meaning |
//! |---|---|
//! | `rows`, `chunks` | all data files, before and after compaction |
//! | `chunks_readings` | … of those the sealed readings: what plaintext has too |
//! | `chunks_evidence` | … the signed messages as they came, bit for bit: what plaintext does not have |
//! | `chunks_metadata` | … pseudonyms, times, counts, devices |
//! | `chunks_pme` | … tags, nonces and lengths of Parquet Modular Encryption, of all pages |
//! | `chunks_footer` | … footers and page indexes |
//! | `footer_copies` | the catalog's copies of them, in the registry |
//! | `registry`, `inbox`, `audit` | the databases: patients, devices, keys; what was seen, for duplicates; who did what |
//! | `plaintext_LAYOUT` | the same readings in plaintext Parquet, zstd; no evidence |
//! | `chunks_over_plaintext`, `readings_over_plaintext` | over the smallest of them |
//! | `pgcrypto` | table and index |
//!
//! The inbox is of the size that it once had: what is deleted leaves room that is used again.
//!
//! `cargo bench --bench storage_size [-- --quick] [--readings 2000000] [--patients 40] [--per-message 300]`

#![allow(
    clippy::cast_lossless,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a bench has nobody to answer to; it stops where something is wrong"
)]

mod common;
#[path = "common/pgcrypto.rs"]
mod pgcrypto;
#[path = "common/plaintext.rs"]
mod plaintext;
#[path = "common/pme.rs"]
mod pme;
#[path = "common/sealed.rs"]
mod sealed;
#[path = "common/workload.rs"]
mod workload;

use std::path::Path;

use common::{Figures, argument, quick};
use pgcrypto::Pgcrypto;
use plaintext::{LAYOUTS, Plaintext};
use sealed::Sealed;
use vitalseal_storage::{Store, schema};
use workload::Workload;

/// What Parquet Modular Encryption adds to each module: length, nonce, tag (Parquet Modular Encryption, 5.1). A page is
/// two modules, its header and its data.
const MODULE: u64 = 4 + 12 + 16;

/// PostgreSQL holds so many patients: bytes a reading do not depend on how many there are.
const POSTGRES: usize = 4;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut figures = Figures::of("storage_size");
    runtime.block_on(run(&mut figures));
    figures.print_json();
}

async fn run(figures: &mut Figures) {
    let per_message = argument("--per-message").map_or(vec![1, 60, 300], |number| vec![number]);
    for per_message in per_message {
        let most = if quick() { 200_000 } else { 2_000_000 };
        // A message of one reading costs as much to sign and to verify as one of three hundred.
        let most = if per_message < 10 { most / 10 } else { most };
        let readings = argument("--readings").unwrap_or(most);
        let patients = argument("--patients").unwrap_or(40);
        let workload = Workload::new(readings, patients, per_message);
        measure(&workload, figures).await;
    }
}

async fn measure(workload: &Workload, figures: &mut Figures) {
    let mut sealed = Sealed::new(workload).await;
    let filled = sealed.fill(workload).await;
    println!(
        "  {} readings in {} messages, {} patients, {:.1} hours",
        filled.readings,
        filled.messages,
        workload.patients,
        workload.hours()
    );
    let per_message = workload.per_message;
    let mut figure = |name: &str, bytes: u64| {
        let each = bytes as f64 / filled.readings as f64;
        figures.add(format!("{name}_{per_message}"), each, "bytes/reading");
        each
    };
    figure("rows", Parts::of(&sealed.store).await.total());
    sealed.compact(workload).await;
    let parts = Parts::of(&sealed.store).await;
    let chunks = figure("chunks", parts.total());
    let readings = figure("chunks_readings", parts.readings);
    figure("chunks_evidence", parts.evidence);
    figure("chunks_metadata", parts.metadata);
    figure("chunks_pme", parts.pme);
    figure("chunks_footer", parts.footer);
    figure("footer_copies", parts.footer_copies);
    for (name, bytes) in sealed::sizes(sealed.home(), &database) {
        figure(name, bytes);
    }

    let plaintext = Plaintext::write(workload, &sealed.subjects);
    assert_eq!(
        plaintext.readings, filled.readings,
        "both sides hold the same"
    );
    let smallest = LAYOUTS.iter().map(|layout| {
        let bytes = plaintext::size(&plaintext.path(layout));
        figure(&format!("plaintext_{layout}"), bytes)
    });
    let smallest = smallest.fold(f64::INFINITY, f64::min);
    if let Some(postgres) = Pgcrypto::load(workload, &sealed.subjects, POSTGRES).await {
        let (table, index) = postgres.bytes().await;
        let scale = filled.readings as f64 / postgres.readings as f64;
        figure("pgcrypto", ((table + index) as f64 * scale) as u64);
    }
    let mut ratio = |name: &str, ratio| {
        figures.add(format!("{name}_{per_message}"), ratio, "ratio");
    };
    ratio("chunks_over_plaintext", chunks / smallest);
    ratio("readings_over_plaintext", readings / smallest);
    sealed.close().await;
}

/// The bytes of all data files.
#[derive(Default)]
struct Parts {
    readings: u64,
    evidence: u64,
    metadata: u64,
    pme: u64,
    footer: u64,
    footer_copies: u64,
}

impl Parts {
    async fn of(store: &Store) -> Self {
        let mut parts = Self::default();
        for file in store.catalog.files().await.unwrap().iter() {
            let metadata = store.files.metadata(file).await.unwrap();
            let pages = metadata.offset_index().unwrap();
            let mut columns = 0;
            for (group, pages) in metadata.row_groups().iter().zip(pages) {
                for (column, pages) in group.columns().iter().zip(pages) {
                    // A dictionary page is not among them; our files have none.
                    let pme = 2 * MODULE * pages.page_locations().len() as u64;
                    let bytes = column.compressed_size() as u64;
                    let part = match column.column_path().string().as_str() {
                        schema::SEALED => &mut parts.readings,
                        schema::EVIDENCE => &mut parts.evidence,
                        _ => &mut parts.metadata,
                    };
                    *part += bytes - pme;
                    parts.pme += pme;
                    columns += bytes;
                }
            }
            parts.footer += file.size - columns;
            parts.footer_copies += file.footer.len() as u64;
        }
        parts
    }

    fn total(&self) -> u64 {
        self.readings + self.evidence + self.metadata + self.pme + self.footer
    }
}

/// Which database a file belongs to, its write-ahead log included.
fn database(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?;
    ["registry", "inbox", "audit"]
        .into_iter()
        .find(|database| name.starts_with(database))
}
