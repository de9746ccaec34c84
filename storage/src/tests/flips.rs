//! What flips in a data file, or in what the registry says of it, is named, and costs its own chunk or message at most:
//! nobody's else, before a repair or after it.

use std::collections::BTreeSet;

use super::check::{MESSAGES, Ward, repaired};
use super::*;
use crate::catalog::{DataFile, FileKind};
use crate::check::{Cost, RepairReport};

/// One byte in so many is flipped, or all with `VITALSEAL_TEST_EVERY_BYTE`. Of these flips, one in so many is repaired.
fn strides() -> (usize, usize) {
    match std::env::var_os("VITALSEAL_TEST_EVERY_BYTE") {
        Some(_) => (1, 20),
        None => (211, 5),
    }
}

impl Ward {
    /// The same once more, as it is on the disk now.
    async fn copy(&self) -> Self {
        let site = self.site.power_cut();
        let store = site.open().await.unwrap();
        let patients = self.patients.clone();
        Self {
            site,
            store,
            patients,
        }
    }

    /// Changes what the registry says of a file, while the store is closed.
    async fn change(
        mut self,
        statement: &'static str,
        file: &DataFile,
        footer: Option<&[u8]>,
    ) -> Self {
        self.store.close().await;
        let db = self.site.database().await;
        let mut changing = sqlx::query(statement).bind(file.path.as_ref());
        if let Some(footer) = footer {
            changing = changing.bind(footer);
        }
        let changed = changing.execute(db.pool()).await.unwrap();
        assert_eq!(changed.rows_affected(), 1);
        db.close().await;
        self.store = self.site.open().await.unwrap();
        self
    }

    /// The messages that are found.
    async fn messages(&self) -> BTreeSet<(String, i64)> {
        self.found().await.into_keys().collect()
    }
}

/// Flips one byte after the other; the file is as it was afterwards.
async fn flipped(ward: &Ward, file: &DataFile) {
    let path = ward.path(file);
    let bytes = fs::read(&path).unwrap();
    let name = file.path.as_ref();
    let (before, whole) = (ward.messages().await, ward.check().await);
    let own = match file.kind {
        FileKind::Rows => 1,
        FileKind::Chunks => MESSAGES,
    };
    let (mut costly, mut costless) = (0, 0);
    let (stride, repaired_one_in) = strides();
    for (n, at) in (0..bytes.len()).step_by(stride).enumerate() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x40;
        fs::write(&path, &flipped).unwrap();
        let report = ward.check().await;
        let damage = &report.damage;
        assert!(
            !damage.is_empty(),
            "byte {at} of {name} was flipped unnoticed"
        );
        for damage in damage {
            let is_row = damage.place.row.is_some();
            assert_eq!(
                damage.place.file.as_deref(),
                Some(name),
                "byte {at}: {damage:?}"
            );
            assert_ne!(damage.cost, Cost::Doubt, "byte {at}: {damage:?}");
            assert!(
                is_row || damage.cost == Cost::Nothing,
                "byte {at}: {damage:?}"
            );
        }
        let rows: BTreeSet<_> = damage.iter().filter_map(|it| it.place.row).collect();
        assert!(
            rows.len() < 2,
            "byte {at} costs more than its own: {damage:?}"
        );
        match rows.len() {
            0 => costless += 1,
            _ => costly += 1,
        }
        if rows.is_empty() {
            assert_eq!(ward.messages().await, before, "byte {at}");
        }
        if n % repaired_one_in == 0 {
            let copy = ward.copy().await;
            let repaired = repaired(&copy, &report).await;
            assert!(
                repaired.losses.len() <= rows.len(),
                "byte {at}: {repaired:?}"
            );
            let after = copy.check().await;
            assert!(after.is_sound(), "byte {at}: {:?}", after.damage);
            let kept = after.messages + own * u64::try_from(repaired.losses.len()).unwrap();
            assert!(
                kept >= whole.messages,
                "byte {at}: {} messages",
                after.messages
            );
            copy.store.close().await;
        }
    }
    fs::write(&path, &bytes).unwrap();
    assert!(ward.check().await.is_sound());
    assert!(
        costly > 0 && costless > 0,
        "{name}: {costly} and {costless}"
    );
}

#[tokio::test]
async fn a_flipped_byte_of_any_kind_of_file_is_named_and_costs_its_own_chunk_or_message_at_most() {
    for compacted in [false, true] {
        let ward = Ward::new(compacted).await;
        for file in ward.files().await.iter() {
            flipped(&ward, file).await;
        }
    }
}

#[tokio::test]
async fn a_copy_of_a_footer_that_flips_in_the_registry_costs_nothing_and_is_written_anew() {
    for compacted in [false, true] {
        let mut ward = Ward::new(compacted).await;
        let before = ward.messages().await;
        // Sums, indexes, key metadata, the sealed footer, the last byte.
        for place in [0, 3, 6, 9, 10] {
            let file = ward.files().await[0].clone();
            let mut footer = file.footer.to_vec();
            let at = (footer.len() - 1) * place / 10;
            footer[at] ^= 0x40;
            let flipped = "UPDATE data_files SET footer = $2 WHERE file = $1";
            ward = ward.change(flipped, &file, Some(&footer)).await;
            assert_eq!(ward.messages().await, before, "byte {at}");
            let report = ward.check().await;
            let faults: Vec<_> = report
                .damage
                .iter()
                .map(|it| (it.fault.as_str(), it.cost))
                .collect();
            let fault = "it is whole, but the catalog's copy of its footer is damaged";
            assert_eq!(faults, [(fault, Cost::Nothing)], "byte {at}");
            let repaired = repaired(&ward, &report).await;
            assert_eq!((repaired.files.len(), &repaired.losses[..]), (1, &[][..]));
            assert!(ward.check().await.is_sound(), "byte {at}");
            assert_eq!(ward.messages().await, before, "byte {at}");
        }
    }
}

#[tokio::test]
async fn what_the_registry_says_wrong_of_a_file_that_is_whole_is_for_a_person_to_judge() {
    for change in [
        "UPDATE data_files SET size = size - 1 WHERE file = $1",
        "UPDATE data_files SET size = size + 64 WHERE file = $1",
        "UPDATE data_files SET footer = NULL WHERE file = $1",
        "UPDATE data_files SET row_count = row_count + 1 WHERE file = $1",
        "UPDATE data_files SET messages = messages + 1 WHERE file = $1",
        "UPDATE data_files SET last_at_us = last_at_us + 1 WHERE file = $1",
    ] {
        let ward = Ward::new(true).await;
        let file = ward.files().await[0].clone();
        let ward = ward.change(change, &file, None).await;
        let files = ward.files().await;
        let report = ward.check().await;
        let costs: Vec<_> = report.damage.iter().map(|it| it.cost).collect();
        assert!(
            !costs.is_empty() && costs.iter().all(|cost| *cost == Cost::Doubt),
            "{change}: {report:?}"
        );
        assert_eq!(repaired(&ward, &report).await, RepairReport::default());
        assert_eq!(ward.files().await, files, "{change}");
    }
}

#[tokio::test]
async fn a_file_that_lost_its_end_is_named_and_what_is_left_of_it_is_kept() {
    for compacted in [false, true] {
        let ward = Ward::new(compacted).await;
        let before = ward.messages().await;
        let file = &ward.files().await[0];
        let path = ward.path(file);
        let bytes = fs::read(&path).unwrap();
        let footer = bytes.len() - file.footer.len();
        for left in [0, footer / 2, footer, bytes.len() - 1] {
            fs::write(&path, &bytes[..left]).unwrap();
            let copy = ward.copy().await;
            let report = copy.check().await;
            assert!(!report.is_sound(), "{left}");
            let repaired = repaired(&copy, &report).await;
            let report = copy.check().await;
            assert!(report.is_sound(), "{left}: {:?}", report.damage);
            let is_costly = left < footer;
            assert_eq!(!repaired.losses.is_empty(), is_costly, "{left}");
            if !is_costly {
                assert_eq!(copy.messages().await, before, "{left}");
            }
            copy.store.close().await;
        }
    }
}
