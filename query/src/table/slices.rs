//! How one scan is split over partitions: every row of every patient is read by exactly one of them.
//!
//! With patients enough, a slice is a range of pseudonyms, so that all rows of one patient come out of one partition.
//! Otherwise every slice has all patients, and the files are dealt out.

use std::collections::BTreeSet;

use vitalseal_crypto::SubjectPseudonym;
use vitalseal_storage::catalog::DataFile;

/// The part of one partition: the rows of `patients` that are in `files`, and in the inbox if it is `hot`.
pub(super) struct Slice {
    pub(super) patients: BTreeSet<SubjectPseudonym>,
    pub(super) files: Vec<DataFile>,
    /// Whether it has the rows that are in no file yet, too.
    pub(super) hot: bool,
}

/// Splits the patients, in the order of their pseudonyms, or else the files, so that every partition has something to
/// do; at most `partitions` slices, and at least one.
pub(super) fn slices(
    patients: &BTreeSet<SubjectPseudonym>,
    files: &[&DataFile],
    partitions: usize,
) -> Vec<Slice> {
    let partitions = partitions.max(1);
    let holding = |patients: &BTreeSet<SubjectPseudonym>| -> Vec<DataFile> {
        let held = |file: &&&DataFile| patients.iter().any(|p| file.may_hold_of(p));
        files
            .iter()
            .filter(held)
            .map(|file| (*file).clone())
            .collect()
    };
    if patients.len() < partitions {
        let held = holding(patients);
        let partitions = partitions.min(held.len().max(1));
        return (0..partitions)
            .map(|at| Slice {
                patients: patients.clone(),
                files: held.iter().skip(at).step_by(partitions).cloned().collect(),
                hot: at == 0,
            })
            .collect();
    }
    // Ranges whose lengths differ by one at most.
    let border = |at: usize| patients.len() * at / partitions;
    (0..partitions)
        .map(|at| {
            let range = patients.iter().take(border(at + 1)).skip(border(at));
            let patients: BTreeSet<_> = range.cloned().collect();
            Slice {
                files: holding(&patients),
                patients,
                hot: true,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use vitalseal_storage::catalog::{FileKind, SnapshotId, TableKind};

    use super::*;

    fn patient(number: usize) -> SubjectPseudonym {
        format!("p{number:032x}").parse().unwrap()
    }

    /// A file of the patients from `first` to `last`; of version 3, which did not note whose rows it has, without them.
    fn file(name: usize, subjects: Option<(usize, usize)>) -> DataFile {
        let at = Timestamp::UNIX_EPOCH;
        DataFile {
            path: format!("{name}.parquet").into(),
            table: TableKind::Vitals,
            kind: FileKind::Chunks,
            level: 1,
            encrypted: true,
            size: 1,
            sha256: None,
            footer: [].into(),
            rows: 1,
            messages: 1,
            readings: 1,
            subjects: subjects.map(|(first, last)| (patient(first), patient(last))),
            first_at: at,
            last_at: at,
            received_first_at: at,
            received_last_at: at,
            written_at: at,
            begin: SnapshotId(1),
        }
    }

    /// Up to nine patients, of whom every other one is wanted, among files of every range of them.
    fn each_case(check: impl Fn(&BTreeSet<SubjectPseudonym>, &[&DataFile], usize)) {
        let ranges = (0..20).flat_map(|a| (a..20).map(move |z| Some((a, z))));
        let files = ranges.chain([None]).enumerate();
        let files: Vec<DataFile> = files.map(|(name, range)| file(name, range)).collect();
        for many in 1..10 {
            let wanted = (0..many).map(|number| patient(2 * number)).collect();
            for step in [1, 7, 60, 300] {
                let some: Vec<&DataFile> = files.iter().skip(step - 1).step_by(step).collect();
                for partitions in 0..12 {
                    check(&wanted, &some, partitions);
                }
            }
        }
    }

    #[test]
    fn every_row_of_every_patient_is_read_by_exactly_one_slice() {
        each_case(|wanted, files, partitions| {
            let slices = slices(wanted, files, partitions);
            for patient in wanted {
                let of: Vec<&Slice> = slices
                    .iter()
                    .filter(|slice| slice.patients.contains(patient))
                    .collect();
                assert_eq!(of.iter().filter(|slice| slice.hot).count(), 1);
                for file in files.iter().filter(|file| file.may_hold_of(patient)) {
                    let reading = of.iter().filter(|slice| slice.files.contains(file));
                    assert_eq!(reading.count(), 1, "{partitions}: {patient:?} {file:?}");
                }
            }
        });
    }

    #[test]
    fn no_slice_reads_a_file_or_names_a_patient_without_need() {
        each_case(|wanted, files, partitions| {
            for slice in slices(wanted, files, partitions) {
                assert!(slice.patients.is_subset(wanted));
                for file in &slice.files {
                    assert!(
                        slice.patients.iter().any(|p| file.may_hold_of(p)),
                        "{file:?}"
                    );
                }
            }
        });
    }

    #[test]
    fn the_work_is_spread_over_as_many_partitions_as_have_some() {
        each_case(|wanted, files, partitions| {
            let slices = slices(wanted, files, partitions);
            let shares: Vec<usize> = if wanted.len() >= partitions.max(1) {
                slices.iter().map(|slice| slice.patients.len()).collect()
            } else {
                slices.iter().map(|slice| slice.files.len()).collect()
            };
            let work: usize = shares.iter().sum();
            assert_eq!(slices.len(), partitions.max(1).min(work.max(1)));
            let (least, most) = (shares.iter().min(), shares.iter().max());
            assert!(most.unwrap() - least.unwrap() <= 1, "{shares:?}");
        });
    }
}
