//! Whether everything that is stored is still what was stored.
//!
//! | What | Verified | Needs |
//! |---|---|---|
//! | file | it is there, with the size and SHA-256 of the catalog; its last bytes are the catalog's copy | – |
//! | page | its tag holds (Parquet Modular Encryption) | store key |
//! | row | order, ranges, counts; an envelope's signed header says what its columns say | store key |
//! | envelope | its device's signature holds | certificates of the registry |
//! | evidence of a chunk | tag; its messages add up to what the columns say of devices | store key |
//! | readings of a chunk, envelope | tag; counts, spans and codes as the columns say; a chunk's evidence is what they name | patient's key |
//! | message | it is stored once, over inbox and files | – |
//!
//! What is damaged is named, and the check goes on. It changes nothing: [`Store::repair`] does.
//!
//! A file that ends while the check runs stays in its place until the check is over, which holds its snapshot.
//!
//! Never here: a decrypted value in a report. What does not fit is named, not shown.

mod chunks;
mod file;
mod inbox;
mod messages;
mod pages;
mod place;
mod repair;
mod rows;
mod seen;
mod signatures;

use std::sync::Arc;

use serde::Serialize;
use vitalseal_crypto::MessageId;

use self::messages::Messages;
pub use self::place::Place;
pub use self::repair::{RepairReport, SetAside};
use self::signatures::Signatures;
use crate::catalog::Unproven;
use crate::keys::StoreKeys;
use crate::progress::Progress;
use crate::store::{Store, StoreError};

/// Damage beyond this is counted and not listed: whoever lost this much restores a backup.
const MOST_LISTED: usize = 10_000;

/// What [`Store::check`] does beside the rest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckOptions {
    /// Opens what is sealed under patients' keys. Nothing of it is shown.
    pub keys: bool,
    /// The authorities that devices' certificates must lead to (DER); with none, the registry is believed.
    pub authorities: Vec<Vec<u8>>,
}

/// Something that is not what was stored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Damage {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// What is wrong.
    pub fault: String,
    /// What it costs.
    pub cost: Cost,
}

/// What damage costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cost {
    /// What stands there cannot be used: [`Store::repair`] sets it aside.
    Lost,
    /// The object is not there: its disk or bucket may be away. [`Store::repair`] gives it up if it is named, never else.
    Missing,
    /// A chunk's readings are there, and the envelopes that prove where they came from are not: [`Store::repair`] keeps
    /// them without.
    Evidence,
    /// Bytes are not those that were written, and everything is there all the same, in use or a second time in a chunk's
    /// evidence: [`Store::repair`] writes it anew.
    Nothing,
    /// It contradicts something, or the key is not here that would tell: a person has to judge which of the two is wrong.
    Doubt,
}

/// What a check looked at, and what it found.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub struct CheckReport {
    /// The set of files that was checked.
    pub snapshot: u64,
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Rows of rows files.
    pub rows: u64,
    /// Rows of chunks files.
    pub chunks: u64,
    /// Rows of the inbox.
    pub inbox: u64,
    /// Messages in all of them.
    pub messages: u64,
    /// Readings that they count.
    pub readings: u64,
    /// Signatures that hold.
    pub signatures: u64,
    /// Envelopes and chunks that opened under their patient's key.
    pub opened: u64,
    /// Those that were not tried: without patients' keys, or the patient was erased.
    pub unopened: u64,
    /// Chunks whose evidence was lost, as a repair recorded it: nothing proves any more where their readings came from.
    pub unproven: Vec<Place>,
    /// Objects that the catalog does not know. Nobody reads or removes them.
    pub unknown: Vec<String>,
    /// What is damaged, the first 10,000.
    pub damage: Vec<Damage>,
    /// How much more.
    pub damage_not_listed: u64,
}

impl CheckReport {
    /// Whether nothing is damaged.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }

    fn damaged(&mut self, damage: Damage) {
        if self.damage.len() < MOST_LISTED {
            self.damage.push(damage);
        } else {
            self.damage_not_listed += 1;
        }
    }
}

impl Store {
    /// Verifies everything; see the table in the source of `check`.
    ///
    /// # Errors
    /// When inbox or registry cannot be read, or the object store does not answer. What is damaged is no error.
    pub async fn check(
        &self,
        options: &CheckOptions,
        progress: &dyn Progress,
    ) -> Result<CheckReport, StoreError> {
        let mut check = Check::new(self, options).await?;
        // First the inbox, then the catalog: what is flushed in between is in both, and in none is nothing.
        progress.step(0, 1, "inbox");
        let hot = check.inbox().await?;
        let snapshot = self.catalog.current().await?;
        check.report.snapshot = snapshot.id.0;
        check.count_hot(hot, snapshot.high);
        check.report.unknown = self.unknown_files().await?;
        let all = snapshot.files.iter().map(|file| file.size).sum();
        let mut done = 0;
        for file in snapshot.files.iter() {
            progress.step(done, all, file.path.as_ref());
            check.file(file).await?;
            done += file.size;
        }
        progress.step(all, all, "done");
        Ok(check.report)
    }
}

/// A check under way.
struct Check<'a> {
    store: &'a Store,
    options: &'a CheckOptions,
    signatures: Arc<Signatures>,
    store_keys: Arc<StoreKeys>,
    unproven: Arc<Unproven>,
    messages: Messages,
    report: CheckReport,
}

impl<'a> Check<'a> {
    async fn new(store: &'a Store, options: &'a CheckOptions) -> Result<Self, StoreError> {
        Ok(Self {
            store,
            signatures: Arc::new(Signatures::load(store, &options.authorities).await?),
            store_keys: store.keys.store_keys().await?,
            unproven: Arc::new(Unproven::of(&store.catalog.losses().await?)),
            options,
            messages: Messages::default(),
            report: CheckReport::default(),
        })
    }

    /// A message that is stored.
    fn message(&mut self, place: Place) {
        self.report.messages += 1;
        let is_new = place
            .message
            .as_ref()
            .is_none_or(|id| self.messages.insert(id));
        if !is_new {
            self.report.damaged(Damage {
                place,
                fault: "the message is stored a second time here".to_owned(),
                cost: Cost::Doubt,
            });
        }
    }
}

/// One row of a file or of the inbox, looked at.
#[derive(Default)]
struct Looked {
    place: Place,
    faults: Vec<(String, Cost)>,
    /// Messages inside.
    messages: Vec<MessageId>,
    readings: u64,
    signatures: u64,
    opened: u64,
    unopened: u64,
    unproven: bool,
}

impl Looked {
    fn at(place: Place) -> Self {
        Self {
            place,
            ..Self::default()
        }
    }

    fn doubt(&mut self, fault: impl Into<String>) {
        self.costs(fault, Cost::Doubt);
    }

    fn lost(&mut self, fault: impl Into<String>) {
        self.costs(fault, Cost::Lost);
    }

    fn costs(&mut self, fault: impl Into<String>, cost: Cost) {
        self.faults.push((fault.into(), cost));
    }
}

impl Check<'_> {
    /// Takes into the report what was found of a row.
    fn take(&mut self, looked: Looked) {
        let Looked {
            place,
            faults,
            messages,
            readings,
            signatures,
            opened,
            unopened,
            unproven,
        } = looked;
        self.report.readings += readings;
        self.report.signatures += signatures;
        self.report.opened += opened;
        self.report.unopened += unopened;
        self.report.unproven.extend(unproven.then(|| place.clone()));
        for message in messages {
            self.message(Place {
                message: Some(message),
                ..place.clone()
            });
        }
        for (fault, cost) in faults {
            let place = place.clone();
            self.report.damaged(Damage { place, fault, cost });
        }
    }
}
