//! The signal table against the table of codes and ranges that it was made from, transcribed a second time by hand:
//! a slip in either shows.

use vitalseal_vitals::signal::PULSE_WAVEFORM;
use vitalseal_vitals::{panel, signal, signals};

/// 1 mmol/L of glucose, in mg/dL.
const GLUCOSE: f64 = 18.016;

/// Code, UCUM unit, MDC code, hard range, flag range.
type Row = (&'static str, &'static str, Option<u32>, [f64; 2], [f64; 2]);

#[rustfmt::skip]
const TABLE: &[Row] = &[
    ("8867-4",   "/min",    Some(147842), [0.0, 350.0],   [30.0, 220.0]),
    ("76282-3",  "/min",    Some(147842), [0.0, 350.0],   [30.0, 220.0]),
    ("8889-8",   "/min",    Some(149530), [0.0, 350.0],   [30.0, 220.0]),
    ("9279-1",   "/min",    Some(151562), [0.0, 120.0],   [5.0, 60.0]),
    ("59408-5",  "%",       Some(150456), [0.0, 100.0],   [70.0, 100.0]),
    ("2708-6",   "%",       Some(150456), [0.0, 100.0],   [70.0, 100.0]),
    ("8310-5",   "Cel",     Some(150364), [10.0, 50.0],   [30.0, 43.0]),
    ("8480-6",   "mm[Hg]",  Some(150021), [0.0, 350.0],   [50.0, 260.0]),
    ("8462-4",   "mm[Hg]",  Some(150022), [0.0, 250.0],   [20.0, 160.0]),
    ("8478-0",   "mm[Hg]",  Some(150023), [0.0, 300.0],   [30.0, 200.0]),
    ("29463-7",  "kg",      Some(188736), [0.2, 650.0],   [20.0, 300.0]),
    ("8302-2",   "cm",      Some(188740), [15.0, 280.0],  [50.0, 230.0]),
    ("39156-5",  "kg/m2",   Some(188752), [5.0, 200.0],   [10.0, 80.0]),
    ("2339-0",   "mg/dL",   Some(160184), [0.0, 2000.0],  [40.0, 500.0]),
    ("15074-8",  "mmol/L",  Some(160184), [0.0, 2000.0 / GLUCOSE], [40.0 / GLUCOSE, 500.0 / GLUCOSE]),
    ("99504-3",  "mg/dL",   Some(160212), [0.0, 1000.0],  [40.0, 400.0]),
    ("105272-9", "mmol/L",  Some(160212), [0.0, 1000.0 / GLUCOSE], [40.0 / GLUCOSE, 400.0 / GLUCOSE]),
    ("19891-1",  "mm[Hg]",  Some(151708), [0.0, 200.0],   [10.0, 100.0]),
    // The source bounds steps from below only; the upper hard limit is ours.
    ("55423-8",  "{steps}", None,         [0.0, 1e6],     [0.0, 100_000.0]),
    ("41950-7",  "{steps}", None,         [0.0, 1e6],     [0.0, 100_000.0]),
];

#[test]
fn every_signal_is_as_transcribed_and_there_is_no_other() {
    for (code, unit, mdc, hard, flag) in TABLE {
        let signal = signal(code).unwrap_or_else(|| panic!("{code} is missing"));
        assert_eq!(signal.code, *code);
        assert_eq!(signal.unit, *unit, "{code}");
        assert_eq!(signal.mdc, *mdc, "{code}");
        assert_eq!([signal.hard.0, signal.hard.1], *hard, "{code}");
        assert_eq!([signal.flag.0, signal.flag.1], *flag, "{code}");
    }
    let others = signals()
        .iter()
        .map(|signal| signal.code)
        .filter(|code| !TABLE.iter().any(|row| row.0 == *code));
    assert_eq!(others.collect::<Vec<_>>(), [PULSE_WAVEFORM]);
}

/// What is stored knows signals by these numbers: a change here is a chunk that says something else.
#[test]
fn every_signal_keeps_the_number_that_it_was_given() {
    let mut numbered: Vec<_> = signals()
        .iter()
        .map(|signal| (signal.number, signal.code))
        .collect();
    numbered.sort_unstable();
    #[rustfmt::skip]
    assert_eq!(numbered, [
        (0, "8867-4"), (1, "59408-5"), (2, "9279-1"), (3, "8310-5"), (4, "8480-6"), (5, "8462-4"), (6, "8478-0"),
        (7, "150452"), (8, "76282-3"), (9, "8889-8"), (10, "2708-6"), (11, "19891-1"), (12, "29463-7"),
        (13, "8302-2"), (14, "39156-5"), (15, "2339-0"), (16, "15074-8"), (17, "99504-3"), (18, "105272-9"),
        (19, "55423-8"), (20, "41950-7"),
    ]);
}

#[test]
fn oxygen_saturation_by_pulse_oximetry_has_both_codes_and_nothing_else_has_two() {
    let two: Vec<_> = signals()
        .iter()
        .filter_map(|signal| Some((signal.code, signal.also?)))
        .collect();
    assert_eq!(two, [("59408-5", "2708-6")]);
}

#[test]
fn a_panel_is_no_signal() {
    assert_eq!(
        (panel::BLOOD_PRESSURE, panel::BLOOD_PRESSURE_MDC),
        ("85354-9", 150_020)
    );
    assert_eq!(signal(panel::BLOOD_PRESSURE), None);
}
