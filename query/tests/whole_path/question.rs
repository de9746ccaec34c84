//! Random SQL.

use crate::answer::Answer;
use crate::random::Random;
use crate::world::World;

/// A statement, and how its answer is to be compared.
pub(crate) struct Question {
    pub(crate) sql: String,
    /// What the plaintext is asked: the same, or what the answer is a part of.
    pub(crate) reference: String,
    kind: Kind,
}

enum Kind {
    Rows,
    Ordered,
    /// So many of the rows, whichever.
    Limited(usize),
}

const COLUMNS: [&str; 11] = [
    "patient",
    "device",
    "code",
    "display",
    "value",
    "unit",
    "ts",
    "received_at",
    "quality",
    "boot",
    "sequence",
];
const WAVE_COLUMNS: [&str; 11] = [
    "patient",
    "device",
    "code",
    "display",
    "unit",
    "start",
    "period_us",
    "samples",
    "received_at",
    "boot",
    "sequence",
];
const KEYS: [&str; 5] = ["patient", "device", "code", "display", "unit"];
const FOLDED: [&str; 10] = [
    "count(*)",
    "count(value)",
    "count(code)",
    "min(value)",
    "max(value)",
    "sum(value)",
    "avg(value)",
    "min(ts)",
    "max(ts)",
    "count(1)",
];
const UNFOLDED: [&str; 5] = [
    "count(DISTINCT device)",
    "median(value)",
    "sum(value) FILTER (WHERE quality = 'ok')",
    "max(received_at)",
    "min(sequence)",
];

impl Question {
    pub(crate) fn draw(random: &mut Random, world: &World) -> Self {
        let filter = filter(random, world, 3);
        let from = format!("FROM vitals WHERE {filter}");
        let same = |sql: String| Self {
            reference: sql.clone(),
            sql,
            kind: Kind::Rows,
        };
        match random.below(14) {
            0 | 1 => same(format!(
                "SELECT {} {from}",
                random.some(&COLUMNS).join(", ")
            )),
            2 => {
                let limit = random.below(30) + 1;
                let way = if random.chance(50) { "DESC" } else { "ASC" };
                let sql = format!(
                    "SELECT ts, patient, code, device, sequence, value {from} \
                     ORDER BY ts {way}, patient, code, device, sequence LIMIT {limit}"
                );
                Self {
                    kind: Kind::Ordered,
                    ..same(sql)
                }
            }
            3 => {
                let (columns, limit) = (random.some(&COLUMNS).join(", "), random.below(3_000) + 1);
                Self {
                    sql: format!("SELECT {columns} {from} LIMIT {limit}"),
                    reference: format!("SELECT {columns} {from}"),
                    kind: Kind::Limited(limit),
                }
            }
            4 | 5 => {
                let (keys, asked) = (random.some(&KEYS).join(", "), random.some(&FOLDED));
                let asked = asked.join(", ");
                if random.chance(25) {
                    same(format!("SELECT {asked} {from}"))
                } else {
                    same(format!("SELECT {keys}, {asked} {from} GROUP BY {keys}"))
                }
            }
            6 => {
                let (keys, mut asked) = (random.some(&KEYS).join(", "), random.some(&UNFOLDED));
                asked.extend(random.some(&FOLDED));
                let asked = asked.join(", ");
                same(format!(
                    "SELECT {keys}, {asked} {from} GROUP BY {keys} HAVING count(*) > 3"
                ))
            }
            7 => {
                let step = random.pick(&[
                    "date_trunc('minute', ts)",
                    "date_trunc('hour', ts)",
                    "date_trunc('week', ts)",
                    "date_bin(INTERVAL '7 seconds', ts)",
                    "date_bin(INTERVAL '15 minutes', ts)",
                ]);
                let asked = random.some(&FOLDED).join(", ");
                same(format!(
                    "SELECT {step} AS step, code, patient, {asked} {from} GROUP BY step, code, patient"
                ))
            }
            8 => match random.below(4) {
                0 => same(format!(
                    "SELECT patient, code, last_value(value ORDER BY ts), max(ts) {from} GROUP BY patient, code"
                )),
                1 => same(format!(
                    "SELECT DISTINCT ON (patient, code) patient, code, ts, value {from} \
                     ORDER BY patient, code, ts DESC"
                )),
                2 => same(format!(
                    "SELECT patient, code, value, ts FROM (SELECT *, row_number() OVER \
                     (PARTITION BY patient, code ORDER BY ts DESC, sequence, device) AS place {from}) WHERE place = 1"
                )),
                _ => same(format!(
                    "SELECT DISTINCT {} {from}",
                    random.some(&KEYS).join(", ")
                )),
            },
            9 => same(format!(
                "SELECT p.patient, p.state, v.code, v.value, v.ts FROM patients p JOIN vitals v ON p.patient = v.patient \
                 WHERE {}",
                filter.replace("patient ", "v.patient ")
            )),
            10 => {
                let other = self::filter(random, world, 2);
                let keys = random.pick(&KEYS);
                same(format!(
                    "SELECT {keys}, count(*), max(value) FROM (SELECT * {from} UNION ALL SELECT * FROM vitals \
                     WHERE {other}) GROUP BY {keys}"
                ))
            }
            11 | 12 => same(of_waveforms(random, world)),
            _ => same(format!(
                "SELECT a.patient, count(*), max(b.value) FROM vitals a JOIN vitals b \
                 ON a.patient = b.patient AND a.ts = b.ts AND a.code < b.code \
                 WHERE a.value > {} GROUP BY a.patient",
                number(random)
            )),
        }
    }

    pub(crate) fn compare(&self, found: &Answer, expected: &Answer) -> Result<(), String> {
        match self.kind {
            Kind::Rows => found.equals(expected),
            Kind::Ordered => found.equals_in_order(expected),
            Kind::Limited(limit) => found.is_part_of(expected, limit),
        }
    }
}

/// About `waveforms`.
fn of_waveforms(random: &mut Random, world: &World) -> String {
    let comparison = *random.pick(&["=", "<", "<=", ">", ">="]);
    let filter = match random.below(8) {
        0 | 1 => "true".to_owned(),
        2 => format!("patient = '{}'", random.pick(&world.patients())),
        3 => format!("device = '{}'", random.pick(&world.devices())),
        4 | 5 => format!("start {comparison} '{}'", world.instant(random)),
        6 => format!(
            "start BETWEEN '{}' AND '{}'",
            world.instant(random),
            world.instant(random)
        ),
        _ => (*random.pick(&[
            "sequence % 2 = 0",
            "period_us > 5000",
            "received_at > start",
            "code = '8867-4'",
            "samples[1] > 0",
        ]))
        .to_owned(),
    };
    let from = format!("FROM waveforms WHERE {filter}");
    match random.below(3) {
        0 => format!("SELECT {} {from}", random.some(&WAVE_COLUMNS).join(", ")),
        1 => format!(
            "SELECT patient, device, count(*), sum(cardinality(samples)), min(start) {from} GROUP BY patient, device"
        ),
        _ => format!(
            "SELECT patient, count(sample), min(sample), max(sample) \
             FROM (SELECT patient, unnest(samples) AS sample {from}) GROUP BY patient"
        ),
    }
}

/// A condition; at most `depth` conditions deep.
fn filter(random: &mut Random, world: &World, depth: usize) -> String {
    if depth > 0 && random.chance(45) {
        let (a, b) = (
            filter(random, world, depth - 1),
            filter(random, world, depth - 1),
        );
        return match random.below(5) {
            0 | 1 => format!("({a} OR {b})"),
            2 => format!("NOT ({a})"),
            _ => format!("({a} AND {b})"),
        };
    }
    let list = |texts: Vec<String>| {
        let quoted: Vec<String> = texts.iter().map(|text| format!("'{text}'")).collect();
        quoted.join(", ")
    };
    let codes: Vec<String> = world
        .codes()
        .iter()
        .map(|code| (*code).to_owned())
        .collect();
    let comparison = *random.pick(&["=", "<>", "<", "<=", ">", ">="]);
    match random.below(16) {
        0 => "true".to_owned(),
        1 => format!("patient = '{}'", random.pick(&world.patients())),
        2 => format!("patient IN ({})", list(random.some(&world.patients()))),
        3 => format!("patient <> '{}'", random.pick(&world.patients())),
        4 => format!("code = '{}'", random.pick(&codes)),
        5 => format!("code NOT IN ({})", list(random.some(&codes))),
        6 => format!("device = '{}'", random.pick(&world.devices())),
        7 => format!("quality = '{}'", random.pick(&["ok", "flagged", "none"])),
        8 => format!("ts {comparison} '{}'", world.instant(random)),
        9 => format!(
            "ts BETWEEN TIMESTAMP '{}' AND TIMESTAMP '{}'",
            world.instant(random),
            world.instant(random)
        ),
        10 | 11 => format!("value {comparison} {}", number(random)),
        12 => format!("value BETWEEN {} AND {}", number(random), number(random)),
        13 => format!("value * 2 > {}", number(random)),
        14 => format!(
            "date_trunc('minute', ts) <= TIMESTAMP '{}'",
            world.instant(random)
        ),
        _ => (*random.pick(&[
            "code LIKE '8%'",
            "length(device) > 8",
            "sequence % 2 = 0",
            "received_at > ts",
            "display = 'Heart rate'",
            "unit <> '%'",
            "value IN (70.0, 71.5, 1.0)",
            "value IS NOT NULL",
        ]))
        .to_owned(),
    }
}

fn number(random: &mut Random) -> String {
    let drawn = random.below(900);
    match drawn {
        0..30 => "0".to_owned(),
        30..50 => "1e11".to_owned(),
        _ => format!("{}.{}", drawn / 10, drawn % 10),
    }
}
